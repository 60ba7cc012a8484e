"""What other programs write, by each client: the same records, whatever is in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from integration.kafka_clients.ear import Ear
from integration.kafka_clients.use import eventually, record, store
from integration.servers import KafkaServer
from narrowboat_kafka.client import TopicPartition


def test_a_record_without_anything_is_a_record(client: Any, topic: str, join: Callable[..., Ear]) -> None:
    """No value is None, no key is None, and an empty one is empty."""
    store(client, record(topic, 0, None, key=b"k", headers=[]), record(topic, 0, b"", headers=[]))
    ear = join(client, f"g-{topic}", topic)
    eventually(lambda: len(ear.records) == 2)
    assert [(each.value, each.key, each.headers) for each in ear.records] == [(None, b"k", []), (b"", None, [])]


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


class Latin(str):
    """A name that goes to the server in another encoding than UTF-8."""

    def encode(self, *_: object) -> bytes:
        return super().encode("latin-1")


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
