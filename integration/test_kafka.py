"""Kafka against a real server: what only Kafka has, other programs beside ours, and each thing that can be wrong."""

from __future__ import annotations

import io
import itertools
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

import narrowboat
from bounds import upper
from integration.fixtures import Servers
from integration.kafka_harness import LEAVES_SOCKETS
from integration.servers import KafkaServer
from narrowboat.errors import (
    AccessDenied,
    ConfigurationError,
    Conflict,
    NarrowboatError,
    NotFound,
    PublishFailed,
    StaleDelivery,
    Unavailable,
)
from narrowboat.messaging import Messaging

#: Seconds for one call in the tests of what is wrong, and what may come on top on a busy machine.
TIMEOUT, SLACK = 2.0, 3.0

pytestmark = LEAVES_SOCKETS

_numbers = itertools.count()


@pytest.fixture
def prefix() -> str:
    return f"t{next(_numbers)}"


@pytest.fixture
def url(kafka_server: KafkaServer, prefix: str) -> str:
    return f"{kafka_server.url}?session=2&prefix={prefix}"


@pytest.fixture
def broker(url: str) -> Iterator[Messaging]:
    with narrowboat.broker(url) as opened:
        yield opened


@pytest.fixture
def admin(kafka_server: KafkaServer) -> Iterator[Any]:
    from kafka import KafkaAdminClient

    opened = KafkaAdminClient(bootstrap_servers="{}:{}".format(*kafka_server.internal))
    yield opened
    opened.close()


def one(messages: Any, within: float = 10.0) -> Any:
    message = messages.receive(within)
    assert message is not None, f"no message came within {within:g} s"
    return message


def drained(queue: Any) -> list[bytes]:
    bodies = []
    with queue.consume() as messages:
        while (message := messages.receive(0.5)) is not None:
            bodies.append(message.body)
            message.ack()
    return bodies


# -- other programs ---------------------------------------------------------------------------------------------------


def test_what_kafka_python_publishes_is_consumed(kafka_server: KafkaServer) -> None:
    from kafka import KafkaProducer

    name = f"theirs{next(_numbers)}"
    with narrowboat.broker(f"{kafka_server.url}?partitions=1") as broker:  # what comes first was published first
        broker.queue(name).declare()
        producer = KafkaProducer(bootstrap_servers="{}:{}".format(*kafka_server.address))
        producer.send(name, b"plain")
        producer.send(name, None, key=b"k", headers=[("h", b"v"), ("raw", b"\xff")]).get(10)
        producer.close()
        with broker.queue(name).consume() as messages:
            first, second = one(messages), one(messages)
            assert (first.body, first.attempt, first.key, dict(first.headers)) == (b"plain", 1, None, {})
            assert (second.body, second.key, second.headers["h"]) == (b"", "k", "v")
            assert first.id != second.id
            first.nack()
            again = one(messages)
            assert (again.id, again.attempt) == (first.id, 2)
            again.nack(delay=0.3)
            later = one(messages)
            assert (later.id, later.body, later.attempt) == (first.id, b"plain", 3)
            later.ack()
            second.reject("not for us")
        with broker.queue(name).dead_letters().consume() as dead:
            letter = one(dead)
            assert (letter.id, letter.headers["raw"]) == (second.id, second.headers["raw"])
            letter.ack()


def test_what_we_publish_is_consumed_by_kafka_python(kafka_server: KafkaServer) -> None:
    from kafka import KafkaConsumer

    name = f"ours{next(_numbers)}"
    with narrowboat.broker(kafka_server.url) as broker:
        broker.queue(name).publish(b"body", key="k", headers={"h": "v"}, id="mine")
    consumer = KafkaConsumer(name, bootstrap_servers="{}:{}".format(*kafka_server.address), auto_offset_reset="earliest")
    try:
        ((record,),) = consumer.poll(10_000).values()
        assert (record.key, record.value) == (b"k", b"body")
        assert dict(record.headers) == {"h": b"v", "narrowboat-id": b"mine"}
    finally:
        consumer.close()


# -- what is on the server --------------------------------------------------------------------------------------------


def test_topics_that_we_make_keep_what_nobody_consumes(broker: Messaging, prefix: str, admin: Any) -> None:
    queue = broker.queue("orders")
    queue.publish(b"x", delay=1)
    names = sorted(name for name in admin.list_topics() if name.startswith(f"{prefix}--"))
    assert len(names) == 2
    counts = sorted(len(each["partitions"]) for each in admin.describe_topics(names))
    assert counts == [8, 11]
    from kafka.admin import ConfigResource, ConfigResourceType

    for name in names:
        found = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
        assert "'retention.ms'" in repr(found), found
        assert "'-1'" in repr(found), found


