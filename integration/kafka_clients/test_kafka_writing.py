"""A client's producers: what becomes of each record, and whether one that was not stored may have reached the server."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from integration.kafka_clients.ear import Ear
from integration.kafka_clients.use import SLACK, TIMEOUT, connected, eventually, new_topic, record, store, upper
from integration.servers import KafkaServer
from narrowboat.conformance.faults.proxy import Proxy
from narrowboat_kafka.client import Code, Edge, TopicPartition


def test_each_record_has_its_own_outcome(kind: str, client: Any, topic: str) -> None:
    """One that is refused takes no other with it. What comes next is stored."""
    producer = client.producer()
    large = record(topic, 0, b"x" * (1024 * 1024 + 5000))
    answers = producer.publish([record(topic), large, record(topic, 1)], time.monotonic() + TIMEOUT)
    assert [answer is None for answer in answers] == [True, False, True]
    assert answers[1].error.code in (Code.MESSAGE_TOO_LARGE, Code.RECORD_LIST_TOO_LARGE)
    huge = record(topic, 0, b"x" * (9 * 1024 * 1024))
    (answer,) = producer.publish([huge], time.monotonic() + TIMEOUT)
    assert (answer.error.code, answer.left) == (Code.MESSAGE_TOO_LARGE, False)
    # kafka-python's idempotent producer has lost count when the server refuses a batch, and says so.
    assert not producer.is_spent or kind == "python"
    following = client.producer() if producer.is_spent else producer
    assert following.publish([record(topic)], time.monotonic() + TIMEOUT) == [None]
    producer.end(1.0)


def test_more_than_a_producer_holds_is_taken_all_the_same(client: Any, topic: str) -> None:
    """Who hands over more than there is room for waits."""
    store(client, *(record(topic, None, b"x") for _ in range(150_000)))
    ends = client.loop.call(client.admin.offsets, [TopicPartition(topic, 0), TopicPartition(topic, 1)], Edge.LATEST, TIMEOUT)
    assert sum(ends.values()) == 150_000


def test_many_threads_share_a_producer(client: Any, topic: str) -> None:
    """Each has its own outcomes."""
    producer = client.producer()
    found: list[Any] = []

    def publish() -> None:
        for _ in range(20):
            found.extend(producer.publish([record(topic, None)], time.monotonic() + 2 * TIMEOUT))

    threads = [threading.Thread(target=publish) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [None] * 320
    producer.end(1.0)


def test_a_key_has_the_same_partition_everywhere(client: Any, kafka_server: KafkaServer) -> None:
    """The one that other clients give it (murmur2), so that a key's messages stay together."""
    from kafka import KafkaProducer

    topic = new_topic(client, 7)
    keys = [b"key-%d" % number for number in range(40)]
    other = KafkaProducer(bootstrap_servers="{}:{}".format(*kafka_server.internal))
    theirs = {key: other.send(topic, b"", key=key).get(10).partition for key in keys}
    other.close()
    store(client, *(record(topic, None, key=key) for key in keys))
    ear = Ear(client, f"g-{topic}", topic)
    eventually(lambda: len(ear.records) == 80)
    ear.close()
    found: dict[bytes, set[int]] = {}
    for each in ear.records:
        found.setdefault(each.key, set()).add(each.partition)
    assert found == {key: {partition} for key, partition in theirs.items()}


def test_a_topic_that_is_not_there_gets_nothing(client: Any) -> None:
    """It never left, and no topic is made of it."""
    producer = client.producer()
    (answer,) = producer.publish([record("never-made", None)], time.monotonic() + 1.0)
    assert not answer.left
    assert not client.admin.describe(["never-made"])
    producer.end(0.1)


def test_what_cannot_leave_says_so(kind: str, fragile: KafkaServer) -> None:
    """With the server gone, what is published then never left; it comes back, and a new producer stores."""
    with connected(kind, fragile, timeout=3.0) as client:
        topic = new_topic(client)
        producer = client.producer()
        assert producer.publish([record(topic)], time.monotonic() + TIMEOUT) == [None]
        fragile.kill()
        time.sleep(0.5)  # whoever has a connection hears of its end
        begun = time.monotonic()
        answers = producer.publish([record(topic), record(topic, 1)], begun + 1.5)
        assert time.monotonic() - begun < upper(1.5 + SLACK)
        assert [each is not None and each.left for each in answers] == [False, False]
        producer.end(0.1)
        fragile.start()
        eventually(lambda: all(each is None for each in client.producer().publish([record(topic)], time.monotonic() + 3)), 40.0)


@pytest.mark.parametrize("reset", [False, True])
def test_what_was_on_a_connection_that_broke_may_have_arrived(kind: str, fragile: KafkaServer, reset: bool) -> None:
    """The answer was lost with the connection, and nobody answers any more: the record may be on the server.

    Reset, the record is in the queue again, of which the client tells another thing than of what is on its way.
    """
    behind, front = fragile.proxied
    proxy = Proxy(behind.host, behind.port)
    proxy.refuse()
    proxy._port = front.port
    proxy.heal()
    try:
        with connected(kind, fragile, url=fragile.proxied_url) as client:
            topic = new_topic(client)
            producer = client.producer()
            assert producer.publish([record(topic)], time.monotonic() + TIMEOUT) == [None]
            fragile.pause()
            answers: list[Any] = []
            thread = threading.Thread(
                target=lambda: answers.extend(producer.publish([record(topic)], time.monotonic() + 2.0)), daemon=True
            )
            thread.start()
            time.sleep(0.7)  # it has been sent by now, and waits in the frozen server
            proxy.refuse()
            if reset:
                proxy.reset()
            thread.join(upper(10.0))
            assert [each.left for each in answers] == [True]
            producer.end(0.1)
            fragile.resume()
    finally:
        proxy.close()
