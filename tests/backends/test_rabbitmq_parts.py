"""RabbitMQ without a server: names, the ladder, messages as AMQP, acknowledgements, conflicts, URLs and refusals."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import exceptions
from pika.spec import BasicProperties

import narrowboat
from narrowboat.capabilities import Support
from narrowboat.contract import Address, Delivery, Kind, Outgoing, Properties
from narrowboat.dsn import Url
from narrowboat.errors import AccessDenied, ConfigurationError, Conflict, NotFound, Unavailable, Unsupported
from narrowboat_rabbitmq.connection.link import Link
from narrowboat_rabbitmq.connection.loop import Loop
from narrowboat_rabbitmq.errors import (
    Operation,
    channel_error,
    concerns_properties,
    connection_error,
    transient,
)
from narrowboat_rabbitmq.options import Options, QueueType, endpoint
from narrowboat_rabbitmq.protocol import ladder, names
from narrowboat_rabbitmq.protocol.acks import coalesce
from narrowboat_rabbitmq.protocol.content import Content, read
from narrowboat_rabbitmq.protocol.envelope import Raw, Tag, delivery_of, properties_of, republished

ORDERS = Address(Kind.QUEUE, "orders")
TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=400)
SITE = endpoint(Url.parse("amqp://shop:hunter2@a,b/eu"), Options())


def outgoing(**changes: object) -> Outgoing:
    plain = Outgoing(ORDERS, "id", b"x", {}, None, 1000.5, 0.0, 0, None, None, None, None, dedup=False)
    return plain._replace(**changes)  # type: ignore[arg-type]  # fields by name


def received(properties: BasicProperties, body: bytes = b"x", *, redelivered: bool = False, counted: bool = True) -> Delivery:
    return delivery_of(Raw(1, redelivered, wire(properties), body), None, 2000.0, counted=counted)


def wire(properties: BasicProperties | Content) -> bytes:
    """As another program's client puts them into a frame."""
    data = properties.encode()
    return data if isinstance(data, bytes) else b"".join(data)


def decoded(content: Content) -> BasicProperties:
    """As another program's client sees them."""
    properties = BasicProperties()
    properties.decode(wire(content))
    return properties


# -- names ------------------------------------------------------------------------------------------------------------


@given(TEXT, TEXT)
def test_two_names_never_meet(one: str, other: str) -> None:
    assert (names.escape(one) == names.escape(other)) is (one == other)


@given(TEXT, TEXT, TEXT, TEXT)
def test_two_prefixes_never_meet(prefix: str, name: str, other: str, second: str) -> None:
    here = names.route_of(Address(Kind.QUEUE, name), prefix).name
    there = names.route_of(Address(Kind.QUEUE, second), other).name
    assert (here == there) is ((prefix, name) == (other, second))


@given(TEXT, TEXT, TEXT)
def test_what_the_server_gets_fits(prefix: str, topic: str, group: str) -> None:
    route = names.route_of(Address(Kind.SUBSCRIPTION, topic, group.replace(".", "-")), prefix)
    for text in (route.name, route.topic, route.word, names.properties_exchange(route.name)):
        assert len(text.encode()) <= 255
    level, key = ladder.start(1.0, route.word)
    assert len(key.encode()) <= 255
    assert "." not in route.word
    assert level >= 0


PAGE = Path(__file__).parents[2] / "backends/rabbitmq/README.md"
LONG = st.builds(str.__mul__, st.sampled_from(["a", "Z.", "-9", "ü"]), st.integers(1, 150))


