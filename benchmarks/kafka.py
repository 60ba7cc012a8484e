"""Messages on Kafka: against kafka-python at its best, on a broker that this run starts.

The peer's producer sends everything and then waits for all; its consumer polls large batches and settles nothing.
The two clients that this backend has, each against its own library: `kafka_clients.py`; share groups: `kafka_share.py`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

import narrowboat
from benchmarks import kafka_clients, kafka_share
from benchmarks.measure import ROUNDS, Row, at_most, median, versus, waking
from integration.servers import KafkaServer

COUNT = 20_000
BODY = os.urandom(200)
BATCH = 1000


def rows(folder: Path) -> Iterator[Row]:
    """Every line about Kafka."""
    with KafkaServer() as server:
        place = "{}:{}".format(*server.address)
        with narrowboat.broker(f"{server.url}?partitions=1") as broker:  # as many as the peer reads
            queue = broker.queue("bench")
            queue.declare()
            peer = KafkaProducer(bootstrap_servers=place, acks="all", batch_size=64 * 1024)
            try:
                yield publish_many(queue, peer)
                yield one_by_one(queue, peer)
            finally:
                peer.close()
            yield consume(queue, place)
            yield consume_beside_delayed(queue, broker.queue("delaying"))
            yield wake_up(broker)
            yield idle(broker)
        yield from kafka_clients.rows(server)
    yield from kafka_share.rows()


def _publish(queue: narrowboat.messaging.Queue[bytes], count: int) -> int:
    for start in range(0, count, BATCH):
        for answer in queue.publish_many([BODY] * min(BATCH, count - start)):
            if isinstance(answer, Exception):
                raise answer
    return count


def _peer_publishes(producer: KafkaProducer, count: int) -> int:
    for start in range(0, count, BATCH):
        for future in [producer.send("bench", BODY) for _ in range(min(BATCH, count - start))]:
            future.get(30)
    return count


def publish_many(queue: narrowboat.messaging.Queue[bytes], peer: KafkaProducer) -> Row:
    return versus(
        "kafka: publish_many of 1,000, against kafka-python's send and wait for all",
        lambda: _publish(queue, COUNT // 4),
        lambda: _peer_publishes(peer, COUNT // 4),
        0.8,
    )


def one_by_one(queue: narrowboat.messaging.Queue[bytes], peer: KafkaProducer) -> Row:
    each = 100

    def ours() -> int:
        work = [threading.Thread(target=lambda: [queue.publish(BODY) for _ in range(each)]) for _ in range(8)]
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()
        return 8 * each

    def theirs() -> int:
        for _ in range(200):
            peer.send("bench", BODY).get(30)
        return 200

    return versus("kafka: 8 threads that publish one by one, against kafka-python's send and wait", ours, theirs, 1.5)


def _consume(queue: narrowboat.messaging.Queue[bytes]) -> float:
    """Messages a second, of so many that were published before."""
    _publish(queue, COUNT)
    with queue.consume(prefetch=4 * BATCH) as messages:
        begun, done = time.perf_counter(), 0
        for batch in messages.batches(BATCH, wait=0.0):
            if any(batch.ack()):
                raise RuntimeError("an ack failed")
            done += len(batch)
            if done >= COUNT:
                return _rated(done, begun)
    raise RuntimeError("the consumer ended early")


def consume(queue: narrowboat.messaging.Queue[bytes], place: str) -> Row:
    queue.purge()

    def theirs() -> int:
        consumer = KafkaConsumer(bootstrap_servers=place, enable_auto_commit=False)
        partition = TopicPartition("bench", 0)
        consumer.assign([partition])
        end = consumer.end_offsets([partition])[partition]
        begun = time.perf_counter()
        consumer.seek(partition, end - COUNT)
        done = 0
        while done < COUNT:
            done += sum(map(len, consumer.poll(1000, max_records=BATCH).values()))
        rate = _rated(done, begun)
        consumer.close()
        return rate

    rounds = [(_consume(queue), float(theirs())) for _ in range(ROUNDS)]  # in turns: what else the machine does hits both
    mine, other = (median(list(rates)) for rates in zip(*rounds, strict=True))
    ratio = mine / other
    return Row(
        "kafka: consume in batches with ack, against kafka-python's poll, which settles nothing",
        f"{mine:,.0f}/s",
        f"{other:,.0f}/s",
        ratio,
        ">= 0.5x",
        ratio >= 0.5,
    )


def consume_beside_delayed(queue: narrowboat.messaging.Queue[bytes], delaying: narrowboat.messaging.Queue[bytes]) -> Row:
    """A queue of which messages wait for their time is as fast for the others as one without."""
    delaying.publish(BODY, delay=3600)
    rounds = [(_consume(delaying), _consume(queue)) for _ in range(ROUNDS)]
    mine, other = (median(list(rates)) for rates in zip(*rounds, strict=True))
    what = "kafka: consume in batches beside delayed messages, against without"
    return Row(what, f"{mine:,.0f}/s", f"{other:,.0f}/s", mine / other, ">= 0.7x", mine / other >= 0.7)


def _rated(done: int, begun: float) -> int:
    return int(done / (time.perf_counter() - begun))


def wake_up(broker: narrowboat.messaging.Messaging) -> Row:
    """From a publish to the message in the hands of an idle consumer: the median."""
    return at_most("kafka: from publish to an idle consumer, median", waking(broker.queue("wake"), BODY), 100.0, "ms")


def idle(broker: narrowboat.messaging.Messaging) -> Row:
    """What an idle consumer costs."""
    with broker.queue("idle").consume() as messages:
        waiting = threading.Thread(target=messages.receive, args=(6,))
        waiting.start()
        time.sleep(1)
        spent = time.process_time()
        time.sleep(4)
        spent = (time.process_time() - spent) / 4
        messages.stop()
        waiting.join()
    return at_most("kafka: processor time of an idle consumer", spent * 100, 1.0, "% of a core")
