"""Settles and extends the deliveries of one consumer, through the lane of settlements. Once for both faces.

The caller waits for the answer, or posts the settlement and goes on. In both cases the answer is taken in exactly
once: for a caller that was interrupted or cancelled, the lane's thread does it. A delivery without an answer can be
settled again.

Automatic extension is decided in `extension.py`, and how a handler's message is settled in `handling.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from narrowboat._engine.exchange import BEGUN, DONE, Call
from narrowboat._engine.later_events import events
from narrowboat._messages.checks import check_extension
from narrowboat._messages.core import BrokerCore
from narrowboat._messages.delivery import HELD, SETTLING, TrackedDelivery, begin, confirm, final, withdraw
from narrowboat._messages.lifetime import Lifetime
from narrowboat._messages.polling import Polling
from narrowboat._messages.terms import Terms
from narrowboat._messages.window import EXPIRED, Window
from narrowboat.contract.messages import Ack, Delivery, Feed, Nack, Outcome, Reject
from narrowboat.errors import NarrowboatError, StaleDelivery

M = TypeVar("M", bound=TrackedDelivery[Any])

ACK = Ack()


class Settlement(Generic[M]):
    """See the module's text. It changes deliveries and the window under the window's mutex."""

    def __init__(self, core: BrokerCore, path: str, terms: Terms, life: Lifetime, window: Window[M], polling: Polling) -> None:
        self._core = core
        self._path = path
        self._terms = terms
        self._life = life
        self._window = window
        self._polling = polling
        self._posted = False  # a settlement was posted, and a close has to wait for it

    async def settle(self, entries: Sequence[M], outcome: Outcome) -> list[NarrowboatError | None]:
        """Settle each; None for each that is settled. The first settlement of a message wins."""
        core, life = self._core, self._life
        if life.closed or life.forked:
            return life.refusals(self._window, entries)
        mine: list[M] = []
        call: Call | None = None
        try:
            with self._window.mutex:
                begin(entries, mine)
            if not mine:
                return [entry._stale() for entry in entries]
            call = Call(core.SETTLE, self._items(mine, outcome), undo=self._later(mine, outcome))
            answers = self._finish(mine, call, outcome, await core.runtime.call(core.settlements, call))
        except BaseException:
            self._leave(mine, call)
            raise
        return answers if len(mine) == len(entries) else _spread(entries, mine, answers)

    def post(self, entries: Sequence[M], outcome: Outcome) -> bool:
        """Settle without waiting; listeners hear the outcome. False: none of `entries` is ours to settle."""
        core, life = self._core, self._life
        if life.closed or life.forked:
            return False
        mine: list[M] = []
        call: Call | None = None
        try:
            with self._window.mutex:
                begin(entries, mine)
            if mine:
                self._posted = True
                later = self._later(mine, outcome)
                call = Call(core.SETTLE, self._items(mine, outcome), undo=later, sink=later)
                core.settlements.submit([call])
        except BaseException:
            self._leave(mine, call)
            raise
        return bool(mine)

    def refusal(self, entry: M) -> NarrowboatError:
        """The error for a caller whose `post` was False."""
        (closed,) = self._life.refusals(self._window, (entry,)) if self._life.closed or self._life.forked else (None,)
        return closed or entry._stale()

    async def flush(self) -> None:
        """Wait, for one operation timeout at most, until what was posted is settled."""
        if not self._posted:
            return
        core, runtime = self._core, self._core.runtime
        signal, ends = runtime.signal(), core.clock() + core.timeout
        call = Call(core.SETTLE, (), sink=lambda call: signal.set())  # behind all of them
        core.settlements.submit([call])
        while call.state != DONE and core.clock() < ends:
            await runtime.wait(signal, ends)

    async def extend(self, entries: Sequence[M], value: Any) -> list[NarrowboatError | None]:
        """Let each lease end `value` from now; None for each that is extended."""
        core, life = self._core, self._life
        seconds = check_extension(core.capabilities, core.backend, value)
        if life.closed or life.forked:
            return life.refusals(self._window, entries)
        mine = [entry for entry in entries if entry._state is HELD]
        answers: list[Any] = []
        if mine:
            sent, key = core.clock(), (life.feed, seconds)
            call = Call(core.EXTEND, [(key, entry._delivery) for entry in mine])
            answers = await core.runtime.call(core.settlements, call)
            self.extended(mine, answers, sent, seconds)
        return _spread(entries, mine, answers)

    def extended(self, entries: Sequence[M], answers: Sequence[Any], sent: float, seconds: float) -> bool:
        """Apply the answers to an extension that was sent at `sent`. True: some of them are unknown."""
        core, until = self._core, self._core.deadline(sent, seconds)
        failed, lost = False, []
        with self._window.mutex:
            for entry, answer in zip(entries, answers, strict=True):
                if answer is None:
                    entry._extended(until)
                elif not isinstance(answer, StaleDelivery):
                    failed = True
                elif entry._lose():  # a delivery that was settled meanwhile is stale too, and not lost
                    self._window.unsettled.discard(entry)
                    lost.append(entry)
        for entry in lost if core.listeners else ():
            events.emit(core.listeners, events.Stale(core.backend, self._path, entry.id))
        if lost:
            self._polling.rouse(1)
        return failed

    def _leave(self, mine: Sequence[M], call: Call | None) -> None:
        """The caller is torn away: the backend was not asked, or the call is undone when it is not under way any more."""
        if call is None:
            with self._window.mutex:
                withdraw(mine)
        else:
            self._core.settlements.abandon(call)

    def _later(self, mine: list[M], outcome: Outcome) -> Callable[[Call], None]:
        """Apply the answers where no caller waits for them: it posted, or it was torn away before it had applied them."""

        def apply(call: Call) -> None:
            if any(entry._state is SETTLING or entry in self._window.unsettled for entry in mine):
                self._finish(mine, call, outcome, call.results)

        return apply

    def _items(self, mine: Sequence[M], outcome: Outcome) -> list[tuple[Feed, Delivery, Outcome]]:
        feed, limit = self._life.feed, self._terms.limit
        if limit and isinstance(outcome, Nack):
            return [(feed, e._delivery, final(outcome, e._delivery.attempt, limit, e._delivery.malformed)) for e in mine]
        if isinstance(outcome, Reject) and not outcome.attempts:
            return [(feed, e._delivery, Reject(outcome.reason, e._delivery.attempt)) for e in mine]
        return [(feed, entry._delivery, outcome) for entry in mine]

    def _finish(
        self, mine: list[M], call: Call, outcome: Outcome, results: list[NarrowboatError | None]
    ) -> list[NarrowboatError | None]:
        """Apply the answers to the deliveries and the window."""
        window, listeners = self._window, self._core.listeners
        if len(results) != len(mine):
            with window.mutex:
                withdraw(mine, doubtful=call.state in (BEGUN, DONE))  # asked, or answered; an interrupt lost the answer
            return []
        answers, full = results, window.full
        with window.mutex:
            if any(answers):
                answers = [entry._answered(answer) for entry, answer in zip(mine, answers, strict=True)]
            else:
                confirm(mine)
            # Also those of unknown outcome: the caller may never repeat the settlement, and they would fill the window.
            window.unsettled.difference_update(mine)
        if full:
            self._polling.rouse(1)
        if listeners:
            self._emit(mine, call, answers, outcome)
        return answers

    def _emit(self, mine: Sequence[M], call: Call, answers: Sequence[Any], outcome: Outcome) -> None:
        listeners, backend, path = self._core.listeners, self._core.backend, self._path
        for entry, item, answer in zip(mine, call.items, answers, strict=True):
            done = item[2]
            if isinstance(answer, StaleDelivery):
                events.emit(listeners, events.Stale(backend, path, entry.id))
            elif answer is not None:
                continue  # unknown: listeners hear of it when it is settled, here or by the next consumer that gets it
            elif isinstance(done, Reject):
                events.emit(listeners, events.DeadLettered(backend, path, entry.id, done.reason, done.attempts))
            elif outcome is EXPIRED:
                events.emit(listeners, events.Expired(backend, path, entry.id))
            else:
                events.emit(listeners, events.Settled(backend, path, entry.id, type(done).__name__.lower()))


def _spread(entries: Sequence[M], mine: Sequence[M], answers: Sequence[Any]) -> list[NarrowboatError | None]:
    """One answer for each of `entries`: those that were not ours to settle get their error."""
    found = dict(zip(mine, answers, strict=True))
    return [found[entry] if entry in found else entry._stale() for entry in entries]
