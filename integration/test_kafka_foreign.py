"""What other programs leave on a real Kafka server: records, headers and commit metadata of every kind stop no consumer.

Cases are generated: `NARROWBOAT_FUZZ_CASES` says how many, of each kind. What is compressed is published by kafka-python.
"""

from __future__ import annotations

import base64
import importlib
import logging
import os
import random
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

import narrowboat
from integration.kafka_harness import LEAVES_SOCKETS
from integration.servers import KafkaServer
from narrowboat import events
from narrowboat.errors import ConfigurationError
from narrowboat.messaging import Messaging

CASES = int(os.environ.get("NARROWBOAT_FUZZ_CASES", "200"))
#: How many are left in one queue together, before and between our own.
AT_ONCE = 100

pytestmark = LEAVES_SOCKETS


@pytest.fixture(scope="module")
def address(kafka_server: KafkaServer) -> str:
    return "{}:{}".format(*kafka_server.internal)


@pytest.fixture(scope="module")
def producer(address: str) -> Iterator[Any]:
    from kafka import KafkaProducer

    opened = KafkaProducer(bootstrap_servers=address, max_request_size=20_000_000)
    yield opened
    opened.close()


@pytest.fixture
def broker(kafka_server: KafkaServer) -> Iterator[Messaging]:
    with narrowboat.broker(f"{kafka_server.url}?session=2&partitions=1") as opened:
        yield opened


def fresh(what: str) -> str:
    return f"{what}{random.SystemRandom().randrange(10**9)}"


# -- generated --------------------------------------------------------------------------------------------------------

_NUMBERS = (b"0", b"1", b"-1", b"-0.9", b"-1000000", b"1e308", b"inf", b"nan", b"9" * 5000, b"", b"\xff", b"1e18", b"x")
_NAMES = ("", "h", "h\0", "\x1b[31m", "ü" * 100, "narrowboat-", "narrowboat-dead-reason", "narrowboat-dead-attempts")
_OURS = ("id", "correlation-id", "content-type", "priority", "attempts", "due", "step", "dead-origin", "dead-original")


def record(chance: random.Random) -> dict[str, Any]:
    """A record as somebody may write it. None expires: such a one is dropped, as it asks."""

    def some(most: int) -> bytes | None:
        return None if chance.random() < 0.15 else chance.randbytes(chance.randrange(most))

    headers: list[tuple[str, bytes]] = []
    for _ in range(chance.choice((0, 1, 3, 8, 200))):
        ours = chance.random() < 0.5
        name = f"narrowboat-{chance.choice(_OURS)}" if ours else chance.choice(_NAMES)
        headers.append((name, chance.choice(_NUMBERS) if chance.random() < 0.7 else chance.randbytes(chance.randrange(40))))
    key, value = some(50), some(chance.choice((1, 100, 5000)))
    return {
        "key": key,
        "value": b"" if key is None and value is None else value,  # kafka-python publishes no such record
        "headers": headers,
        "timestamp_ms": chance.choice((None, 0, 1, 2**40)),
    }


def metadata(chance: random.Random) -> str:
    """A text as somebody may commit it: anything, or near to what we write."""
    kind = chance.randrange(4)
    if kind == 0:
        return "".join(chr(chance.randrange(32, 0x2FF)) for _ in range(chance.randrange(60)))
    data = bytearray()
    for _ in range(chance.randrange(1, 12)):
        number = chance.choice((chance.randrange(300), chance.randrange(2**31), 2**62))
        while number > 127:
            data.append(number & 127 | 128)
            number >>= 7
        data.append(number)
    if kind == 1:
        data = bytearray(chance.randbytes(chance.randrange(40)))
    if kind == 2:
        size = chance.choice((100_000, 1_000_000, 2_000_000))
        data = bytearray((size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127 | 128, size >> 21))
        data += bytes([chance.choice((0x00, 0x55, 0xFF))]) * size
    packed = bytes(data) if chance.random() < 0.3 and len(data) < 2000 else b"\xff" + zlib.compress(bytes(data), 9)
    return "n1:" + base64.b64encode(packed).decode().rstrip("=")


