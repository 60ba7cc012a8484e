"""Share groups of Kafka beside classic ones: the same queues in both, by librdkafka, on a broker of a version that has them.

In a share group the server locks and counts each message and is told of each. What that costs is in the first two rows, what it
is for in the third: handlers that take their time, on more consumers than the queue has partitions.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator

import narrowboat
from benchmarks.measure import Row, at_most, median, versus, waking
from integration.servers.editions import Kafka43
from integration.servers.resolve import Unavailable, choose

BODY = os.urandom(200)
MANY = 2000
ROUNDS = 3
#: Of the third row: consumers, messages, and seconds of a handler.
CONSUMERS, HANDLED, TAKES = 8, 200, 0.02
#: Seconds of the lease whose end is waited for: the shortest that a server allows unless it is set up otherwise.
LEASE = 12.0

Queue = narrowboat.messaging.Queue[bytes]


def rows() -> Iterator[Row]:
    """Every line about share groups."""
    try:
        server = choose(Kafka43).server()
    except Unavailable as error:
        yield Row(f"kafka share groups: skipped, {error}", "", "", None, "", True)
        return
    with server:
        base = server.url.replace("kafka:", "kafka+confluent:")
        classic, share = f"{base}?partitions=1", f"{base}?groups=share"
        with narrowboat.broker(classic) as theirs, narrowboat.broker(share) as ours:
            yield _publishing(ours.queue("share"), theirs.queue("classic"))
            yield _consuming(ours.queue("share-many"), theirs.queue("classic-many"))
            yield _working(share, classic)
            yield _waking(ours.queue("share-wake"))
            yield _coming_back(ours.queue("share-lease", lease=LEASE))


def _publish(queue: Queue, count: int = MANY) -> int:
    for answer in queue.publish_many([BODY] * count):
        if isinstance(answer, Exception):
            raise answer
    return count


def _publishing(ours: Queue, theirs: Queue) -> Row:
    what = "kafka share groups: publish_many of 1,000 (sixteen together), against classic"
    return versus(what, lambda: _publish(ours, 1000), lambda: _publish(theirs, 1000), 0.05, ROUNDS)


def _consuming(ours: Queue, theirs: Queue) -> Row:
    rates = [(_drained(ours), _drained(theirs)) for _ in range(ROUNDS)]
    mine, other = (median(list(each)) for each in zip(*rates, strict=True))
    what = "kafka share groups: consume in batches with ack, against classic"
    return Row(what, f"{mine:,.0f}/s", f"{other:,.0f}/s", mine / other, ">= 0.05x", mine >= 0.05 * other)


def _drained(queue: Queue) -> float:
    """Messages a second, from the first batch on: what joining the group takes is not counted."""
    _publish(queue)
    done, counted, begun = 0, 0, 0.0
    with queue.consume(prefetch=1000) as messages:
        for batch in messages.batches(500, wait=0.0):
            if any(batch.ack()):
                raise RuntimeError("an ack failed")
            done += len(batch)
            counted += len(batch) if begun else 0
            begun = begun or time.perf_counter()
            if done >= MANY:
                break
    return counted / (time.perf_counter() - begun)


def _working(share: str, classic: str) -> Row:
    """Eight consumers of one partition, each on a connection of its own, with handlers that take 20 ms."""
    mine, other = (_worked(url, name) for url, name in ((share, "share-work"), (classic, "classic-work")))
    what = f"kafka share groups: {CONSUMERS} consumers of one partition, handlers of 20 ms, against classic"
    return Row(what, f"{mine:,.0f}/s", f"{other:,.0f}/s", mine / other, ">= 3x", mine >= 3 * other)


def _worked(url: str, name: str) -> float:
    left = HANDLED
    mutex, over = threading.Lock(), threading.Event()

    def work(queue: Queue) -> None:
        nonlocal left
        with queue.consume(prefetch=2) as messages:
            joined.wait()
            while not over.is_set():
                message = messages.receive(0.2)
                if message is None:
                    continue
                time.sleep(TAKES)  # what a handler does, and not a wait for anything
                message.ack()
                with mutex:
                    left -= 1
                    if not left:
                        over.set()

    joined = threading.Barrier(CONSUMERS + 1)
    with contextlib.ExitStack() as stack:
        queues = [stack.enter_context(narrowboat.broker(url)).queue(name) for _ in range(CONSUMERS)]
        threads = [threading.Thread(target=work, args=(queue,)) for queue in queues]
        for thread in threads:
            thread.start()
        joined.wait()
        begun = time.perf_counter()
        for _ in range(HANDLED):
            queues[0].publish(BODY)
        over.wait()
        took = time.perf_counter() - begun
        for thread in threads:
            thread.join()
    return HANDLED / took


def _waking(queue: Queue) -> Row:
    """From a publish to the message in the hands of an idle consumer: the median."""
    return at_most("kafka share groups: from publish to an idle consumer, median", waking(queue, BODY), 500.0, "ms")


def _coming_back(queue: Queue) -> Row:
    """From the end of a lease that nobody settles to the next delivery."""
    queue.publish(BODY)
    with queue.consume() as messages:
        message = messages.receive(10)
        assert message is not None
        until = time.monotonic() + LEASE
        again = messages.receive(LEASE + 10)
        assert again is not None and again.attempt == 2
        late = time.monotonic() - until
        again.ack()
    return at_most("kafka share groups: from the end of a lease to the next delivery", late, 5.0, "s")
