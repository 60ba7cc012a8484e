"""Lock drivers that do not let go, let go of too much, or leave something behind."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from mutants import Mutant
from mutants.layers import Answer, named
from narrowboat.contract.locks import Grant, LockProvider, Released, Request
from narrowboat.errors import NarrowboatError
from narrowboat.layers.passing import PassingLocks


class ReleaseDoesNothing(PassingLocks):
    """Answers that a lock is released, and leaves it held."""

    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        """Nothing."""
        return [Released.RELEASED] * len(grants)


class ReleasesOneOfABatch(PassingLocks):
    """Frees the first of what is released together, and says that it freed all."""

    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        """The first."""
        self.inner.release(grants[:1])
        return [Released.RELEASED] * len(grants)


class ReleaseSaysNotHeld(PassingLocks):
    """Frees a lock, and answers that it was not held."""

    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        """Freed all the same."""
        self.inner.release(grants)
        return [Released.NOT_HELD] * len(grants)


class ReleaseOfNothingIsAnError(PassingLocks):
    """Answers the release of a lock that is not held with an error, as for a mistake."""

    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        """A repeated one, and one that comes too late."""
        answers = self.inner.release(grants)
        return [
            NarrowboatError(f"{grant.name}: there is no such row") if answer is Released.NOT_HELD else answer
            for grant, answer in zip(grants, answers, strict=True)
        ]


class ReleaseByItsOwnThreadOnly(PassingLocks):
    """Lets only the thread that took a lock free it, as a thread's own lock does."""

    def __init__(self, inner: LockProvider) -> None:
        super().__init__(inner)
        self._threads: dict[str, int] = {}  # by owner

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """Noted."""
        for request in requests:
            self._threads[request.owner] = threading.get_ident()
        return self.inner.attempt(requests)

    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        """Compared."""
        me = threading.get_ident()
        return [self.inner.release([g])[0] if self._threads[g.owner] == me else Released.NOT_HELD for g in grants]


class ReleaseWithoutComparing(PassingLocks):
    """Frees a name for any user that asks, without comparing the token."""

    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        """The present holder goes."""
        answers = self.inner.release(grants)
        for place, (grant, answer) in enumerate(zip(grants, answers, strict=True)):
            if answer is Released.NOT_HELD:
                for holder in self.inner.holders(grant.name):
                    self.inner.evict(grant.name, holder.token)
                    answers[place] = Released.RELEASED
        return answers


class ReleaseFreesAll(PassingLocks):
    """Frees with one name all names that the same connection holds."""

    def __init__(self, inner: LockProvider) -> None:
        super().__init__(inner)
        self._granted: dict[str, Grant] = {}

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """Noted."""
        answers = self.inner.attempt(requests)
        self._granted |= {answer.owner: answer for answer in answers if isinstance(answer, Grant)}
        return answers

    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        """And all the others."""
        answers = self.inner.release(grants)
        others, self._granted = list(self._granted.values()), {}
        self.inner.release(others)
        return answers


class EvictBreaksWhoeverHolds(PassingLocks):
    """Evicts the present holder, whichever token was meant."""

    def evict(self, name: str, token: int) -> bool:
        """Everybody."""
        broken = [self.inner.evict(name, holder.token) for holder in self.inner.holders(name)]
        return any(broken)


class EvictDoesNothing(PassingLocks):
    """Answers that a holder is evicted, and leaves the lock to it."""

    def evict(self, name: str, token: int) -> bool:
        """Nothing."""
        return any(holder.token == token for holder in self.inner.holders(name))


class LeavesAThread(PassingLocks):
    """Leaves a thread behind when it is closed."""

    LASTS = 60.0  #: seconds after which it ends by itself

    def __init__(self, inner: LockProvider) -> None:
        super().__init__(inner)
        threading.Thread(target=threading.Event().wait, args=(self.LASTS,), name="left-behind", daemon=True).start()


MUTANTS: list[Mutant] = [
    named(ReleaseDoesNothing, "L128", "L01", "L04", "L05", "L06", "L08", "L44", "L65", "L113"),
    named(ReleasesOneOfABatch, "L65"),
    named(ReleaseSaysNotHeld, "L06", "L63", "L123"),
    named(ReleaseOfNothingIsAnError, "L10", "L12", "L16", "L55", "L92"),
    named(ReleaseByItsOwnThreadOnly, "L115", "L121"),
    named(ReleaseWithoutComparing, "L10", "L12", "L16", "L55"),
    named(ReleaseFreesAll, "L04", "L45"),
    named(EvictBreaksWhoeverHolds, "L11", "L16"),
    named(EvictDoesNothing, "L16", "L60", "L62", "L66"),
    named(LeavesAThread, "L114"),
]
