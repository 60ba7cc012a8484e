"""Kafka: the rights that the page names are enough for all that a program does, each is needed, another prefix is closed."""

from __future__ import annotations

import contextlib
import itertools
import re
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition, admin
from kafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError
from kafka.structs import OffsetAndMetadata

import narrowboat
from integration.fixtures import Servers
from integration.kafka_harness import collect_sockets
from integration.servers import KafkaServer
from narrowboat.errors import AccessDenied, Unavailable

PAGE = Path(__file__).parents[1] / "backends/kafka/README.md"
OURS, THEIRS = "shop", "bank"
#: A kind of resource, the beginning of its name, and what may be done to it.
Right = tuple[str, str, str]

#: kafka-python leaves the sockets of refused connections to the garbage collector, which says so.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

_numbers = itertools.count()


def rights(prefix: str) -> list[Right]:
    """What the page says for the prefix `shop`, as rights of another one."""
    block = re.search(r"```console\n(\$ kafka-acls.sh.*?)```", PAGE.read_text(), re.DOTALL)
    assert block is not None
    found = []
    for line in block[1].replace("\\\n", " ").splitlines():
        words = shlex.split(line)
        assert words[words.index("--resource-pattern-type") + 1] == "prefixed"
        kind = next(each for each in ("topic", "group") if f"--{each}" in words)
        name = words[words.index(f"--{kind}") + 1].replace(OURS, prefix)
        found += [(kind, name, what) for option, what in itertools.pairwise(words) if option == "--operation"]
    assert len(found) == len(set(found)) == 7
    return found


class Rights:
    """Gives rights and takes them, as an operator."""

    def __init__(self, server: KafkaServer) -> None:
        self._admin = KafkaAdminClient(bootstrap_servers="{}:{}".format(*server.internal))

    def _acl(self, user: str, right: Right) -> Any:
        kind, name, what = right
        operation = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", what).upper()
        pattern = admin.ResourcePattern(admin.ResourceType[kind.upper()], name, admin.ACLResourcePatternType.PREFIXED)
        return admin.ACL(f"User:{user}", "*", admin.ACLOperation[operation], admin.ACLPermissionType.ALLOW, pattern)

    def give(self, user: str, wanted: list[Right]) -> None:
        """From now on."""
        found = self._admin.create_acls([self._acl(user, each) for each in wanted])
        assert found["failed"] == []

    def take(self, user: str, gone: list[Right]) -> None:
        """From now on."""
        found = self._admin.delete_acls([self._acl(user, each) for each in gone])
        assert [len(each) for _, each, _ in found] == [1] * len(gone)

    def close(self) -> None:
        """Disconnect."""
        self._admin.close()


@pytest.fixture(scope="module")
def server() -> Iterator[KafkaServer]:
    servers = Servers()
    try:
        yield servers(
            KafkaServer,
            users={OURS: OURS, THEIRS: THEIRS},
            config={
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",  # who comes by the listener without a password: the server, and these tests
            },
        )
    finally:
        servers.close()


@pytest.fixture(scope="module")
def operator(server: KafkaServer) -> Iterator[Rights]:
    made = Rights(server)
    for prefix in (OURS, THEIRS):
        made.give(prefix, rights(prefix))
    yield made
    made.close()
    collect_sockets()


def opened(server: KafkaServer, user: str, prefix: str) -> narrowboat.Messaging:
    """The broker of a user, who has that name as password."""
    return narrowboat.broker(f"{server.url_for(user, user)}?session=2", prefix=prefix, timeout=20)


#: Seconds: a fresh server makes its inner topics at the first use, which takes a busy machine half a minute.
PATIENCE = 90.0


def everything(broker: narrowboat.Messaging) -> None:
    """What a program does."""
    broker.ping()
    orders, prices = broker.queue(f"o{next(_numbers)}"), broker.topic(f"p{next(_numbers)}")
    with prices.subscription("g").consume() as copies, orders.consume() as messages:
        prices.publish(b"copy", delay=0.1)
        orders.publish_many([b"x"])
        copy, message = copies.receive(PATIENCE), messages.receive(PATIENCE)
        assert copy is not None
        assert message is not None
        copy.reject("no")
        message.nack(delay=0.1)
        again = messages.receive(PATIENCE)
        assert again is not None
        assert again.attempt == 2
        again.reject("no")
    assert orders.depth().dead == 1
    assert orders.dead_letters().redrive() == 1
    assert orders.purge() == 1
    prices.subscription("g").delete()
    assert orders.delete()
    assert prices.delete()


def test_they_are_enough(server: KafkaServer, operator: Rights, caplog: pytest.LogCaptureFixture) -> None:
    """Everything that a program does, without a word about a right that is missing."""
    with opened(server, OURS, OURS) as broker:
        everything(broker)
    assert [record.getMessage() for record in caplog.records if "uthoriz" in record.getMessage()] == []


