"""The log of a client library, made as quiet as its driver is: an outage is one line of ours, not seven of theirs at each try.

What the library logs under its logger's name becomes DEBUG, whatever level it had, unless the program has asked for that
logger: by a level or a handler of its own, on the logger or on one below it, before or after this is called. Nothing is
swallowed: at DEBUG all of it is there.
"""

from __future__ import annotations

import copy
import logging


class _Demotes(logging.Handler):
    """Stands on a library's logger in place of its way up to the root."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Pass it on, as DEBUG unless it was asked for."""
        above = self._logger.parent
        if above is None:
            return
        if not _asked(self._logger, logging.getLogger(record.name), self):
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


def _asked(top: logging.Logger, logger: logging.Logger, ours: logging.Handler) -> bool:
    """Whether the program has set a level or a handler between the logger of a record and `top`."""
    found: logging.Logger | None = logger
    while found is not None:
        others = [each for each in found.handlers if each is not ours and not isinstance(each, logging.NullHandler)]
        if found.level != logging.NOTSET or others:
            return True
        if found is top:
            break
        found = found.parent
    return False
