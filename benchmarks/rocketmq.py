"""Messages on RocketMQ against bare stubs of the same protocol: `python -m benchmarks rocketmq`.

Both sides send to the same proxy of a server of our own, in chunks that take turns.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import narrowboat
from benchmarks.measure import Row, best
from integration.rocketmq_harness import Plain
from integration.servers import RocketMQServer
from narrowboat_rocketmq.library import definition_pb2 as said
from narrowboat_rocketmq.library import service_pb2 as service

BODY = os.urandom(200)
FEW, MANY = 100, 1000
ROUNDS = 5


def rows(folder: Path) -> Iterator[Row]:
    """Every line about RocketMQ."""
    with RocketMQServer() as server:
        yield from publish(server)
        yield receive(server)


def _bare(topic: str) -> Any:
    message = said.Message(topic=said.Resource(name=topic), body=BODY)
    system = message.system_properties
    system.message_id, system.message_type, system.born_host = uuid.uuid4().hex, said.NORMAL, "bench"
    system.born_timestamp.GetCurrentTime()
    return message


def publish(server: RocketMQServer) -> Iterator[Row]:
    """The aims: one caller 0.9 of bare stubs, batches of a hundred 0.8."""
    plain = Plain(server.port)
    with narrowboat.broker(server.url, prefix="bench") as broker:
        queue = broker.queue("published")
        queue.declare()
        topic = "bench|published"

        def one() -> int:
            for _ in range(FEW):
                queue.publish(BODY)
            return FEW

        def bare_one() -> int:
            for _ in range(FEW):
                plain.call("SendMessage", service.SendMessageRequest(messages=[_bare(topic)]))
            return FEW

        def hundreds() -> int:
            for _ in range(MANY // 100):
                assert not any(isinstance(each, Exception) for each in queue.publish_many([BODY] * 100))
            return MANY

        def bare_hundreds() -> int:
            for _ in range(MANY // 100):
                plain.call("SendMessage", service.SendMessageRequest(messages=[_bare(topic) for _ in range(100)]))
            return MANY

        pairs = [("one caller", one, bare_one, 0.9), ("batches of 100", hundreds, bare_hundreds, 0.8)]
        found = {what: [0.0, 0.0] for what, *_ in pairs}
        for _, ours, bare, _aim in pairs:  # the first of each connects
            ours(), bare()
        for _ in range(ROUNDS):
            for what, ours, bare, _aim in pairs:
                found[what][0] = max(found[what][0], best(ours))
                found[what][1] = max(found[what][1], best(bare))
    plain.close()
    for what, _ours, _bare_one, aim in pairs:
        mine, theirs = found[what]
        yield _row(f"rocketmq: publish, {what}, against bare stubs", mine, theirs, aim)


def receive(server: RocketMQServer) -> Row:
    """The aim: receiving 32 and acknowledging them is 0.8 of bare stubs."""
    plain, mine, theirs = Plain(server.port), 0.0, 0.0
    with narrowboat.broker(server.url, prefix="bench") as broker:
        queue = broker.queue("received")
        queue.declare()
        for _ in range(ROUNDS):
            queue.publish_many([BODY] * MANY)

            def ours() -> int:
                seen = 0
                with queue.consume(prefetch=32) as consumer:
                    for batch in consumer.batches(32):
                        batch.ack()
                        seen += len(batch)
                        if seen >= MANY:
                            break
                return seen

            mine = max(mine, best(ours))
            queue.publish_many([BODY] * MANY)

            def bare() -> int:
                seen = 0
                with plain.consuming("bench|received", "bench|received") as take:
                    while seen < MANY:
                        seen += len(take(30.0))
                return seen

            theirs = max(theirs, best(bare))
    plain.close()
    return _row("rocketmq: receive 32 and ack against bare stubs", mine, theirs, 0.8)


def _row(what: str, mine: float, theirs: float, aim: float) -> Row:
    ratio = mine / theirs
    return Row(what, f"{mine:,.0f}/s", f"{theirs:,.0f}/s", ratio, f">= {aim:g}x", ratio >= aim)
