"""Who of a consumer's callers fetches next, and when: any number of them wait, and one polls for all.

A caller that finds no message in the buffer asks to `reserve` a fetch. The answer is a number of messages, which it
then fetches, or a time until which it waits. The rules:

- One fetch is under way at a time. The exception is a caller whose deadline has come before any fetch began since it
  came: it fetches beside the other, so that `receive(timeout=0)` polls exactly once and does not rely on an older
  answer.
- After a fetch that brought something, the next one is due at once, as far as the window has room. A fetch that
  brought nothing says when the next poll is due, and after one that failed there is a growing pause.
- `wake`, the driver's hint that something may have come, makes the next poll due at once. One that comes while a poll
  fails is part of the failure: a connection that ends wakes, and must not be tried again without a pause.
- A caller whose deadline has come polls again while polls bring something (it may all be dead letters). One wake is all
  that it heeds then. No poll but its first begins later than `LATE` after its deadline: it may take a whole operation
  timeout.
- A caller that leaves wakes another one if a poll or a buffered message would otherwise be left undone.

The methods that wake callers take no mutex, because drivers' threads and signal handlers call them. `reserve` takes
the window's mutex, `pause` is called under it or after a failure, and the other methods are single steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from narrowboat._engine.exchange import AT_ONCE
from narrowboat._messages.window import Window

#: The share of an operation timeout by which a poll may begin after a caller's deadline, and for which it may then wait in its
#: lane: half of what a call may end late.
LATE = AT_ONCE / 2


class Visit:
    """One caller's stay, from its first look for a message to its last."""

    __slots__ = ("begun", "last", "signal")

    def __init__(self, begun: int) -> None:
        self.begun = begun  #: fetches that had begun before it came
        self.last = False  #: it has polled after its deadline had come
        self.signal: Any = None  #: what wakes the caller, once it waits


class Polling:
    """See the module's text."""

    def __init__(self, window: Window[Any], patience: float) -> None:
        self.failure: Exception | None = None  #: what the last fetch met; None when the backend answered
        self.begun = 0  #: fetches begun so far
        self.waiting: dict[Any, None] = {}  #: the signals of the callers that wait, in order of arrival
        self._window = window
        # Seconds of an operation: the fetching caller wakes the others, and this bounds their wait if that fails.
        self._patience = patience
        self._fetching: dict[Visit, int] = {}  # fetches under way
        self._stirred = True  # something may have come since the last poll
        self._due = 0.0  # when to poll although nothing stirred
        self._failures = 0

    def enter(self) -> Visit:
        """A caller comes; it will `leave`."""
        return Visit(self.begun)

    # -- who polls next -------------------------------------------------------------------------------------------

    def reserve(self, visit: Visit, now: float, ends: float) -> tuple[int, float]:
        """How many messages this caller fetches now; or 0, and until when it waits. `ends`: its deadline."""
        looked, hurry = self.begun > visit.begun, now >= ends
        if looked and now >= ends + self._patience * LATE:
            return 0, ends
        window = self._window
        with window.mutex:
            requested = sum(self._fetching.values())
            free = window.room(requested)
            if free <= 0 and not requested:
                first = window.sweep(now)
                free = window.room(0)
                if free <= 0:
                    return 0, first
            if free <= 0 or (requested and (looked or not hurry)):
                return 0, now + self._patience
            if looked and now < self._due and (not self._stirred or (hurry and visit.last)):
                return 0, self._due
            visit.last = hurry
            self._fetching[visit] = free
            self._stirred = False
            self.begun += 1
            return free, now

    def pause(self, until: float) -> None:
        """The next poll is due then, or when something stirs."""
        self._due = until

    def answered(self) -> None:
        """The backend has answered a fetch."""
        self._failures, self.failure = 0, None

    def failed(self, error: Exception) -> int:
        """The backend has not answered. Returns how often in a row."""
        self._failures += 1
        self._stirred = False
        self.failure = error
        return self._failures

    def unseen(self) -> None:
        """A caller left its fetch under way, so no caller has seen what it brought."""
        self._stirred = True

    def fetched(self, visit: Visit) -> None:
        """The caller's fetch has ended. Repeating it does nothing."""
        self._fetching.pop(visit, None)

    def leave(self, visit: Visit, clock: Callable[[], float]) -> None:
        """A caller goes, from whichever point."""
        self._fetching.pop(visit, None)
        if visit.signal is not None:
            self.waiting.pop(visit.signal, None)
        if self.waiting and (self._window.buffer or self._stirred or self._due <= clock()):
            self.rouse(1)

    # -- waking ---------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something may have come: wake one caller to poll."""
        self._stirred = True
        self.rouse(1)

    def rouse(self, count: int) -> None:
        """Wake up to `count` of the callers that wait."""
        if self.waiting:
            for signal in tuple(self.waiting)[:count]:
                signal.set()

    def rouse_all(self) -> None:
        """Wake all callers, to check whether it is still worth waiting."""
        for signal in tuple(self.waiting):
            signal.set()
