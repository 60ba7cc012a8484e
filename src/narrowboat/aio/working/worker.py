# Made from narrowboat/working/worker.py by tools/generate_aio.py: change that file, and run this script.
"""A worker: several handlers in one process, under one supervisor, with one way to start and one to end.

Use it where a process handles several queues or subscriptions, or wants retries by exception, time limits and pauses while a
downstream fails. For one queue, `queue.run(handle)` does. It stands on `run` and `consume`, and promises nothing about delivery
that they do not.
"""

from __future__ import annotations

import random as random_module
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from narrowboat._engine.checks import flag, seconds
from narrowboat._engine.forks import watch_forks
from narrowboat._engine.holdable import AsyncOnly
from narrowboat._engine.signals import Signals
from narrowboat._messages.around import check as check_around
from narrowboat._messages.checks import MAX_DURATION, check_source_name
from narrowboat.aio.locking import Locks, locks
from narrowboat.aio.messaging.message import Message, Seconds
from narrowboat.aio.messaging.messaging import Messaging, broker
from narrowboat.aio.working.intake import Intake, Result
from narrowboat.aio.working.scheduling import Scheduling
from narrowboat.clock import Clock, SystemClock
from narrowboat.codecs import Codec
from narrowboat.errors import InvalidArgument
from narrowboat.events import Listener, check
from narrowboat.working.consuming import Consuming
from narrowboat.working.handlers import Around, Handler, Handlers, Options, SubscriptionOptions, check_called
from narrowboat.working.health import Health
from narrowboat.working.supervisor import Source, Supervisor

if TYPE_CHECKING:
    from narrowboat.aio.working.testing import Rehearsal

T = TypeVar("T")


