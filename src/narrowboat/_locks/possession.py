"""That a name is ours: the possession, and every transition of it.

It is held, perhaps nested, renewed by the engine, released by its holder or left behind by one who could not, and lost by the
holder's own clock or by an answer. All of that is decided here, without I/O and under one mutex; the loops and the engine call
a transition and carry out what it says. It does not talk to a driver, tell listeners, or know a face.
"""

from __future__ import annotations

import enum
import math
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, NoReturn, Protocol

from narrowboat._engine.validity import deadline
from narrowboat._locks.blocks import Entry
from narrowboat._locks.lease import RENEW_SHARE, retry_at
from narrowboat.clock import Clock
from narrowboat.contract.locks import Grant
from narrowboat.errors import LeaseLost, Reason


class State(enum.Enum):
    """What became of a possession."""

    HELD = "held"
    LEAVING = "being released"  #: nobody's any more: its release is under way, or of unknown outcome
    LOST = "lost"
    RELEASED = "released"


#: As globals, for what every acquire and release looks at: an attribute of an enum costs several times as much.
HELD, LEAVING, LOST, RELEASED = State
#: As long as it is one of these, the backend may have it.
OURS = (HELD, LEAVING)


class Owner(Protocol):
    """What a possession needs of the provider that it comes from."""

    backend: str
    clock: Clock
    random: Callable[[], float]
    margin: float

    @property
    def mutex(self) -> AbstractContextManager[Any]:
        """Held during a transition; one that a thread may enter again, as a signal handler of it may ask `lost`."""
        ...

    def lapse(self, possession: Possession) -> None:
        """Its deadline has passed."""
        ...

    def left_behind(self, possession: Possession) -> None:
        """It is to be released, for nobody who waits. At any moment; never blocks."""
        ...

    def forget(self, possession: Possession) -> None:
        """It is over: its caller holds it no more."""
        ...


class Leaving(Protocol):
    """What is left when its possession ends, such as a `with`."""

    left: bool


class Inner(Protocol):
    """An acquire that may turn out to be nested."""

    held: Any
    nested: bool


class Left(NamedTuple):
    """What its holder is done with, while the name is to stay taken."""

    grant: Grant
    until: float  #: by our clock