def test_a_topic_that_was_there_is_used_as_it_is(kafka_server: KafkaServer, admin: Any) -> None:
    name = f"found{next(_numbers)}"
    admin.create_topics({name: {"num_partitions": 3, "replication_factor": 1, "configs": {"retention.ms": "3600000"}}})
    with narrowboat.broker(f"{kafka_server.url}?declare=never") as broker:
        broker.queue(name).publish_many([b"%d" % n for n in range(20)])
        assert sorted(map(int, drained(broker.queue(name)))) == list(range(20))


def test_a_topic_that_was_there_tells_what_it_does_not_keep(
    kafka_server: KafkaServer, admin: Any, caplog: pytest.LogCaptureFixture
) -> None:
    name, ours = f"found{next(_numbers)}", f"ours{next(_numbers)}"
    admin.create_topics({name: {"num_partitions": 1, "replication_factor": 1, "configs": {"retention.ms": "3600000"}}})
    for query in ("", "", "?retention=3600", "?retention=7200"):
        with narrowboat.broker(f"{kafka_server.url}{query}") as broker:
            for queue in (broker.queue(name), broker.queue(ours)):
                queue.publish(b"once")
                queue.publish(b"twice")
    told = [record.getMessage() for record in caplog.records if record.name == "narrowboat.kafka"]
    assert all(f"queue {name!r}" in message and "retention.ms=3600000" in message for message in told), told
    assert ["until consumed" in message for message in told] == [True, True, False], "once for each broker that promises more"
    assert "7200 s" in told[2]


def test_a_missing_queue_says_how_to_make_it(kafka_server: KafkaServer) -> None:
    with narrowboat.broker(f"{kafka_server.url}?declare=never") as broker:
        with pytest.raises(NotFound, match=r"kafka-topics\.sh --create --topic nowhere"):
            broker.queue("nowhere").publish(b"x")
        with pytest.raises(NotFound):
            broker.queue("nowhere").depth()


def test_names_that_the_server_takes_for_the_same_are_a_conflict(kafka_server: KafkaServer) -> None:
    number = next(_numbers)
    with narrowboat.broker(kafka_server.url) as broker:
        broker.queue(f"same.{number}").publish(b"x")
        with pytest.raises(Conflict, match="same"):
            broker.queue(f"same_{number}").publish(b"x")


# -- partitions and members -------------------------------------------------------------------------------------------


def test_two_processes_worth_of_brokers_share_partitions_without_duplicates(url: str) -> None:
    """A second consumer takes partitions from a busy first one, which is given time to settle what it has in hand."""
    seen: list[tuple[int, bytes]] = []
    sent: list[bytes] = []
    failed: list[Exception] = []
    done = threading.Event()

    def consume(who: int) -> None:
        try:
            with narrowboat.broker(f"{url}&partitions=4") as broker, broker.queue("orders").consume(prefetch=2) as messages:
                while not done.is_set():
                    if (message := messages.receive(0.1)) is not None:
                        seen.append((who, message.body))
                        message.ack()
        except Exception as error:
            failed.append(error)

    def publish_until(reached: Callable[[], bool]) -> None:
        ends = time.monotonic() + 40
        while not reached() and not failed:
            assert time.monotonic() < ends, f"{len(seen)} of {len(sent)} seen"
            if len(sent) < len(seen) + 20:
                sent.append(b"%d" % len(sent))
                queue.publish(sent[-1], key=sent[-1].decode())
            else:
                time.sleep(0.01)

    with narrowboat.broker(f"{url}&partitions=4") as publisher:
        queue = publisher.queue("orders")
        queue.declare()
        consumers = [threading.Thread(target=consume, args=(who,)) for who in (1, 2)]
        try:
            consumers[0].start()
            publish_until(lambda: len(seen) >= 20)
            consumers[1].start()
            publish_until(lambda: {who for who, _ in seen[-20:]} == {1, 2})
            ends = time.monotonic() + 20
            while len(seen) < len(sent) and not failed and time.monotonic() < ends:
                time.sleep(0.01)
        finally:
            done.set()
            for thread in consumers:
                thread.join()
    assert not failed
    assert sorted(body for _, body in seen) == sorted(sent)


