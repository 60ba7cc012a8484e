"""What a backend claims, as values that can be compared, demanded and printed.

A backend's `LockCapabilities` or `BrokerCapabilities` is known from its URL alone, before anything is sent. The core
refuses with `Unsupported` what is not claimed; a caller demands with `require=`; the conformance kit proves each claim,
and proves that what is not claimed is refused. Nothing here knows any backend.

Adding a field means adding the scenario that proves both sides of it.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from typing import Any

from narrowboat.dsn import told
from narrowboat.errors import ConfigurationError, Unsupported


class Support(enum.Enum):
    """Whether a feature is there, and who does the work."""

    ABSENT = "absent"  #: asking for it raises Unsupported before any I/O
    EMULATED = "emulated"  #: made by the adapter out of other means; its cost and bounds are on the backend's page
    NATIVE = "native"  #: the backend itself does it


class Scope(enum.Enum):
    """How far apart two users of one name may be."""

    PROCESS = "process"
    HOST = "host"
    NETWORK = "network"


class Survives(enum.Enum):
    """The worst event after which the promise still stands. Each includes those before it."""

    NOTHING = "nothing"  #: gone when this process ends
    CRASH = "crash"  #: any process may be killed
    POWER = "power"  #: the machine may lose power
    NODE = "node"  #: one server of several may be lost for good
    DATA_LOSS = "data loss"  #: the backend may lose its data (fencing tokens only)


class Expiry(enum.Enum):
    """What frees a lock whose holder died."""

    LEASE = "lease"  #: each lock has its own ttl
    SESSION = "session"  #: all locks of one provider end with its session


class WaitOrder(enum.Enum):
    """Which waiter is served next."""

    ANY = "any"
    FIFO = "fifo"


class WakeUp(enum.Enum):
    """How a waiter learns of a change."""

    POLLED = "polled"
    NOTIFIED = "notified"


class Concurrency(enum.Enum):
    """How the driver wants to be called."""

    SERIAL = "serial"  #: one hot call at a time in each lane; the core gathers callers into batches
    MULTIPLEXED = "multiplexed"  #: any number at once; a lane in front would only cost time


class Settlement(enum.Enum):
    """What an answered `ack` means."""

    RECEIVED = "received"  #: the broker has it
    DURABLE = "durable"  #: the broker has it at its declared durability


class SettleFencing(enum.Enum):
    """Who can tell that a delivery is stale."""

    CLIENT_CLOCK = "client clock"
    SERVER = "server"


class LeaseNature(enum.Enum):
    """What a delivery's lease hangs on. Only `MESSAGE` can be extended one by one, where `extension` is claimed."""

    MEMBERSHIP = "membership"
    CONNECTION = "connection"
    MESSAGE = "message"


class Threads(enum.Enum):
    """What each further source costs that a process consumes."""

    OWN = "own"  #: threads and connections of its own: take some sources in a process, not hundreds
    SHARED = "shared"  #: all sources share a handful of threads


class Kept(enum.Enum):
    """How long a queue keeps a message that no consumer has taken."""

    RETENTION = "retention"
    UNTIL_CONSUMED = "until consumed"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LockCapabilities:
    """What a lock backend claims. Times are seconds and upper bounds unless they say otherwise."""

    scope: Scope
    expiry: Expiry
    survives: Survives  #: the worst event after which a held lock still excludes others
    fencing: Support
    fencing_survives: Survives  #: the worst event after which tokens still grow
    order: WaitOrder
    wake: WakeUp
    shared: Support
    semaphore: Support
    holders: Support
    evict: Support
    loss: WakeUp = WakeUp.POLLED  #: how a holder learns that its lock was evicted or deleted: at its next renewal, or told
    at_least: Support = Support.ABSENT  #: a name stays taken for `lock(at_least=)`, whatever becomes of its holder
    concurrency: Concurrency = Concurrency.SERIAL
    ttl_min: float = 0.05
    ttl_max: float = 7 * 86400.0
    margin: float = 0.0  #: added to the core's own margin when a holder's deadline is counted
    expiry_lag: float = 0.5  #: a dead holder's lock is granted to a waiter within its ttl and this
    wake_bound: float = 0.5  #: a waiter has a released lock within this; a holder knows of its loss, where it is told of it
    dead_waiter_bound: float = 10.0  #: a dead or stopped waiter at the head of the queue delays the rest by this


