"""What was registered with `@worker.every`: a schedule with its plan and its options, checked before anything is published.

A tick of a schedule is a message of the queue `schedule.NAME`. How ticks come there is in `ticking.py`; what handles them is a
handler as any other (`consuming.py`), so retries, time limits, pauses and dead letters are those of a queue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, TypedDict

from narrowboat._engine.checks import seconds, text
from narrowboat.capabilities import BrokerCapabilities, Support
from narrowboat.errors import InvalidArgument, Unsupported
from narrowboat.messaging.message import Seconds
from narrowboat.working.breaker import Breaker
from narrowboat.working.handlers import Handler, check_called, make
from narrowboat.working.plan import Plan
from narrowboat.working.plan import make as make_plan
from narrowboat.working.retry import Retry

Missed = Literal["skip", "once"]

#: Seconds after its instant in which a tick that nobody has published yet still is, and a first attempt begins, unless the
#: backend's window for ids is short. Shorter loses ticks to a process that stood still, longer needs a longer window.
LATE = 60.0
#: The window for ids must be this many times as long: it has to outlast what the processes' clocks differ by as well.
WINDOWS = 4.0
#: How the queue of what is owed is called, after the schedule's own: no schedule's name may end so.
OWED = ".owed"
#: Seconds of the shortest window with which a schedule works.
WINDOW_MIN = 4.0


@dataclass(frozen=True, slots=True)
class Tick:
    """One instant of a schedule: what its function is called with."""

    schedule: str  #: its name
    instant: datetime  #: when it was due, in the schedule's time zone
    attempt: int  #: from 1; a greater one says that an earlier one may have run, in whole or in part

    @property
    def identity(self) -> str:
        """`schedule@instant`, the same for each attempt and each process: an idempotency key for what the tick does.

        >>> Tick("nightly", datetime(2026, 11, 30, 2, tzinfo=UTC), 1).identity
        'nightly@2026-11-30T02:00:00Z'
        """
        return f"{self.schedule}@{INSTANT.text(self.instant)}"


class ScheduleOptions(TypedDict, total=False):
    """What `worker.every` takes beside the plan: those of a queue that have a meaning for ticks; see `Options`.

    `lease`: seconds after which another process takes over a tick whose process died; 30.
    """

    concurrency: int
    retry: Retry
    breaker: Breaker | None
    timeout: Seconds | None
    max_extend: Seconds
    max_deliveries: int
    lease: Seconds


class Instant:
    """The codec of ticks: an instant in UTC, as ISO 8601 has it."""

    name = "instant"
    content_type: str | None = "text/plain"

    @staticmethod
    def text(data: datetime) -> str:
        """As it stands in an identity."""
        return data.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"

    def encode(self, data: datetime, /) -> bytes:
        """See `Codec`."""
        return self.text(data).encode()

    def decode(self, body: bytes, /) -> datetime:
        """See `Codec`."""
        found = datetime.fromisoformat(body.decode())
        if found.tzinfo is None:
            raise ValueError("an instant without a time zone")
        return found.astimezone(UTC)


INSTANT = Instant()


@dataclass(frozen=True, slots=True)
class Schedule:
    """One schedule of a worker."""

    schedule: str
    function: Callable[[Tick], Any]
    plan: Plan
    missed: Missed
    jitter: float
    handler: Handler  #: of its queue; its function is the user's, which `ticking.py` wraps

    @property
    def name(self) -> str:
        """The function's name."""
        return self.handler.name

    @property
    def source(self) -> str:
        """The queue of its ticks."""
        return self.handler.source

    @property
    def names(self) -> tuple[str, ...]:
        """By which `only` finds it."""
        return self.name, self.source, self.schedule

    @property
    def queues(self) -> tuple[str, ...]:
        """That are its own."""
        return self.source, f"{self.source}{OWED}"

    def guard(self, function: Callable[[Any], Any]) -> Handler:
        """The handler of the queue that says that a tick is owed: see `ticking.py`. It has no dead letters."""
        properties = {"max_deliveries": 0} | {key: value for key, value in self.handler.properties.items() if key == "lease"}
        return replace(
            self.handler,
            function=function,
            topic=f"{self.source}{OWED}",
            concurrency=1,
            prefetch=1,
            retry=Retry(),
            breaker=None,
            timeout=None,
            properties=properties,
        )


def read(every: object, name: str | None, tz: Any) -> Plan:
    """The plan; what is wrong with it or the name is found before there is a function."""
    check_called(every, '@worker.every(60) or @worker.every("0 2 * * *")')
    if name is not None:
        _check_name(name)
    return make_plan(every, tz)


def _check_name(name: object) -> str:
    title = text("schedule", name)
    if title.endswith(OWED):
        raise InvalidArgument(
            f"schedule {title!r}: {OWED!r} at the end is for the queue of what another schedule is owed; take another name"
        )
    return title


def register(
    plan: Plan,
    function: Any,
    name: str | None,
    missed: Any,
    jitter: object,
    options: Mapping[str, Any],
    *,
    coroutine: bool,
) -> Schedule:
    """The schedule, with all of it checked; what the backend must claim is checked when the worker starts."""
    called = getattr(function, "__name__", type(function).__name__)
    title = _check_name(called if name is None else name)
    if missed not in ("skip", "once"):
        raise InvalidArgument(f"{called}: missed={missed!r}: allowed are 'skip' and 'once'")
    spread = seconds("jitter", jitter, low=0.0, high=86400.0, allowed="0 to 86400 seconds")
    unknown = sorted(options.keys() - ScheduleOptions.__annotations__.keys())
    if unknown:
        known = ", ".join(sorted(ScheduleOptions.__annotations__))
        raise InvalidArgument(f"{called}: {unknown[0]!r} is no option of a schedule; known: {known}")
    asked = {"prefetch": options.get("concurrency", 1), **options}  # what waits here could run elsewhere
    handler = make(function, f"schedule.{title}", None, INSTANT, None, asked, coroutine=coroutine)
    return Schedule(title, function, plan, missed, spread, handler)


def late(claims: BrokerCapabilities) -> float:
    """For how many seconds after its instant a tick may be published."""
    return min(LATE, claims.dedup_window / WINDOWS)


def check_claims(schedule: Schedule, claims: BrokerCapabilities, backend: str) -> None:
    """`Unsupported` where this backend cannot keep the schedule."""
    what = f"the schedule {schedule.schedule!r} on {backend}"
    if claims.dedup is Support.ABSENT or claims.dedup_window < WINDOW_MIN:
        raise Unsupported(
            f"{what}: every process publishes each tick, and the backend must store it once, so it has to claim dedup, with a "
            f"window of {WINDOW_MIN:g} s or more (?dedup=). `narrowboat backends` shows which do. Give Worker(schedules=...) "
            "the URL of one of them: it carries the ticks alone",
            backend=backend,
        )
    if (schedule.missed == "once" or schedule.jitter) and claims.delay is Support.ABSENT:
        raise Unsupported(f"{what}: missed='once' and jitter need the claim delay", backend=backend)