class Possession:
    """That a name is ours: what `acquire` gives, and the only thing that can renew or release it.

    The base of `Held` on both faces; it holds what needs no waiting.
    """

    __slots__ = (
        "__weakref__",
        "_acquired_at",
        "_at_least",
        "_caller",
        "_core",
        "_deadline",
        "_depth",
        "_doubted",
        "_entries",
        "_finalizer",
        "_grant",
        "_key",
        "_reason",
        "_ref",
        "_releasing",
        "_renew_at",
        "_sent",
        "_state",
        "_taken_until",
        "_ttl",
        "_under_way",
        "_unknown",
        "_version",
        "_watchers",
    )

    def __init__(self, core: Owner, grant: Grant, sent: float, *, renew: bool, caller: object) -> None:
        self._core = core
        self._grant = grant
        self._sent = sent
        self._state = HELD
        self._reason: Reason | None = None
        self._deadline = deadline(sent, grant.ttl, core.margin)
        self._renew_at = sent + grant.ttl * RENEW_SHARE if renew else None
        self._at_least = 0.0  # seconds of its minimum hold
        self._taken_until = -math.inf  # by our clock: whatever becomes of us, nobody else shall have the name before
        self._ttl = math.inf  # the lock's own, where the lease is longer because of its minimum hold
        self._under_way = False  # a renewal is
        self._doubted = False  # the driver had doubts meanwhile: ask again
        self._unknown = False  # a release of unknown outcome was sent
        self._releasing: list[Callable[[], None]] | None = None  # a release is under way: who waits for its end
        self._version = 0  # of its place in the renewal's schedule
        self._depth = 1
        self._entries: tuple[weakref.ref[Entry[Any]], ...] = ()  # those that have entered it, outermost first
        self._finalizer: weakref.finalize[..., Possession] | None = None  # where a session is the lease
        self._watchers: list[Callable[[Possession], None]] | None = None
        self._acquired_at: float = time.time()
        self._key = grant.name, id(caller)  # in the table of holders
        self._caller = weakref.ref(caller)
        self._ref: weakref.ref[Possession] = weakref.ref(self)

    @property
    def name(self) -> str:
        """The lock's name."""
        return self._grant.name

    @property
    def token(self) -> int:
        """The fencing token: it grows with every holder of this name that excludes an earlier one. Below 2**63."""
        return self._grant.token

    @property
    def ttl(self) -> float:
        """The effective lease in seconds, as of its last renewal: longer than was asked for while `at_least` asks for more."""
        return self._grant.ttl

    @property
    def acquired_at(self) -> float:
        """When it was granted, in seconds since the epoch; for people, nothing is decided by it."""
        return self._acquired_at

    @property
    def expires_in(self) -> float:
        """Seconds until it is lost unless it is renewed; 0 once it is lost or released."""
        return max(0.0, self._deadline - self._core.clock()) if self._state is HELD else 0.0

    def _seconds(self) -> float:
        """For how long it has been held, from before it was asked for."""
        return self._core.clock() - self._sent

    @property
    def lost(self) -> bool:
        """Whether it was lost. A release in time is no loss."""
        if self._state is HELD and self._core.clock() >= self._deadline:
            self._core.lapse(self)
        return self._state is LOST

    @property
    def reason(self) -> Reason | None:
        """Why it was lost; None while it is not."""
        return self._reason if self.lost else None

    def check(self) -> None:
        """Raise `LeaseLost` when it may no longer be ours, or was released. Costs no round trip."""
        if self.lost or self._state is not HELD:
            raise self.loss()

    def loss(self) -> LeaseLost:
        """The error that says what became of it."""
        reason = self._reason if self._state is LOST and self._reason else Reason.RELEASED
        told = "was released" if reason is Reason.RELEASED else f"is lost: {reason.value}"
        return LeaseLost(
            f"lock {self.name!r} (token {self.token}) {told}; whatever it protects may be in other hands, "
            "so stop and acquire it again",
            name=self.name,
            reason=reason,
            token=self.token,
            backend=self._core.backend,
        )

    def _watch(self, watcher: Callable[[Possession], None]) -> bool:
        """Call `watcher` with this when it is lost or released; False, and no call, when that has happened already.

        It is kept here, so it must not keep this: a possession in a cycle would be renewed until the collector comes.
        """
        with self._core.mutex:
            if self._state is not HELD:
                return False
            if self._watchers is None:
                self._watchers = []
            self._watchers.append(watcher)
            return True

    def _unwatch(self, watcher: Callable[[Possession], None]) -> None:
        with self._core.mutex:
            if self._watchers and watcher in self._watchers:
                self._watchers.remove(watcher)

    def _is_callers(self) -> bool:
        """Whether the thread or task that holds it also asks from where it took it: it would wait for itself, or may nest."""
        return True

    # -- its transitions: nobody else writes its fields --------------------------------------------------------------

    def _keep_taken(self, at_least: float, ttl: float, sent: float) -> None:
        """From now on its name stays taken for `at_least` seconds. Its lease, asked for at `sent`, is renewed for `ttl`."""
        self._at_least = at_least
        self._taken_until = self._core.clock() + at_least
        self._ttl = ttl
        if self._renew_at is not None:
            self._renew_at = sent + self._renewed_by * RENEW_SHARE

    @property
    def _renewed_by(self) -> float:
        """The seconds of which a renewal is due after a third."""
        return min(self._ttl, self._grant.ttl)

    def _to_renew(self) -> Grant:
        """What a renewal asks for: the lock's own ttl, or what is left of its minimum hold where that is more."""
        if not self._at_least:
            return self._grant
        return self._grant._replace(ttl=max(self._ttl, self._taken_until - self._core.clock()))

    def _left(self) -> Left | None:
        """What is to become of its lease when its holder is done; None: it is to be freed."""
        return Left(self._grant, self._taken_until) if self._at_least and self._taken_until > self._core.clock() else None

    def _nest(self, inner: Inner) -> None:
        """Its caller acquires it once more. No call stands between the count and the note of it, so no interrupt does."""
        self._depth += 1
        inner.held, inner.nested = self, True

    def _entered_by(self, entry: Entry[Any]) -> None:
        """It was entered, and will be left once."""
        others = () if self._depth == 1 else tuple(each for each in self._entries if each() is not None)
        self._entries = (*others, weakref.ref(entry))

    def _step_out(self, leaving: Leaving | None = None) -> bool:
        """Leave an inner one of nested possessions, and note in `leaving` that it was left. False: it is the outermost.

        By hand, inside a `with`, that is the release that its end would do. No call stands between the count and the note.
        """
        if self._depth == 1 or self._state is not HELD:
            return False
        if leaving is not None:
            self._depth -= 1
            leaving.left = True
            return True
        entered = [entry for each in self._entries if (entry := each()) is not None and entry.is_in(self)]
        spent = entered[-1] if len(entered) >= self._depth else None
        self._depth -= 1
        if spent is not None:
            spent.spent = True
        return True

    def _leave_behind(self) -> None:
        """Nobody has it any more, and nobody has released it. From any thread, at any moment, also out of the collector's.

        It is marked by a store, and noted by what no interrupt can cut in two; no mutex is taken that this thread may have.
        """
        if self._state is HELD:
            if self._depth == 1:
                self._state = LEAVING
            self._core.left_behind(self)

    def _give_back(self) -> bool:
        """Whether what was left behind is to be released now: not an inner one, and not what somebody else is releasing."""
        with self._core.mutex:
            return not self._step_out() and self._releasing is None and self._state in OURS

    def _begin_release(self, others: list[Callable[[], None]], wake: Callable[[], None] | None) -> bool:
        """Begin its one release, or stand by. True: there is nothing to do, it is released already or was an inner one.

        Where it begins, `_releasing` is `others` from then on, in which those stand who are to be woken at its end. Where
        another's is under way, `wake` stands there.
        """
        with self._core.mutex:
            if self._state is RELEASED or (self._depth > 1 and self._step_out()):
                return True
            if self._releasing is None:
                if self._state in OURS:
                    self._state, self._releasing = LEAVING, others
            elif wake is not None:
                self._releasing.append(wake)
            return False

    def _release_unknown(self) -> None:
        """Its release was sent and not answered."""
        self._unknown = True

    def _end_release(self) -> None:
        """The release that is under way has ended, whatever it came to: let go of the others."""
        with self._core.mutex:
            others, self._releasing = self._releasing, None
        for wake in others or ():
            wake()

    def _end(self, state: State, reason: Reason | None = None, first: Callable[[Possession], object] | None = None) -> bool:
        """It is lost or released, once. Tells `first`, and then whoever watches. False: it was over before."""
        others = None
        with self._core.mutex:
            if self._state not in OURS:
                return False
            self._reason = reason  # first: who reads that it is lost reads why
            self._state = state
            watchers, self._watchers = self._watchers, None
            if state is RELEASED:
                others, self._releasing = self._releasing, None
        self._core.forget(self)
        if first is not None:
            first(self)
        for wake in others or ():
            wake()
        for watcher in watchers or ():
            watcher(self)
        return True

    def _begin_renewal(self) -> None:
        """A renewal is sent."""
        self._under_way = True

    def _doubt(self) -> bool:
        """Whether to ask at once if it is still there; not while a renewal is under way, which is followed by another."""
        with self._core.mutex:
            if self._under_way:
                self._doubted = True
                return False
            return self._state is HELD

    def _end_renewal(self, now: float, sent: float, grant: Grant | None) -> tuple[bool, bool]:
        """A renewal that was sent at `sent` was answered; without a grant, the outcome is unknown.

        Returns whether it is still ours, and whether there were doubts meanwhile.
        """
        with self._core.mutex:
            self._under_way = False
            doubted, self._doubted = self._doubted, False
            held = self._state is HELD and now < self._deadline
            if held and grant is not None:
                self._grant = grant
                self._deadline = max(self._deadline, deadline(sent, grant.ttl, self._core.margin))
                if self._renew_at is not None:
                    self._renew_at = sent + self._renewed_by * RENEW_SHARE
            elif held and self._renew_at is not None:
                self._renew_at = retry_at(now, self._deadline, self._core.random)
        return held, doubted

    def _reschedule(self) -> int:
        """The version of its new place in the schedule; every earlier one is out of date."""
        self._version += 1
        return self._version

    def _note_if_forgotten(self, note: Callable[[Grant], object]) -> None:
        """Call `note` with its grant when it is collected and was not released. Out of the collector, so it takes no mutex."""
        self._finalizer = weakref.finalize(self, note, self._grant)
        self._finalizer.atexit = False

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"{self!r} cannot be copied or pickled: there is one possession of a lock, and it is here")

    def __repr__(self) -> str:
        state = self._reason.value if self._state is LOST and self._reason else self._state.value
        return f"<{type(self).__name__} {self.name!r} token={self.token} {state}>"
