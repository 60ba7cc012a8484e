"""The log of a client library, made as quiet as its driver is: an outage is one line of ours, not seven of theirs at each try.

What the library logs under its logger's name becomes DEBUG, whatever level it had, unless the program has asked for that
logger: by a level or a handler of its own, on the logger or on one below it, before or after this is called. Nothing is
swallowed: at DEBUG all of it is there.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator


class _Demotes(logging.Handler):
    """Stands on a library's logger in place of its way up to the root."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Pass it on, as DEBUG unless it was asked for."""
        above = self._logger.parent
        if above is None or self._logger.propagate:  # somebody has set it back: the record goes up by itself
            return
        chain = list(_chain(logging.getLogger(record.name), self._logger))
        own = [handler for each in chain for handler in each.handlers if handler is not self]
        if own and not above.hasHandlers():
            return  # not to the handler of last resort, which is for what nobody handles
        if not any(each.level != logging.NOTSET for each in chain) and not any(map(_asks, own)):
            if not above.isEnabledFor(logging.DEBUG):
                return
            record = copy.copy(record)
            record.levelno, record.levelname = logging.DEBUG, logging.getLevelName(logging.DEBUG)
        above.callHandlers(record)


def quiet(name: str) -> None:
    """Make the logger `name`, and those below it, quiet. May be repeated."""
    logger = logging.getLogger(name)
    if logger.propagate and not any(isinstance(handler, _Demotes) for handler in logger.handlers):
        logger.addHandler(_Demotes(logger))
        logger.propagate = False


def _chain(logger: logging.Logger, top: logging.Logger) -> Iterator[logging.Logger]:
    """From the logger of a record up to `top`."""
    found: logging.Logger | None = logger
    while found is not None:
        yield found
        found = None if found is top else found.parent


def _asks(handler: logging.Handler) -> bool:
    """Whether a handler on the library's own loggers asks for what they log.

    One that does nothing is the library's own; some have a class of their own for it, of the same name as logging's. One that
    hears everybody asks for nobody: pytest puts its handlers on the root and on each logger that does not propagate.
    """
    nothing = type(handler).__name__ == logging.NullHandler.__name__
    return not nothing and handler not in logging.getLogger().handlers
