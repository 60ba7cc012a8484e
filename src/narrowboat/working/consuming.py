"""A handler's source: it consumes, pauses while the downstream fails, and waits for a backend that is away.

It is written once for both faces. What differs between threads and tasks is the `Intake`, one for each source; nothing here
waits but through it.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from narrowboat._engine.backoff import after_error
from narrowboat.capabilities import BrokerCapabilities
from narrowboat.clock import Clock
from narrowboat.errors import NarrowboatError
from narrowboat.working.breaker import Circuit, failed
from narrowboat.working.failure import is_the_messages, outcomes, say, tell
from narrowboat.working.handlers import Handler, Handling
from narrowboat.working.health import SourceHealth, State


class Intake(Protocol):
    """What threads and tasks do differently for one source."""

    @property
    def hung(self) -> int:
        """How many threads are in a handler whose time is up."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None], name: str, ended: Callable[[BaseException | None], None]) -> None:
        """Run `work` in a thread or task of its own, and tell how it ended."""
        ...

    async def declare(self) -> None:
        """Ask the backend for the source; raises what the backend says."""
        ...

    async def consume(self, consuming: Consuming, *, probing: bool) -> None:
        """Hand out messages until stopped; one at a time while probing."""
        ...

    async def call(self, handling: Handling, argument: Any, late: Callable[[Exception], Any]) -> bool:
        """Call the handler within what is around it. False: its time was up before, and `late` was called then."""
        ...

    async def settle(self, messages: Sequence[Any], outcome: Any) -> Sequence[NarrowboatError | None]:
        """Settle them alike: one answer for each."""
        ...

    async def open(self) -> None:
        """For tests: begin to consume."""
        ...

    async def take(self) -> Sequence[Any]:
        """For tests: the messages of one call, of those that are there now."""
        ...

    async def leave(self) -> None:
        """For tests: end what `open` began."""
        ...

    async def wait(self, until: float) -> None:
        """Until the clock says so, or until stopped."""
        ...

    def stop(self) -> None:
        """End `consume` and `wait` in good order. From a signal handler."""
        ...

    def hurry(self) -> None:
        """Give back what handlers have not finished."""
        ...


