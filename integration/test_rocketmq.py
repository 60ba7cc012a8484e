"""What the conformance kit cannot know about RocketMQ: each trap of its server, and other programs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import narrowboat
from integration.rocketmq_harness import Plain
from integration.servers import RocketMQServer
from integration.servers.rocketmq import ask
from narrowboat.conformance.watch import watch
from narrowboat.errors import ConfigurationError, NotFound, StaleDelivery, Unavailable
from narrowboat.messaging import Messaging
from narrowboat_rocketmq.library import definition_pb2 as said

#: An upper bound, extended by what the machine stood still for.
upper = watch().extended
#: Seconds for what takes milliseconds where nothing else runs.
SOON = 20.0


@pytest.fixture
def broker(rocketmq_server: RocketMQServer) -> Iterator[Messaging]:
    with narrowboat.broker(f"{rocketmq_server.url}&queues=2", timeout=10.0) as opened:
        yield opened


@pytest.fixture
def plain(rocketmq_server: RocketMQServer) -> Iterator[Plain]:
    opened = Plain(rocketmq_server.port)
    yield opened
    opened.close()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A queue for one test."""
    return f"q{abs(hash((request.node.name, time.time_ns())))}"


# -- other programs -----------------------------------------------------------------------------------------------


def test_a_message_of_another_program_is_consumed(broker: Messaging, plain: Plain, name: str) -> None:
    queue = broker.queue(name)
    queue.declare()

    assert plain.send(name, b"from elsewhere", {"Order Id": "4711"}).status.code == said.OK

    with queue.consume() as consumer:
        message = consumer.receive(timeout=SOON)
        assert message is not None
        assert (message.body, dict(message.headers), message.attempt) == (b"from elsewhere", {"Order Id": "4711"}, 1)
        message.ack()


def test_a_message_of_ours_is_consumed_by_another_program(broker: Messaging, plain: Plain, name: str) -> None:
    queue = broker.queue(name)
    queue.declare()
    queue.publish(b"from here", id="order-1", headers={"trace": "t1"})

    with plain.consuming(name, name) as receive:
        (message,) = receive(SOON)

    assert message.body == b"from here"
    assert message.system_properties.message_id == "order-1"
    assert message.user_properties["trace"] == "t1"


# -- traps --------------------------------------------------------------------------------------------------------


def test_delayed_messages_sent_together_all_come(broker: Messaging, name: str) -> None:
    """A call with several would end the broker's timer for good."""
    queue = broker.queue(name)
    answers = queue.publish_many(
        [narrowboat.Outbound(str(n).encode(), delay=1.0) for n in range(5)] + [narrowboat.Outbound(b"now")]
    )
    assert not [answer for answer in answers if isinstance(answer, Exception)]

    with queue.consume() as consumer:
        found = _take(consumer, 6)

    assert found[0] == b"now" and set(found) == {b"now", *(str(n).encode() for n in range(5))}


def test_whoever_settles_by_an_old_handle_or_late_is_told(broker: Messaging, name: str) -> None:
    """The server says OK to all of it."""
    queue = broker.queue(name, lease=10.0)
    queue.publish(b"x")
    with queue.consume() as consumer:
        message = consumer.receive(timeout=SOON)
        assert message is not None
        message.extend(20.0)
        message.ack()
        with pytest.raises(StaleDelivery):
            message.ack()
        assert consumer.receive(timeout=1.0) is None


def test_a_subscription_begins_when_it_is_declared(broker: Messaging, name: str) -> None:
    """By itself the server begins before or behind what the topic has."""
    topic = broker.topic(name)
    topic.declare()
    topic.publish(b"before")
    group = topic.subscription("g")
    group.declare()
    topic.publish(b"after")

    with group.consume() as consumer:
        assert _take(consumer, 1) == [b"after"]


def test_what_was_published_before_the_first_consumer_is_kept(broker: Messaging, name: str) -> None:
    queue = broker.queue(name)
    for number in range(5):
        queue.publish(str(number).encode())

    with queue.consume() as consumer:
        assert set(_take(consumer, 5)) == {b"0", b"1", b"2", b"3", b"4"}


def test_an_empty_body_and_strange_headers_arrive(broker: Messaging, name: str) -> None:
    """The server refuses both."""
    queue = broker.queue(name)
    headers = {"KEYS": "a b", "__TAG": "", "line": "a\nb", **{f"h{n}": "x" * 300 for n in range(150)}}
    queue.publish(b"", headers=headers)

    with queue.consume() as consumer:
        message = consumer.receive(timeout=SOON)
        assert message is not None
        assert (message.body, dict(message.headers)) == (b"", headers)
        message.ack()


