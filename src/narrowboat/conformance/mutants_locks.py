"""Lock drivers that are broken on purpose: each breaks one promise, and names the ids that must catch it, each of them.

A kit that no mutant can make fail proves nothing. Each of these is a layer in front of a driver that works, so it breaks
any backend in the same way; they are never used outside the kit's own tests.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence

from narrowboat.conformance.mutants import Mutant
from narrowboat.contract.locks import Busy, Grant, Holder, LockProvider, Mode, Released, Request
from narrowboat.errors import Conflict, LeaseLost, NarrowboatError, Reason
from narrowboat.layers.passing import PassingLocks

Answer = Grant | Busy | NarrowboatError


class _Asks(PassingLocks):
    """Asks the backend for something else than it is told, and answers as if it had not."""

    def change(self, request: Request) -> Request:
        """What is asked for instead."""
        return request

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """Changed; a grant says what the caller had asked for."""
        answers = self.inner.attempt([self.change(request) for request in requests])
        return [
            answer._replace(name=asked.name, ttl=asked.ttl, mode=asked.mode, limit=asked.limit)
            if isinstance(answer, Grant)
            else answer
            for asked, answer in zip(requests, answers, strict=True)
        ]


class _Renames(PassingLocks):
    """Keeps a lock under another name than its own."""

    def __init__(self, inner: LockProvider) -> None:
        super().__init__(inner)
        self._kept: dict[str, str] = {}  # by owner

    def kept_as(self, request: Request) -> str:
        """Under which name."""
        return request.name

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """Under the other name."""
        renamed = []
        for request in requests:
            self._kept.setdefault(request.owner, self.kept_as(request))
            renamed.append(request._replace(name=self._kept[request.owner]))
        answers = self.inner.attempt(renamed)
        return [
            answer._replace(name=request.name) if isinstance(answer, Grant) else answer
            for request, answer in zip(requests, answers, strict=True)
        ]

    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        """Under the other name."""
        answers = self.inner.renew([self._there(grant) for grant in grants])
        return [
            answer._replace(name=grant.name) if isinstance(answer, Grant) else answer
            for grant, answer in zip(grants, answers, strict=True)
        ]

    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        """Under the other name."""
        return self.inner.release([self._there(grant) for grant in grants])

    def withdraw(self, requests: Sequence[Request]) -> list[NarrowboatError | None]:
        """Under the other name."""
        return self.inner.withdraw([each._replace(name=self._kept.get(each.owner, each.name)) for each in requests])

    def _there(self, grant: Grant) -> Grant:
        return grant._replace(name=self._kept.get(grant.owner, grant.name))


# -- who holds ----------------------------------------------------------------------------------------------------


class GrantsTwice(_Renames):
    """Lets a second holder in beside the first."""

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """Who finds it busy gets the second place."""
        answers = super().attempt(requests)
        for place, (request, answer) in enumerate(zip(requests, answers, strict=True)):
            if isinstance(answer, Busy):
                self.withdraw([request])
                self._kept[request.owner] = f"{request.name} (second)"
                answers[place] = super().attempt([request])[0]
        return answers


class ConnectionsDoNotExclude(_Renames):
    """Excludes the users of one connection from each other, and nobody else."""

    _numbers = itertools.count()

    def __init__(self, inner: LockProvider) -> None:
        super().__init__(inner)
        self._number = next(self._numbers)

    def kept_as(self, request: Request) -> str:
        """A name of this connection's own."""
        return f"{request.name} ({self._number})"


class SharedExcludesNobody(_Renames):
    """Lets readers in beside a writer, and a writer beside readers."""

    def kept_as(self, request: Request) -> str:
        """Readers meet elsewhere."""
        return f"{request.name} (shared)" if request.mode is Mode.SHARED else request.name


class SharedExcludesShared(_Asks):
    """Lets one reader in at a time."""

    def change(self, request: Request) -> Request:
        """A writer's request."""
        return request._replace(mode=Mode.EXCLUSIVE) if request.mode is Mode.SHARED else request