class Worker(Scheduling, AsyncOnly):
    """Register handlers, then `run()` it; where somebody else has the process, use it in an `async with`.

    Args:
        broker: a URL, or a broker that is there already and stays open; None reads NARROWBOAT_BROKER_URL when it starts.
        locks: the same for `worker.locks`; None reads NARROWBOAT_LOCKS_URL when it is asked for.
        schedules: the same for the ticks of `every`, where the broker does not claim `dedup`; None: the broker.
        grace: seconds that running handlers are given at the end.
        around: what stands around each call of a handler, the first outermost: functions of a `narrowboat.working.Handling`
            that give a context manager. It sees what the handler raises; what it swallows has not failed.
        listeners: called with each record of `narrowboat.events`, of the brokers and the locks that it opens itself.
        clock: for tests; the machine's own unless given.
        random: for tests; numbers in [0, 1) for jitter.
        now: for tests of schedules; seconds since the epoch, the machine's own unless given.
    """

    def __init__(
        self,
        broker: str | Messaging | None = None,
        locks: str | Locks | None = None,
        *,
        schedules: str | Messaging | None = None,
        grace: Seconds = 30,
        around: Sequence[Around] = (),
        listeners: Sequence[Listener] = (),
        clock: Clock | None = None,
        random: Callable[[], float] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        if not callable(now):
            raise InvalidArgument(f"now={now!r}: expected a function that gives seconds since the epoch, such as time.time")
        self._now = now
        self._given = broker, locks, schedules
        self._broker: Messaging | None = broker if isinstance(broker, Messaging) else None
        self._locks: Locks | None = locks if isinstance(locks, Locks) else None
        self._ticks: Messaging | None = schedules if isinstance(schedules, Messaging) else None
        for name, given, kind in (("broker", broker, Messaging), ("locks", locks, Locks), ("schedules", schedules, Messaging)):
            if not isinstance(given, str | kind | None):
                raise InvalidArgument(f"{name}={given!r}: expected a URL, or {kind.__module__}.{kind.__name__}")
        self._grace = seconds("grace", grace, low=0.0, high=MAX_DURATION, allowed="0 or more seconds")
        self._around = check_around(around)
        self._listeners = check(listeners)
        self._clock: Clock = SystemClock() if clock is None else clock
        self._random = random_module.random if random is None else random
        self._handlers = Handlers(coroutines=Intake.COROUTINES)
        self._supervisor: Supervisor | None = None
        self._lent: tuple[Messaging | None, Locks | None] | None = None  # what was there before a test
        self._opening = threading.Lock()  # handlers on several threads may look at once
        watch_forks(self)

    @property
    def broker(self) -> Messaging:
        """Its broker, for handlers that publish; opened at the first look."""
        with self._opening:
            if self._broker is None:
                url = self._given[0]
                self._broker = broker(
                    url if isinstance(url, str) else None, clock=self._clock, random=self._random, listeners=self._listeners
                )
            return self._broker

    @property
    def locks(self) -> Locks:
        """Its locks, for handlers that need one; opened at the first look."""
        with self._opening:
            if self._locks is None:
                url = self._given[1]
                self._locks = locks(
                    url if isinstance(url, str) else None, clock=self._clock, random=self._random, listeners=self._listeners
                )
            return self._locks

    # -- registration ---------------------------------------------------------------------------------------------

    @overload
    def queue(
        self, name: str, *, codec: None = None, batch: None = None, **options: Unpack[Options]
    ) -> Callable[[Callable[[Message[bytes]], Result]], Callable[[Message[bytes]], Result]]: ...

    @overload
    def queue(
        self, name: str, *, codec: Codec[T], batch: None = None, **options: Unpack[Options]
    ) -> Callable[[Callable[[Message[T]], Result]], Callable[[Message[T]], Result]]: ...

    @overload
    def queue(
        self, name: str, *, codec: None = None, batch: int, **options: Unpack[Options]
    ) -> Callable[[Callable[[Sequence[Message[bytes]]], Result]], Callable[[Sequence[Message[bytes]]], Result]]: ...

    @overload
    def queue(
        self, name: str, *, codec: Codec[T], batch: int, **options: Unpack[Options]
    ) -> Callable[[Callable[[Sequence[Message[T]]], Result]], Callable[[Sequence[Message[T]]], Result]]: ...

    def queue(self, name: str, *, codec: Any = None, batch: int | None = None, **options: Any) -> Any:
        """Register the decorated function for a queue. It acks by returning and fails by raising; it is returned as it is.

        Args:
            name: the queue.
            codec: as for `broker.queue`.
            batch: hand over up to this many messages at once, as a sequence; those that the handler did not settle itself are
                acked together, or fail together. None: one message.
            **options: those of `narrowboat.working.Options`, and the source's own: `max_deliveries`, `lease`, `ordered`,
                `priorities`.

        Raises:
            InvalidArgument: the function or an option cannot work, or the queue has a handler.
        """
        return self._register(name, None, codec, batch, options)

    @overload
    def subscription(
        self, topic: str, group: str, *, codec: None = None, batch: None = None, **options: Unpack[SubscriptionOptions]
    ) -> Callable[[Callable[[Message[bytes]], Result]], Callable[[Message[bytes]], Result]]: ...

    @overload
    def subscription(
        self, topic: str, group: str, *, codec: Codec[T], batch: None = None, **options: Unpack[SubscriptionOptions]
    ) -> Callable[[Callable[[Message[T]], Result]], Callable[[Message[T]], Result]]: ...

    @overload
    def subscription(
        self, topic: str, group: str, *, codec: None = None, batch: int, **options: Unpack[SubscriptionOptions]
    ) -> Callable[[Callable[[Sequence[Message[bytes]]], Result]], Callable[[Sequence[Message[bytes]]], Result]]: ...

    @overload
    def subscription(
        self, topic: str, group: str, *, codec: Codec[T], batch: int, **options: Unpack[SubscriptionOptions]
    ) -> Callable[[Callable[[Sequence[Message[T]]], Result]], Callable[[Sequence[Message[T]]], Result]]: ...

    def subscription(self, topic: str, group: str, *, codec: Any = None, batch: int | None = None, **options: Any) -> Any:
        """Register the decorated function for a subscription: as `queue`, and `start` as for `topic.subscription`."""
        return self._register(topic, group, codec, batch, options)

    def _register(self, topic: str, group: str | None, codec: Any, batch: int | None, options: dict[str, Any]) -> Any:
        check_called(topic, '@worker.queue("orders")' if group is None else '@worker.subscription("prices", "page")')
        check_source_name("queue" if group is None else "topic", topic)

        def register(function: Any) -> Any:
            self._check_idle()
            self._handlers.add(function, topic, group, codec, batch, options)
            return function

        return register

    # -- its life -------------------------------------------------------------------------------------------------

    async def run(self, *, only: Iterable[str] = (), signals: bool = True) -> None:
        """Handle messages until stopped: by SIGTERM, Ctrl-C or `stop()`.

        Running handlers finish then, for up to the grace time; a second signal ends that. A backend that is away is
        waited for. Where a source fails for good the others drain, and its error is raised.

        Args:
            only: names of handlers or sources; all unless given.
            signals: end on SIGTERM and SIGINT, as `queue.run`.

        Raises:
            ConfigurationError: no handlers, none of that name, or no such backend; nothing was consumed.
            InvalidArgument: a source's properties cannot work; nothing was consumed.
            NarrowboatError: what ended a source, such as `Conflict` or `AccessDenied`.
        """
        with_signals = flag("signals", signals)
        supervisor = await self._begin(only)
        with Signals(supervisor if with_signals else None):
            try:
                supervisor.start()
                await supervisor.wait()
            except BaseException:
                await supervisor.abandon()
                raise
            finally:
                await self._end()

    def test(self) -> Rehearsal:
        """For tests: the handlers on a broker in memory, called by `drain()` and by nobody else.

        Use it in an `async with`. Messages go through handlers, `around`, retries and dead letters as in `run`. Neither pauses
        nor time limits of threads apply.
        """
        from narrowboat.aio.working.testing import Rehearsal  # needed by tests only

        return Rehearsal(self)

    def stop(self) -> None:
        """Drain, as SIGTERM does: from any thread or signal handler. Nothing happens where it does not run."""
        if self._supervisor is not None:
            self._supervisor.stop()

    def health(self) -> Health:
        """How each handler fares, from any thread; it asks no backend."""
        supervisor, messages, ticks = self._supervisor, self._broker, self._ticks
        if supervisor is None:
            return Health(())
        broker = None if messages is None else messages.health()  # with terms alone there is none
        schedules = None if ticks is None or ticks is messages else ticks.health()
        return Health(tuple(source.health() for source in supervisor.sources), broker, schedules)

    def _listen(self, listener: Listener) -> None:
        """For what runs it: one more listener, of what it has and of what it opens."""
        self._listeners = (*self._listeners, listener)
        for each in (self._broker, self._locks, self._ticks):
            if each is not None:
                each._core.listeners = (*each._core.listeners, listener)

    async def __aenter__(self) -> Worker:
        supervisor = await self._begin(())
        supervisor.tells = True
        supervisor.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        supervisor = self._supervisor
        if supervisor is None:
            return
        supervisor.stop()
        try:
            await supervisor.wait()
        except BaseException as met:
            await supervisor.abandon()
            if error is None or met is not supervisor.error:
                raise
        finally:
            await self._end()

    async def _begin(self, only: Iterable[str]) -> Supervisor:
        """Everything that can be wrong is found here, before anything is consumed."""
        self._check_idle()
        picked = self._handlers.pick(only)
        try:
            handlers = [each for each in picked if isinstance(each, Handler)]
            consuming = self._sources(handlers, self.broker, self._clock) if handlers else []
            sources: list[Source] = [*consuming, *self._others(picked, self._clock, consuming)]
        except BaseException:
            await self._end()
            raise
        supervisor = Supervisor(sources, self._grace, Intake.RUNTIME(self._clock))
        with self._opening:
            self._check_idle()  # again: two threads may have come so far
            self._supervisor = supervisor
        return supervisor

    def _sources(
        self, handlers: Iterable[Handler], messages: Messaging, clock: Clock, beside: Sequence[Consuming] = ()
    ) -> list[Consuming]:
        """Those of the handlers. `beside`: the others on the same broker; none of them consumes before all are declared."""
        runtime = Intake.RUNTIME(clock)
        sources = [
            Consuming(
                handler,
                Intake(handler, handler.open(messages), self._around, runtime, self._grace),
                messages.capabilities,
                clock,
                self._random,
            )
            for handler in handlers
        ]
        together = [*beside, *sources]
        for source in together:
            source.wait_for(together)
        return sources

    def _lend(self, messages: Messaging | None, held: Locks | None, clock: Clock | None) -> list[Consuming]:
        """For a test: its broker and locks instead of ours, and the sources on them; with None all as before."""
        if messages is None or clock is None:
            if self._lent is not None:
                (self._broker, self._locks), self._lent = self._lent, None
            return []
        self._check_idle()
        handlers = [replace(handler, breaker=None) for handler in self._rehearsed(messages)]  # a drain pauses for nobody
        sources = self._sources(handlers, messages, clock)
        self._lent = self._broker, self._locks
        self._broker, self._locks = messages, held
        return sources

    def _check_idle(self) -> None:
        """A run within a test would close the test's broker; a test within a run or a test would end with another's.

        A handler that is registered meanwhile would get nothing.
        """
        if self._supervisor is not None:
            raise InvalidArgument("this worker runs already; register handlers before, and run it again once it has ended")
        if self._lent is not None:
            raise InvalidArgument("this worker is under test: leave `with worker.test()` first")

    def forked(self) -> None:
        """In a forked child: what runs is the parent's, and the child may run it as well."""
        self._supervisor = None
        self._opening = threading.Lock()

    async def _end(self) -> None:
        """Close what it has opened itself."""
        self._supervisor = None
        messages, held, ticks = self._broker, self._locks, self._ticks
        if ticks is not None and ticks is not self._given[2]:
            self._ticks = None
            await ticks.close()
        if messages is not None and messages is not self._given[0]:
            self._broker = None
            await messages.close()
        if held is not None and held is not self._given[1]:
            self._locks = None
            await held.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {', '.join(each.source for each in self._handlers) or 'no handlers'}>"
