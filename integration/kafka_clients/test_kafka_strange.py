"""What other programs write, and what is strange in what we write: the same outcome with each client, whatever it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import narrowboat
from integration.kafka_clients.ear import Ear
from integration.kafka_clients.use import connected, eventually, new_topic, record, store
from integration.kafka_harness import strange_records
from integration.servers import KafkaServer
from narrowboat.errors import PublishFailed
from narrowboat_kafka.client import Committed, TopicPartition
from narrowboat_kafka.clients import KINDS


class Latin(str):
    """A name that goes to the server in another encoding than UTF-8."""

    def encode(self, *_: object) -> bytes:
        return super().encode("latin-1")


#: Headers as another program may write them.
HEADERS: list[list[tuple[str, bytes]]] = [
    [(Latin("caf\u00e9"), b"1"), ("narrowboat-attempts", b"3"), ("narrowboat-id", b"an-id")],
    [("caf\u00e9", b"1"), ("a\0b", b"2"), ("\0", b"3"), ("", b"")],
    [("twice", b"1"), ("twice", b"2"), ("narrowboat-id", b"one"), ("narrowboat-id", b"two")],
    [("narrowboat-id", b"x" * 100_000), ("h" * 50_000, b"\xff" * 50_000)],
    [("narrowboat-id\0", b"cut")],
]
#: Headers without a value, which kafka-python does not write.
EMPTY: list[list[tuple[str, bytes | None]]] = [[("twice", b"1"), ("twice", None)], [("narrowboat-id", None)]]


@pytest.fixture
def clients(kafka_server: KafkaServer) -> Iterator[dict[str, Any]]:
    """All of them, beside one another."""
    with ExitStack() as stack:
        yield {kind: stack.enter_context(connected(kind, kafka_server)) for kind in KINDS}


def foreign(server: KafkaServer, topic: str, records: list[dict[str, Any]]) -> None:
    """Publish as another program does."""
    from confluent_kafka import Producer
    from kafka import KafkaProducer

    address = "{}:{}".format(*server.internal)
    empty = Producer({"bootstrap.servers": address})
    for headers in EMPTY:
        empty.produce(topic, b"x", partition=0, headers=headers)
    assert empty.flush(20) == 0
    for codec in {each.get("codec") for each in records}:
        other = KafkaProducer(bootstrap_servers=address, compression_type=codec, max_request_size=200_000_000, linger_ms=50)
        sent = [
            other.send(topic, **{"partition": 0, **each, "headers": each.get("headers", [])})
            for each in (
                {name: value for name, value in each.items() if name != "codec"}
                for each in records
                if each.get("codec") == codec
            )
        ]
        other.flush(60)
        for each in sent:
            each.get(10)
        other.close()


def told_by_each(clients: dict[str, Any], topic: str, count: int) -> dict[str, list[tuple[Any, ...]]]:
    """What each client reads of a topic: all that is handed on."""
    found = {}
    for kind, client in clients.items():
        ear = Ear(client, f"{kind}-{topic}", topic)
        try:
            eventually(lambda ear=ear: len(ear.records) >= count, 30.0)  # type: ignore[misc]  # a default binds it
        finally:
            ear.close()
        records = sorted(ear.records, key=lambda each: each.offset)
        found[kind] = [(each.offset, each.timestamp, each.key, each.value, each.headers, each.problem) for each in records]
    return found


def test_a_record_without_anything_is_a_record(client: Any, topic: str, join: Callable[..., Ear]) -> None:
    """No value is None, no key is None, and an empty one is empty."""
    store(
        client, record(topic, 0, None, key=b"k", headers=[]), record(topic, 0, b"", headers=[]), record(topic, 0, b"", key=b"")
    )
    ear = join(client, f"g-{topic}", topic)
    eventually(lambda: len(ear.records) == 3)
    assert [(each.value, each.key) for each in ear.records] == [(None, b"k"), (b"", None), (b"", b"")]


def test_what_others_write_is_the_same_by_each_client(clients: dict[str, Any], kafka_server: KafkaServer) -> None:
    """Strange headers, no key, no value, tombstones, times that are none, each codec: every part of every record."""
    topic = new_topic(clients["python"], 1)
    strange = [{"value": b"x", "headers": headers} for headers in HEADERS] + list(strange_records().values())
    foreign(kafka_server, topic, strange)
    found = told_by_each(clients, topic, len(EMPTY) + len(strange))
    for one, other in zip(found["python"], found["confluent"], strict=True):
        assert one == other
    headers = [each[4] for each in found["python"]]
    assert [("caf\u00e9", b"1"), ("a", b"2"), ("", b"3"), ("", b"")] in headers
    assert all(each in headers for each in EMPTY)
    assert sum("no UTF-8" in each[5] for each in found["python"]) == 1


def test_what_each_client_writes_is_the_same_by_each(clients: dict[str, Any]) -> None:
    """Nothing of a record depends on who wrote it."""
    topics = {kind: new_topic(client, 1) for kind, client in clients.items()}
    made = [
        record("", 0, None, key=b"tombstone"),
        record("", 0, b"", key=b"", headers=[]),
        record("", 0, b"v", headers=[("twice", b"1"), ("twice", b""), ("", b"\xff"), ("caf\u00e9", b"\0")]),
        record("", 0, b"v", headers=[("h" * 20_000, b"x" * 20_000)]),
    ]
    read: list[Any] = []
    for kind, client in clients.items():
        store(client, *(each._replace(topic=topics[kind]) for each in made))
        read += told_by_each(clients, topics[kind], len(made)).values()
    assert all(each == read[0] for each in read)
    assert [each[4] for each in read[0]] == [each.headers for each in made]


def test_a_name_of_ours_with_a_nul_is_refused(kind: str, kafka_server: KafkaServer) -> None:
    """It would arrive under another name. The message is not there, and the next one is."""
    url = kafka_server.url.replace("kafka://", f"kafka+{kind}://", 1)
    with narrowboat.broker(f"{url}?session=2&partitions=1") as broker:
        queue = broker.queue(f"nul-{kind}")
        with pytest.raises(PublishFailed, match="has a NUL in it") as refused:
            queue.publish(b"x", headers={"fine": "1", "a\0b": "1"})
        assert not refused.value.retryable
        queue.publish(b"y", headers={"fine": "a\0b"})
        with queue.consume() as messages:
            message = messages.receive(20)
            assert message is not None
            assert (message.body, dict(message.headers)) == (b"y", {"fine": "a\0b"})
            message.ack()


def test_what_others_note_is_the_same_by_each_client(clients: dict[str, Any], kafka_server: KafkaServer) -> None:
    """Whatever another program commits beside an offset, as far as it is text; by the administration and by a member."""
    from kafka import KafkaAdminClient
    from kafka import TopicPartition as Place
    from kafka.structs import OffsetAndMetadata

    topic = new_topic(clients["python"], 1)
    tp = TopicPartition(topic, 0)
    admin = KafkaAdminClient(bootstrap_servers="{}:{}".format(*kafka_server.internal))
    for number, text in enumerate(["", "plain", "caf\u00e9 \u20ac", "x" * 4000, "cut\0here", "\0"]):
        noted = {tp: Committed(0, text.partition("\0")[0])}
        for kind, client in clients.items():
            group = f"{kind}{number}-{topic}"
            admin.alter_group_offsets(group, {Place(topic, 0): OffsetAndMetadata(0, text + "\0" if text else "", -1)})
            assert [each.admin.committed(group, [tp]) for each in clients.values()] == [noted, noted]
            ear = Ear(client, group, topic)
            eventually(lambda ear=ear: ear.told("assigned"))  # type: ignore[misc]  # a default binds it
            assert ear.told("assigned") == [noted]
            ear.close()
    admin.close()


def test_what_was_taken_back_is_passed(client: Any, topic: str, join: Callable[..., Ear], kafka_server: KafkaServer) -> None:
    """Records of an aborted transaction are for nobody, and where they end is told."""
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers="{}:{}".format(*kafka_server.internal), transactional_id=f"tx-{topic}")
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(topic, b"taken back", partition=0).get(10)
    producer.abort_transaction()
    producer.begin_transaction()
    producer.send(topic, b"kept", partition=1).get(10)
    producer.commit_transaction()
    producer.close()
    ear = join(client, f"g-{topic}", topic)
    eventually(lambda: [each.value for each in ear.records] == [b"kept"])
    eventually(lambda: (TopicPartition(topic, 0), 2) in ear.told("passed"))


def test_a_name_of_a_header_that_is_no_text_loses_no_record(
    client: Any, topic: str, join: Callable[..., Ear], kafka_server: KafkaServer
) -> None:
    """What another program wrote so is read, with its headers or with what is wrong with them, and so is what follows."""
    from kafka import KafkaProducer

    other = KafkaProducer(bootstrap_servers="{}:{}".format(*kafka_server.internal))
    for _ in range(300):  # often enough for what Python does differently with calls that are made often
        other.send(topic, b"strange", partition=0, headers=[(Latin("caf\u00e9"), b"1")])
    other.send(topic, b"plain", partition=0, headers=[("caf\u00e9", b"1")]).get(10)
    other.close()
    ear = join(client, f"g-{topic}", topic)
    eventually(lambda: [each.value for each in ear.records] == [*[b"strange"] * 300, b"plain"])
    strange, plain = ear.records[-2:]
    assert (strange.headers, "no UTF-8" in strange.problem) == ([], True)
    assert (plain.headers, plain.problem) == ([("caf\u00e9", b"1")], "")