class OnePermitTooMany(_Asks):
    """Gives out one permit more than a semaphore has."""

    def change(self, request: Request) -> Request:
        """A larger one."""
        return request if request.limit is None else request._replace(limit=request.limit + 1)


class SizesNeverDisagree(GrantsTwice):
    """Accepts a contender who believes in another size of the semaphore."""

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """Whoever disagrees gets a semaphore of his own."""
        answers = _Renames.attempt(self, requests)
        for place, (request, answer) in enumerate(zip(requests, answers, strict=True)):
            if isinstance(answer, Conflict):
                self._kept[request.owner] = f"{request.name} ({request.limit})"
                answers[place] = _Renames.attempt(self, [request])[0]
        return answers


class NamesCut(_Renames):
    """Keeps the first forty characters of a name."""

    def kept_as(self, request: Request) -> str:
        """Cut."""
        return request.name[:40]


class NamesFoldCase(_Renames):
    """Takes names that differ in case for one."""

    def kept_as(self, request: Request) -> str:
        """Folded."""
        return request.name.lower()


# -- fencing tokens -----------------------------------------------------------------------------------------------


class _Tokens(PassingLocks):
    """Shows other tokens than the backend gave."""

    def __init__(self, inner: LockProvider) -> None:
        super().__init__(inner)
        self._real: dict[str, int] = {}  # by owner

    def shown(self, token: int) -> int:
        """Instead of `token`."""
        return token

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """Shown differently."""
        answers = self.inner.attempt(requests)
        for answer in answers:
            if isinstance(answer, Grant):
                self._real[answer.owner] = answer.token
        return [each._replace(token=self.shown(each.token)) if isinstance(each, Grant) else each for each in answers]

    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        """With the real ones."""
        answers = self.inner.renew([each._replace(token=self._real[each.owner]) for each in grants])
        return [each._replace(token=self.shown(each.token)) if isinstance(each, Grant) else each for each in answers]

    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        """With the real ones."""
        return self.inner.release([each._replace(token=self._real[each.owner]) for each in grants])

    def holders(self, name: str | None) -> list[Holder]:
        """Shown differently."""
        return [each._replace(token=self.shown(each.token)) for each in self.inner.holders(name)]

    def evict(self, name: str, token: int) -> bool:
        """Whoever is shown with that token."""
        meant = [each.token for each in self.inner.holders(name) if self.shown(each.token) == token]
        broken = [self.inner.evict(name, each) for each in meant]
        return any(broken)


class TokenShrinks(_Tokens):
    """Gives each holder a smaller token than the one before."""

    def shown(self, token: int) -> int:
        """Backwards."""
        return 2**62 - token


class TokenReused(_Tokens):
    """Gives a token to two holders, one after the other."""

    def shown(self, token: int) -> int:
        """Half of them."""
        return token // 2


class TokenOfTheConnection(_Tokens):
    """Counts the holders of its own connection, from one on."""

    def __init__(self, inner: LockProvider) -> None:
        super().__init__(inner)
        self._counted: dict[int, int] = {}

    def shown(self, token: int) -> int:
        """The next number."""
        return self._counted.setdefault(token, len(self._counted) + 1)


class TokenTooLarge(_Tokens):
    """Gives tokens that do not fit into 63 bits."""

    def shown(self, token: int) -> int:
        """Past the end."""
        return 2**63 + token


# -- letting go ---------------------------------------------------------------------------------------------------


class ReleaseDoesNothing(PassingLocks):
    """Answers that a lock is released, and leaves it held."""

    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        """Nothing."""
        return [Released.RELEASED] * len(grants)


class ReleaseWithoutComparing(PassingLocks):
    """Frees a name for whoever asks, without comparing the token."""

    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        """Whoever holds it now."""
        answers = self.inner.release(grants)
        for place, (grant, answer) in enumerate(zip(grants, answers, strict=True)):
            if answer is Released.NOT_HELD:
                for holder in self.inner.holders(grant.name):
                    self.inner.evict(grant.name, holder.token)
                    answers[place] = Released.RELEASED
        return answers