def refusal(broker: Any) -> AccessDenied:
    """What `everything` is refused with. A topic that was just made may have no leader yet on a busy machine."""
    for _ in range(10):
        with contextlib.suppress(Unavailable):
            with pytest.raises(AccessDenied) as caught:
                everything(broker)
            return caught.value
    raise AssertionError("a missing right is told as a server that may come back")


@pytest.mark.parametrize("right", [each for each in rights(OURS) if each[2] != "DescribeConfigs"], ids=" ".join)
def test_each_of_them_is_needed(server: KafkaServer, operator: Rights, right: Right) -> None:
    """Without it something is refused, as a missing right and not as a server that may come back."""
    operator.take(OURS, [right])
    try:
        with opened(server, OURS, OURS) as broker:
            assert not refusal(broker).retryable
    finally:
        operator.give(OURS, [right])
        collect_sockets()


def test_whoever_may_not_see_how_a_topic_is_set_up_does_all_the_same(server: KafkaServer, operator: Rights) -> None:
    """That right is for a warning, which the page says."""
    right = ("topic", f"{OURS}--", "DescribeConfigs")
    operator.take(OURS, [right])
    try:
        with opened(server, OURS, OURS) as broker:
            everything(broker)
    finally:
        operator.give(OURS, [right])


def test_rights_that_are_taken_away_are_missed_and_come_back(server: KafkaServer, operator: Rights) -> None:
    """A consumer that is there says so at its next call, and goes on when it may again."""
    right = ("topic", f"{OURS}--", "Read")
    with opened(server, OURS, OURS) as broker:
        queue = broker.queue(f"q{next(_numbers)}")
        with queue.consume() as messages:
            operator.take(OURS, [right])
            try:
                with pytest.raises(AccessDenied):
                    messages.receive(20)
            finally:
                operator.give(OURS, [right])
            queue.publish(b"x")
            message, until = None, time.monotonic() + 60
            while message is None:
                assert time.monotonic() < until
                with contextlib.suppress(AccessDenied):  # it is tried every few seconds
                    message = messages.receive(20)
            message.ack()


def test_another_prefix_is_closed_to_them(server: KafkaServer, operator: Rights) -> None:
    """Its messages are not read, written, moved, counted or deleted: neither by us nor by kafka-python."""
    with opened(server, THEIRS, THEIRS) as bank, opened(server, OURS, THEIRS) as thief:
        payroll = bank.queue(f"payroll{next(_numbers)}")
        payroll.publish(b"salary", delay=3600.0)
        payroll.publish(b"now")
        stolen = thief.queue(payroll.name)
        calls: list[Callable[[], object]] = [
            stolen.declare,
            stolen.consume,
            stolen.depth,
            stolen.purge,
            stolen.delete,
            lambda: stolen.publish(b"forged"),
            lambda: stolen.publish(b"forged", delay=1.0),
            stolen.dead_letters().depth,
            thief.queue("new").declare,
            thief.topic("new").subscription("g").declare,
        ]
        for call in calls:
            with pytest.raises(AccessDenied) as caught:
                call()
            assert not caught.value.retryable
        steal(server, f"{THEIRS}--{payroll.name}")
        assert (payroll.depth().ready, payroll.depth().delayed) == (1, 1)
        with payroll.consume() as messages:
            message = messages.receive(20)
            assert message is not None
            assert message.body == b"now"
            message.ack()
    collect_sockets()


def steal(server: KafkaServer, topic: str) -> None:
    """What the other user's client can try."""
    who = {
        "bootstrap_servers": f"127.0.0.1:{server.port}",
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": OURS,
        "sasl_plain_password": OURS,
    }
    group = f"{THEIRS}--{topic.removeprefix(f'{THEIRS}--')}"
    operator = KafkaAdminClient(**who)
    try:
        assert topic not in operator.list_topics()
        there = TopicPartition(topic, 0)
        with pytest.raises(TopicAuthorizationFailedError):
            operator.delete_topics([topic])
        with pytest.raises(GroupAuthorizationFailedError):
            operator.alter_group_offsets(f"{group}.{group}", {there: OffsetAndMetadata(99, "", -1)})
        with pytest.raises(GroupAuthorizationFailedError):
            operator.list_group_offsets({f"{group}.{group}": [there]})
        with pytest.raises(GroupAuthorizationFailedError):
            operator.delete_groups([f"{group}.{group}"])
    finally:
        operator.close()
    producer = KafkaProducer(**who)
    try:
        with pytest.raises(TopicAuthorizationFailedError):
            producer.send(topic, b"forged").get(20)
    finally:
        producer.close()
    consumer = KafkaConsumer(**who, group_id=f"{OURS}--thief", auto_offset_reset="earliest")
    try:
        consumer.assign([there])
        with pytest.raises(TopicAuthorizationFailedError):
            consumer.poll(5000)
    finally:
        consumer.close()
