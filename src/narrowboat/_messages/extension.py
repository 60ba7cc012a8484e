"""Keeps deliveries ours while their handlers run: one thread a broker, one call a consumer.

At a third of the lease it extends all that a consumer has not settled, buffered or handed out, through the free lane and
without waiting for the answer. What the backend says is no longer ours is marked lost; any other error means unknown and
is tried again soon. It extends no delivery beyond the consumer's `max_extend`: a handler that hangs must not keep its
message for ever.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from narrowboat import events
from narrowboat._engine.exchange import Call
from narrowboat._engine.timer import Timer
from narrowboat._messages.entry import HELD, LOST, Entry
from narrowboat.errors import StaleDelivery

if TYPE_CHECKING:
    from narrowboat._messages.consumer import Consumer
    from narrowboat._messages.core import BrokerCore

#: Extended when this share of the lease is over, so that two more tries fit in; looked again after an error at this share.
EXTEND_SHARE, RETRY_SHARE = 1 / 3, 1 / 12


def due(until: float, cap: float, now: float, lease: float) -> bool:
    """Whether a delivery that is ours `until` then shall be extended now, without going beyond `cap`.

    >>> due(until=130.0, cap=4000.0, now=105.0, lease=30.0), due(until=130.0, cap=4000.0, now=111.0, lease=30.0)
    (False, True)
    >>> due(until=130.0, cap=140.0, now=111.0, lease=30.0)
    False
    """
    return until - now <= lease * (1 - EXTEND_SHARE) and now + lease <= cap


class Extension:
    """See the module's text."""

    def __init__(self, core: BrokerCore) -> None:
        self._core = core
        self._timer = Timer(f"narrowboat-{core.backend}-extension", core.clock, self._tick)

    def ring(self) -> None:
        """A consumer has something to keep."""
        if not self._core.closed:
            self._timer.ring()

    def close(self) -> None:
        """End the thread."""
        self._timer.close()

    def _tick(self, late: float) -> float:
        with self._core.mutex:
            consumers = list(self._core.consumers)
        return min((self._look(consumer) for consumer in consumers), default=math.inf)

    def _look(self, consumer: Consumer[Any]) -> float:
        """Extend what is due; when to look again."""
        if not consumer.auto_extend:
            return math.inf
        now = self._core.clock()
        lease = consumer.lease
        with consumer.mutex:
            if not consumer.unsettled or consumer.closed:
                consumer.kept = False  # under the mutex: whoever receives next rings again
                return math.inf
            if now < consumer.look_at:
                return consumer.look_at
            consumer.look_at = now + lease * EXTEND_SHARE / 2
            if consumer.extending:
                return consumer.look_at
            entries = [e for e in consumer.unsettled if e._state is HELD and due(e._until, e._cap, now, lease)]
            consumer.extending = bool(entries)
            again = consumer.look_at
        if entries:
            key = (consumer.feed, lease)
            answers = _Answers(self, consumer, entries, now)
            call = Call(self._core.EXTEND, [(key, entry._delivery) for entry in entries], sink=answers)
            self._core.free.submit([call])
        return again


class _Answers:
    """Takes a batch's answers, on the lane's thread."""

    def __init__(self, extension: Extension, consumer: Consumer[Any], entries: list[Entry[Any]], sent: float) -> None:
        self._extension = extension
        self._consumer = consumer
        self._entries = entries
        self._sent = sent

    def __call__(self, call: Call) -> None:
        consumer = self._consumer
        failed = extended(consumer, self._entries, call.results, self._sent, consumer.lease)
        with consumer.mutex:
            consumer.extending = False
            if failed:
                consumer.look_at = consumer.core.clock() + consumer.lease * RETRY_SHARE
        if failed:
            self._extension.ring()


def extended(
    consumer: Consumer[Any], entries: Sequence[Entry[Any]], answers: Sequence[Any], sent: float, seconds: float
) -> bool:
    """Take in what an extension that was sent at `sent` came to. True: some of it is unknown."""
    until = consumer.core.deadline(sent, seconds)
    failed = False
    lost = []
    with consumer.mutex:
        for entry, answer in zip(entries, answers, strict=True):
            if answer is None:
                entry._until = until
            elif not isinstance(answer, StaleDelivery):
                failed = True
            elif entry._state is HELD:  # one that was settled meanwhile is stale as well, and no loss
                entry._state = LOST
                consumer.unsettled.discard(entry)
                lost.append(entry)
    for entry in lost:
        if consumer.core.listeners:
            core = consumer.core
            events.emit(core.listeners, events.Stale(core.backend, consumer.path, entry.id))
    if lost:
        consumer.rouse(1)
    return failed