class ReleaseFreesAll(PassingLocks):
    """Frees with one name everything that the same connection holds."""

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
    """Breaks the present holder, whichever generation was meant."""

    def evict(self, name: str, token: int) -> bool:
        """Everybody."""
        broken = [self.inner.evict(name, holder.token) for holder in self.inner.holders(name)]
        return any(broken)


class EvictDoesNothing(PassingLocks):
    """Answers that a holder is evicted, and leaves him."""

    def evict(self, name: str, token: int) -> bool:
        """Nothing."""
        return any(holder.token == token for holder in self.inner.holders(name))


# -- waiting ------------------------------------------------------------------------------------------------------


class WithdrawDoesNothing(PassingLocks):
    """Leaves a waiter that has gone in the queue."""

    def withdraw(self, requests: Sequence[Request]) -> list[NarrowboatError | None]:
        """Nothing."""
        return [None] * len(requests)


class TryQueues(_Asks):
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
            time.sleep(1.2)
        return answers


class NoWakeUp(_Asks):
    """Tells no waiter of a release."""

    def change(self, request: Request) -> Request:
        """Without a bell."""
        return request._replace(wake=_nothing)


def _nothing() -> None:
    """Wakes nobody."""


_withdrawing = threading.local()


class WithdrawWakesNobody(_Asks):
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
    """Keeps no place in the queue for some: they come again after a while."""

    _numbers = itertools.count()

    def poor(self, request: Request) -> bool:
        """Who has no place."""
        return request.wait

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """Taken out again; every other one sleeps ten times as long."""
        answers = self.inner.attempt(requests)
        for place, (request, answer) in enumerate(zip(requests, answers, strict=True)):
            if isinstance(answer, Busy) and self.poor(request):
                self.inner.withdraw([request])
                answers[place] = Busy(0.02 if next(self._numbers) % 2 else 0.2)
        return answers


class OrderForgotten(_Polls):
    """Serves whoever happens to come first after a release, though it claims an order."""


class WriterStarves(_Polls):
    """Lets readers in past a writer that waits."""

    def poor(self, request: Request) -> bool:
        """The writers."""
        return request.wait and request.mode is Mode.EXCLUSIVE


class RetryNever(PassingLocks):
    """Says that nobody needs to look again before he is woken."""

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """In a day."""
        return [Busy(86400.0) if isinstance(each, Busy) else each for each in self.inner.attempt(requests)]


class OwnGrantNotFound(PassingLocks):
    """Stumbles over its own grant when an attempt is repeated, as an insert does that meets its own key."""

    def __init__(self, inner: LockProvider) -> None:
        super().__init__(inner)
        self._granted: set[str] = set()

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """An error for who holds already."""
        answers = self.inner.attempt(requests)
        for place, (request, answer) in enumerate(zip(requests, answers, strict=True)):
            if isinstance(answer, Grant):
                if request.owner in self._granted:
                    answers[place] = Conflict(f"{request.name}: there is such a row already")
                self._granted.add(request.owner)
        return answers


# -- leases and renewal -------------------------------------------------------------------------------------------


class _Leases(_Asks):
    """Keeps leases of another length than it says."""

    def length(self, ttl: float) -> float:
        """The real one in seconds."""
        return ttl

    def change(self, request: Request) -> Request:
        """Of that length."""
        return request._replace(ttl=self.length(request.ttl))

    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        """Of that length."""
        answers = self.inner.renew([grant._replace(ttl=self.length(grant.ttl)) for grant in grants])
        return [grant if isinstance(answer, Grant) else answer for grant, answer in zip(grants, answers, strict=True)]


class LeaseNeverEnds(_Leases):
    """Keeps the lock of a holder that has gone for ever."""

    def length(self, ttl: float) -> float:
        """A day."""
        return 86400.0


class LeaseEndsEarly(_Leases):
    """Frees a lock while its holder may still believe in it."""

    def length(self, ttl: float) -> float:
        """Less than half."""
        return ttl * 0.45


