"""Both clients of the Kafka backend, `kafka://` and `kafka+confluent://`, each against its bare library.

All sides take turns in short rounds on one broker, and the best round of each counts, for its rate and for its processor time,
which is that of all threads of this process. The bare librdkafka reports each delivery to a callback, and commits once
for each `consume(500)`; the bare kafka-python waits for all futures, and commits once for each poll.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

import narrowboat
from benchmarks.measure import Row, at_most
from integration.servers import KafkaServer

BODY = os.urandom(200)
BATCH, TAKEN = 1000, 500
PUBLISHED, CONSUMED = 2000, 10_000
ROUNDS, FEW_ROUNDS = 25, 5
TOPIC = "clients"
CPU_AIM = 8.0

Queue = narrowboat.messaging.Queue[bytes]


class Spent(NamedTuple):
    """What a round took."""

    done: int
    seconds: float
    cpu: float


class Side:
    """One of those that are compared, and its best round."""

    def __init__(self, round: Callable[[], Spent]) -> None:
        self.round = round
        self.rate = 0.0
        self.cpu = float("inf")  #: microseconds a message

    def run(self) -> None:
        """One round."""
        spent = self.round()
        self.rate = max(self.rate, spent.done / spent.seconds)
        self.cpu = min(self.cpu, spent.cpu / spent.done * 1e6)


class Watch:
    """Seconds and processor seconds since it was made."""

    def __init__(self) -> None:
        self._begun, self._cpu = time.perf_counter(), _cpu()

    def spent(self, done: int) -> Spent:
        """What it took until now to do so many."""
        return Spent(done, time.perf_counter() - self._begun, _cpu() - self._cpu)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def rows(server: KafkaServer) -> Iterator[Row]:
    """Every line about the two clients."""
    place = "{}:{}".format(*server.address)
    if find_spec("confluent_kafka") is None:
        yield Row("kafka+confluent: skipped, confluent-kafka is not installed", "", "", None, "", True)
        return
    with (
        narrowboat.broker(f"{server.url}?partitions=1") as python,
        narrowboat.broker(f"{server.url.replace('kafka:', 'kafka+confluent:')}?partitions=1") as confluent,
    ):
        queues = python.queue(TOPIC), confluent.queue(TOPIC)
        queues[0].declare()
        yield from _publishing(queues, place)
        yield from _threads(queues[1])
        yield from _consuming(queues, place)


def _rows(what: str, sides: dict[str, Side], aims: dict[str, float]) -> Iterator[Row]:
    for ours, bare in (("kafka", "kafka-python"), ("kafka+confluent", "librdkafka")):
        mine, other, aim = sides[ours], sides[bare], aims[ours]
        ratio = mine.rate / other.rate
        both = f"{mine.rate:,.0f}/s", f"{other.rate:,.0f}/s"
        yield Row(f"{ours}: {what}, against bare {bare}", *both, ratio, f">= {aim:g}x", ratio >= aim)
        cpu = at_most(f"{ours}: {what}, processor time of a message", mine.cpu, CPU_AIM, "us")
        cpu = Row(cpu.what, cpu.ours, f"{other.cpu:.3g} us", None, cpu.target, cpu.met)
        yield cpu if ours == "kafka+confluent" else Row(cpu.what, cpu.ours, cpu.other, None, "", True)


def _race(sides: dict[str, Side], rounds: int) -> dict[str, Side]:
    for _ in range(rounds):
        for side in sides.values():
            side.run()
    return sides


# -- publishing ---------------------------------------------------------------------------------------------------


def _publish(queue: Queue, count: int) -> Spent:
    watch = Watch()
    for _ in range(0, count, BATCH):
        for answer in queue.publish_many([BODY] * BATCH):
            if isinstance(answer, Exception):
                raise answer
    return watch.spent(count)


def _publishing(queues: tuple[Queue, Queue], place: str) -> Iterator[Row]:
    import confluent_kafka

    library = confluent_kafka.Producer({"bootstrap.servers": place, "enable.idempotence": True, "acks": "all"})
    python = KafkaProducer(bootstrap_servers=place, acks="all", batch_size=64 * 1024)

    errors: list[Any] = []

    def delivered(error: Any, _: Any) -> None:
        errors.append(error)

    def bare_library() -> Spent:
        watch = Watch()
        for _ in range(0, PUBLISHED, BATCH):
            errors.clear()
            for _ in range(BATCH):
                library.produce(TOPIC, BODY, on_delivery=delivered)
            library.flush()
            if len(errors) != BATCH or any(errors):
                raise RuntimeError("a message was not delivered")
        return watch.spent(PUBLISHED)

    def bare_python() -> Spent:
        watch = Watch()
        for _ in range(0, PUBLISHED, BATCH):
            for future in [python.send(TOPIC, BODY) for _ in range(BATCH)]:
                future.get(30)
        return watch.spent(PUBLISHED)

    sides = {
        "kafka": Side(lambda: _publish(queues[0], PUBLISHED)),
        "kafka-python": Side(bare_python),
        "kafka+confluent": Side(lambda: _publish(queues[1], PUBLISHED)),
        "librdkafka": Side(bare_library),
    }
    try:
        _race(sides, ROUNDS)
    finally:
        python.close()
    yield from _rows("publish_many of 1,000", sides, {"kafka": 0.8, "kafka+confluent": 0.7})


def _threads(queue: Queue) -> Iterator[Row]:
    """Many callers that publish one by one share what goes to the server."""

    def many(threads: int, each: int) -> Spent:
        work = [threading.Thread(target=lambda: [queue.publish(BODY) for _ in range(each)]) for _ in range(threads)]
        watch = Watch()
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()
        return watch.spent(threads * each)

    sides = _race({"16": Side(lambda: many(16, 25)), "1": Side(lambda: many(1, 25))}, ROUNDS)
    rates = sides["16"].rate, sides["1"].rate
    ratio = rates[0] / rates[1]
    what = "kafka+confluent: 16 threads that publish one by one, against one thread"
    yield Row(what, f"{rates[0]:,.0f}/s", f"{rates[1]:,.0f}/s", ratio, ">= 3x", ratio >= 3)


# -- consuming ----------------------------------------------------------------------------------------------------


def _drained(take: Callable[[], int]) -> Spent:
    """`take` a batch, until all is taken. From the first batch on: what joining the group takes is not counted."""
    left = CONSUMED - take()
    watch, counted = Watch(), 0
    while left > 0:
        found = take()
        left -= found
        counted += found
    return watch.spent(counted)


def _consume(queue: Queue) -> Spent:
    queue.purge()
    _publish(queue, CONSUMED)
    with queue.consume(prefetch=4 * BATCH) as messages:
        batches = iter(messages.batches(BATCH, wait=0.0))

        def take() -> int:
            batch = next(batches)
            if any(batch.ack()):
                raise RuntimeError("an ack failed")
            return len(batch)

        return _drained(take)


def _consuming(queues: tuple[Queue, Queue], place: str) -> Iterator[Row]:
    def bare_library() -> Spent:
        import confluent_kafka

        config = {"bootstrap.servers": place, "group.id": "bare-librdkafka", "enable.auto.commit": False}
        consumer = confluent_kafka.Consumer(config)
        _, end = consumer.get_watermark_offsets(confluent_kafka.TopicPartition(TOPIC, 0), 10)
        consumer.assign([confluent_kafka.TopicPartition(TOPIC, 0, end - CONSUMED)])

        def take() -> int:
            found = consumer.consume(TAKEN, 10)
            consumer.commit(message=found[-1], asynchronous=False)
            return len(found)

        spent = _drained(take)
        consumer.close()
        return spent

    def bare_python() -> Spent:
        consumer = KafkaConsumer(bootstrap_servers=place, group_id="bare-kafka-python", enable_auto_commit=False)
        partition = TopicPartition(TOPIC, 0)
        consumer.assign([partition])
        consumer.seek(partition, consumer.end_offsets([partition])[partition] - CONSUMED)

        def take() -> int:
            found = consumer.poll(10_000, max_records=TAKEN).get(partition, [])
            consumer.commit({partition: OffsetAndMetadata(found[-1].offset + 1, "", -1)})
            return len(found)

        spent = _drained(take)
        consumer.close()
        return spent

    sides = {
        "kafka": Side(lambda: _consume(queues[0])),
        "kafka-python": Side(bare_python),
        "kafka+confluent": Side(lambda: _consume(queues[1])),
        "librdkafka": Side(bare_library),
    }
    _race(sides, FEW_ROUNDS)
    yield from _rows("consume in batches with ack", sides, {"kafka": 0.5, "kafka+confluent": 0.5})
