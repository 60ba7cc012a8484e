"""Lock drivers that tell one caller what is true of another, or what is not true at all, and wake too few or too late."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from mutants import Mutant
from mutants.layers import Answer, Asks, named
from mutants.locks_holders import GrantsTwice
from narrowboat.contract.locks import Busy, Grant, LockProvider, Mode, Released, Request
from narrowboat.errors import NarrowboatError
from narrowboat.layers.passing import PassingLocks


class WakeIsArmedTooLate(Asks):
    """Arms a waiter's wake after the last look at the lock."""

    def __init__(self, inner: LockProvider) -> None:
        super().__init__(inner)
        self._armed: set[str] = set()

    def change(self, request: Request) -> Request:
        """A bell that is mute until it is armed."""
        return request._replace(wake=lambda: self._ring(request))

    def _ring(self, request: Request) -> None:
        if request.owner in self._armed:
            request.wake()

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """A moment lies between the look and the bell."""
        answers = super().attempt(requests)
        new = {asked.owner for asked, answer in zip(requests, answers, strict=True) if isinstance(answer, Busy)} - self._armed
        if new:
            time.sleep(0.002)
            self._armed |= new
        return answers


class RenewErrorIsRenewed(PassingLocks):
    """Takes every answer to a renewal for a renewed lease."""

    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        """Also that it is lost."""
        self.inner.renew(grants)
        return list(grants)


class RenewalsAddUp(PassingLocks):
    """Adds the length of a lease to what is left of it at each renewal."""

    def __init__(self, inner: LockProvider) -> None:
        super().__init__(inner)
        self._ends: dict[str, float] = {}  # by owner

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """Noted."""
        answers = self.inner.attempt(requests)
        now = time.monotonic()
        self._ends |= {answer.owner: now + answer.ttl for answer in answers if isinstance(answer, Grant)}
        return answers

    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        """Longer each time."""
        now = time.monotonic()
        longer = []
        for grant in grants:
            self._ends[grant.owner] = max(now, self._ends[grant.owner]) + grant.ttl
            longer.append(grant._replace(ttl=self._ends[grant.owner] - now))
        answers = self.inner.renew(longer)
        return [grant if isinstance(answer, Grant) else answer for grant, answer in zip(grants, answers, strict=True)]


_waking = threading.local()


class ReleaseWakesOneReader(Asks):
    """Wakes the first waiter at a release, and no other one that could go along with it."""

    def change(self, request: Request) -> Request:
        """A bell that rings once in a release."""

        def wake() -> None:
            left = getattr(_waking, "left", 1)
            if left:
                _waking.left = left - (1 if getattr(_waking, "now", False) else 0)
                request.wake()

        return request._replace(wake=wake)

    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        """One ring."""
        _waking.now, _waking.left = True, 1
        try:
            return self.inner.release(grants)
        finally:
            _waking.now, _waking.left = False, 1


class ReadsThenTakes(GrantsTwice):
    """Looks whether a lock is free, and takes it a moment later whatever has become of it."""

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """Two steps."""
        free = [not self.inner.holders(request.name) for request in requests]
        time.sleep(0.002)
        answers = Asks.attempt(self, requests)
        for place, (request, answer) in enumerate(zip(requests, answers, strict=True)):
            if isinstance(answer, Busy) and free[place]:
                self.withdraw([request])
                self._kept[request.owner] = f"{request.name} (second)"
                answers[place] = Asks.attempt(self, [request])[0]
        return answers


class ReadsThenTakesWhatWasUsed(ReadsThenTakes):
    """Looks and takes in two steps, except for a name that nobody has asked for before: the making of its record excludes."""

    def __init__(self, inner: LockProvider) -> None:
        super().__init__(inner)
        self._used: set[str] = set()

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """Two steps from the second time on."""
        names = {request.name for request in requests}
        used = names <= self._used
        self._used |= names
        return super().attempt(requests) if used else Asks.attempt(self, requests)


class WritesTheReadersItHasRead(PassingLocks):
    """Keeps, beside a new reader, the readers that it saw a moment before: who came in between is gone."""

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """Two steps."""
        seen = {holder.token for request in requests for holder in self.inner.holders(request.name)}
        time.sleep(0.002)
        answers = self.inner.attempt(requests)
        for request, answer in zip(requests, answers, strict=True):
            if isinstance(answer, Grant) and request.mode is Mode.SHARED:
                for holder in self.inner.holders(request.name):
                    if holder.token not in {*seen, answer.token}:
                        self.inner.evict(request.name, holder.token)
        return answers


MUTANTS: list[Mutant] = [
    named(WakeIsArmedTooLate, "L31"),
    named(RenewErrorIsRenewed, "L54", "L60", "L62", "L66"),
    named(RenewalsAddUp, "L52"),
    named(ReleaseWakesOneReader, "L108"),
    named(ReadsThenTakes, "L02", "L39"),
    named(ReadsThenTakesWhatWasUsed, "L02", "L39"),
    named(WritesTheReadersItHasRead, "L108"),
]