class Consuming:
    """One source of a worker's supervisor."""

    def __init__(
        self, handler: Handler, intake: Intake, claims: BrokerCapabilities, clock: Clock, random: Callable[[], float]
    ) -> None:
        self.handler = handler
        self._intake = intake
        self._claims = claims
        self._clock = clock
        self._random = random
        self._mutex = threading.Lock()  # of the counters; never taken by a signal handler
        self._circuit = Circuit()
        self._handled = self._failed = 0
        self._declared = False
        self._draining = False
        self._absences = 0  # answers that failed in a row
        self._away_since = self._looks_at = math.inf
        self._state: State = "new"
        self._error: str | None = None

    # -- as a source ----------------------------------------------------------------------------------------------

    def start(self, ended: Callable[[BaseException | None], None]) -> None:
        """Consume in a thread or task of its own."""

        def finished(error: BaseException | None) -> None:
            self._state = "ended" if error is None else "failed"
            self._error = None if error is None else f"{type(error).__name__}: {error}"
            ended(error)

        self._state = "starting"
        self._intake.spawn(self._work(), f"narrowboat-worker-{self.handler.source}", finished)

    def drain(self) -> None:
        """Fetch nothing more; handlers that run finish."""
        self._draining = True
        self._intake.stop()

    def hurry(self) -> None:
        """Give back what they have not finished."""
        self._intake.hurry()

    def health(self) -> SourceHealth:
        """How it fares."""
        circuit, state, handler, resumes = self._circuit, self._state, self.handler, math.inf
        if state == "running" and circuit.pauses:
            resumes = circuit.until
            state = "paused" if self._clock() < resumes else "probing"
        elif state == "unavailable":
            resumes = self._looks_at
        if self._draining and state not in ("ended", "failed"):
            state = "draining"
        left = max(0.0, resumes - self._clock()) if state in ("paused", "unavailable") else None
        return SourceHealth(
            handler.source,
            handler.name,
            state,
            self._handled,
            self._failed,
            circuit.failures,
            self._intake.hung,
            left,
            self._error,
        )

    # -- consuming ------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while not self._draining:
            try:
                await self._turn()
            except NarrowboatError as error:
                if not error.retryable:
                    raise
                if not self._draining:  # else its messages come back by themselves, and it has drained
                    self._went_away(error)

    async def _turn(self) -> None:
        """Pause where that is due, else consume until something changes."""
        until = self._looks_at if self._state == "unavailable" else self._circuit.until
        if self._clock() < until:
            await self._intake.wait(until)
            return
        if not self._declared:
            await self._intake.declare()
            self._declared = True
            self._is_there()
        await self._intake.consume(self, probing=self._circuit.pauses > 0)

    def _went_away(self, error: NarrowboatError) -> None:
        self._declared = False
        self._absences += 1
        self._looks_at = self._clock() + after_error(self._absences, self._random)
        self._error = f"{type(error).__name__}: {error}"
        if self._absences == 1:
            self._away_since = self._clock()
            say("warning", "%r cannot be consumed, and is tried again: %s", self.handler.source, error)
        self._state = "unavailable"

    def _is_there(self) -> None:
        if self._absences:
            say("info", "%r is consumed again after %.1f s", self.handler.source, self._clock() - self._away_since)
        self._absences, self._error, self._state = 0, None, "running"

    # -- a message, or a batch ------------------------------------------------------------------------------------

    async def one(self, message: Any) -> None:
        """Call the handler with a message. It raises where the message could not be settled, so that `run` settles it."""
        error = await self._handle((message,), message)
        if error is not None and not message.settled and not message.lost:
            raise error

    async def many(self, batch: Sequence[Any]) -> None:
        """Call the handler with a batch."""
        if await self._handle(tuple(batch), batch) is None:
            left = [message for message in batch if not message.settled and not message.lost]
            if left:
                await self._intake.settle(left, None)  # what is not settled by this comes back, and listeners hear of it

    async def step(self) -> bool:
        """For tests: handle what there is now, one message or batch. False: there is nothing."""
        messages = await self._intake.take()
        if not messages:
            return False
        if self.handler.batch is not None:
            await self.many(messages)
            return True
        message = messages[0]
        await self.one(message)
        if not message.settled and not message.lost:
            await self._intake.settle(messages, None)
        return True

    async def open(self) -> None:
        """For tests: begin to consume, so that what is published from now on comes here."""
        await self._intake.open()

    async def leave(self) -> None:
        """For tests: end that."""
        await self._intake.leave()

    async def _handle(self, messages: tuple[Any, ...], argument: Any) -> Exception | None:
        handler = self.handler

        def late(error: Exception) -> Any:
            return self._fail(messages, error)

        try:
            in_time = await self._intake.call(Handling(handler.source, handler.name, messages), argument, late)
        except Exception as error:
            await self._fail(messages, error)
            return error
        if in_time:
            self._count(None, messages)
        return None

    async def _fail(self, messages: tuple[Any, ...], error: Exception) -> None:
        handler = self.handler
        if any(message.undecodable for message in messages):
            for message in messages:  # all of them are found now: one at each attempt would use up those of the others
                with contextlib.suppress(Exception):
                    message.data  # noqa: B018  # looked at for that
        grouped = outcomes(handler, messages, error, self._claims, self._random)
        for outcome, alike in grouped.items():
            unsettled: NarrowboatError | None
            try:
                answers = await self._intake.settle(alike, outcome)
                unsettled = next((answer for answer in answers if answer is not None), None)
            except NarrowboatError as met:  # the broker was closed meanwhile
                unsettled = met
            tell(handler, outcome, alike, error, unsettled)
        if not grouped:
            tell(handler, None, messages, error, None)
        self._count(error, messages)

    def _count(self, error: Exception | None, messages: tuple[Any, ...]) -> None:
        with self._mutex:
            before = after = self._circuit
            if error is None:
                self._handled += 1
                after = Circuit()
            else:
                self._failed += 1
                for _ in () if is_the_messages(self.handler, messages, error) else messages:  # of a batch each has failed
                    after = failed(after, self.handler.breaker, self._clock(), self._random)
            self._circuit = after
        if after.pauses == before.pauses:
            return
        if after.pauses == 0:
            say("info", "%r goes on: %s succeeds again", self.handler.source, self.handler.name)
        elif before.pauses == 0:
            seconds = after.until - self._clock()
            say(
                "error",
                "%r pauses for %.1f s: %s failed %d times in a row",
                self.handler.source,
                seconds,
                self.handler.name,
                after.failures,
            )
        self._intake.stop()