def test_any_record_is_delivered_or_dies_and_its_neighbours_are_handled(broker: Messaging, producer: Any) -> None:
    """Handlers fail for all that is not ours: each of those is handed out and dies, ours are all handled, nothing is left."""
    chance = random.Random(fresh("seed"))
    for begin in range(0, CASES, AT_ONCE):
        cases = [record(chance) for _ in range(min(AT_ONCE, CASES - begin))]
        queue = broker.queue(fresh("any"), max_deliveries=2)
        queue.publish_many([b"before"] * 5)
        for case in cases:
            producer.send(queue.name, **case)
        producer.flush(30)
        queue.publish_many([b"after"] * 5)
        handled: list[bytes] = []
        foreign: set[str] = set()
        ours: set[str] = set()

        def handle(message: Any, *, handled: list[bytes] = handled, foreign: set[str] = foreign) -> None:
            repr(message), message.dead, message.attempt
            assert message.attempt in (1, 2)
            if message.body not in (b"before", b"after"):
                foreign.add(message.id)
                message.nack()
            else:
                handled.append(message.body)

        stopping = threading.Timer(60.0, queue.stop)
        stopping.start()
        watching = threading.Thread(target=_stop_when_empty, args=(queue, lambda found=handled: len(found) >= 10))
        watching.start()
        queue.run(handle, concurrency=4, signals=False)
        stopping.cancel()
        watching.join()
        depth = queue.depth()
        assert sorted(handled) == [b"after"] * 5 + [b"before"] * 5, ours
        assert (depth.ready, depth.in_flight, depth.delayed) == (0, 0, 0)
        assert depth.dead == len(cases)
        queue.delete()


def _stop_when_empty(queue: Any, handled: Any) -> None:
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        depth = queue.depth()
        if handled() and (depth.ready, depth.in_flight, depth.delayed) == (0, 0, 0):
            break
        time.sleep(0.05)
    queue.stop()


def test_any_commit_metadata_costs_its_group_a_repetition_at_most(broker: Messaging, address: str) -> None:
    from kafka import KafkaAdminClient, TopicPartition
    from kafka.structs import OffsetAndMetadata

    chance = random.Random(fresh("seed"))
    queue = broker.queue(fresh("meta"), max_deliveries=0)
    queue.publish_many([b"%d" % number for number in range(5)])
    admin = KafkaAdminClient(bootstrap_servers=address)
    try:
        slowest = 0.0
        for _ in range(CASES):
            text = metadata(chance)
            place = {TopicPartition(queue.name, 0): OffsetAndMetadata(chance.randrange(6), text[:4096], -1)}
            admin.alter_group_offsets(f"{queue.name}.{queue.name}", place)
            begun = time.thread_time()
            depth = queue.depth()
            slowest = max(slowest, time.thread_time() - begun)
            assert depth.ready is not None
            assert depth.ready <= 5, text
        assert slowest < 2.0
        for _ in range(5):  # and consumed: a group is joined for each
            text = metadata(chance)
            admin.alter_group_offsets(
                f"{queue.name}.{queue.name}", {TopicPartition(queue.name, 0): OffsetAndMetadata(0, text, -1)}
            )
            queue.publish(b"new")
            with queue.consume() as messages:
                while (message := messages.receive(20)) is not None and message.body != b"new":
                    message.nack(delay=30)
                assert message is not None, text
                message.ack()
    finally:
        admin.close()


# -- what is compressed, damaged, too large, taken back ---------------------------------------------------------------


