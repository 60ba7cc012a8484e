"""Lock drivers whose waiters wait for too long, in no order, or in the way of others."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence

from mutants import Mutant
from mutants.layers import Answer, Asks, Installs, named, nobody
from narrowboat.contract.locks import Busy, Grant, LockProvider, Mode, Request
from narrowboat.errors import Conflict, NarrowboatError
from narrowboat.layers.passing import PassingLocks


class WithdrawDoesNothing(PassingLocks):
    """Leaves a waiter that has gone in the queue."""

    def withdraw(self, requests: Sequence[Request]) -> list[NarrowboatError | None]:
        """Nothing."""
        return [None] * len(requests)


class TryQueues(Asks):
    """Lets a try that finds the lock busy take a place in the queue."""

    def change(self, request: Request) -> Request:
        """A waiter's request."""
        return request._replace(wait=True)


class TryWaits(PassingLocks):
    """Makes a try of a busy lock wait for a while."""

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """In the caller's time."""
        answers = self.inner.attempt(requests)
        if any(isinstance(answer, Busy) and not asked.wait for asked, answer in zip(requests, answers, strict=True)):
            time.sleep(4)  # four times what is allowed: a busy machine's bounds are extended
        return answers


class WaitsInTheDriver(PassingLocks):
    """Keeps a waiter's call for a while, in the hope that the lock gets free."""

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """In the caller's time, whatever its timeout is."""
        answers = self.inner.attempt(requests)
        if any(isinstance(answer, Busy) and asked.wait for asked, answer in zip(requests, answers, strict=True)):
            time.sleep(5.0)  # more than the bound of a second, and than what a busy machine adds to it
        return answers


class NoWakeUp(Asks):
    """Tells no waiter of a release."""

    def change(self, request: Request) -> Request:
        """Without a bell."""
        return request._replace(wake=nobody)


_withdrawing = threading.local()


class WithdrawWakesNobody(Asks):
    """Takes a waiter out of the queue, and does not tell the next one that it is its turn."""

    def change(self, request: Request) -> Request:
        """A bell that is mute in a withdraw."""

        def wake() -> None:
            if not getattr(_withdrawing, "now", False):
                request.wake()

        return request._replace(wake=wake)

    def withdraw(self, requests: Sequence[Request]) -> list[NarrowboatError | None]:
        """In silence."""
        _withdrawing.now = True
        try:
            return self.inner.withdraw(requests)
        finally:
            _withdrawing.now = False


class _Polls(PassingLocks):
    """Keeps no place in the queue for some waiters, which come again after a while."""

    _numbers = itertools.count()

    def poor(self, request: Request) -> bool:
        """Whether the waiter has no place."""
        return request.wait

    def pause(self) -> float:
        """Seconds until they come again: every other one sleeps ten times as long."""
        return 0.02 if next(self._numbers) % 2 else 0.2

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """Taken out again."""
        answers = self.inner.attempt(requests)
        for place, (request, answer) in enumerate(zip(requests, answers, strict=True)):
            if isinstance(answer, Busy) and self.poor(request):
                self.inner.withdraw([request])
                answers[place] = Busy(self.pause())
        return answers


class OrderForgotten(_Polls):
    """Serves the first waiter that happens to come after a release, although it claims an order."""


class WriterStarves(_Polls):
    """Lets readers in past a writer that waits."""

    def poor(self, request: Request) -> bool:
        """The writers."""
        return request.wait and request.mode is Mode.EXCLUSIVE


class OneConnectionStarves(_Polls):
    """Gives every fourth connection no place in the queue, and lets it come again rarely."""

    _connections = itertools.count()

    def __init__(self, inner: LockProvider) -> None:
        super().__init__(inner)
        self._starves = next(self._connections) % 4 == 0

    def poor(self, request: Request) -> bool:
        """All of that connection."""
        return request.wait and self._starves

    def pause(self) -> float:
        """A second."""
        return 1.0


class RetryNever(PassingLocks):
    """Says that no waiter needs to look again before it is woken."""

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """In a day."""
        return [Busy(86400.0) if isinstance(each, Busy) else each for each in self.inner.attempt(requests)]


class OwnGrantNotFound(PassingLocks):
    """Stumbles over its own grant when an attempt is repeated, as an insert does that meets its own key."""

    def __init__(self, inner: LockProvider) -> None:
        super().__init__(inner)
        self._granted: set[str] = set()

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """An error for the holder."""
        answers = self.inner.attempt(requests)
        for place, (request, answer) in enumerate(zip(requests, answers, strict=True)):
            if isinstance(answer, Grant):
                if request.owner in self._granted:
                    answers[place] = Conflict(f"{request.name}: there is such a row already")
                self._granted.add(request.owner)
        return answers


class LeaseOfTheFirstAttempt(PassingLocks):
    """Gives a repeated attempt the grant that it had, and leaves the lease as it is."""

    def __init__(self, inner: LockProvider) -> None:
        super().__init__(inner)
        self._granted: dict[str, Grant] = {}

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """Not asked again."""
        answers = [self._granted.get(request.owner) or self.inner.attempt([request])[0] for request in requests]
        self._granted.update((answer.owner, answer) for answer in answers if isinstance(answer, Grant))
        return answers


class TablesMadeTwice(Installs, PassingLocks):
    """Makes its tables when they are missing, and fails when another first user was quicker."""

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """An error for the slower one."""
        if self.stumbles():
            return [Conflict("there is such a table already") for _ in requests]
        return self.inner.attempt(requests)


MUTANTS: list[Mutant] = [
    named(WithdrawDoesNothing, "L28", "L29", "L30", "L34", "L35", "L113"),
    named(TryQueues, "L18", "L28"),
    named(TryWaits, "L02", "L20"),
    named(WaitsInTheDriver, "L19", "L24"),
    named(NoWakeUp, "L23", "L31"),
    named(WithdrawWakesNobody, "L30"),
    named(OrderForgotten, "L36"),
    named(WriterStarves, "L108"),
    named(OneConnectionStarves, "L38"),
    named(RetryNever, "L37"),
    named(OwnGrantNotFound, "L91"),
    named(LeaseOfTheFirstAttempt, "L91"),
    named(TablesMadeTwice, "L129"),
]
