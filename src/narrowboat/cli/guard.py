"""Watching over a command that runs under a lock: its signals, its end, and its end in time when the lock is lost.

Once told to end, the whole process group has until the grace time is over, also after the command itself has gone; then
what is left of it is killed. A command that ends by itself may leave processes behind, as under any shell.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from narrowboat.cli.child import Child
from narrowboat.cli.deadline import Order, Step, decide
from narrowboat.cli.output import complain
from narrowboat.cli.relay import PASSED, Relay
from narrowboat.cli.terminal import Terminal
from narrowboat.errors import Reason
from narrowboat.locking import Held

#: How often the group is looked at when the command itself has ended and something of it is left: nothing tells us.
_LOOK_AGAIN = 0.02


@dataclass(frozen=True)
class Ended:
    """How the command ended. `told`: it was told to, because the lock was, or was about to be, lost."""

    status: int
    told: bool


class Guard:
    """One command under one lock. `watch` returns when the command has ended."""

    def __init__(
        self,
        child: Child,
        held: Held,
        relay: Relay,
        terminal: Terminal,
        *,
        grace: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._child = child
        self._held = held
        self._relay = relay
        self._terminal = terminal
        self._grace = grace
        self._clock = clock
        self._told_at: float | None = None
        self._status: int | None = None

    def watch(self) -> Ended:
        """Pass signals on and keep the deadline until the command has ended."""
        while not self._over():
            step = self._decide()
            if step.order is Order.TERMINATE:
                self._tell()
            elif step.order is Order.KILL:
                self._kill()
            else:
                seconds = step.seconds if self._status is None else min(step.seconds, _LOOK_AGAIN)
                for signum in self._relay.wait(seconds):
                    self._pass_on(signum)
        assert self._status is not None
        return Ended(self._status, told=self._told_at is not None)

    def _over(self) -> bool:
        if self._status is None:
            status = self._child.poll()
            if status is not None and os.WIFSTOPPED(status):
                self._stopped(os.WSTOPSIG(status))
            else:
                self._status = status
        if self._status is None:
            return False
        return self._told_at is None or not self._child.signal(0)

    def _decide(self) -> Step:
        held = self._held
        revoked = held.lost and held.reason not in (Reason.EXPIRED, Reason.PAUSED)
        return decide(
            expires_in=held.expires_in,
            revoked=revoked,
            told_since=None if self._told_at is None else self._clock() - self._told_at,
            grace=self._grace,
            ttl=held.ttl,
        )

    def _tell(self) -> None:
        self._told_at = self._clock()
        why = f"was lost ({self._held.reason.value})" if self._held.reason else "could not be renewed and is about to end"
        complain(f"the lock {self._held.name!r} {why}: ending the command, which has {self._grace:g} s")
        self._child.signal(signal.SIGTERM)
        self._child.signal(signal.SIGCONT)  # a stopped one would not notice

    def _kill(self) -> None:
        if self._told_at is None:  # no time was left: we stood still ourselves
            self._told_at = self._clock()
            complain(f"the lock {self._held.name!r} is over: killing the command")
        self._child.signal(signal.SIGKILL)
        self._relay.wait(_LOOK_AGAIN)

    def _pass_on(self, signum: int) -> None:
        if signum in PASSED:
            self._child.signal(signum)
        elif signum == signal.SIGTSTP:
            _refuse_to_stop()
        elif signum == signal.SIGCONT:  # the shell's fg
            self._terminal.hand_over(self._child.pid)
            self._child.signal(signal.SIGCONT)

    def _stopped(self, signum: int) -> None:
        """A stopped command would hold the lock for as long as it pleases, and the terminal with it."""
        if signum == signal.SIGTSTP:
            _refuse_to_stop()
            self._child.signal(signal.SIGCONT)
        elif signum in (signal.SIGTTIN, signal.SIGTTOU) and self._terminal.hand_over(self._child.pid):
            self._child.signal(signal.SIGCONT)


def _refuse_to_stop() -> None:
    complain("a command cannot be suspended while it holds a lock")
