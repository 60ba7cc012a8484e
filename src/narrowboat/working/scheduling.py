"""What a worker has beside handlers of messages: schedules, elections and relays, registered, and as sources."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from datetime import tzinfo
from typing import TYPE_CHECKING, Any, Unpack

from narrowboat._engine.checks import seconds, text
from narrowboat._messages.checks import check_count
from narrowboat.clock import Clock
from narrowboat.errors import InvalidArgument
from narrowboat.events import Listener
from narrowboat.locking import Locks
from narrowboat.messaging.message import Seconds
from narrowboat.messaging.messaging import Messaging, broker
from narrowboat.outbox.base import OutboxBase
from narrowboat.working import posting
from narrowboat.working import schedule as plans
from narrowboat.working import term as terms
from narrowboat.working.consuming import Consuming
from narrowboat.working.handlers import Handler, Handlers, check_called
from narrowboat.working.intake import Intake, Result
from narrowboat.working.relaying import Relay, Relaying
from narrowboat.working.schedule import Missed, Schedule, ScheduleOptions, Tick
from narrowboat.working.supervisor import Source
from narrowboat.working.term import Elected
from narrowboat.working.ticking import Bound, Ticking

if TYPE_CHECKING:
    from narrowboat.electing import Term


class Scheduling(ABC):
    """A base of `Worker`, which has what is declared here."""

    _broker: Messaging | None
    _clock: Clock
    _given: tuple[str | Messaging | None, str | Locks | None, str | Messaging | None]
    _handlers: Handlers
    _listeners: tuple[Listener, ...]
    _now: Callable[[], float]
    _random: Callable[[], float]
    _ticks: Messaging | None

    @property
    @abstractmethod
    def broker(self) -> Messaging:
        """See `Worker`."""

    @property
    @abstractmethod
    def locks(self) -> Locks:
        """See `Worker`."""

    @abstractmethod
    def _check_idle(self) -> None: ...

    @abstractmethod
    def _sources(
        self, handlers: Iterable[Handler], messages: Messaging, clock: Clock, beside: Sequence[Consuming] = ()
    ) -> list[Consuming]: ...

    def every(
        self,
        every: str | Seconds,
        *,
        tz: str | tzinfo | None = None,
        missed: Missed = "skip",
        jitter: Seconds = 0,
        name: str | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> Callable[[Callable[[Tick], Result]], Callable[[Tick], Result]]:
        """Register the decorated function for a schedule: it is called with a `Tick`, once for each in the whole fleet.

        The broker must claim `dedup`. A tick whose process dies, or whose function raises, comes again with a greater
        `attempt`. Ticks of one schedule may overlap, in several processes.

        Args:
            every: a cron expression of five fields, such as "0 2 * * *" (needs `narrowboat[schedule]`), or seconds from tick to
                tick, counted from the epoch.
            tz: the time zone of a cron expression, such as "Europe/Berlin"; UTC.
            missed: what becomes of ticks while no worker was there: "skip" runs none of them, "once" the first of them.
            jitter: a tick comes later by up to these seconds.
            name: the schedule's; that of the function unless given. Its ticks are in the queue `schedule.NAME`.
            **options: those of `narrowboat.working.ScheduleOptions`.

        Raises:
            InvalidArgument: it cannot be read, never comes, there is no such time zone, or the name is taken.
            ConfigurationError: a cron expression, and cronsim is not installed.
        """
        plan = plans.read(every, name, tz)

        def decorate(function: Any) -> Any:
            self._check_idle()
            made = plans.register(plan, function, name, missed, jitter, options, coroutine=Intake.COROUTINES)
            self._handlers.add_other(made)
            return function

        return decorate

    def elected(
        self, name: str, *, ttl: Seconds = 30, renew: bool = True, label: str | None = None
    ) -> Callable[[Callable[[Term], Result]], Callable[[Term], Result]]:
        """Register the decorated function for an election: it runs in one process of the fleet at a time.

        It is called with a `Term` when this process is elected. A function that returns ends its term, and stands again after a
        second; one that raises after a pause that grows. On the lost term and the end of the worker see `Election.run`.

        Args:
            name: the election's, which is a name of `worker.locks`.
            ttl: as for `locks.elect`, and so are the others.
            renew: see there.
            label: see there.

        Raises:
            InvalidArgument: the function cannot work, or the name is taken.
        """
        check_called(name, '@worker.elected("indexer")')
        title = text("election", name)

        def decorate(function: Any) -> Any:
            self._check_idle()
            self._handlers.add_other(terms.register(function, title, ttl, renew, label, coroutine=Intake.COROUTINES))
            return function

        return decorate

    def relay(self, outbox: OutboxBase[Any], connect: Callable[[], Any], *, batch: int = 500, poll: Seconds = 1) -> None:
        """Publish to the worker's broker what programs store in an outbox: see `narrowboat.outbox`.

        Any number of workers may relay one outbox; one of them does at a time. A message may be published twice, under one id,
        where a process dies or an answer is lost. A message that the broker would never take is put aside in the table.

        Args:
            outbox: the outbox that the programs publish by.
            connect: opens a connection to their database, of any client that the outbox takes; called again after an outage.
            batch: how many messages are published together.
            poll: seconds between two looks at the table where the database cannot tell, and after a loss of what it told.

        Raises:
            InvalidArgument: an argument that cannot work, or the outbox is relayed already.
        """
        self._check_idle()
        if not isinstance(outbox, OutboxBase):
            raise InvalidArgument(f"relay({outbox!r}): expected a narrowboat.outbox.Outbox")
        if not callable(connect):
            raise InvalidArgument(
                f"relay(connect={connect!r}): expected a function that opens a connection, such as "
                "functools.partial(psycopg.connect, url): a lost one has to be opened again"
            )
        pause = seconds("poll", poll, low=0.01, high=3600.0, allowed="0.01 to 3600 seconds, as a number or a timedelta")
        self._handlers.add_other(Relay(outbox, connect, check_count("batch", batch, 1, 10_000), pause))

    def _others(self, picked: Sequence[Any], clock: Clock, consuming: Sequence[Consuming]) -> list[Source]:
        """The sources of what is no handler. `consuming`: those of the handlers."""
        found: list[Source] = [each.stand(self.locks) for each in picked if isinstance(each, Elected)]
        found += [
            Relaying(each, self.broker, posting, posting.Seat(Intake.RUNTIME(clock)), clock, self._random, self._now)
            for each in picked
            if isinstance(each, Relay)
        ]
        schedules = [each for each in picked if isinstance(each, Schedule)]
        if schedules:
            messages = self._of_schedules()
            bound = [self._bind(each, messages) for each in schedules]
            queues = [handler for each in bound for handler in (each.ticks, each.owed) if handler is not None]
            found += self._sources(queues, messages, clock, consuming if messages is self._broker else ())
            found.append(Ticking(bound, posting.Seat(Intake.RUNTIME(clock)), clock, self._random))
        return found

    def _rehearsed(self, messages: Messaging) -> list[Handler]:
        """The handlers of a test: those of messages, and those of ticks on its broker."""
        picked = self._handlers.pick(())
        bound = [self._bind(each, messages) for each in picked if isinstance(each, Schedule)]
        for each in bound:
            each.late = math.inf  # the test says which ticks there are
        return [each for each in picked if isinstance(each, Handler)] + [each.ticks for each in bound]

    def _bind(self, schedule: Schedule, messages: Messaging) -> Bound:
        return Bound(schedule, messages, posting, self._now, self._random)

    def _of_schedules(self) -> Messaging:
        """The broker of the ticks."""
        url = self._given[2]
        if url is None:
            return self.broker
        if self._ticks is None:
            self._ticks = broker(
                url if isinstance(url, str) else None, clock=self._clock, random=self._random, listeners=self._listeners
            )
        return self._ticks
