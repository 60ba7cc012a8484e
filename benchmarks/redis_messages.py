"""Messages on Redis: against the bare client on a stream, pipelined, and against kombu. Part of `python -m benchmarks redis`.

The server is one of our own, without persistence, so that the disk is not what is measured.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import redis
from kombu import connection as kombu

import narrowboat
from benchmarks.measure import Row, at_most, best, median, versus

BODY = os.urandom(256)
MANY = 20_000
FEW = 1000


def rows(url: str) -> Iterator[Row]:
    """Every line about messages, on the server at `url`."""
    yield publish_many(url)
    yield consume(url)
    yield from peers(url)
    yield wake(url)


def _bare(url: str) -> redis.Redis:
    return redis.Redis.from_url(url)


def _fill(client: redis.Redis, stream: str) -> int:
    for _ in range(MANY // 1000):
        with client.pipeline(transaction=False) as pipeline:
            for _ in range(1000):
                pipeline.xadd(stream, {"body": BODY})
            pipeline.execute()
    return MANY


def _drain(client: redis.Redis, stream: str) -> int:
    done = 0
    read: Any = client.xreadgroup  # its annotation covers every version of the protocol, so nothing of it can be indexed
    while found := read("g", "c", {stream: ">"}, count=1000):
        ids = [entry[0] for entry in found[0][1]]
        client.xack(stream, "g", *ids)
        done += len(ids)
    return done


def publish_many(url: str) -> Row:
    """The aim is 80,000 a second where bare pipelined XADD does 110,000: as a ratio, 0.73."""
    with narrowboat.broker(url, prefix="bench") as broker, _bare(url) as client:
        queue = broker.queue("published")

        def ours() -> int:
            for _ in range(MANY // 1000):
                assert not any(isinstance(answer, Exception) for answer in queue.publish_many([BODY] * 1000))
            return MANY

        row = versus("redis: publish_many against bare pipelined XADD", ours, lambda: _fill(client, "bare"), 0.73)
        queue.delete()
        client.delete("bare")
    return row


def consume(url: str) -> Row:
    """The aim is 35,000 a second where bare XREADGROUP with batched XACK does 43,000: as a ratio, 0.81."""
    with narrowboat.broker(url, prefix="bench") as broker, _bare(url) as client:
        queue = broker.queue("consumed")
        client.xgroup_create("bare", "g", id="0", mkstream=True)
        mine, theirs = 0.0, 0.0
        for _ in range(5):
            for _ in range(MANY // 1000):
                queue.publish_many([BODY] * 1000)
            mine = max(mine, best(lambda: _consumed(queue)))
            _fill(client, "bare")
            theirs = max(theirs, best(lambda: _drain(client, "bare")))
        queue.delete()
        client.delete("bare")
    ratio = mine / theirs
    what = "redis: consume in batches with ack against bare XREADGROUP, XACK"
    return Row(what, f"{mine:,.0f}/s", f"{theirs:,.0f}/s", ratio, ">= 0.81x", ratio >= 0.81)


def _consumed(queue: narrowboat.messaging.Queue[bytes]) -> int:
    done = 0
    with queue.consume(prefetch=2000) as messages:
        for batch in messages.batches(1000):
            assert all(outcome is None for outcome in batch.ack())
            done += len(batch)
            if done >= MANY:
                break
    return done


def peers(url: str) -> Iterator[Row]:
    """Against kombu's Redis transport, as its users call it: one message at a time is all that it has."""
    with narrowboat.broker(url, prefix="bench") as broker, _kombu(url) as connection:
        queue, theirs = broker.queue("peer"), connection.SimpleQueue("kombu-bench")

        def publish() -> int:
            assert not any(isinstance(answer, Exception) for answer in queue.publish_many([BODY] * FEW))
            return FEW

        def put() -> int:
            for _ in range(FEW):
                theirs.put(BODY)
            return FEW

        yield versus("redis: publish_many against kombu", publish, put, 10)
        queue.purge()
        theirs.clear()
        mine, other = 0.0, 0.0
        for _ in range(3):
            for _ in range(MANY // FEW):
                publish()
            mine = max(mine, best(lambda: _consumed(queue)))
            put()
            other = max(other, best(lambda: _got(theirs)))
        ratio = mine / other
        yield Row("redis: consume with ack against kombu", f"{mine:,.0f}/s", f"{other:,.0f}/s", ratio, ">= 10x", ratio >= 10)
        theirs.clear()
        theirs.close()
        queue.delete()


def _kombu(url: str) -> Any:
    return kombu.Connection(url)


def _got(queue: Any) -> int:
    for _ in range(FEW):
        queue.get(timeout=5).ack()
    return FEW


def wake(url: str) -> Row:
    """From a publish in one broker to a waiting consumer of another."""
    with narrowboat.broker(url, prefix="bench") as broker, narrowboat.broker(url, prefix="bench") as other:
        queue, times = broker.queue("wake"), []
        with other.queue("wake").consume() as messages:
            assert messages.receive(0.3) is None  # from here on its subscription stands
            for _ in range(200):
                arrived: list[float] = []

                def wait(arrived: list[float] = arrived) -> None:
                    message = messages.receive(10)
                    arrived.append(time.perf_counter())
                    assert message is not None
                    message.ack()

                waiter = threading.Thread(target=wait)
                waiter.start()
                time.sleep(0.003)
                begun = time.perf_counter()
                queue.publish(BODY)
                waiter.join()
                times.append((arrived[0] - begun) * 1000)
        queue.delete()
    return at_most("redis: a publish wakes a consumer of another broker, median", median(times), 5, "ms")
