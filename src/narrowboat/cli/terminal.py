"""The terminal's foreground, which a command in a process group of its own must be given before it can read from it."""

from __future__ import annotations

import os
import signal
import sys


class Terminal:
    """Standard input, where it is a terminal and we are in its foreground; otherwise every call does nothing."""

    def __init__(self) -> None:
        self._fd = sys.stdin.fileno() if sys.stdin and not sys.stdin.closed and sys.stdin.isatty() else None
        self._given: int | None = None

    def hand_over(self, group: int) -> bool:
        """Make `group` the foreground; False when we are not in the foreground ourselves."""
        if self._fd is None or self._foreground() != os.getpgrp():
            return False
        self._set(group)
        self._given = group
        return True

    def take_back(self) -> None:
        """Be the foreground again, unless another process group has become it meanwhile."""
        if self._given is not None and self._foreground() == self._given:
            self._set(os.getpgrp())

    def _foreground(self) -> int | None:
        assert self._fd is not None
        try:
            return os.tcgetpgrp(self._fd)
        except OSError:  # a terminal, but not ours
            return None

    def _set(self, group: int) -> None:
        assert self._fd is not None
        # A background process that changes the foreground is stopped by SIGTTOU, unless it ignores that signal.
        before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        try:
            os.tcsetpgrp(self._fd, group)
        except OSError:
            pass  # the group is gone, or the terminal is
        finally:
            signal.signal(signal.SIGTTOU, before)
