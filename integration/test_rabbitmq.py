"""RabbitMQ against a real server: what the kit cannot bring about by itself, and each thing that can be wrong."""

from __future__ import annotations

import collections
import logging
import secrets
import threading
import time
from collections.abc import Iterator
from typing import Any

import pika
import pytest

import narrowboat
from integration import kept
from integration.fixtures import Servers
from integration.servers import RabbitMQServer
from narrowboat.errors import (
    AccessDenied,
    ConfigurationError,
    Conflict,
    NarrowboatError,
    NotFound,
    PublishFailed,
    PublishUnknown,
    StaleDelivery,
    Unavailable,
)

#: Seconds for one call in the tests of what is wrong, and what may come on top on a busy machine.
TIMEOUT, SLACK = 1.5, 3.0
QUORUM = {"x-queue-type": "quorum"}


@pytest.fixture(scope="module")
def server() -> Iterator[RabbitMQServer]:
    with kept.lent(RabbitMQServer, RabbitMQServer) as lent:
        yield lent


@pytest.fixture
def prefix() -> str:
    return f"t{secrets.token_hex(4)}"


@pytest.fixture
def channel(server: RabbitMQServer) -> Iterator[Any]:
    """A channel of pika alone."""
    with pika.BlockingConnection(pika.URLParameters(server.url)) as blocking:
        yield blocking.channel()


def within(seconds: float, begun: float) -> None:
    took = time.monotonic() - begun
    assert took < seconds, f"it took {took:.1f} s"


# -- other programs ---------------------------------------------------------------------------------------------------


def test_what_pika_publishes_is_consumed(server: RabbitMQServer, channel: Any) -> None:
    """A queue that another program declared is consumed as it is, and its messages as they are, at attempt 1."""
    name = f"theirs{secrets.token_hex(4)}"
    channel.queue_declare(name, durable=True, arguments=QUORUM)
    channel.basic_publish("", name, b"plain")
    headers = {"n": 7, "text": "ü"}
    channel.basic_publish("", name, b"rich", pika.BasicProperties(headers=headers, content_type="text/plain", message_id="m"))
    with narrowboat.broker(server.url, declare="never") as broker, broker.queue(name).consume() as messages:
        plain, rich = messages.receive(5), messages.receive(5)
        assert plain is not None
        assert rich is not None
        assert (plain.body, plain.attempt, dict(plain.headers), plain.dead) == (b"plain", 1, {}, None)
        assert (rich.id, dict(rich.headers), rich.content_type) == ("m", {"n": "7", "text": "ü"}, "text/plain")
        plain.nack(delay=0.2)
        rich.ack()
        again = messages.receive(5)
        assert again is not None
        assert (again.id, again.body, again.attempt) == (plain.id, b"plain", 2)
        again.ack()
    channel.queue_delete(name)


def test_pika_consumes_what_we_publish(server: RabbitMQServer, channel: Any) -> None:
    """A program that knows nothing of Narrowboat finds queue, body, headers and properties where it looks for them."""
    name = f"ours{secrets.token_hex(4)}"
    with narrowboat.broker(server.url) as broker:
        queue = broker.queue(name)
        queue.publish(b"x", id="m", headers={"v": "1"}, correlation_id="c", content_type="text/plain", key="k")
        method, properties, body = channel.basic_get(name, auto_ack=True)
        assert method is not None
        assert (body, properties.message_id, properties.correlation_id) == (b"x", "m", "c")
        assert (properties.content_type, properties.delivery_mode) == ("text/plain", 2)
        assert properties.headers["v"] == "1"
        assert properties.headers["narrowboat-key"] == "k"
        queue.delete()


def test_a_request_of_pika_is_answered(server: RabbitMQServer, channel: Any, prefix: str) -> None:
    """Direct reply-to, as other programs use it."""
    got: list[bytes] = []
    channel.basic_consume("amq.rabbitmq.reply-to", lambda *parts: got.append(parts[3]), auto_ack=True)
    with narrowboat.broker(server.url, prefix=prefix) as broker, broker.queue("quote").consume() as messages:
        properties = pika.BasicProperties(reply_to="amq.rabbitmq.reply-to", correlation_id="c")
        channel.basic_publish("", f"{prefix}:quote", b"how much?", properties)
        message = messages.receive(5)
        assert message is not None
        message.reply(b"7")
        message.ack()
    deadline = time.monotonic() + 5
    while not got and time.monotonic() < deadline:
        channel.connection.process_data_events(time_limit=0.1)
    assert got == [b"7"]


