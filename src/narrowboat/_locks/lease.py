"""When a lease ends, when it is renewed, and why it was lost: decisions without I/O, and the possession they are about.

Validity is counted by the holder's own clock from *before* the request that last succeeded was sent, less a margin: the
server cannot have started the lease earlier, so it cannot end it earlier either. Past that deadline the lease is lost,
whatever a server or a client library says. An error is not a loss: it means unknown, and is tried again until the
deadline. (Kleppmann, "How to do distributed locking", 2016; Gray and Cheriton, "Leases", 1989.)
"""

from __future__ import annotations

import enum
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from narrowboat.contract.locks import Grant
from narrowboat.errors import LeaseLost, Reason

if TYPE_CHECKING:
    from narrowboat._locks.blocks import Block
    from narrowboat._locks.core import LockCore

#: The smallest margin in seconds, and the share of the ttl. Less, and a coarse clock or a late thread believes in a lease
#: that has ended; more, and short leases are of little use.
MARGIN, MARGIN_SHARE = 0.010, 0.02
#: A lease is renewed when this share of it is over: two more tries fit in before it ends.
RENEW_SHARE = 1 / 3


class State(enum.Enum):
    """What became of a possession."""

    HELD = "held"
    LEAVING = "being released"  #: nobody's any more: its release is under way, or of unknown outcome
    LOST = "lost"
    RELEASED = "released"


#: As globals, for what every acquire and release looks at: an attribute of an enum costs several times as much.
HELD, LEAVING, LOST, RELEASED = State


class Step(enum.Enum):
    """What to do with a lease now."""

    WAIT = "wait"
    RENEW = "renew"
    EXPIRE = "expire"


class Plan(NamedTuple):
    """A step, and when to look again."""

    step: Step
    until: float


def deadline(sent: float, ttl: float, margin: float) -> float:
    """Until when a lease of `ttl` seconds is ours, if the request for it was sent at `sent`.

    >>> deadline(100.0, 30.0, 0.0)
    129.4
    >>> round(deadline(100.0, 0.05, 0.0), 3)
    100.04
    """
    return sent + ttl - max(MARGIN, ttl * MARGIN_SHARE) - margin


def plan(now: float, ends: float, renew_at: float | None, *, under_way: bool) -> Plan:
    """What to do with a lease that ends at `ends` and is due for renewal at `renew_at` (None: nobody renews it)."""
    if now >= ends:
        return Plan(Step.EXPIRE, ends)
    if renew_at is None or under_way:
        return Plan(Step.WAIT, ends)
    if now >= renew_at:
        return Plan(Step.RENEW, ends)
    return Plan(Step.WAIT, min(renew_at, ends))


def retry_at(now: float, ends: float, random: Callable[[], float]) -> float:
    """When to try a renewal again whose outcome is unknown: several times before the lease ends, not in step with others."""
    return now + max(0.01, (ends - now) / 8 * (0.5 + random()))


def why_ended(late: float, ttl: float) -> Reason:
    """The reason of a lease that ran out: paused if the watch over it came late by a good part of the lease itself."""
    return Reason.PAUSED if late > ttl * RENEW_SHARE else Reason.EXPIRED


class Possession:
    """That a name is ours: what `acquire` gives, and the only thing that can renew or release it.

    The base of `Held` on both faces; it holds what needs no waiting.
    """

    __slots__ = (
        "__weakref__",
        "_acquired_at",
        "_caller",
        "_core",
        "_deadline",
        "_depth",
        "_doubted",
        "_finalizer",
        "_grant",
        "_reason",
        "_ref",
        "_releasing",
        "_renew_at",
        "_state",
        "_under_way",
        "_unknown",
        "_version",
        "_watchers",
        "_withs",
    )

    def __init__(self, core: LockCore, grant: Grant, sent: float, *, renew: bool, caller: object) -> None:
        self._core = core
        self._grant = grant
        self._state = HELD
        self._reason: Reason | None = None
        self._deadline = deadline(sent, grant.ttl, core.margin)
        self._renew_at = sent + grant.ttl * RENEW_SHARE if renew else None
        self._under_way = False
        self._doubted = False  # the driver had doubts while a renewal was under way: ask again
        self._unknown = False  # a release of unknown outcome was sent
        self._releasing: list[Callable[[], None]] | None = None  # a release is under way: who waits for its end
        self._version = 0
        self._depth = 1
        self._withs: tuple[weakref.ref[Block[Any]], ...] = ()  # those that have entered it, outermost first
        self._finalizer: weakref.finalize[..., Possession] | None = None  # where a session is the lease
        self._watchers: list[Callable[[Possession], None]] | None = None
        self._acquired_at: float = time.time()
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
        """The effective lease in seconds."""
        return self._grant.ttl

    @property
    def acquired_at(self) -> float:
        """When it was granted, in seconds since the epoch; for people, nothing is decided by it."""
        return self._acquired_at

    @property
    def expires_in(self) -> float:
        """Seconds until it is lost unless it is renewed; 0 once it is lost or released."""
        return max(0.0, self._deadline - self._core.clock()) if self._state is State.HELD else 0.0

    @property
    def lost(self) -> bool:
        """Whether it was lost. A release in time is no loss."""
        if self._state is HELD and self._core.clock() >= self._deadline:
            self._core.renewal.lapse(self)
        return self._state is LOST

    @property
    def reason(self) -> Reason | None:
        """Why it was lost; None while it is not."""
        return self._reason if self.lost else None

    def check(self) -> None:
        """Raise `LeaseLost` when it may no longer be ours, or was released. Costs no round trip."""
        if self.lost or self._state is not State.HELD:
            raise self.loss()

    def loss(self) -> LeaseLost:
        """The error that says what became of it."""
        reason = self._reason if self._state is State.LOST and self._reason else Reason.RELEASED
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
            if self._state is not State.HELD:
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

    def _entered_by(self, block: Block[Any]) -> None:
        """A `with` has entered it, and will leave it once."""
        others = () if self._depth == 1 else tuple(each for each in self._withs if each() is not None)
        self._withs = (*others, weakref.ref(block))

    def _step_out(self) -> bool:
        """Leave an inner one of nested possessions. By hand, inside a `with`, that is the release that its end would do."""
        if self._state is not State.HELD or self._depth == 1:
            return False
        entered = [block for each in self._withs if (block := each()) is not None and block.is_in(self)]
        spent = entered[-1] if len(entered) >= self._depth else None
        self._depth -= 1  # no call may stand between the two
        if spent is not None:
            spent.spent = True
        return True

    def _leave_behind(self) -> None:
        """Nobody has it any more, and nobody has released it."""
        if self._state is State.HELD:
            self._core.renewal.leave_behind(self)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"{self!r} cannot be copied or pickled: there is one possession of a lock, and it is here")

    def __repr__(self) -> str:
        state = self._reason.value if self._state is State.LOST and self._reason else self._state.value
        return f"<{type(self).__name__} {self.name!r} token={self.token} {state}>"
