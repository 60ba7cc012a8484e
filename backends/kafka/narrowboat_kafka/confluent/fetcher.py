"""Reads partitions from offsets that it is told, in no group: one consumer, and the thread that owns it.

What was read goes to the loop in batches, each with the number of the order that it follows (`begin`): what comes of an order
that was taken back meanwhile is dropped there. The thread reads on when the loop says that there is room, so what lies read
and unused is bounded. It decides nothing: which partitions, from where and how far ahead is `member.py`'s.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as Place

from narrowboat_kafka.client import Code, KafkaError, TopicPartition
from narrowboat_kafka.confluent.errors import Local, told
from narrowboat_kafka.confluent.handle import drop, hold
from narrowboat_kafka.confluent.loop import Loop
from narrowboat_kafka.confluent.settings import Log
from narrowboat_kafka.confluent.stored import stored
from narrowboat_kafka.format.stored import Stored

log = logging.getLogger("narrowboat.kafka")

#: Seconds for which a read that finds nothing waits; a new order waits as long.
_WAIT = 0.05
#: Messages of one batch.
_MOST = 500

#: Errors of a partition that mean that it cannot be read on from there.
_UNREADABLE = frozenset({Code.TOPIC_AUTHORIZATION_FAILED, Code.DAMAGED, Code.CODEC_MISSING, Code.CORRUPT_MESSAGE})


class Batch(NamedTuple):
    """What was read of one partition."""

    tp: TopicPartition
    order: int  #: which `begin` it follows
    records: list[Stored]
    size: int  #: bytes of the records' bodies
    end: int  #: it was read up to there
    error: KafkaError | None  #: why it cannot be read on from there


class Fetcher:
    """See the module's text. `arrived`: called on the loop with batches. `doubt`: a topic may not be there any more."""

    def __init__(
        self, config: dict[str, Any], loop: Loop, *, arrived: Callable[[list[Batch]], None], doubt: Callable[[], None]
    ) -> None:
        self._config = config
        self._loop = loop
        self._arrived = arrived
        self._doubt = doubt
        self._jobs: queue.SimpleQueue[tuple[TopicPartition, int, int] | None] = queue.SimpleQueue()
        self._orders: dict[TopicPartition, int] = {}
        self._next: dict[TopicPartition, int] = {}  #: the offset after the last that was read
        self._room = True
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="narrowboat-kafka-reader", daemon=True)
        self._thread.start()

    # -- from any thread ------------------------------------------------------------------------------------------

    def begin(self, tp: TopicPartition, order: int, offset: int) -> None:
        """Read that partition from that offset on. `order`: a number that was not used before."""
        self._jobs.put((tp, order, offset))

    def cease(self, tp: TopicPartition) -> None:
        """Read no more of it."""
        self._jobs.put((tp, -1, -1))

    def go_on(self) -> None:
        """There is room for another batch."""
        if not self._room:
            self._room = True
            self._jobs.put(None)

    def end(self) -> None:
        """End it. `wait` for that."""
        self._ending = True
        self._jobs.put(None)

    def wait(self, seconds: float) -> None:
        """So long."""
        self._thread.join(seconds)

    # -- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            consumer = hold(Consumer(self._config, logger=Log()))
            while not self._ending:
                self._obey(consumer)
                if self._room and self._orders:
                    self._read(consumer)
            consumer.close()
            drop(consumer)
        except Exception:
            log.exception("what reads from Kafka has ended by a mistake")

    def _obey(self, consumer: Any) -> None:
        """Begin and cease as was ordered. Wait for an order where there is nothing to read, or no room for it."""
        while not self._ending:
            try:
                job = self._jobs.get(block=not (self._room and self._orders))
            except queue.Empty:
                return
            if job is None:
                continue
            tp, order, offset = job
            if self._orders.pop(tp, None) is not None:
                consumer.incremental_unassign([Place(*tp)])
            if offset >= 0:
                self._orders[tp], self._next[tp] = order, offset
                consumer.incremental_assign([Place(tp.topic, tp.partition, offset)])

    def _read(self, consumer: Any) -> None:
        # It waits for one message alone: `consume` would wait for all that it may return.
        first = consumer.poll(_WAIT)
        if first is None:
            return
        batches = self._sort(consumer, [first, *consumer.consume(_MOST - 1, 0)])
        if batches:
            self._room = False
            with contextlib.suppress(RuntimeError):  # the loop was closed
                self._loop.call_soon_threadsafe(self._arrived, batches)

    def _sort(self, consumer: Any, messages: list[Any]) -> list[Batch]:
        records: dict[TopicPartition, list[Stored]] = {}
        sizes: dict[TopicPartition, int] = {}
        batches: list[Batch] = []
        found: list[Stored] = []
        tp: Any = None
        for message in messages:
            error = message.error()
            if error is not None:
                batches += self._event(consumer, message, error)
                continue
            topic, partition = message.topic(), message.partition()
            if tp is None or tp[1] != partition or tp[0] != topic:
                tp = TopicPartition(topic, partition)
                found = records.setdefault(tp, [])
            found.append(stored(message, tp[0]))
            sizes[tp] = sizes.get(tp, 0) + len(message)
        read = []
        for tp, found in records.items():
            if tp in self._orders:
                end = self._next[tp] = found[-1].offset + 1
                read.append(Batch(tp, self._orders[tp], found, sizes[tp], end, None))
        return read + batches

    def _event(self, consumer: Any, message: Any, error: Any) -> list[Batch]:
        """What else is said of a partition: that it was read to its end, or that it cannot be read."""
        tp = TopicPartition(message.topic(), message.partition())
        order, code = self._orders.get(tp), error.code()
        if order is None:
            return []
        if code == Local.PARTITION_EOF:
            return [Batch(tp, order, [], 0, message.offset(), None)]
        met = told(error)
        if met.code in (Code.UNKNOWN_TOPIC_OR_PARTITION, Code.UNKNOWN_TOPIC_ID):
            self._loop.call_soon_threadsafe(self._doubt)
        if met.code not in _UNREADABLE:
            return []
        # librdkafka goes on behind what it cannot read.
        del self._orders[tp]
        consumer.incremental_unassign([Place(*tp)])
        return [Batch(tp, order, [], 0, max(message.offset(), 0) or self._next[tp], met)]
