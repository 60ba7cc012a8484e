"""How ticks come into their queues: every process of the fleet publishes each of them, and the backend stores it once.

There is no process that the others depend on. At an instant each worker publishes the tick with the id `schedule@instant`; the
backend drops all but the first (the claim `dedup`). A handler of the queue then runs it, in one process, and in another one
after the lease when that process dies.

With `missed="once"` a second queue, `schedule.NAME.owed`, holds a message that is due at the next instant, whether or not a
worker is there then. It says that this tick is owed. The worker that gets it publishes the tick, which the backend drops where
others have done so, and what is owed next. After an outage that message is what is left of the ticks that nobody published.

Written once for both faces: what differs is in `posting.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from narrowboat.capabilities import BrokerCapabilities
from narrowboat.clock import Clock
from narrowboat.errors import NarrowboatError
from narrowboat.working.failure import say
from narrowboat.working.handlers import Handler
from narrowboat.working.health import SourceHealth
from narrowboat.working.plan import due, holds
from narrowboat.working.publisher import Publisher
from narrowboat.working.schedule import Schedule, Tick, check_claims, late

#: Seconds of the longest wait: the wall clock may be set meanwhile.
LOOK = 5.0
#: The header of a tick that may have run before, because the process that published it out of what was owed had died.
EARLIER = "earlier-attempts"


class Bound:
    """One schedule on one broker: what publishes its ticks, and what runs them."""

    def __init__(
        self,
        schedule: Schedule,
        broker: Any,
        posting: Any,
        wall: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        claims: BrokerCapabilities = broker.capabilities
        check_claims(schedule, claims, broker._core.backend)
        self.schedule = schedule
        self.late = late(claims)
        self.ticks = replace(schedule.handler, function=posting.handler(self.run))
        self.owed: Handler | None = None
        self._posting = posting
        self._longest = claims.delay_max
        self._wall = wall
        self._random = random
        self._queue = self.ticks.open(broker)
        if schedule.missed == "once":
            self.owed = schedule.guard(posting.handler(self.settle))
            self._guard = self.owed.open(broker)

    def now(self) -> datetime:
        """By the wall clock."""
        return datetime.fromtimestamp(self._wall(), UTC)

    async def publish(self, instant: datetime, earlier: int = 0) -> None:
        """The tick of `instant`, unless it is there already."""
        delay = max(0.0, (instant - self.now()).total_seconds())
        if self.schedule.jitter:
            delay += self.schedule.jitter * self._random()
        await self._posting.post(
            self._queue,
            instant,
            id=Tick(self.schedule.schedule, instant, 1).identity,
            delay=delay,
            headers={EARLIER: str(earlier)} if earlier else None,
        )

    async def owe(self, instant: datetime) -> None:
        """Say that the tick of `instant` is owed, unless that is said already."""
        if self.owed is None:
            return
        left = max(0.0, (instant - self.now()).total_seconds())
        whole = left <= self._longest  # else it comes earlier, and goes on
        identity = Tick(self.schedule.schedule, instant, 1).identity
        await self._posting.post(self._guard, instant, id=identity if whole else None, delay=min(left, self._longest))

    async def run(self, message: Any) -> None:
        """A tick was delivered."""
        schedule, instant = self.schedule, message.data
        earlier = message.headers.get(EARLIER, "0")
        attempt = message.attempt + (int(earlier) if earlier.isdecimal() else 0)
        passed = (self.now() - instant).total_seconds()
        if schedule.missed == "skip" and attempt == 1 and passed > self.late + schedule.jitter:
            say("warning", "schedule %r: the tick of %s is %.0f s late, and is skipped", schedule.schedule, instant, passed)
            return
        await self._posting.call(schedule.function, Tick(schedule.schedule, instant.astimezone(schedule.plan.zone), attempt))

    async def settle(self, message: Any) -> None:
        """A tick is owed."""
        instant: datetime = message.data
        now, plan = self.now(), self.schedule.plan
        if instant > now + timedelta(seconds=self.late):  # it could not be delayed for so long at once
            await self.owe(instant)
        elif holds(plan, instant):  # else the schedule has changed
            await self.publish(instant, message.attempt - 1)
            await self.owe(plan.after(max(instant, now)))


class Ticking(Publisher):
    """The source of a worker's supervisor that publishes the ticks of all its schedules."""

    _BEGINS = "running"

    def __init__(self, schedules: Sequence[Bound], seat: Any, clock: Clock, random: Callable[[], float]) -> None:
        super().__init__("narrowboat-worker-schedules", seat, clock, random)
        self._schedules = schedules
        self._missed = 0

    def health(self) -> SourceHealth:
        """How it fares; `handled` are the ticks that this process published, `failed` those that it could not in time."""
        return SourceHealth("schedules", "every", self._shown(), self._published, self._missed, error=self._error)

    async def _work(self) -> None:
        last = {bound: bound.now() for bound in self._schedules}  # what was due before is not this process's
        owing = set(self._schedules)
        while not self._draining:
            pause = LOOK
            try:
                for bound in self._schedules:
                    pause = min(pause, await self._step(bound, last, owing))
                self._is_there()
                self._state = "running"
            except NarrowboatError as error:
                if not error.retryable and not self._draining:
                    raise
                pause = self._went_away(error)
            if not self._draining:
                await self._seat.wait(self._clock() + pause)

    async def _step(self, bound: Bound, last: dict[Bound, datetime], owing: set[Bound]) -> float:
        """Publish what is due; seconds until there is more to do."""
        plan, now = bound.schedule.plan, bound.now()
        ahead = (last[bound] - now).total_seconds()
        if ahead > bound.late:  # by less it waits: all up to `last` is published. The window for ids is several times as long
            say(
                "warning",
                "schedule %r: the wall clock was set back by %.0f s, and it goes on from now",
                bound.schedule.schedule,
                ahead,
            )
            last[bound] = now
            owing.add(bound)
        instant = due(plan, last[bound], now, bound.late)
        if bound in owing:
            await bound.owe(instant)
            owing.discard(bound)
        left = (instant - bound.now()).total_seconds()
        if left > 0:
            return left
        await bound.publish(instant)
        self._published += 1
        if instant != plan.after(last[bound]):
            self._missed += 1
            say("warning", "schedule %r: this process stood still, and passed over what was due", bound.schedule.schedule)
        last[bound] = instant
        owing.add(bound)
        return 0.0

    def _tell_away(self, error: Exception) -> None:
        say("warning", "schedules: ticks cannot be published, and are tried again: %s", error)

    def _tell_back(self) -> None:
        say("info", "schedules: ticks are published again")
