"""Signals on their way to the command that runs under a lock.

While the lock is waited for, a signal ends the wait in order: it is raised as `Interrupted`, and nothing is left held or
queued. From the moment the lock is held, signals are collected and wake `wait`, and whoever supervises the command
passes them on. Signals that were ignored when we were started, as under nohup, stay ignored.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from types import FrameType, TracebackType

#: Passed through to the command.
PASSED = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGQUIT", "SIGWINCH")
    if hasattr(signal, name)
)
#: Those of them that end a program which does not expect them, and so end the wait for a lock.
_ENDING = frozenset(PASSED) - {signal.SIGWINCH}
#: Noticed for our own use: the command ended or stopped; the user wants us stopped, or back in the foreground.
_OWN = (signal.SIGCHLD, signal.SIGTSTP, signal.SIGCONT)


class Interrupted(KeyboardInterrupt):
    """A signal ended the wait for the lock. Everything that cleans up after Ctrl-C cleans up after this as well."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """In this block SIGTERM raises `Interrupted`, so that it cleans up as Ctrl-C does."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise Interrupted(signum)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Relay:
    """Use it in a `with` block, in the main thread."""

    def __init__(self) -> None:
        self._collecting = False
        self._arrived: list[int] = []
        self._before: dict[int, object] = {}

    def __enter__(self) -> Relay:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        os.set_blocking(self._read, False)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for signum in (*PASSED, *_OWN):
            # An ignored SIGCHLD would make the kernel throw the command's exit code away.
            if signal.getsignal(signum) is not signal.SIG_IGN or signum == signal.SIGCHLD:
                self._before[signum] = signal.signal(signum, self._arrive)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler or signal.SIG_DFL)  # type: ignore[arg-type]  # what signal() gave, it takes
        signal.set_wakeup_fd(self._wakeup)
        write, self._write = self._write, -1  # a late `wake` must not write into another file that got this number
        os.close(write)
        os.close(self._read)

    def collect(self) -> None:
        """From now on signals interrupt nothing; `wait` gives them."""
        self._collecting = True

    def wake(self) -> None:
        """Let `wait` return; from any thread."""
        with contextlib.suppress(OSError):  # full: it will wake anyway; closed: no caller waits any more
            os.write(self._write, b"\0")

    def wait(self, seconds: float) -> list[int]:
        """The signals that came, in order; waits for the first one, a `wake` or the end of `seconds`."""
        if not self._arrived:
            select.select([self._read], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            while os.read(self._read, 4096):
                pass
        arrived, self._arrived = self._arrived, []
        return arrived

    def _arrive(self, signum: int, frame: FrameType | None) -> None:
        if self._collecting:
            self._arrived.append(signum)
        elif signum in _ENDING:
            raise Interrupted(signum)
        elif signum == signal.SIGTSTP:
            # Nothing is held yet: stop as if the signal had no handler.
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTSTP)
            signal.signal(signal.SIGTSTP, self._arrive)