class WholeSecondsOnly(PassingLocks):
    """Cuts a lease to whole seconds."""

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """At least one."""
        return self.inner.attempt([each._replace(ttl=max(1.0, float(int(each.ttl)))) for each in requests])


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
        """If nobody else has it."""
        answers = self.inner.renew(grants)
        for place, (grant, answer) in enumerate(zip(grants, answers, strict=True)):
            if isinstance(answer, LeaseLost):
                again = Request(grant.name, grant.owner, grant.ttl, grant.mode, grant.limit, False, _nothing, "revived")
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


# -- what others see ----------------------------------------------------------------------------------------------


class HoldersSeesNobody(PassingLocks):
    """Says that nobody holds anything."""

    def holders(self, name: str | None) -> list[Holder]:
        """Nobody."""
        return []


class HoldersForgetsWho(PassingLocks):
    """Says that a name is held, but not by whom."""

    def holders(self, name: str | None) -> list[Holder]:
        """Without labels."""
        return [holder._replace(label="") for holder in self.inner.holders(name)]


class LeavesAThread(PassingLocks):
    """Leaves a thread behind when it is closed."""

    #: Seconds after which it ends by itself, so that a run of the mutants ends with as many threads as it began.
    LASTS = 60.0

    def __init__(self, inner: LockProvider) -> None:
        super().__init__(inner)
        threading.Thread(target=threading.Event().wait, args=(self.LASTS,), name="left-behind", daemon=True).start()


def _mutant(wrap: Callable[[LockProvider], LockProvider], *ids: str) -> Mutant:
    """Named after its class, described by its docstring."""
    name = "".join(f" {c.lower()}" if c.isupper() else c for c in getattr(wrap, "__name__", "")).strip()
    return Mutant(name, (wrap.__doc__ or "").strip(), wrap, ids=ids)


MUTANTS: list[Mutant] = [
    _mutant(GrantsTwice, "L01", "L02", "L05", "L39", "L40", "L47", "L108", "L109"),
    _mutant(ConnectionsDoNotExclude, "L02", "L17", "L75"),
    _mutant(SharedExcludesNobody, "L108"),
    _mutant(SharedExcludesShared, "L108"),
    _mutant(OnePermitTooMany, "L109"),
    _mutant(SizesNeverDisagree, "L109"),
    _mutant(NamesCut, "L105", "L106"),
    _mutant(NamesFoldCase, "L106"),
    _mutant(TokenShrinks, "L17", "L21", "L40", "L47", "L74", "L75", "L76"),
    _mutant(TokenReused, "L40", "L47", "L74", "L75", "L76"),
    _mutant(TokenOfTheConnection, "L17", "L21", "L74", "L75"),
    _mutant(TokenTooLarge, "L74", "L79"),
    _mutant(ReleaseDoesNothing, "L01", "L04", "L05", "L06", "L08", "L113"),
    _mutant(ReleaseWithoutComparing, "L12", "L16", "L55"),
    _mutant(ReleaseFreesAll, "L04", "L45"),
    _mutant(EvictBreaksWhoeverHolds, "L11", "L16"),
    _mutant(EvictDoesNothing, "L16", "L60", "L62", "L66"),
    _mutant(WithdrawDoesNothing, "L28", "L30", "L35", "L113"),
    _mutant(TryQueues, "L18", "L28"),
    _mutant(TryWaits, "L02", "L20"),
    _mutant(NoWakeUp, "L23", "L31"),
    _mutant(WithdrawWakesNobody, "L30"),
    _mutant(OrderForgotten, "L36"),
    _mutant(WriterStarves, "L108"),
    _mutant(RetryNever, "L37"),
    _mutant(OwnGrantNotFound, "L91"),
    _mutant(LeaseNeverEnds, "L48", "L54", "L99"),
    _mutant(LeaseEndsEarly, "L22", "L49", "L61", "L69"),
    _mutant(WholeSecondsOnly, "L58"),
    _mutant(RenewDoesNothing, "L50", "L52"),
    _mutant(RenewShortens, "L52"),
    _mutant(RenewRevives, "L54", "L60"),
    _mutant(RenewErrorIsALoss, "L50", "L61"),
    _mutant(HoldersSeesNobody, "L01", "L13", "L15"),
    _mutant(HoldersForgetsWho, "L13", "L14", "L15"),
    _mutant(LeavesAThread, "L114"),
]