def test_a_reply_to_nobody_is_no_error(server: RabbitMQServer, prefix: str) -> None:
    with narrowboat.broker(server.url, prefix=prefix) as broker, broker.queue("quote").consume() as messages:
        with narrowboat.broker(server.url, prefix=prefix) as asking, pytest.raises(narrowboat.RequestTimeout):
            asking.queue("quote").request(b"?", timeout=0.3)
        message = messages.receive(5)
        assert message is not None
        message.reply(b"too late")
        message.ack()


# -- counting ---------------------------------------------------------------------------------------------------------


def test_rolling_restarts_kill_nothing(server: RabbitMQServer, prefix: str) -> None:
    """Ten clean closes with messages in the buffer, and none of them is counted; what was nacked is, once each."""
    with narrowboat.broker(server.url, prefix=prefix) as broker:
        broker.queue("orders").publish_many([b"x"] * 50)
    nacked = 0
    for _ in range(10):
        with narrowboat.broker(server.url, prefix=prefix) as broker, broker.queue("orders").consume(prefetch=50) as messages:
            message = messages.receive(5)
            assert message is not None
            if nacked < 3:
                message.nack()
                nacked += 1
            else:
                message.ack()
                broker.queue("orders").publish(b"x")
    attempts: collections.Counter[int] = collections.Counter()
    with narrowboat.broker(server.url, prefix=prefix) as broker, broker.queue("orders").consume() as messages:
        for _ in range(50):
            message = messages.receive(5)
            assert message is not None
            attempts[message.attempt] += 1
            message.ack()
        assert messages.receive(0) is None
    assert sum((attempt - 1) * count for attempt, count in attempts.items()) <= nacked, attempts


def test_the_servers_own_limit_drops_nothing(server: RabbitMQServer, prefix: str) -> None:
    """A server of 3.10 takes a delivery limit of -1 for none at all and drops at the first return."""
    with narrowboat.broker(server.url, prefix=prefix) as broker:
        queue = broker.queue("orders", max_deliveries=0)
        queue.publish(b"x")
        with queue.consume() as messages:
            for attempt in range(1, 31):
                message = messages.receive(5)
                assert message is not None
                assert message.attempt == attempt
                message.nack()


def test_many_retries_pass_the_ladder_again_and_again(server: RabbitMQServer, prefix: str) -> None:
    """The server drops as a cycle what comes to a queue twice by dead-lettering, unless its marks are taken off."""
    with narrowboat.broker(server.url, prefix=prefix) as broker:
        queue = broker.queue("orders", max_deliveries=0)
        queue.publish(b"x", ttl=60)
        with queue.consume() as messages:
            for attempt in range(1, 6):
                message = messages.receive(5)
                assert message is not None
                assert message.attempt == attempt
                assert dict(message.headers) == {}
                message.nack(delay=0.3)


# -- what can be wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["user", "password", "vhost"])
def test_who_we_are_not(server: RabbitMQServer, broken: str) -> None:
    url = {
        "user": server.url_for("nobody", "guest"),
        "password": server.url_for("guest", "hunter2"),
        "vhost": server.url_for("guest", "guest", "elsewhere"),
    }[broken]
    begun = time.monotonic()
    with narrowboat.broker(url, timeout=TIMEOUT) as broker:
        for use in (broker.ping, lambda: broker.queue("orders").publish(b"x")):
            with pytest.raises(AccessDenied) as caught:
                use()
            assert "hunter2" not in repr(caught.value)
            assert "hunter2" not in str(caught.value.__cause__)
    within(3 * TIMEOUT + SLACK, begun)


def test_nobody_is_there() -> None:
    begun = time.monotonic()
    with narrowboat.broker("amqp://127.0.0.1:1", timeout=TIMEOUT) as broker:
        with pytest.raises(Unavailable):
            broker.ping()
        with pytest.raises((PublishFailed, PublishUnknown)) as caught:
            broker.queue("orders").publish(b"x")
        assert caught.value.retryable
        with pytest.raises(Unavailable), broker.queue("orders").consume():
            pass
    within(3 * TIMEOUT + SLACK, begun)


def test_tls_where_there_is_none(server: RabbitMQServer) -> None:
    url = server.url.replace("amqp://", "amqps://")
    with narrowboat.broker(url, timeout=TIMEOUT) as broker, pytest.raises((ConfigurationError, Unavailable)):
        broker.ping()


def test_no_tls_where_there_is_and_certificates(servers: Servers) -> None:
    secure = servers(RabbitMQServer, RabbitMQServer, tls=True)
    with narrowboat.broker(secure.url, timeout=5.0) as broker:
        broker.ping()
    plain = secure.url.replace("amqps://", "amqp://").partition("?")[0]
    with narrowboat.broker(plain, timeout=TIMEOUT) as broker, pytest.raises(Unavailable):
        broker.ping()
    unknown = secure.url.partition("?")[0]
    with narrowboat.broker(unknown, timeout=TIMEOUT) as broker, pytest.raises(ConfigurationError, match="certificate"):
        broker.ping()
    with narrowboat.broker(f"{unknown}?verify=none", timeout=5.0) as broker:
        broker.ping()


