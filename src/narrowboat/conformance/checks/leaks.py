"""Whether a secret shows: in the texts of an error, in the variables of its frames, in what any logger says at any level.

    with Ear() as ear:
        error = raised(lambda: narrowboat.locks(url).ping())
    assert not shown("s3cret", [*texts(error), *ear.texts])

For tests of backends. It looks at an error as a reporter of errors does that keeps each frame's variables. The frames of the
file that calls it are left out: the URL that a test has in its own variables is no leak.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import pickle
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self
from urllib.parse import quote


def raised(call: Callable[[], object]) -> BaseException:
    """The error that `call` raises; a call that raises nothing is a fault of the test."""
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def spellings(secret: str) -> set[str]:
    """The ways in which `secret` may stand in a text: as it is, escaped, quoted for a URL, in base64, in hex.

    >>> sorted(spellings("a/b"))
    ['612f62', 'YS9i', 'a%2Fb', 'a/b']
    """
    data = secret.encode()
    plain = {secret, repr(secret)[1:-1], repr(data)[2:-1], quote(secret), quote(secret, safe="")}
    # In base64 it begins anywhere in a group of three bytes. The characters that its neighbours change are cut off.
    coded = {base64.b64encode(b"\0" * before + data + b"\0" * 2).decode()[4 * bool(before) :] for before in range(3)}
    inner = {text[: len(data) * 4 // 3 - 4] if len(data) > 6 else base64.b64encode(data).decode() for text in coded}
    return plain | inner | {data.hex()}


def shown(secret: str, texts: Iterable[tuple[str, str]]) -> list[str]:
    """The places of those (place, text) in which `secret` stands in any spelling."""
    wanted = spellings(secret)
    return [place for place, text in texts if any(each in text for each in wanted)]


def texts(error: BaseException, *, here: str | None = None) -> Iterator[tuple[str, str]]:
    """Everything that a report about `error` may show, with its place; so for its causes, contexts and arguments.

    Args:
        error: what was raised.
        here: the file whose frames are left out; by default the caller's.
    """
    mine = {__file__, here or sys._getframe(1).f_code.co_filename}
    seen: list[BaseException] = []
    queue: list[object] = [error]
    while queue:
        each = queue.pop()
        if not isinstance(each, BaseException) or any(each is other for other in seen):
            continue
        seen.append(each)
        queue += [each.__cause__, each.__context__, *each.args, *vars(each).values(), *getattr(each, "exceptions", ())]
        yield from _of(each, mine)


def _of(error: BaseException, mine: set[str]) -> Iterator[tuple[str, str]]:
    kind = type(error).__name__
    for what in (str, repr):
        yield f"{what.__name__} of {kind}", what(error)
    yield f"attributes of {kind}", f"{error.args!r} {vars(error)!r} {getattr(error, '__notes__', [])!r}"
    with contextlib.suppress(Exception):  # not all can be pickled
        yield f"pickled {kind}", pickle.dumps(error).decode("latin-1")
    for frame, line in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        if code.co_filename in mine:
            continue
        for name, value in frame.f_locals.items():
            with contextlib.suppress(Exception):  # of an object that is half made: no reporter shows it either
                yield f"{name} in {code.co_qualname} ({code.co_filename}:{line})", repr(value)


class Ear:
    """Hears every logger of the process at every level, while it is entered."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []
        self._handler = logging.Handler(1)
        self._handler.emit = self._hear  # type: ignore[method-assign]  # all that it does
        self._before: list[tuple[logging.Logger, int, bool, bool]] = []

    def _hear(self, record: logging.LogRecord) -> None:
        place = f"record of {record.name} ({record.levelname}: {str(record.msg)[:40]})"
        self.texts.append((place, f"{record.getMessage()} {record.args!r} {vars(record)!r}"))
        if record.exc_info and record.exc_info[1] is not None:
            self.texts += [(f"{place}, {where}", text) for where, text in texts(record.exc_info[1])]

    def __enter__(self) -> Self:
        loggers = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
        for logger in (logging.root, *loggers):
            self._before.append((logger, logger.level, logger.disabled, logger.propagate))
            logger.setLevel(1)
            logger.disabled = False
            logger.propagate = True
        logging.root.addHandler(self._handler)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        logging.root.removeHandler(self._handler)
        for logger, level, disabled, propagate in self._before:
            logger.setLevel(level)
            logger.disabled = disabled
            if logger.propagate:  # else it was cut off meanwhile, by a driver that was loaded
                logger.propagate = propagate
