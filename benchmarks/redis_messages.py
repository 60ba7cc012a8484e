"""Messages on Redis: against a bare socket with hiredis on a stream, and against kombu. Part of `python -m benchmarks redis`.

The server is one of our own, without persistence, so that the disk is not what is measured.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

from kombu import connection as kombu

import narrowboat
from benchmarks.measure import SHORT_ROUNDS, Row, at_most, best, median, versus
from benchmarks.redis_bare import Bare, packed

BODY = os.urandom(256)
MANY = 20_000
BATCH = FEW = 1000


def rows(url: str) -> Iterator[Row]:
    """Every line about messages, on the server at `url`."""
    yield publish_many(url)
    yield consume(url)
    yield from peers(url)
    yield wake(url)


def _fill(bare: Bare, stream: str, batches: int = MANY // BATCH) -> int:
    for _ in range(batches):
        bare.many(*[packed(b"XADD", stream.encode(), b"*", b"body", BODY) for _ in range(BATCH)])
    return batches * BATCH


def _drain(bare: Bare, stream: str) -> int:
    done, name = 0, stream.encode()
    while found := bare.call(b"XREADGROUP", b"GROUP", b"g", b"c", b"COUNT", b"%d" % BATCH, b"STREAMS", name, b">"):
        ids = [entry[0] for entry in found[0][1]]
        bare.many(packed(b"XACK", name, b"g", *ids), packed(b"XDEL", name, *ids))
        done += len(ids)
    return done


def publish_many(url: str) -> Row:
    """Batches of a thousand."""
    with narrowboat.broker(url, prefix="bench") as broker, Bare(url) as bare:
        queue = broker.queue("published")

        def ours() -> int:
            assert not any(isinstance(answer, Exception) for answer in queue.publish_many([BODY] * BATCH))
            return BATCH

        what = "redis: publish_many against pipelined XADD on a socket with hiredis"
        row = versus(what, ours, lambda: _fill(bare, "bare", 1), 0.6, SHORT_ROUNDS)
        queue.delete()
        bare.call(b"DEL", b"bare")
    return row


def consume(url: str) -> Row:
    """Batches of a thousand, acknowledged together."""
    with narrowboat.broker(url, prefix="bench") as broker, Bare(url) as bare:
        queue = broker.queue("consumed")
        bare.call(b"XGROUP", b"CREATE", b"bare", b"g", b"0", b"MKSTREAM")
        mine, theirs = 0.0, 0.0
        for _ in range(5):
            for _ in range(MANY // BATCH):
                queue.publish_many([BODY] * BATCH)
            mine = max(mine, best(lambda: _consumed(queue)))
            _fill(bare, "bare")
            theirs = max(theirs, best(lambda: _drain(bare, "bare")))
        queue.delete()
        bare.call(b"DEL", b"bare")
    ratio = mine / theirs
    what = "redis: consume with ack against XREADGROUP, XACK, XDEL on that socket"
    return Row(what, f"{mine:,.0f}/s", f"{theirs:,.0f}/s", ratio, ">= 0.8x", ratio >= 0.8)


def _consumed(queue: narrowboat.messaging.Queue[bytes]) -> int:
    done = 0
    with queue.consume(prefetch=2000) as messages:
        for batch in messages.batches(BATCH):
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