def test_a_queue_that_differs_says_what(server: RabbitMQServer, channel: Any) -> None:
    name = f"theirs{secrets.token_hex(4)}"
    channel.queue_declare(name, durable=True)
    with narrowboat.broker(server.url) as broker:
        for use in (broker.queue(name).declare, lambda: broker.queue(name).publish(b"x")):
            with pytest.raises(Conflict, match="x-queue-type is not set and was asked as quorum"):
                use()
    with narrowboat.broker(server.url, declare="never") as broker:
        broker.queue(name).publish(b"x")
        with broker.queue(name).consume() as messages:
            message = messages.receive(5)
            assert message is not None
            message.ack()
    channel.queue_delete(name)


def test_a_user_without_rights(server: RabbitMQServer, prefix: str) -> None:
    server.ctl("add_user", "reader", "reader")
    server.ctl("set_permissions", "-p", "/", "reader", "", "", ".*")
    try:
        with narrowboat.broker(server.url_for("reader", "reader"), prefix=prefix) as broker:
            broker.ping()
            with pytest.raises(AccessDenied, match="reader"):
                broker.queue("orders").publish(b"x")
            with pytest.raises(AccessDenied, match="reader"):
                broker.queue("orders").declare()
    finally:
        server.ctl("delete_user", "reader")


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_small_and_large_bodies_of_many_threads_arrive_as_they_were(servers: Servers, prefix: str, tls: bool) -> None:
    """Small messages are sent together, behind large ones that the socket takes bit by bit: no byte may be lost or twice."""
    secure = servers(RabbitMQServer, RabbitMQServer, tls=tls)
    threads, each = 8, 40
    bodies = [[secrets.token_bytes(300_000 if n % 5 == 0 else 40 * n) for n in range(each)] for _ in range(threads)]
    failures: list[NarrowboatError] = []
    with narrowboat.broker(secure.url, prefix=prefix) as broker:
        queue = broker.queue("bodies")
        queue.declare()

        def publish(mine: list[bytes]) -> None:
            answers = [queue.publish(body) for body in mine[: each // 2]] + queue.publish_many(mine[each // 2 :])
            failures.extend(answer for answer in answers if isinstance(answer, NarrowboatError))

        workers = [threading.Thread(target=publish, args=(mine,)) for mine in bodies]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert not failures
        came: list[bytes] = []
        with queue.consume(prefetch=50) as messages:
            while len(came) < threads * each:
                message = messages.receive(10)
                assert message is not None, f"{len(came)} of {threads * each} came"
                came.append(message.body)
                message.ack()
    assert sorted(came) == sorted(body for mine in bodies for body in mine)


def test_a_queue_deleted_in_mid_publish(server: RabbitMQServer, channel: Any, prefix: str) -> None:
    """It is made again; with declare=never it is `NotFound`; a message is never confirmed into nothing."""
    with narrowboat.broker(server.url, prefix=prefix) as broker:
        queue = broker.queue("orders")
        queue.publish(b"1")
        channel.queue_delete(f"{prefix}:orders")
        queue.publish(b"2")
        with queue.consume() as messages:
            message = messages.receive(5)
            assert message is not None
            assert message.body == b"2"
            message.ack()
    with narrowboat.broker(server.url, prefix=prefix, declare="never") as broker:
        queue = broker.queue("orders")
        queue.publish(b"3")
        channel.queue_delete(f"{prefix}:orders")
        with pytest.raises(NotFound):
            queue.publish(b"4")


def test_a_look_at_what_is_not_there_leaves_no_warning(
    server: RabbitMQServer, channel: Any, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    with narrowboat.broker(f"{server.url}?prefix={prefix}") as broker:
        queue = broker.queue("orders")
        queue.publish(b"x")
        caplog.set_level(logging.WARNING, logger="pika")  # asked for: otherwise all of it is at DEBUG
        caplog.clear()
        assert queue.depth().dead == 0
        assert not caplog.records
    with pytest.raises(pika.exceptions.ChannelClosedByBroker):
        channel.queue_declare(f"{prefix}:nowhere", passive=True)
    assert any("Channel.Close" in record.getMessage() for record in caplog.records), "pika's own channels warn as ever"


def test_a_topic_deleted_in_mid_publish(server: RabbitMQServer, channel: Any, prefix: str) -> None:
    with narrowboat.broker(server.url, prefix=prefix) as broker:
        topic = broker.topic("prices")
        topic.publish(b"1")
        channel.exchange_delete(f"{prefix}:prices")
        with pytest.raises(NarrowboatError):
            topic.publish(b"2")
        topic.publish(b"3")


def test_settling_after_the_connection_was_cut(server: RabbitMQServer, prefix: str) -> None:
    """A delivery of the old connection settles nothing on the new one, where its number may be another's."""
    with narrowboat.broker(server.url, prefix=prefix) as broker, broker.queue("orders").consume(prefetch=2) as messages:
        broker.queue("orders").publish_many([b"0", b"1"])
        old = [messages.receive(5), messages.receive(5)]
        server.ctl("close_all_user_connections", "guest", "a test")
        broker.queue("orders").publish(b"2")
        for message in old:
            assert message is not None
            with pytest.raises((StaleDelivery, narrowboat.SettleUnknown)):
                message.ack()
        bodies = set()
        for _ in range(3):
            message = messages.receive(10)
            assert message is not None
            bodies.add(message.body)
            message.ack()
        assert bodies == {b"0", b"1", b"2"}
        assert messages.receive(0.3) is None


def test_an_alarm_is_told_in_time_and_consuming_goes_on(server: RabbitMQServer, prefix: str) -> None:
    with narrowboat.broker(server.url, prefix=prefix, timeout=TIMEOUT) as broker:
        queue = broker.queue("orders")
        queue.publish_many([b"0", b"1"])
        with queue.consume(prefetch=1) as messages:
            first = messages.receive(5)
            assert first is not None
            server.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
            try:
                for expected in ((PublishUnknown, PublishFailed), PublishFailed):
                    begun = time.monotonic()
                    with pytest.raises(expected, match="alarm"):
                        queue.publish(b"too much")
                    within(TIMEOUT + SLACK, begun)
                first.ack()
                second = messages.receive(5)
                assert second is not None
                second.ack()
            finally:
                server.ctl("set_vm_memory_high_watermark", "0.4")
        queue.publish(b"after")


def test_several_hosts(server: RabbitMQServer, prefix: str) -> None:
    """The first one that answers is taken."""
    host, port = server.address
    url = f"amqp://guest:guest@127.0.0.1:1,{host}:{port}?prefix={prefix}"
    with narrowboat.broker(url) as broker:
        broker.ping()
        broker.queue("orders").publish(b"x")


def test_heartbeats_go_on_while_handlers_run(server: RabbitMQServer, prefix: str) -> None:
    """A handler that takes longer than any heartbeat keeps its message and its connection."""
    with narrowboat.broker(server.url, prefix=prefix, heartbeat=1) as broker:
        queue = broker.queue("orders")
        queue.publish(b"x")
        done = threading.Event()
        attempts: list[int] = []

        def handle(message: Any) -> None:
            attempts.append(message.attempt)
            time.sleep(5)
            done.set()

        runner = threading.Thread(target=lambda: queue.run(handle, signals=False))
        runner.start()
        assert done.wait(20)
        queue.stop()
        runner.join(20)
        assert attempts == [1]
        assert queue.depth().ready == 0


def test_a_delay_for_a_queue_that_is_gone_holds_up_no_other(server: RabbitMQServer, prefix: str) -> None:
    with narrowboat.broker(server.url, prefix=prefix) as broker:
        for n in range(50):
            broker.queue("gone").publish(str(n).encode(), delay=0.3)
        broker.queue("gone").delete()
        broker.queue("orders").publish(b"x", delay=0.6)
        with broker.queue("orders").consume() as messages:
            message = messages.receive(5)
            assert message is not None
            message.ack()


def test_the_servers_own_time_limit_makes_deliveries_stale(servers: Servers, prefix: str) -> None:
    """A server closes the channel of a consumer that holds a message for longer than its consumer_timeout."""
    impatient = servers(RabbitMQServer, RabbitMQServer)
    for name, milliseconds in (("consumer_timeout", 2000), ("channel_tick_interval", 1000)):
        impatient.ctl("eval", f"application:set_env(rabbit, {name}, {milliseconds}).")
    with narrowboat.broker(impatient.url, prefix=prefix) as broker, broker.queue("orders").consume() as messages:
        broker.queue("orders").publish(b"x")
        held = messages.receive(5)
        assert held is not None
        copy = messages.receive(20)
        assert copy is not None
        assert (copy.id, copy.attempt) == (held.id, 2)
        with pytest.raises(StaleDelivery):
            held.ack()
        copy.ack()
        assert messages.receive(0.3) is None
