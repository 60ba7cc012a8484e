"""A handler's source: it consumes, pauses while the downstream fails, and waits for a backend that is away.

It is written once for both faces. What differs between threads and tasks is the intake, one for each source; nothing here
waits but through it.

No more handlers run at a time than the source has places (`concurrency`), those included that were left behind: by a `run` that
ended with its backend, or by one whose handlers all hung. A place that they keep is missing until they end.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

from narrowboat._engine.backoff import after_error
from narrowboat._messages.handling import describe, tell_handled, telling
from narrowboat._messages.settle import ACK
from narrowboat.capabilities import BrokerCapabilities
from narrowboat.clock import Clock
from narrowboat.contract.messages import Ack, Return
from narrowboat.errors import NarrowboatError
from narrowboat.working.breaker import Circuit, failed
from narrowboat.working.failure import is_the_messages, outcomes, say, tell, tell_unacked
from narrowboat.working.handlers import Handler, Handling
from narrowboat.working.health import SourceHealth, State
from narrowboat.working.intake_base import BaseIntake, Misused


class Consuming:
    """One source of a worker's supervisor."""

    def __init__(
        self, handler: Handler, intake: BaseIntake, claims: BrokerCapabilities, clock: Clock, random: Callable[[], float]
    ) -> None:
        self.handler = handler
        self._intake = intake
        self._claims = claims
        self._clock = clock
        self._random = random
        self._mutex = threading.Lock()  # of the counters; never taken by a signal handler
        self._circuit = Circuit()
        self._handled = self._failed = 0
        self._busy = 0  # calls of the handler that are under way
        self._turn = 0  # calls of an earlier one were left behind
        self._beside: Sequence[Consuming] = (self,)
        self._declared = False
        self._known = False  # declared at least once
        self._draining = self._pausing = self._stepping = False
        self._misused: BaseException | None = None
        self._absences = 0  # answers that failed in a row
        self._away_since = self._looks_at = math.inf
        self._state: State = "new"
        self._error: str | None = None

    def wait_for(self, sources: Sequence[Consuming]) -> None:
        """Consume nothing until all of these are declared: a handler may publish to a topic that another one subscribes to."""
        self._beside = sources

    # -- as a source ----------------------------------------------------------------------------------------------

    def start(self, ended: Callable[[BaseException | None], None]) -> None:
        """Consume in a thread or task of its own."""
        self._ended = ended
        self._state = "starting"
        self._intake.spawn(self._work(), f"narrowboat-worker-{self.handler.source}", self._finished)

    def _finished(self, error: BaseException | None) -> None:
        self._state = "ended" if error is None else "failed"
        self._error = None if error is None else describe(error)
        if self._busy:
            text = "%r has ended before %d of the calls of %s: what those have not settled comes again"
            say("warning", text, self.handler.source, self._busy, self.handler.name)
        self._ended(error)

    def drain(self) -> None:
        """Fetch nothing more; handlers that run finish."""
        self._draining = True
        self._intake.stop()

    def hurry(self) -> None:
        """Give back what they have not finished, and wait for no handler."""
        if self._intake.hurry() and self._busy:
            self._finished(None)

    def health(self) -> SourceHealth:
        """How it fares."""
        circuit, state, handler, resumes = self._circuit, self._state, self.handler, math.inf
        if state == "running" and circuit.pauses:
            resumes = circuit.until
            state = "paused" if self._clock() < resumes else "probing"
        elif state == "unavailable":
            resumes = self._looks_at
        if state not in ("ended", "failed"):
            state = "draining" if self._draining else "hung" if self._intake.hung >= handler.concurrency else state
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
        while not self._draining and self._misused is None:
            try:
                await self._next()
            except NarrowboatError as error:
                if not error.retryable:
                    raise
                if not self._draining:  # else its messages come back by themselves, and it has drained
                    self._went_away(error)
        if self._misused is not None:
            raise self._misused

    async def _next(self) -> None:
        """Pause where that is due, else consume until something changes."""
        until = self._looks_at if self._state == "unavailable" else self._circuit.until
        if self._busy >= self.handler.concurrency:
            until = math.inf  # one of them ends it
        if self._clock() < until:
            await self._intake.wait(until)
            return
        if not self._declared:
            await self._intake.declare()
            self._declared = self._known = True
            self._is_there()
            for source in self._beside:
                source._intake.look()
        if not all(source._known for source in self._beside):
            await self._intake.wait(math.inf)
            return
        probing, self._pausing = self._circuit.pauses > 0, False
        try:
            await self._intake.consume(self, 1 if probing else self.handler.concurrency - self._busy, probing=probing)
        finally:
            with self._mutex:
                self._turn += 1

    def _went_away(self, error: NarrowboatError) -> None:
        self._declared = False
        self._absences += 1
        self._looks_at = self._clock() + after_error(self._absences, self._random)
        self._error = describe(error)
        if self._absences == 1:
            self._away_since = self._clock()
            say("warning", "%r cannot be consumed, and is tried again: %s", self.handler.source, error)
        self._state = "unavailable"

    def _is_there(self) -> None:
        if self._absences:
            say("info", "%r is consumed again after %.1f s", self.handler.source, self._clock() - self._away_since)
        self._absences, self._error, self._state = 0, None, "running"

    # -- a message, or a batch ------------------------------------------------------------------------------------

    @telling
    async def one(self, message: Any) -> None:
        """Call the handler with a message. It raises where the message could not be settled, so that `run` settles it."""
        error = await self._handle((message,), message)
        if error is not None and not message.settled and not message.lost:
            raise error

    async def many(self, batch: Sequence[Any]) -> None:
        """Call the handler with a batch."""
        await self._handle(tuple(batch), batch)

    async def step(self) -> bool:
        """For tests: handle what there is now, one message or batch. False: there is nothing, or the handler runs already."""
        if self._stepping:
            return False
        self._stepping = True
        try:
            messages = await self._intake.take()
            if messages:
                await self._handle(tuple(messages), messages[0] if self.handler.batch is None else messages)
        finally:
            self._stepping = False
        if self._misused is not None:
            raise self._misused
        return bool(messages)

    async def open(self) -> None:
        """For tests: begin to consume, so that what is published from now on comes here."""
        await self._intake.open()

    async def leave(self) -> None:
        """For tests: end that."""
        await self._intake.leave()

    async def _handle(self, messages: tuple[Any, ...], argument: Any) -> Exception | None:
        handler = self.handler

        begun = self._clock()

        def late(error: Exception) -> Any:
            return self._fail(messages, error, begun)

        with self._mutex:
            turn = self._turn
            self._busy += 1
        if self._pausing:
            self._intake.pause()  # again: it may have come before there was a `run` to pause
        try:
            if await self._intake.call(Handling(handler.source, handler.name, messages), argument, late):
                for message in messages:
                    over = message.settled or message.lost
                    tell_handled(message, self._clock() - begun, None, None if over else ACK)
                await self._ack(messages)
                self._count(None, messages)
        except Misused as misused:
            self._misused = misused.error
            self._intake.stop()  # first: what goes back would come here again
            await self._settle(messages, Return())
            return misused.error
        except Exception as error:
            await self._fail(messages, error, begun)
            return error
        finally:
            with self._mutex:
                self._busy -= 1
            if turn != self._turn:  # a place that was missing is free
                self._pause()
            self._let_go()
        return None

    async def _ack(self, messages: Sequence[Any]) -> None:
        """After the handler has returned: what it has not settled itself."""
        left = [message for message in messages if not message.settled]
        lost = [message for message in left if message.lost]
        answers = await self._settle([message for message in left if message not in lost], Ack())
        unsettled = next((answer for answer in answers if answer is not None), None)
        if lost or unsettled is not None:
            tell_unacked(self.handler, lost, unsettled, sum(answer is not None for answer in answers))

    async def _settle(self, messages: Sequence[Any], outcome: Any) -> Sequence[NarrowboatError | None]:
        """Settle those that are still ours: one answer for each."""
        if not messages:
            return ()
        try:
            return await self._intake.settle(messages, outcome)
        except NarrowboatError as met:  # the broker was closed meanwhile
            return [met] * len(messages)

    def _pause(self) -> None:
        """Consume no more for now. Handlers that run may finish, and what was not begun goes back."""
        self._pausing = True
        self._intake.pause()

    def _let_go(self) -> None:
        """Where all that is waited for hangs: leave it behind, and what was fetched to others."""
        hung = self._intake.hung
        if hung and (hung >= self.handler.concurrency or (self._pausing and hung >= self._busy)):
            self._intake.hurry()

    async def _fail(self, messages: tuple[Any, ...], error: Exception, begun: float) -> None:
        handler, duration = self.handler, self._clock() - begun
        if any(message.undecodable for message in messages):
            for message in messages:  # all of them are found now: one at each attempt would use up those of the others
                with contextlib.suppress(Exception):
                    message.data  # noqa: B018  # looked at for that
        grouped = outcomes(handler, messages, error, self._claims, self._random)
        settled_as = {message: outcome for outcome, alike in grouped.items() for message in alike}
        for message in messages:
            tell_handled(message, duration, error, settled_as.get(message))
        for outcome, alike in grouped.items():
            answers = await self._settle(alike, outcome)
            tell(handler, outcome, alike, error, next((answer for answer in answers if answer is not None), None))
        if not grouped:
            tell(handler, None, messages, error, None)
        self._count(error, messages)
        self._let_go()

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
        self._pause()
