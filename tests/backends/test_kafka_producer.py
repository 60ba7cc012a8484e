"""Kafka: an error that ends a producer is told to each message for what it is there. No server is asked."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator

import pytest

with warnings.catch_warnings():
    # kafka-python reads its schemas in a way that Python 3.11 calls deprecated; not ours to mend, and an error here.
    warnings.simplefilter("ignore", DeprecationWarning)
    import kafka.errors as client
    from kafka.net.manager import KafkaConnectionManager
    from kafka.producer.sender import Sender
    from kafka.structs import TopicPartition

    from narrowboat_kafka.client import Code, Failed
    from narrowboat_kafka.library.connection import NetClient
    from narrowboat_kafka.library.producer import Producer

#: What the library says where a producer gets no number, because its user may write nowhere.
_NUMBERLESS = "Unexpected error in InitProducerIdResponse: [Error 31] ClusterAuthorizationFailedError"


@pytest.fixture
def producer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Producer]:
    monkeypatch.setattr(KafkaConnectionManager, "bootstrap", lambda *_, **__: None)
    monkeypatch.setattr(Sender, "start", lambda *_: None)
    made = Producer(
        bootstrap_servers="127.0.0.1:1", enable_idempotence=True, acks="all", api_version=(2, 8), kafka_client=NetClient
    )
    yield made
    made.disown()
    made._sender._client.close()


def ended(producer: Producer, error: Exception) -> tuple[Failed, Failed]:
    """What is told of a message that has left, and of one that has not."""
    left, waiting = (
        producer._accumulator.append(TopicPartition(topic, 0), 0, None, b"x", [])[0] for topic in ("left", "waits")
    )
    for batch in producer._accumulator._incomplete.all():
        if batch.topic_partition.topic == "left":
            batch.drained = time.monotonic()
    producer._accumulator.abort_batches(error)
    told = [producer._answer(each, time.monotonic()) for each in (left, waiting)]
    assert producer.is_spent
    assert isinstance(told[0], Failed)
    assert isinstance(told[1], Failed)
    return told[0], told[1]


@pytest.mark.parametrize(
    "error", [client.MessageSizeTooLargeError("another is"), client.TopicAuthorizationFailedError("of another")]
)
def test_what_the_server_said_of_another_message_is_said_of_none(producer: Producer, error: Exception) -> None:
    """One that has left may be stored: it was not refused."""
    left, waiting = ended(producer, error)
    assert (left.left, waiting.left) == (True, False)
    for told in (left, waiting):
        assert getattr(told.error, "code", None) == Code.OTHER
        assert type(error).__name__ in str(told.error)


def test_what_the_server_said_of_the_producer_is_said_of_what_waits(producer: Producer) -> None:
    left, waiting = ended(producer, client.KafkaError(_NUMBERLESS))
    assert (left.left, waiting.left) == (True, False)
    assert getattr(waiting.error, "code", None) == Code.CLUSTER_AUTHORIZATION_FAILED
    assert getattr(left.error, "code", None) == Code.OTHER