@pytest.mark.parametrize("metadata", ["", "n1:AAUABRI"])
def test_a_commit_beyond_the_end_hides_nothing(
    broker: Messaging, address: str, caplog: pytest.LogCaptureFixture, metadata: str
) -> None:
    """It would settle what is published up to there, unseen: left by another program, or by a server that lost its end."""
    from kafka import KafkaAdminClient, TopicPartition
    from kafka.structs import OffsetAndMetadata

    queue = broker.queue(fresh("beyond"))
    queue.publish_many([b"1", b"2"])
    admin = KafkaAdminClient(bootstrap_servers=address)
    place = {TopicPartition(queue.name, 0): OffsetAndMetadata(1000, metadata, -1)}
    admin.alter_group_offsets(f"{queue.name}.{queue.name}", place)
    admin.close()
    got = []
    with caplog.at_level(logging.WARNING, "narrowboat"), queue.consume() as messages:
        for number in range(3):
            message = messages.receive(10)
            assert message is not None
            got.append(message.body)
            message.ack()
            if number == 1:
                queue.publish(b"3")
    assert got == [b"1", b"2", b"3"]
    assert sum("ends at 2" in record.getMessage() for record in caplog.records) == 1
    with queue.consume() as messages:
        assert messages.receive(0.5) is None


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_what_others_compressed_is_read(broker: Messaging, address: str, codec: str) -> None:
    queue = broker.queue(fresh("packed"))
    queue.declare()
    sent = [b"%d" % number * 50 for number in range(30)]
    _publish(address, queue.name, codec, sent)
    with queue.consume(idle=5) as messages:
        got = [messages.receive(10).body for _ in sent]
    assert got == sent


