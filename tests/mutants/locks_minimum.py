"""Lock drivers that do not keep a minimum hold: they shorten a lease otherwise than they are asked to, or not at all."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from mutants import Mutant
from mutants.layers import Answer, Asks, named
from narrowboat.contract.locks import Busy, Grant, LockProvider, Request
from narrowboat.errors import NarrowboatError
from narrowboat.layers.passing import PassingLocks


class _Granted(PassingLocks):
    """Knows what it has granted."""

    def __init__(self, inner: LockProvider) -> None:
        super().__init__(inner)
        self.granted: dict[str, Grant] = {}  # by owner

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """Noted."""
        answers = self.inner.attempt(requests)
        self.granted |= {answer.owner: answer for answer in answers if isinstance(answer, Grant)}
        return answers

    def is_left(self, grant: Grant) -> bool:
        """Whether its lease is to end earlier than it was granted for."""
        return grant.ttl < self.granted[grant.owner].ttl


class LeftIsFreed(_Granted):
    """Frees a lock whose lease is to be shortened."""

    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        """Released instead."""
        answers = self.inner.renew(grants)
        self.inner.release([grant for grant in grants if self.is_left(grant)])
        return answers


class LeftIsKept(_Granted):
    """Never ends a lease earlier than it was granted for."""

    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        """Renewed for its first length instead."""
        return self.inner.renew([self.granted[grant.owner] if self.is_left(grant) else grant for grant in grants])


class LeftWakesNobody(Asks):
    """Tells no waiter that a lease ends earlier than it knows, and lets it come again when that is over."""

    _renewing = threading.local()

    def change(self, request: Request) -> Request:
        """Not woken by a renewal."""

        def wake() -> None:
            if not getattr(self._renewing, "now", False):
                request.wake()

        return request._replace(wake=wake)

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """As if each lease were long: a look in between would meet the end of a short one by chance."""
        return [Busy(60.0) if isinstance(answer, Busy) else answer for answer in super().attempt(requests)]

    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        """Noted while it is under way."""
        self._renewing.now = True
        try:
            return self.inner.renew(grants)
        finally:
            self._renewing.now = False


class CloseFreesWhatIsLeft(_Granted):
    """Frees at its close everything that it has granted."""

    def close(self) -> None:
        """Also what is to stay taken."""
        self.inner.release(list(self.granted.values()))
        self.inner.close()


MUTANTS: list[Mutant] = [
    named(LeftIsFreed, "L57", "L130"),
    named(LeftIsKept, "L57", "L130"),
    named(LeftWakesNobody, "L57"),
    named(CloseFreesWhatIsLeft, "L130"),
]