@given(LONG, LONG, LONG)
def test_the_rights_of_the_page_cover_every_name_of_their_prefix(prefix: str, name: str, group: str) -> None:
    block = re.search(r"set_permissions -p / app \\\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block is not None
    configure = re.findall(r"'([^']+)'", block[1])[0].replace("shop", re.escape(names.escape(prefix)))
    for address in (Address(Kind.SUBSCRIPTION, name, group.replace(".", "-")), Address(Kind.QUEUE, name).dead):
        route = names.route_of(address, prefix)
        for text in (route.name, route.topic, names.properties_exchange(route.name)):
            assert re.search(configure, text), text
            assert len(text) <= 255


def test_others_find_plain_names() -> None:
    assert names.route_of(Address(Kind.QUEUE, "orders.v2_a-b"), "").name == "orders.v2_a-b"
    assert not names.escape("amq.topic").startswith("amq.")
    assert not names.escape("narrowboat.delay.0").startswith("narrowboat.")


@given(
    st.builds(
        Properties,
        st.floats(0.05, 43200),
        st.integers(0, 1000),
        st.booleans(),
        st.integers(0, 9),
    )
)
def test_properties_are_read_as_written(properties: Properties) -> None:
    found, whole = names.read_stored(f"current is '{names.write(properties)}'")
    assert whole
    assert found == pytest.approx({name: float(value) for name, value in properties._asdict().items()})


# -- the ladder -------------------------------------------------------------------------------------------------------


@given(st.floats(0.001, ladder.LONGEST))
def test_a_delay_is_never_early_and_hardly_late(delay: float) -> None:
    level, key = ladder.start(delay, "orders")
    words = key.split(".")
    assert words[-1] == "orders"
    passed = [each for each in range(ladder.LEVELS) if words[ladder.LEVELS - 1 - each] == "1"]
    total = sum(ladder.ticks(each) for each in passed) / 1000
    assert delay - 1e-6 <= total <= delay + ladder.STEP + 1e-6
    assert level == max(passed) < ladder.LEVELS


def matches(pattern: str, key: str) -> bool:
    """What a topic exchange decides."""
    regex = re.escape(pattern).replace(r"\*", "[^.]+").replace(r"\.\#", r"(\..+)?").replace(r"\#\.", r"(.+\.)?")
    return re.fullmatch(regex, key) is not None


@given(st.floats(0.001, ladder.LONGEST), TEXT, TEXT)
def test_a_message_takes_its_way_to_its_destination_alone(delay: float, name: str, other: str) -> None:
    word, another = (names.route_of(Address(Kind.QUEUE, each), "").word for each in (name, other))
    level, key = ladder.start(delay, word)
    for each in range(level, -1, -1):
        assert matches(ladder.pattern(each, 1), key) is not matches(ladder.pattern(each, 0), key)
    assert matches(ladder.destination(word), key)
    assert matches(ladder.destination(another), key) is (name == other)


# -- messages ---------------------------------------------------------------------------------------------------------


HEADERS = st.dictionaries(
    TEXT.filter(lambda name: not name.startswith("narrowboat-"))
    | st.sampled_from(["CC", "BCC", "x-death", "x-delivery-count"]),
    st.text(st.characters(codec="utf-8"), max_size=300),
    max_size=5,
)


@given(HEADERS, TEXT, st.none() | TEXT, st.none() | TEXT, st.none() | TEXT, st.integers(0, 9))
def test_a_message_arrives_as_it_was(
    headers: dict[str, str], id: str, key: str | None, correlation: str | None, content: str | None, priority: int
) -> None:
    message = outgoing(
        headers=headers, id=id, key=key, correlation_id=correlation, content_type=content, priority=priority, ttl=60.0
    )
    got = delivery_of(Raw(1, False, wire(properties_of(message, 1990.0)), b"x"), None, 2000.0, counted=True)
    assert (got.id, dict(got.headers), got.key) == (id, headers, key)
    assert (got.correlation_id, got.content_type, got.priority) == (correlation, content, priority)
    assert got.attempt == 1
    assert got.expires_in is not None
    assert got.expires_in == pytest.approx(50.0)
    assert got.published_at == 1000.0


def test_a_plain_message_has_no_headers() -> None:
    assert properties_of(outgoing(), 0.0).table is None
    assert properties_of(outgoing(ttl=5.0), 0.0).expiration is None, "AMQP's own expiration ends delays early"


@pytest.mark.parametrize(
    ("headers", "redelivered", "counted", "attempt"),
    [
        ({}, False, True, 1),
        ({"x-delivery-count": 2}, True, True, 3),
        ({"x-delivery-count": 2, "narrowboat-attempts": "3"}, True, True, 6),
        ({"narrowboat-attempts": "3"}, False, True, 4),
        ({"narrowboat-attempts": "3"}, True, False, 5),
        ({"narrowboat-attempts": "no number"}, False, True, 1),
    ],
)
def test_attempts(headers: dict[str, object], redelivered: bool, counted: bool, attempt: int) -> None:
    got = received(BasicProperties(headers=headers), redelivered=redelivered, counted=counted)
    assert got.attempt == attempt


def test_a_message_of_another_program_is_delivered_as_it_is() -> None:
    properties = BasicProperties(headers={"n": 7, "raw": b"\xff", "deep": {"a": 1}, "none": None}, reply_to="amq.gen-1")
    one, two = received(properties), received(properties)
    assert one.id == two.id != received(properties, b"y").id
    assert (one.attempt, one.key, one.published_at, one.expires_in) == (1, None, None, None)
    assert one.headers == {"n": "7", "raw": "\udcff", "deep": "{'a': 1}", "none": ""}
    assert one.reply_to == Address(Kind.INBOX, "amq.gen-1")


def test_what_the_server_added_is_not_published_again() -> None:
    was = BasicProperties(
        message_id="a",
        expiration="1000",
        headers={
            "x-death": [{"count": 1}],
            "x-first-death-queue": "q",
            "x-delivery-count": 4,
            "narrowboat-attempts": "1",
            "narrowboat-expires": "5",
            "mine": "1",
        },
    )
    tag = Tag(None, 1, read(wire(was)), 5.0)
    now = decoded(republished(tag, {}, attempts=6))
    assert now.headers == {"mine": "1", "narrowboat-attempts": "6", "narrowboat-expires": "5"}
    assert (now.expiration, now.message_id, now.delivery_mode) == (None, "a", 2)
    dead = decoded(republished(tag, {"narrowboat-dead-reason": "bad"}, attempts=0, mortal=False))
    assert dead.headers == {"mine": "1", "narrowboat-dead-reason": "bad"}


# -- settling ---------------------------------------------------------------------------------------------------------


@given(st.sets(st.integers(1, 60), min_size=1), st.data())
def test_acks_settle_what_they_say_and_nothing_else(outstanding: set[int], data: st.DataObject) -> None:
    order = sorted(outstanding)
    settled = data.draw(st.sets(st.sampled_from(order), min_size=1))
    last, rest = coalesce(order, settled)
    assert {number for number in order if number <= last} | set(rest) == settled
    assert len(rest) == len(set(rest))


# -- errors -----------------------------------------------------------------------------------------------------------


def refused(code: int, text: str) -> Exception:
    route = names.route_of(ORDERS, "")
    return channel_error(exceptions.ChannelClosedByBroker(code, text), SITE, Operation("declaring 'orders'", 0.0, route))


def test_conflicts_say_what_differs() -> None:
    head = "PRECONDITION_FAILED - inequivalent arg "
    kind = refused(406, head + "'type' for exchange 'orders' in vhost '/': received 'direct' but current is 'fanout'")
    assert isinstance(kind, Conflict)
    assert "'orders' is a topic and cannot be a queue" in str(kind)
    cut = refused(
        406,
        head
        + "'alternate-exchange' for exchange 'narrowboat.properties:orders' in vhost '/': received none "
        + "but current is 'narrowboat.properties;lease=30;max_deliveries=3;ordered=0;prior...",
    )
    assert isinstance(cut, Conflict)
    assert concerns_properties(cut)
    assert names.read_stored(str(cut.__cause__)) == ({"lease": 30.0, "max_deliveries": 3.0, "ordered": 0.0}, False)
    queue = refused(
        406,
        head
        + "'x-queue-type' for queue 'orders' in vhost '/': received the value 'quorum' of type 'longstr' but current is none",
    )
    assert isinstance(queue, Conflict)
    assert "x-queue-type is not set and was asked as quorum" in str(queue)
    strange = str(refused(406, "PRECONDITION_FAILED - what no version has said so far"))
    assert "'orders' cannot be declared like that: the server says" in strange
    assert "Nothing was changed. Consume it as it is" in strange


def test_refusals_are_typed() -> None:
    assert isinstance(refused(404, "NOT_FOUND - no queue 'orders' in vhost '/'"), NotFound)
    assert isinstance(refused(403, "ACCESS_REFUSED - access to queue 'orders' refused"), AccessDenied)
    assert isinstance(refused(405, "RESOURCE_LOCKED"), Unavailable)
    for code in (403, 530):
        closed = exceptions.AMQPConnectionError(exceptions.ConnectionClosedByBroker(code, "no"))
        error = connection_error(closed, SITE, Operation("pinging", 0.0))
        assert isinstance(error, AccessDenied)
        assert "hunter2" not in str(error)
        assert not transient(closed)
    lost = connection_error(
        exceptions.AMQPConnectionError(ConnectionRefusedError(111, "refused")), SITE, Operation("pinging", 0.0)
    )
    assert isinstance(lost, Unavailable)
    assert "refused" in str(lost)
    assert transient(exceptions.StreamLostError("gone"))
    assert transient(exceptions.ConnectionClosedByBroker(320, "CONNECTION_FORCED"))


# -- URLs and claims --------------------------------------------------------------------------------------------------


def test_the_url() -> None:
    assert str(SITE) == "amqp://a:5672,b:5672/eu"
    assert endpoint(Url.parse("amqps://a/%2F?ca=x"), Options(ca=__file__)).database == "/"
    assert endpoint(Url.parse("amqps://a"), Options()).hosts[0].port == 5671
    assert "hunter2" not in repr(SITE)


@pytest.mark.parametrize(
    "url",
    [
        "amqp+other://a",
        "amqp://a?heartbeat=0",
        "amqp://a?priorities=3",
        "amqp://a?queue_type=classic&priorities=10",
        "amqp://a?queue_type=stream",
        "amqp://a?ca=/x.pem",
        "amqp://a?hartbeat=3",
    ],
)
def test_urls_that_cannot_work(url: str) -> None:
    with pytest.raises(ConfigurationError):
        narrowboat.broker(url)


def test_files_that_are_not_there_are_told_before_anything_is_sent() -> None:
    with pytest.raises(ConfigurationError, match="ca="):
        narrowboat.broker("amqps://127.0.0.1:1?ca=/no/such/file.pem")


def test_what_is_not_claimed_is_refused_before_anything_is_sent() -> None:
    with narrowboat.broker("amqp://127.0.0.1:1") as broker:
        assert broker.capabilities.order is Support.ABSENT
        with pytest.raises(Unsupported):
            broker.queue("orders", ordered=True)
        with pytest.raises(Unsupported):
            broker.queue("orders", priorities=1)
    with narrowboat.broker("amqp://127.0.0.1:1?queue_type=classic&priorities=3") as broker:
        assert broker.capabilities.priorities_max == 3
    assert names.queue_arguments(Options(queue_type=QueueType.CLASSIC, priorities=3))["x-max-priority"] == 3
    assert names.queue_arguments(Options())["x-delivery-limit"] > 2**30, "3.10 takes -1 for none at all, and drops"  # type: ignore[operator]  # a number


def test_a_call_waits_for_another_ones_turn_within_its_own_time() -> None:
    """A call that makes a queue waits for the server with the queue's mutex. The next one gives up at its own deadline."""
    options = Options()
    loop = Loop("test-io", 60.0, time.monotonic)
    link = Link(endpoint(Url.parse("amqp://127.0.0.1:1"), options), options, loop, 3.0, "test")
    mutex = threading.Lock()
    operation = Operation("declaring 'orders'", time.monotonic() + 0.05)
    with mutex:
        with pytest.raises(Unavailable, match="declaring 'orders'") as caught, link.alone(mutex, operation):
            pytest.fail("two were inside")
        assert not caught.value.sent
    with link.alone(mutex, operation):  # its time is over, and nobody has it
        assert mutex.locked()
    assert not mutex.locked()
    loop.close(1.0)