def test_a_delivery_of_a_partition_that_has_moved_is_stale(url: str) -> None:
    """A closed broker leaves; its deliveries come again elsewhere, and settling them there wins."""
    with narrowboat.broker(url) as second:
        first = narrowboat.broker(url)
        queue = first.queue("orders", max_deliveries=0)
        queue.publish(b"x")
        with queue.consume() as messages:
            old = one(messages)
        with second.queue("orders", max_deliveries=0).consume() as messages:
            again = one(messages)
            assert again.attempt == 2
            with pytest.raises(NarrowboatError):
                old.ack()
            again.ack()
            assert messages.receive(0.5) is None
        first.close()


def test_a_message_that_holds_up_its_partition_is_moved_out_of_the_way(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the metadata nearly full nothing new is handed out; the oldest goes on elsewhere, with its claims."""
    from narrowboat_kafka.format import ledger
    from narrowboat_kafka.member import member

    monkeypatch.setattr(ledger, "_CROWDED", 30)
    monkeypatch.setattr(member, "_STALL", 1.0)
    with narrowboat.broker(f"{url}&partitions=1") as broker:
        queue = broker.queue("orders", max_deliveries=0)
        queue.publish_many([b"%d" % n for n in range(200)])
        with queue.consume(prefetch=200) as messages:
            held = [one(messages) for _ in range(200)]
            chance = random.Random(1)  # what is settled in a pattern fits into a few characters
            for message in held[7:]:
                if chance.random() < 0.5:
                    message.ack()
            queue.publish(b"new")
            came = one(messages, 20)
            assert (came.body, came.attempt) == (b"0", 2), "the oldest comes again by way of the retry topic"
            with pytest.raises(StaleDelivery):
                held[0].ack()
            came.ack()
            for message in held[1:]:
                if not message.settled:
                    try:
                        message.ack()
                    except StaleDelivery:
                        continue  # it was moved as well, and comes again
            rest = {one(messages, 20).body}
            while (message := messages.receive(2)) is not None:
                rest.add(message.body)
            assert b"new" in rest


def test_a_delay_goes_down_the_levels_and_holds_up_no_shorter_one(broker: Messaging) -> None:
    queue = broker.queue("orders")
    begun = time.monotonic()
    queue.publish(b"long", delay=3.3)  # 1 s three times, 0.25 s once, and the rest in memory
    queue.publish(b"short", delay=0.6)
    with queue.consume() as messages:
        short = one(messages)
        assert short.body == b"short"
        assert 0.6 <= time.monotonic() - begun < upper(0.6 + 2 + SLACK)
        short.ack()
        long = one(messages)
        assert (long.body, long.attempt) == (b"long", 1)
        assert 3.3 <= time.monotonic() - begun < upper(3.3 + 2 + SLACK)
        long.ack()
    depth = queue.depth()
    assert (depth.ready, depth.in_flight, depth.delayed) == (0, 0, 0)


def test_purge_drops_what_is_not_in_hand(broker: Messaging, url: str) -> None:
    queue = broker.queue("orders")
    queue.publish_many([b"%d" % n for n in range(10)])
    queue.publish(b"later", delay=60)
    assert queue.purge() == 11
    queue.publish_many([b"a", b"b", b"c"])
    with queue.consume(prefetch=1) as messages:
        held = one(messages)
        with narrowboat.broker(url) as other, pytest.raises(Conflict, match="consume"):
            other.queue("orders").purge()
        assert queue.purge() == 2
        held.ack()
        assert messages.receive(0.5) is None
    assert drained(queue) == []


# -- what can be wrong ------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # kafka-python leaves refused sockets to the collector
def test_no_server() -> None:
    begun = time.monotonic()
    with narrowboat.broker("kafka://127.0.0.1:1", timeout=TIMEOUT) as broker, pytest.raises(PublishFailed, match="127.0.0.1:1"):
        broker.queue("orders").publish(b"x")
    assert time.monotonic() - begun < TIMEOUT + SLACK


@pytest.fixture(scope="module")
def secured(servers: Servers) -> KafkaServer:
    server: KafkaServer = servers(KafkaServer, users={"shop": "s3cret"}, tls=True)
    return server


@pytest.mark.parametrize(
    ("user", "password"), [("shop", "wr0ng"), ("nobody", "s3cret")], ids=["a wrong password", "an unknown user"]
)
def test_a_wrong_user_is_denied_and_no_secret_is_told(secured: KafkaServer, user: str, password: str) -> None:
    told = io.StringIO()
    handler = logging.StreamHandler(told)
    logger = logging.getLogger("kafka")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        with (
            narrowboat.broker(secured.url_for(user, password), timeout=TIMEOUT * 2) as broker,
            pytest.raises(AccessDenied) as met,
        ):
            broker.ping()
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
    assert password not in str(met.value)
    assert password not in repr(met.value.__cause__)
    assert f"'{password}'" not in told.getvalue()


def test_what_is_wrong_with_tls_is_said(secured: KafkaServer, kafka_server: KafkaServer) -> None:
    plain = secured.url.replace("kafkas://", "kafka://").partition("?")[0]
    strange = secured.url.partition("?")[0]  # its authority is not one of the system's
    to_plain = f"{kafka_server.url.replace('kafka://', 'kafkas://')}?verify=none"
    for url, kind, said in (
        # The server's alert tells that it speaks TLS, if it comes before the end of the connection does.
        (plain, (Unavailable, ConfigurationError), "if that port has TLS, write kafkas://|speaks TLS. Write kafkas://"),
        (strange, ConfigurationError, "certificate was not accepted"),
        (to_plain, Unavailable, "if that port has no TLS, write kafka://"),
    ):
        begun = time.monotonic()
        with narrowboat.broker(url, timeout=TIMEOUT) as broker, pytest.raises(kind, match=said) as met:
            broker.ping()
        assert met.value.retryable == isinstance(met.value, Unavailable)
        assert time.monotonic() - begun < TIMEOUT + SLACK


def test_a_body_over_the_servers_limit_is_refused_alone(kafka_server: KafkaServer, admin: Any) -> None:
    name = f"small{next(_numbers)}"
    admin.create_topics({name: {"num_partitions": 1, "replication_factor": 1, "configs": {"max.message.bytes": "2000"}}})
    with narrowboat.broker(kafka_server.url, timeout=TIMEOUT * 2) as broker:
        queue = broker.queue(name)
        with pytest.raises(PublishFailed):
            queue.publish(bytes(range(256)) * 100)
        queue.publish(b"small")
        assert drained(queue) == [b"small"]


def test_while_the_server_is_down_a_publish_has_failed_and_not_vanished(servers: Servers) -> None:
    server: KafkaServer = servers(KafkaServer)
    with narrowboat.broker(server.url) as patient:  # on a new cluster what keeps offsets takes its time to be there
        patient.queue("orders", max_deliveries=0).publish(b"before")
    with narrowboat.broker(server.url, timeout=TIMEOUT) as broker:
        queue = broker.queue("orders", max_deliveries=0)
        queue.publish(b"before")
        server.kill()
        begun = time.monotonic()
        with pytest.raises(NarrowboatError) as met:
            queue.publish(b"lost")
        assert time.monotonic() - begun < upper(2 * TIMEOUT + SLACK)
        server.start()
        until = time.monotonic() + 30
        while True:
            try:
                queue.publish(b"after")
                break
            except NarrowboatError:
                assert time.monotonic() < until
    bodies: list[bytes] = []
    with narrowboat.broker(server.url) as patient, patient.queue("orders", max_deliveries=0).consume() as messages:
        while (message := messages.receive(0.5 if b"after" in bodies else 30)) is not None:
            bodies.append(message.body)
            message.ack()
    assert {b"before", b"after"} <= set(bodies) <= {b"before", b"lost", b"after"}
    if isinstance(met.value, PublishFailed):
        assert b"lost" not in bodies


def test_what_reads_and_writes_fails_and_is_begun_anew(broker: Messaging) -> None:
    """What they wait with is taken from under them, as by a program that closes files that it does not know."""
    queue = broker.queue("orders")
    queue.publish(b"before")
    driver = cast(Any, broker)._core.driver.get()
    with queue.consume() as messages:
        one(messages).ack()
        for number in range(3):
            for loop in (driver._connections.loop, driver._publisher._producer._sender._client._net):
                nothing = os.open(os.devnull, os.O_RDONLY)
                os.dup2(nothing, loop._selector.fileno())
                os.close(nothing)
            queue.publish(b"%d" % number)
            message = one(messages, 30)
            assert message.body == b"%d" % number
            message.ack()
    assert driver._connections.loop._thread.is_alive()