def test_a_queue_that_is_looked_at_before_it_is_made_is_usable_at_once(broker: Messaging, name: str) -> None:
    """A proxy that is asked for a topic keeps for 40 seconds that there is none."""
    queue = broker.queue(name)
    assert queue.depth().ready == 0
    begun = time.monotonic()
    queue.publish(b"x")

    with queue.consume() as consumer:
        assert _take(consumer, 1) == [b"x"]
    assert time.monotonic() - begun < upper(SOON)


def test_without_a_name_server_what_is_there_is_used_and_nothing_is_made(
    rocketmq_server: RocketMQServer, broker: Messaging, name: str
) -> None:
    broker.queue(name).declare()
    with narrowboat.broker(rocketmq_server.url_for(admin=False), timeout=10.0) as bare:
        bare.queue(name).publish(b"x")
        with bare.queue(name).consume() as consumer:
            assert _take(consumer, 1) == [b"x"]
        with pytest.raises(NotFound):
            bare.queue(f"{name}-none").publish(b"x")


def test_a_lease_that_ended_brings_the_message_back_in_time(broker: Messaging, name: str) -> None:
    queue = broker.queue(name, lease=10.0)
    queue.publish(b"x")
    with queue.consume(auto_extend=False) as consumer:
        assert consumer.receive(timeout=SOON) is not None
        begun = time.monotonic()
        again = consumer.receive(timeout=upper(30.0))
        assert again is not None and again.attempt == 2
        assert 9.0 < time.monotonic() - begun < upper(15.0)
        again.ack()


# -- what others have made ---------------------------------------------------------------------------------------------


def test_a_topic_of_operators_is_used_as_it_is(rocketmq_server: RocketMQServer, broker: Messaging, name: str) -> None:
    fields = {"topic": name, "defaultTopic": "TBW102", "readQueueNums": 1, "writeQueueNums": 1, "perm": 6}
    fields |= {"topicFilterType": "SINGLE_TAG", "topicSysFlag": 0, "order": "false", "attributes": "+message.type=NORMAL"}
    code, _ = ask(rocketmq_server.broker_port, 17, fields)
    assert code == 0

    queue = broker.queue(name)
    queue.publish(b"x")
    with queue.consume() as consumer:
        assert _take(consumer, 1) == [b"x"]


# -- what is no proxy ---------------------------------------------------------------------------------------------


def test_a_name_server_for_a_proxy_and_a_proxy_for_a_name_server(rocketmq_server: RocketMQServer) -> None:
    url = f"rocketmq://127.0.0.1:{rocketmq_server.admin_port}?admin=127.0.0.1:{rocketmq_server.port}"
    with narrowboat.broker(url, timeout=2.0) as broker:
        queue = broker.queue("orders")
        with pytest.raises(Unavailable, match="name server"):
            queue.declare()
        with pytest.raises(Unavailable):
            broker.ping()


def test_tls_with_a_plain_port_says_so(rocketmq_server: RocketMQServer) -> None:
    broker = narrowboat.broker(f"rocketmqs://127.0.0.1:{rocketmq_server.port}", timeout=3.0)
    with broker, pytest.raises((ConfigurationError, Unavailable)) as refused:
        broker.ping()
    assert "certificate" in str(refused.value) or "TLS" in str(refused.value)


# -- helpers ------------------------------------------------------------------------------------------------------


def _take(consumer: Any, count: int) -> list[bytes]:
    """The bodies of so many messages, acknowledged."""
    found: list[bytes] = []
    for _ in range(count):
        message = consumer.receive(timeout=SOON)
        assert message is not None, found
        found.append(message.body)
        message.ack()
    return found


def test_threads_end_with_the_broker(rocketmq_server: RocketMQServer, name: str) -> None:
    with narrowboat.broker(f"{rocketmq_server.url}&queues=2", timeout=10.0) as broker, broker.queue(name).consume() as consumer:
        consumer.receive(timeout=0.5)
        assert [each for each in threading.enumerate() if each.name.startswith("narrowboat-rocketmq")]

    assert not [each for each in threading.enumerate() if each.name.startswith("narrowboat-rocketmq")]