@dataclasses.dataclass(frozen=True, kw_only=True)
class BrokerCapabilities:
    """What a message backend claims. Times are seconds and upper bounds unless they say otherwise."""

    scope: Scope
    survives: Survives  #: the worst event after which a message whose publish returned is still delivered
    settlement: Settlement
    settle_fencing: SettleFencing
    kept: Kept
    lease: LeaseNature
    wake: WakeUp
    topics: Support
    order: Support  #: per-key order, `queue(ordered=True)`
    delay: Support
    priority: Support
    ttl: Support
    dedup: Support
    replay: Support  #: subscriptions that start at "earliest"
    dead_letters: Support
    request_reply: Support
    depth: Support  #: native: every field is known; emulated: some are None
    uncounted_release: Support  #: a clean close does not count what was not started
    extension: Support = Support.NATIVE  #: of a single lease; always absent where it is not the message's own
    outbox: Support = Support.ABSENT  #: `send_in`: a publish in a transaction of the caller's own
    alter: Support = Support.ABSENT  #: each consumer has its own `max_deliveries` and lease; what is stored can be altered
    listing: Support = Support.ABSENT  #: `sources()`
    oldest: Support = Support.ABSENT  #: `depth().oldest`: how long the oldest ready message has waited; absent without `depth`
    threads: Threads = Threads.SHARED  #: of the sources that a process consumes
    concurrency: Concurrency = Concurrency.SERIAL
    body_max: int = 1024 * 1024  #: bytes
    headers_max: int = 64 * 1024  #: bytes, names and values together
    batch_max: int = 1000  #: messages in one driver call
    priorities_max: int = 0  #: levels above 0
    delay_max: float = 0.0
    delay_lag: float = 0.5  #: a delayed message is deliverable within this after it is due
    lease_min: float = 0.05
    lease_max: float = 12 * 3600.0
    lease_lag: float = 0.5  #: an abandoned delivery is deliverable within its lease and this
    return_lag: float = 0.0  #: what a consumer gives back is deliverable at once, or within this
    wake_bound: float = 0.5  #: an idle consumer has a new message within this
    dedup_window: float = 0.0
    alter_lag: float = 5.0  #: what a running consumer fetches this long after an `alter` obeys it; inf: its next consumer does

    def __post_init__(self) -> None:
        if self.lease is not LeaseNature.MESSAGE:
            object.__setattr__(self, "extension", Support.ABSENT)
        if self.depth is Support.ABSENT:
            object.__setattr__(self, "oldest", Support.ABSENT)


Capabilities = LockCapabilities | BrokerCapabilities

#: What cannot be demanded as "at least": how a driver is called is not a promise to the user.
_INTERNAL = frozenset({"concurrency"})
#: Numbers of which more is better; of all others less is.
_MORE = frozenset(
    {"ttl_max", "body_max", "headers_max", "batch_max", "priorities_max", "delay_max", "lease_max", "dedup_window"}
)


def table(capabilities: Capabilities) -> dict[str, str]:
    """The claims as text, name to value, in the order in which they are declared; for pages, tables and reports."""
    return {field.name: _text(getattr(capabilities, field.name)) for field in dataclasses.fields(capabilities)}


def parse_require(require: str | Mapping[str, object] | None) -> dict[str, str]:
    """`"fencing,survives=power"` or a mapping as name to demanded value ("", or True in a mapping: simply there)."""
    if require is None:
        return {}
    if isinstance(require, Mapping):
        return {str(name): "" if value is True else _text(value) for name, value in require.items()}
    if not isinstance(require, str):
        raise ConfigurationError(
            f"require={require!r}: expected text such as 'fencing,survives=power' or a mapping, got {type(require).__name__}"
        )
    demands: dict[str, str] = {}
    for item in filter(str.strip, require.split(",")):
        name, _, value = (part.strip() for part in item.partition("="))
        if demands.setdefault(name, value) != value:
            raise ConfigurationError(f"require demands {name if _is_claim(name) else 'a claim'} twice, with different values")
    return demands


def check_required(capabilities: Capabilities, require: str | Mapping[str, object] | None, *, backend: str) -> None:
    """Raise unless every demand is met.

    A demand without a value means "not absent", or a number above zero; ordered claims such as `survives` need one, and
    it means "at least this". A number means "at least" where more is better and "at most" where less is. An unknown name
    or value is a `ConfigurationError` that lists what there is; an unmet demand is `Unsupported` and says what is
    claimed instead.
    """
    unmet = []
    for name, wanted in parse_require(require).items():
        known = [field.name for field in dataclasses.fields(capabilities) if field.name not in _INTERNAL]
        if name not in known:
            raise ConfigurationError(
                f"require={name if _is_claim(name) else told(name, known)} is not a claim; known are: {', '.join(known)}",
                backend=backend,
            )
        have = getattr(capabilities, name)
        if not _meets(name, have, wanted, backend):
            unmet.append(f"{name}={wanted or 'anything but absent'} (claimed: {_text(have)})")
    if unmet:
        raise Unsupported(
            f"{backend} does not promise what was required: {'; '.join(unmet)}. "
            "Take another backend, or drop the demand if the program can do without it.",
            backend=backend,
        )


def _meets(name: str, have: Any, wanted: str, backend: str) -> bool:
    if isinstance(have, enum.Enum):
        order = list(type(have))
        if not wanted and isinstance(have, Support):
            return have is not Support.ABSENT
        for level in order:
            if level.value == wanted.replace("_", " "):
                return order.index(have) >= order.index(level)
        allowed = [level.value for level in order]
        what = f"{name}={told(wanted, allowed)}: not a level of {name}" if wanted else f"{name}: say which level"
        raise ConfigurationError(f"require={what}; allowed are: {', '.join(allowed)}", backend=backend)
    if not wanted:
        return bool(have)
    try:
        number = float(wanted)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigurationError(f"require={name}=***: expected a finite number", backend=backend)
    return bool(have >= number) if name in _MORE else bool(have <= number)


def _is_claim(name: str) -> bool:
    """Whether locks or messages have a claim of that name, so that it is no secret."""
    return any(name == field.name for kind in (LockCapabilities, BrokerCapabilities) for field in dataclasses.fields(kind))


def _text(value: object) -> str:
    return str(value.value) if isinstance(value, enum.Enum) else f"{value:.15g}" if isinstance(value, float) else str(value)