def test_a_missing_library_is_told_for_that_partition_alone(
    broker: Messaging, address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every call ends in time, other queues go on; and so does this one once the library is there."""
    queue, other = broker.queue(fresh("packed")), broker.queue(fresh("other"))
    queue.declare()
    other.publish(b"healthy")
    _publish(address, queue.name, "zstd", [b"packed" * 100])
    there = importlib.import_module("zstandard")
    monkeypatch.setitem(sys.modules, "zstandard", None)  # an import of it fails from now on
    with queue.consume() as messages:
        begun = time.monotonic()
        with pytest.raises(ConfigurationError, match="pip install zstandard"):
            messages.receive(10)
        with other.consume() as others:
            assert others.receive(10).body == b"healthy"
        assert queue.depth().ready == 1
        assert time.monotonic() - begun < 30
        assert any("zstandard" in each.getMessage() for each in caplog.records if each.name == "narrowboat.kafka")
        monkeypatch.setitem(sys.modules, "zstandard", there)
        ends = time.monotonic() + 30
        while True:
            try:
                message = messages.receive(10)
                break
            except ConfigurationError:
                assert time.monotonic() < ends
                time.sleep(0.2)
        assert message.body == b"packed" * 100
        message.ack()
    assert queue.depth().ready == 0


def _publish(address: str, topic: str, codec: str, bodies: list[bytes]) -> None:
    from kafka import KafkaProducer

    publishing = KafkaProducer(bootstrap_servers=address, compression_type=codec, linger_ms=50)
    try:
        for sent in [publishing.send(topic, body) for body in bodies]:
            sent.get(20)
    finally:
        publishing.close()


def test_what_is_too_large_to_be_published_again_waits_where_it_is_and_dies_without_its_body(
    kafka_server: KafkaServer, address: str, producer: Any
) -> None:
    from kafka import KafkaAdminClient

    told: list[events.Event] = []
    name, size = fresh("large"), 9_000_000
    admin = KafkaAdminClient(bootstrap_servers=address)
    admin.create_topics({name: {"num_partitions": 1, "replication_factor": 1, "configs": {"max.message.bytes": "20000000"}}})
    admin.close()
    with narrowboat.broker(kafka_server.url, listeners=[told.append]) as broker:
        queue = broker.queue(name, max_deliveries=3)
        queue.publish(b"small")
        producer.send(name, b"x" * size, key=b"k", headers=[("h", b"v")]).get(30)
        with queue.consume() as messages:
            messages.receive(20).ack()
            first = messages.receive(20)
            first.nack(delay=0.5)
            begun = time.monotonic()
            second = messages.receive(20)
            assert time.monotonic() - begun >= 0.4
            assert (second.id, second.attempt, len(second.body)) == (first.id, 2, size)
            second.reject("cannot")
        depth = queue.depth()
        assert (depth.ready, depth.in_flight, depth.dead) == (0, 0, 1)
        with queue.dead_letters().consume() as dead:
            letter = dead.receive(20)
            assert (letter.id, letter.body, letter.key, letter.headers["h"]) == (first.id, b"", "k", "v")
            assert letter.headers["narrowboat-dead-original"] == f"{name}/0/1"
            assert letter.headers["narrowboat-dead-reason"] == "cannot"
            letter.ack()


def test_what_is_as_large_as_it_may_be_dies_whole(broker: Messaging) -> None:
    queue, text = broker.queue(fresh("full")), "\U0001f600" * 1000
    most = broker.capabilities
    body, headers = b"x" * most.body_max, {"h": "v" * (most.headers_max - 1)}
    queue.publish(body, key=text, id=text, correlation_id=text, content_type=text, headers=headers)
    with queue.consume() as messages:
        messages.receive(20).nack(delay=0.1)
        messages.receive(20).reject(text)
    with queue.dead_letters().consume() as dead:
        letter = dead.receive(20)
        assert (letter.body, letter.key, letter.headers["narrowboat-dead-reason"]) == (body, text, text)
        letter.ack()


def test_what_a_transaction_took_back_is_for_nobody_and_its_end_is_not_ready(broker: Messaging, address: str) -> None:
    from kafka import KafkaProducer

    queue = broker.queue(fresh("transaction"))
    queue.declare()
    publishing = KafkaProducer(bootstrap_servers=address, transactional_id=queue.name)
    publishing.init_transactions()
    for number in range(3):
        publishing.begin_transaction()
        publishing.send(queue.name, b"%d" % number)
        publishing.flush()
        (publishing.abort_transaction if number == 2 else publishing.commit_transaction)()
    publishing.close()
    with queue.consume() as messages:
        for expected in (b"0", b"1"):
            message = messages.receive(20)
            assert message.body == expected
            message.ack()
        assert messages.receive(0.5) is None
        ends = time.monotonic() + 20
        while (depth := queue.depth()).ready and time.monotonic() < ends:
            time.sleep(0.05)
        assert (depth.ready, depth.in_flight) == (0, 0)


def test_a_group_of_the_name_of_the_declarations_group_is_one_like_others(broker: Messaging) -> None:
    topic = broker.topic(fresh("prices"))
    topic.publish(b"before it was there")
    group = topic.subscription("declared")
    group.declare()
    topic.publish(b"after")
    with group.consume() as messages:
        message = messages.receive(20)
        assert message.body == b"after"
        message.ack()


def test_a_consumer_without_a_partition_says_so_once(
    kafka_server: KafkaServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from narrowboat_kafka.member import member

    monkeypatch.setattr(member, "_STANDBY", 0.5)
    caplog.set_level(logging.WARNING, logger="narrowboat.kafka")
    url = f"{kafka_server.url}?partitions=1"
    with narrowboat.broker(url) as first, narrowboat.broker(url) as second:
        name = fresh("alone")
        with first.queue(name).consume() as has, second.queue(name).consume() as waits:
            has.receive(0)
            ends = time.monotonic() + 30
            told: list[str] = []
            while not told and time.monotonic() < ends:
                waits.receive(0.1)
                told = [
                    each.getMessage()
                    for each in caplog.records
                    if "partition" in each.getMessage() and name in each.getMessage()
                ]
            waits.receive(1.5)
    assert len(told) == 1
    assert "?partitions=" in told[0]
