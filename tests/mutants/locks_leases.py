"""Lock drivers whose leases and renewals are not what they say."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

from mutants import Mutant
from mutants.layers import Answer, Asks, named, nobody
from narrowboat.contract.locks import Grant, LockProvider, Released, Request
from narrowboat.errors import LeaseLost, NarrowboatError, Reason
from narrowboat.layers.passing import PassingLocks


class _Leases(Asks):
    """Keeps leases of another length than it says."""

    def length(self, ttl: float) -> float:
        """The real one in seconds."""
        return ttl

    def change(self, request: Request) -> Request:
        """Of that length."""
        return request._replace(ttl=self.length(request.ttl))

    def there(self, grant: Grant) -> Grant:
        """Of that length."""
        return grant._replace(ttl=self.length(grant.ttl))


class LeaseNeverEnds(_Leases):
    """Keeps for ever the lock of a holder that has gone."""

    def length(self, ttl: float) -> float:
        """A day."""
        return 86400.0


class LeaseGivenToNobody(LeaseNeverEnds):
    """Takes a lease that ran out from its holder, and never grants the lock again."""

    def __init__(self, inner: LockProvider) -> None:
        super().__init__(inner)
        self._ends: dict[str, float] = {}  # by owner

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """Noted."""
        answers = super().attempt(requests)
        now = time.monotonic()
        self._ends |= {answer.owner: now + answer.ttl for answer in answers if isinstance(answer, Grant)}
        return answers

    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        """Unless it is over."""
        now = time.monotonic()
        answers: list[Grant | NarrowboatError] = []
        for grant in grants:
            if now < self._ends[grant.owner]:
                answers += super().renew([grant])
                self._ends[grant.owner] = now + grant.ttl
            else:
                answers.append(LeaseLost(f"{grant.name}: over", name=grant.name, reason=Reason.EXPIRED, token=grant.token))
        return answers

    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        """Unless it is over."""
        now = time.monotonic()
        return [self.inner.release([g])[0] if now < self._ends[g.owner] else Released.NOT_HELD for g in grants]


class LeaseEndsEarly(_Leases):
    """Frees a lock while its holder may still believe in it."""

    def length(self, ttl: float) -> float:
        """Less than half."""
        return ttl * 0.45


class LeaseSaidToBeLonger(Asks):
    """Says that a lease is ten times as long as it is."""

    def there(self, grant: Grant) -> Grant:
        """The real one."""
        return grant._replace(ttl=grant.ttl / 10)

    def here(self, asked: Request | Grant, grant: Grant) -> Grant:
        """The longer one."""
        return grant._replace(ttl=grant.ttl * 10)


class WholeSecondsOnly(Asks):
    """Cuts a lease to whole seconds."""

    def change(self, request: Request) -> Request:
        """At least one."""
        return request._replace(ttl=max(1.0, float(int(request.ttl))))

    def here(self, asked: Request | Grant, grant: Grant) -> Grant:
        """Told as it is."""
        return grant


class RenewDoesNothing(PassingLocks):
    """Answers that a lease was renewed, and leaves it as it is."""

    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        """Nothing."""
        return list(grants)


class RenewShortens(_Leases):
    """Gives a renewed lease a part of its length."""

    def change(self, request: Request) -> Request:
        """The first one is whole."""
        return request

    def length(self, ttl: float) -> float:
        """Less than half."""
        return ttl * 0.45


class RenewRevives(PassingLocks):
    """Takes the lock again for a holder whose lease is over."""

    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        """If no other user has it."""
        answers = self.inner.renew(grants)
        for place, (grant, answer) in enumerate(zip(grants, answers, strict=True)):
            if isinstance(answer, LeaseLost):
                again = Request(grant.name, grant.owner, grant.ttl, grant.mode, grant.limit, False, nobody, "revived")
                if isinstance(self.inner.attempt([again])[0], Grant):
                    answers[place] = grant
        return answers


class RenewErrorIsALoss(PassingLocks):
    """Takes every third renewal, of which it does not know the outcome, for a loss."""

    def __init__(self, inner: LockProvider) -> None:
        super().__init__(inner)
        self._count = itertools.count(1)

    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        """Renewed, and said to be lost."""
        answers = self.inner.renew(grants)
        return [self._doubt(grant) if next(self._count) % 3 == 0 else each for grant, each in zip(grants, answers, strict=True)]

    @staticmethod
    def _doubt(grant: Grant) -> LeaseLost:
        return LeaseLost(f"{grant.name}: no answer", name=grant.name, reason=Reason.EXPIRED, token=grant.token)


MUTANTS: list[Mutant] = [
    named(LeaseNeverEnds, "L48", "L54", "L99", "L122"),
    named(LeaseGivenToNobody, "L81", "L124"),
    named(LeaseEndsEarly, "L22", "L49", "L61", "L69"),
    named(LeaseSaidToBeLonger, "L13", "L59", "L64", "L66", "L71"),
    named(WholeSecondsOnly, "L58", "L59"),
    named(RenewDoesNothing, "L50", "L52"),
    named(RenewShortens, "L52"),
    named(RenewRevives, "L54", "L60"),
    named(RenewErrorIsALoss, "L50", "L61", "L93"),
]
