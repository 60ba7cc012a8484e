"""RocketMQ without a server: names, messages as the protocol has them, and URLs."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import narrowboat
from narrowboat._messages.checks import RESERVED_PREFIX
from narrowboat.contract import Address, Delivery, Depth, Kind, Outgoing
from narrowboat.dsn import Url
from narrowboat.errors import ConfigurationError, Unsupported

pytest.importorskip("grpc")

from narrowboat_rocketmq import names
from narrowboat_rocketmq.admin import mark
from narrowboat_rocketmq.envelope import ONLY, PACKED, Tag, delivery, group_of, outgoing
from narrowboat_rocketmq.library import definition_pb2 as said
from narrowboat_rocketmq.options import Options, admin, endpoint
from narrowboat_rocketmq.publishing import _rounds

ORDERS = Address(Kind.QUEUE, "orders")
TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=300)
VALUE = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
#: What the server lets a topic or group be called.
NAME = re.compile(r"[%|a-zA-Z0-9_-]{1,127}")


def message(**changes: object) -> Outgoing:
    plain = Outgoing(ORDERS, "id", b"x", {}, None, 1000.5, 0.0, 0, None, None, None, None, dedup=False)
    return plain._replace(**changes)  # type: ignore[arg-type]  # fields by name


def there_and_back(sent: Outgoing, *, grouped: bool = False) -> Delivery:
    wire = outgoing(sent, "orders", "", now=2000.0, grouped=grouped).SerializeToString()
    return delivery(said.Message.FromString(wire), None, 2000.0)


# -- names ------------------------------------------------------------------------------------------------------------


@given(TEXT, TEXT, st.one_of(st.just(""), TEXT), st.one_of(st.just(""), TEXT))
def test_two_names_never_meet(name: str, other: str, prefix: str, second: str) -> None:
    assert (names.name(name, prefix) == names.name(other, second)) is ((name, prefix) == (other, second))


@given(TEXT, TEXT, st.one_of(st.just(""), TEXT))
def test_the_server_takes_every_name(topic: str, group: str, prefix: str) -> None:
    spot = names.place(Address(Kind.SUBSCRIPTION, topic, group), prefix)

    for each in (*spot.topics, spot.group):
        assert NAME.fullmatch(each)
    assert len(f"%RETRY%{spot.group}_{spot.later}") <= 255 - 2 * len("a-namespace%")


@given(TEXT, TEXT)
def test_a_topic_of_delayed_messages_is_nobodys_name(name: str, other: str) -> None:
    assert names.place(Address(Kind.QUEUE, name), "").later != names.name(other, "")


def test_a_groups_number_for_its_topic_is_one_that_json_and_java_can_carry() -> None:
    assert 0 < mark("orders") < 2**63
    assert mark("orders") != mark("orders2")


# -- messages ---------------------------------------------------------------------------------------------------------


@given(
    st.builds(
        message,
        id=TEXT,
        body=st.binary(max_size=200),
        headers=st.dictionaries(TEXT.filter(lambda name: not name.startswith(RESERVED_PREFIX)), VALUE, max_size=8),
        key=st.one_of(st.none(), TEXT),
        correlation_id=st.one_of(st.none(), VALUE),
        content_type=st.one_of(st.none(), VALUE),
        priority=st.integers(0, 9),
    )
)
def test_a_message_arrives_as_it_was_sent(sent: Outgoing) -> None:
    got = there_and_back(sent)

    for field in ("id", "body", "headers", "key", "correlation_id", "content_type", "priority"):
        assert getattr(got, field) == getattr(sent, field), field
    assert got.malformed == ""
    assert got.published_at == sent.published_at


@given(st.dictionaries(TEXT, VALUE, max_size=200), st.binary(max_size=20))
def test_the_server_takes_every_property(headers: dict[str, str], body: bytes) -> None:
    """No control character, nothing empty, not too many or too much: all else is in front of the body, which is not empty."""
    made = outgoing(message(headers=headers, body=body), "orders", "", now=2000.0, grouped=False)

    properties = made.user_properties
    assert made.body
    assert len(properties) <= 110
    assert sum(len(name.encode()) + len(value.encode()) for name, value in properties.items()) < 16 * 1024
    assert all(value and value.isprintable() and name.isprintable() for name, value in properties.items())


def test_plain_messages_are_plain_to_others() -> None:
    made = outgoing(message(headers={"trace-id": "a b"}, id="order-1"), "orders", "", now=2000.0, grouped=False)

    assert made.body == b"x"
    assert dict(made.user_properties) == {"trace-id": "a b"}
    assert made.system_properties.message_id == "order-1"


def test_names_of_the_servers_own_are_no_properties() -> None:
    """It refuses a message that has one of them."""
    for name in ("KEYS", "DELAY", "__SHARDINGKEY", "1ST_POP_TIME", "TIMER_DELIVER_MS", "CONSUME_START_TIME"):
        made = outgoing(message(headers={name: "x"}), "orders", "", now=2000.0, grouped=False)
        assert name not in made.user_properties
        assert PACKED in made.user_properties


def test_a_message_ends_when_its_time_is_over() -> None:
    sent = outgoing(message(ttl=5.0), "orders", "", now=2000.0, grouped=False)

    got = delivery(sent, None, 2003.0)

    assert got.expires_in == 2.0
    assert isinstance(got.tag, Tag) and got.tag.expires == 2005.0
    assert there_and_back(message()).expires_in is None


def test_a_delayed_message_has_its_time_and_no_group() -> None:
    made = outgoing(message(delay=1.5, key="k"), "orders", "", now=2000.0, grouped=True).system_properties

    assert made.message_type == said.DELAY
    assert made.delivery_timestamp.ToMilliseconds() >= 2001500
    assert not made.HasField("message_group")


@given(TEXT)
def test_one_key_has_one_group(key: str) -> None:
    assert group_of(key) == group_of(key)
    assert re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", group_of(key))


def test_what_a_redrive_sends_says_for_whom_it_is() -> None:
    made = outgoing(message(), "prices", "", now=2000.0, grouped=False, only="prices__g")

    assert made.user_properties[ONLY] == "prices__g"


STRANGE = st.dictionaries(
    st.sampled_from([f"narrowboat-{word}" for word in ("id", "key", "expires", "type", "priority", "packed", "only", "x")]),
    VALUE,
)


@given(STRANGE, st.binary(max_size=60), st.integers(-(2**31), 2**31 - 1))
def test_nothing_that_another_program_writes_is_an_error(properties: dict[str, str], body: bytes, attempt: int) -> None:
    wire = said.Message(body=body, user_properties=properties)
    wire.system_properties.delivery_attempt = attempt

    got = delivery(wire, None, 2000.0)

    assert got.attempt >= 1 and got.id
    assert isinstance(got.tag, Tag) and not math.isnan(got.tag.expires)
    assert got.expires_in is None or math.isfinite(got.expires_in)


def test_messages_of_one_key_wait_for_each_other_and_no_others_do() -> None:
    sent = [message(id=str(number), key=key) for number, key in enumerate(["a", "b", "a", None, "a", "b"])]
    spots = [names.place(ORDERS, "")] * len(sent)

    assert list(_rounds(sent, spots, range(len(sent)))) == [[0, 1, 3], [2, 5], [4]]


# -- URLs -------------------------------------------------------------------------------------------------------------


def test_what_a_url_names() -> None:
    url = Url.parse("rocketmq://key:secret@proxy/shop?admin=names")
    found = endpoint(url, Options(admin="names"))

    assert str(found) == "rocketmq://proxy:8081/shop"
    assert found.user == "key"
    assert str(admin(url, Options(admin="[::1]:7"))) == "[::1]:7"
    assert admin(url, Options()) is None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("rocketmq://a,b", "one host"),
        ("rocketmq://key@proxy", "a user needs a password"),
        ("rocketmq://proxy/a/b", "namespace of RocketMQ"),
        ("rocketmq://proxy/a.b", "namespace of RocketMQ"),
        ("rocketmq://proxy?admin=key:hunter2@names", "option admin"),
        ("rocketmq://proxy?admin=a,b", "option admin"),
        ("rocketmq://proxy?queues=0", "queues=0"),
        ("rocketmq://proxy?ca=/etc/ca.pem", "rocketmqs://"),
    ],
)
def test_what_a_url_cannot_mean_is_refused(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as refused:
        narrowboat.broker(url)
    assert "hunter2" not in str(refused.value)


def test_without_a_name_server_nothing_is_made_counted_or_removed() -> None:
    with narrowboat.broker("rocketmq://127.0.0.1:1", timeout=0.5) as broker:
        queue = broker.queue("orders")
        assert queue.depth() == Depth(None, None, None, None)
        for call in (queue.purge, queue.delete):
            with pytest.raises(Unsupported, match="admin"):
                call()


def test_what_is_not_claimed_is_refused_before_anything_is_sent() -> None:
    with narrowboat.broker("rocketmq://127.0.0.1:1?admin=127.0.0.1:1", timeout=0.5) as broker:
        with pytest.raises(Unsupported):
            broker.queue("orders").request(b"x", timeout=1.0)
        with pytest.raises(Unsupported):
            broker.queue("orders", priorities=3)
