"""A client's administration: topics, offsets, what groups have committed; and why a first connection is not made."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from integration.fixtures import Servers
from integration.kafka_clients.ear import Ear
from integration.kafka_clients.use import SLACK, TIMEOUT, connect, connected, eventually, new_topic, record, store, upper
from integration.servers import KafkaServer
from narrowboat.driver.tls import Verify
from narrowboat.errors import NarrowboatError
from narrowboat_kafka.client import Code, Committed, Edge, KafkaError, TopicPartition, Unconnected
from narrowboat_kafka.clients import KINDS
from narrowboat_kafka.options import Sasl


def test_what_the_administration_knows(client: Any, topic: str) -> None:
    """Topics, their settings, their offsets."""
    client.admin.ping()
    assert topic in client.admin.topics()
    (found,) = client.admin.describe([topic, "nowhere"])
    assert (found.name, found.partitions, found.ready) == (topic, (0, 1), True)
    assert found.id is not None
    assert [each.name for each in client.loop.call(client.admin.metadata, [topic, "nowhere"])] == [topic]
    made = f"{topic}-made"
    client.admin.create(made, 1, -1, {"retention.ms": "123456", "cleanup.policy": "delete"})
    eventually(lambda: client.admin.config(made, ["retention.ms", "cleanup.policy"]).get("retention.ms") == "123456")
    with pytest.raises(KafkaError) as met:
        client.admin.create(made, 1, -1, {})
    assert met.value.code == Code.TOPIC_ALREADY_EXISTS
    with pytest.raises(KafkaError) as met:
        client.admin.create(f"{topic}-more", 1, 3, {})
    assert met.value.code == Code.INVALID_REPLICATION_FACTOR
    with pytest.raises(KafkaError) as met:
        client.admin.delete(["nowhere"])
    assert met.value.code == Code.UNKNOWN_TOPIC_OR_PARTITION
    client.admin.delete([made])
    eventually(lambda: not client.admin.describe([made]))
    store(client, record(topic), record(topic))
    zero = TopicPartition(topic, 0)
    assert client.loop.call(client.admin.offsets, [zero], Edge.LATEST, TIMEOUT) == {zero: 2}
    assert client.loop.call(client.admin.offsets, [zero], Edge.EARLIEST, TIMEOUT) == {zero: 0}
    assert client.loop.call(client.admin.offsets, [], Edge.EARLIEST, TIMEOUT) == {}


def test_what_groups_have_committed_is_seen_and_changed_from_outside(client: Any, topic: str, join: Callable[..., Ear]) -> None:
    """A group that is consumed belongs to its members alone."""
    group, zero, nine = f"g-{topic}", TopicPartition(topic, 0), TopicPartition(topic, 9)
    assert client.admin.committed(group, [zero]) == {}
    assert client.admin.alter(group, {zero: Committed(1, "from outside €")}) == []
    assert client.admin.committed(group, [zero, nine]) == {zero: Committed(1, "from outside €")}
    ear = join(client, group, topic)
    eventually(lambda: len(ear.held) == 2)
    (met,) = client.admin.alter(group, {zero: Committed(0, "")})
    assert met.code in (Code.UNKNOWN_MEMBER_ID, Code.REBALANCE_IN_PROGRESS)
    assert [each.code for each in client.admin.delete_groups([group])] == [Code.NON_EMPTY_GROUP]
    ear.close()
    assert [each.code for each in client.admin.delete_groups([group, "no-such-group"])] == [Code.GROUP_ID_NOT_FOUND]
    assert client.admin.committed(group, [zero]) == {}


@pytest.mark.parametrize("length", [1, 55, 64, 66, 88, 200])
def test_what_one_client_notes_the_other_reads(
    kind: str, client: Any, topic: str, length: int, kafka_server: KafkaServer
) -> None:
    """The metadata of a commit is the same on all clients, whatever its length."""
    zero = TopicPartition(topic, 0)
    for other in KINDS:
        with connected(other, kafka_server) as writing:
            assert writing.admin.alter(f"g-{topic}", {zero: Committed(3, "x" * length)}) == []
        assert client.admin.committed(f"g-{topic}", [zero]) == {zero: Committed(3, "x" * length)}


def test_a_group_that_has_no_coordinator_yet_has_committed_nothing(kind: str, fragile: KafkaServer) -> None:
    """The first question of all to a new server: it is not the coordinator of any group before it has made room for that."""
    with connected(kind, fragile) as client:
        topic = new_topic(client)
        assert [client.admin.committed(f"g{number}", [TopicPartition(topic, 0)]) for number in range(12)] == [{}] * 12


@pytest.fixture(scope="module")
def guarded(servers: Servers) -> KafkaServer:
    """With TLS and passwords."""
    server: KafkaServer = servers(KafkaServer, tls=True, users={"shop": "s3cret"})
    return server


def refused(kind: str, server: KafkaServer, **options: Any) -> Any:
    begun = time.monotonic()
    with pytest.raises((KafkaError, NarrowboatError)) as met:
        connect(kind, server, timeout=3.0, **options)
    assert time.monotonic() - begun < upper(3.0 + SLACK)
    assert "s3cret" not in str(met.value) and "wr0ng" not in str(met.value)
    return met.value


def test_tls_and_a_password_are_as_good_as_none(kind: str, guarded: KafkaServer) -> None:
    """Everything works, with the authority named and with nothing checked."""
    unchecked: dict[str, Any] = {"ca": None, "verify": Verify.NONE}
    for options in ({}, unchecked):
        with connected(kind, guarded, url=guarded.url.partition("?")[0], **options) as client:
            topic = new_topic(client)
            store(client, record(topic))
            ear = Ear(client, f"g-{topic}", topic)
            eventually(lambda: len(ear.records) == 1)  # noqa: B023  # called in this round alone
            ear.close()


#: kafka-python tries again until the time is over, and knows no more than how its last try ended.
only_librdkafka = pytest.mark.parametrize("kind", ["confluent"], indirect=True)


@only_librdkafka
def test_why_there_is_no_connection(kind: str, guarded: KafkaServer, kafka_server: KafkaServer) -> None:
    """Within the time, with the reason."""
    error = refused(kind, kafka_server, url="kafka://127.0.0.1:9")
    assert isinstance(error, Unconnected) and isinstance(error.met, ConnectionRefusedError)
    plain = f"kafka://shop:s3cret@127.0.0.1:{guarded.port}"
    error = refused(kind, guarded, url=plain)
    assert isinstance(error, Unconnected) and getattr(error.met, "code", None) == Code.SPEAKS_TLS
    error = refused(kind, kafka_server, url=f"kafkas://127.0.0.1:{kafka_server.port}", verify=None)
    assert isinstance(error, Unconnected) and error.met is not None
    error = refused(kind, guarded, url=guarded.url.partition("?")[0], ca=None)
    assert isinstance(error, Unconnected) and "certificate verify failed" in str(error.met)


@only_librdkafka
def test_a_password_that_is_wrong_is_told_at_once(kind: str, guarded: KafkaServer) -> None:
    """And so is a mechanism that the server does not offer."""
    url = f"kafkas://shop:wr0ng@127.0.0.1:{guarded.port}"
    assert refused(kind, guarded, url=url).code == Code.SASL_AUTHENTICATION_FAILED
    url = guarded.url.partition("?")[0]
    assert refused(kind, guarded, url=url, sasl=Sasl.SCRAM_256).code == Code.UNSUPPORTED_SASL_MECHANISM
