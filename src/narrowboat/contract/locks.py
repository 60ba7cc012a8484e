"""The lock contract: what a driver does with one batch of requests.

A driver is thin. It turns a batch into one exchange with its server and says what came back. It does not wait, retry,
renew, count deadlines or keep threads for callers: the core does, once for all backends (`_locks`, `_engine`).

Who retries: the core, and only what is safe to repeat. Client libraries must not retry on their own.
How long a call may block: one operation timeout (`Context.timeout`), opening the driver, a first connection and its handshake
included; then it raises `Unavailable`.
From how many threads: with `Concurrency.SERIAL` the core makes at most one call of `attempt` at a time, and beside it at
most one call of `renew`, `release` or `withdraw`; `holders`, `evict`, `ping` and `close` may come from any thread at any
time. With `MULTIPLEXED` any call may come at any time.
What may be kept: `Request.wake`, until the owner is granted or withdrawn. Nothing else.
Who tells a holder of its loss: the core, from the answer to a renewal. A driver that hears of one earlier says so by
`Context.doubt`, and is asked.
What may be raised: an exception means that the whole exchange failed and the outcome is unknown for every member. What
one member caused is returned in its place instead, so that one refusal never spoils another's grant.
How large a batch may be: as large as there are callers. A driver whose server takes less splits it; `LockCapabilities` has no
limit of its own.
What a name may hold: 1 to 1,000 characters, none of them a control character (so no NUL) or half of a surrogate pair; any other
Unicode, of any case, which two names may differ in alone. Labels are checked alike.
A BaseException may strike at any point of any call (a KeyboardInterrupt does): the driver must then still be usable, and
a `withdraw` of the owner must still leave nothing behind.
"""

from __future__ import annotations

import dataclasses
import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

from narrowboat.capabilities import LockCapabilities
from narrowboat.errors import NarrowboatError


class Mode(enum.StrEnum):
    """An exclusive holder excludes all others, a shared one exclusive ones; up to `limit` hold a semaphore together."""

    EXCLUSIVE = "exclusive"
    SHARED = "shared"
    SEMAPHORE = "semaphore"


class Request(NamedTuple):
    """One owner's wish to hold one name."""

    name: str  #: any text that passed the core's check, up to 1,000 characters
    owner: str  #: random, made by the core once for each acquire: the idempotency key
    ttl: float  #: seconds
    mode: Mode
    limit: int | None  #: the semaphore's size; None for the other modes
    wait: bool  #: False: a try, that leaves nothing behind and disturbs no queue
    wake: Callable[[], None]  #: called from any thread when another attempt is worth it; may be spurious; never blocks
    label: str  #: for people, shown by `holders`


class Grant(NamedTuple):
    """Possession. Only with this can anybody renew or release."""

    name: str
    owner: str
    token: int  #: below 2**63; greater than that of every holder it excludes
    ttl: float  #: seconds, the effective one, counted by the core from before the request was sent
    mode: Mode
    limit: int | None


class Busy(NamedTuple):
    """The lock is not free. If the backend queues and the request said `wait`, the owner has a place, and `wake` is armed."""

    retry_after: float  #: seconds; try again after this at the latest, whether or not `wake` was called


class Released(enum.Enum):
    """What became of a release."""

    RELEASED = "released"
    NOT_HELD = "not held"  #: nothing was freed: this generation had ended


@dataclasses.dataclass(frozen=True, slots=True)
class Holder:
    """One holder as others see it."""

    name: str
    token: int
    label: str
    mode: Mode
    limit: int | None
    acquired_at: float  #: seconds since the epoch, for people; nothing is decided by it
    expires_in: float | None  #: seconds; None where only the session knows
    waiters: int | None  #: how many wait for this name; None where the backend cannot know
    #: Another program wrote this record, or damaged it: what is shown is what could be read, `acquired_at` is 0.0 where that
    #: could not, and `token` is what `evict` takes, whatever the record says.
    foreign: bool = False


class LockProvider(ABC):
    """One connection's worth of locks. Thin, blocking; see the module's text for threads, time-outs and retries."""

    capabilities: LockCapabilities

    @abstractmethod
    def attempt(self, requests: Sequence[Request]) -> list[Grant | Busy | NarrowboatError]:
        """Take each name, or queue for it. One answer for each request, in order. No batch holds one name twice.

        Idempotent for its owner: an attempt that finds its own grant starts that lease afresh and returns it, so a
        repeated attempt after a lost reply is harmless.

        `wait=True`: the owner keeps its place in the queue from its first attempt to its last; `wake` is armed *before*
        the last look at the lock, so that no release is missed. A waiter that stops calling (a dead process) loses its
        place within `capabilities.dead_waiter_bound`.
        `wait=False`: takes the lock only if it is free and nobody waits for it; otherwise leaves no trace.

        A semaphore or mode that disagrees with the present holders' or waiters' `limit` gets `Conflict` in its place. So does a
        name under which there is something that is not ours, or is damaged: it is no grant, and no other name is touched.
        """

    @abstractmethod
    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        """Start each lease afresh. One answer for each grant, in order.

        `LeaseLost` is the only answer that means lost; any other error means unknown. A lease that has run out is never
        revived, even when nobody took it. A name that is no longer held is never created again.

        The core also calls it between two renewals, for a grant that the driver has put in doubt.

        Where `capabilities.at_least` is claimed, a lease ends `Grant.ttl` seconds after this, also where it had another ttl.
        The core shortens a lease so instead of releasing it before its minimum hold is over, and renews it no more. When a
        lease comes to end earlier, the next waiter, who knows the old end, is woken to look again.
        """

    @abstractmethod
    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        """Free each generation, compared by token, and wake the next waiter. Never touch another generation."""

    @abstractmethod
    def withdraw(self, requests: Sequence[Request]) -> list[NarrowboatError | None]:
        """Make sure that each owner neither holds nor waits. Idempotent; the next waiter is woken.

        For owners without a grant: those whose wait ended, and those whose attempt has an unknown outcome. Such an attempt may
        still be on its way. The driver makes it harmless: either it cannot land later, or the driver finds and undoes it within
        a bound that the backend's page states.
        """

    @abstractmethod
    def holders(self, name: str | None) -> list[Holder]:
        """Who holds `name`, oldest first; None: every name that is held in this namespace, sorted by name.

        A record that cannot be parsed is listed as `foreign`, and never raised: an operator must see it to remove it.
        """

    @abstractmethod
    def evict(self, name: str, token: int) -> bool:
        """Break exactly that generation and wake the next waiter. False: it is not there.

        Its holder learns of it at its next renewal, or within `wake_bound` where `capabilities.loss` is `NOTIFIED`.
        """

    @abstractmethod
    def ping(self) -> None:
        """One round trip. Raises what a call would raise."""

    @abstractmethod
    def close(self) -> None:
        """Release threads, sockets and files. Idempotent. What is still held or queued stays until its lease ends."""
