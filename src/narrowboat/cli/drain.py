"""Ending in order: the first SIGTERM or Ctrl-C stops what consumes, the second one ends at once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

from narrowboat.cli.exits import Exit
from narrowboat.cli.relay import Interrupted

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Drain:
    """Use it in a `with` block, in the main thread. `code` is what to exit with when a signal came, else None.

    `stop` is called in the signal handler: it must be safe there.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self.code: int | None = None

    def __enter__(self) -> Drain:
        self._before = {
            signum: signal.signal(signum, self._arrive) for signum in _SIGNALS if signal.getsignal(signum) is not signal.SIG_IGN
        }
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _arrive(self, signum: int, frame: FrameType | None) -> None:
        if self.code is not None:
            raise Interrupted(signum)
        self.code = Exit.OK if signum == signal.SIGTERM else Exit.SIGNALLED + signum
        self._stop()
