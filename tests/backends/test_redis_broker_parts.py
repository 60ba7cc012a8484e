"""Messages on Redis without a server: where an address lies, what an entry says, what is refused before any I/O."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import broker_calls
import narrowboat
from narrowboat.contract import Address, Delivery, Kind, Outgoing, Properties
from narrowboat.dsn import Url
from narrowboat.errors import ConfigurationError, Conflict, NotFound, Unsupported
from narrowboat_redis import entries
from narrowboat_redis.endpoint import RedisEndpoint
from narrowboat_redis.options import MessageOptions
from narrowboat_redis.properties import properties_of, refusal, texts_of
from narrowboat_redis.streams import own_stream_prefix, part, stream_keys

HERE = RedisEndpoint.of(Url.parse("redis://"), MessageOptions())

_names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=300)
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def tag_of(key: bytes) -> bytes:
    """What a cluster hashes of a key."""
    start = key.find(b"{")
    end = key.find(b"}", start + 1)
    return key[start + 1 : end] if start >= 0 and end > start + 1 else key


# --- places


@given(one=_names, other=_names, prefix=st.sampled_from(["", "shop", "a b"]))
def test_two_names_never_meet(one: str, other: str, prefix: str) -> None:
    """Neither their streams nor anything that belongs to them, in a cluster or outside."""
    for cluster in (False, True):
        places = [stream_keys(Address(Kind.QUEUE, name), prefix, cluster=cluster) for name in (one, other)]
        assert (one == other) == (places[0].root == places[1].root) == (places[0].stream == places[1].stream)


@given(name=_names, group=_names.filter(lambda text: "." not in text), prefix=st.sampled_from(["", "shop", "{x}"]))
def test_a_source_with_all_that_belongs_to_it_shares_a_slot(name: str, group: str, prefix: str) -> None:
    """Stream, root, dead letters, the topic of a group: one hash tag."""
    for address in (Address(Kind.QUEUE, name), Address(Kind.SUBSCRIPTION, name, group), Address(Kind.TOPIC, name)):
        place = stream_keys(address, prefix, cluster=True)
        dead = stream_keys(address.dead, prefix, cluster=True)
        assert len({tag_of(key) for key in (*place.all, place.dead_stream, dead.root, dead.stream)}) == 1


@given(name=_names, group=_names.filter(lambda text: "." not in text))
def test_a_topic_knows_the_stream_keys_its_groups(name: str, group: str) -> None:
    """Deleting a topic deletes them without knowing their addresses."""
    for cluster in (False, True):
        topic = stream_keys(Address(Kind.TOPIC, name), "p", cluster=cluster)
        mine = stream_keys(Address(Kind.SUBSCRIPTION, name, group), "p", cluster=cluster)
        assert mine.stream == own_stream_prefix(topic, cluster=cluster) + mine.group
        assert mine.root == topic.root + b"." + mine.group


@pytest.mark.parametrize("name", ["orders", "a.b-c_D.9", "x" * 180])
def test_plain_names_are_kept(name: str) -> None:
    """So that other programs meet ours."""
    assert stream_keys(Address(Kind.QUEUE, name), "", cluster=False).stream == name.encode()
    assert stream_keys(Address(Kind.QUEUE, name), "shop", cluster=False).stream == b"shop:" + name.encode()


def test_two_prefixes_never_meet() -> None:
    """Also where one looks like the head of another's key."""
    roots = {
        stream_keys(Address(Kind.QUEUE, name), prefix, cluster=False).root
        for prefix, name in (("", "a:b"), ("a", "b"), ("a:", "b"), ("a%3A", "b"), ("", "b"))
    }
    assert len(roots) == 5
    assert part("x" * 181) != part("x" * 182)


# --- entries


def outgoing(**fields: Any) -> Outgoing:
    return broker_calls.message(**{"to": Address(Kind.QUEUE, "orders"), "id": "m1", "published_at": 1_700_000_000.5, **fields})


def packed(*messages: tuple[bytes, bytes, int, list[bytes]], now: float = 0.0) -> list[Delivery]:
    """What `receive.lua` makes of entries: (token, id, attempt, names and values in turn)."""
    sizes, data, shapes = b"", b"", []
    for token, entry_id, attempt, fields in messages:
        names = b"".join(struct.pack(">I", len(name)) + name for name in fields[::2])
        shape = b"" if fields[::2] == [b"id", b"body"] else names
        if shape not in shapes:
            shapes.append(shape)
        values = fields[1::2]
        numbers = [shapes.index(shape), attempt, len(token), len(entry_id), *map(len, values)]
        sizes += struct.pack(f">{len(numbers)}I", *numbers)
        data += b"".join((token, entry_id, *values))
    return entries.deliveries(now, sizes, data, shapes)


_messages = st.builds(
    outgoing,
    id=_names,
    body=st.binary(max_size=50),
    headers=st.dictionaries(_names, _texts, max_size=3),
    key=st.none() | _names,
    published_at=st.floats(0, 2e9),
    priority=st.integers(0, 9),
    correlation_id=st.none() | _names,
    content_type=st.none() | _names,
    reply_to=st.none() | st.builds(Address, st.sampled_from(Kind), _names, st.just("") | _names),
)


@given(messages=st.lists(_messages, max_size=5), attempt=st.integers(1, 2**31))
def test_a_message_comes_out_as_it_went_in(messages: list[Outgoing], attempt: int) -> None:
    """Every field, whatever its bytes are, beside any others."""
    raw = [(b"t%d" % n, b"12500-%d" % n, attempt, entries.fields_of(message)) for n, message in enumerate(messages)]
    found = packed(*raw, (b"last", b"99-0", 1, [b"id", b"plain", b"body", b"\0\xff"]))
    for n, (message, delivery) in enumerate(zip(messages, found, strict=False)):
        for name in ("id", "body", "headers", "key", "published_at", "priority", "correlation_id", "content_type", "reply_to"):
            assert getattr(delivery, name) == getattr(message, name), name
        assert (delivery.attempt, delivery.tag, delivery.expires_in) == (attempt, b"t%d" % n, None)
    assert (found[-1].id, found[-1].body, found[-1].published_at) == ("plain", b"\0\xff", 0.099)


@given(message=_messages, now=st.floats(0, 2e9))
def test_a_plain_message_has_nothing_to_say_but_id_and_body(message: Outgoing, now: float) -> None:
    """And the time that its entry's id tells anyway."""
    silent = (message.key, message.ttl, message.content_type, message.correlation_id, message.reply_to)
    near = abs(now - message.published_at) < entries.NEAR
    assert entries.is_plain(message, now) == (silent == (None,) * 5 and not message.headers and not message.priority and near)


@pytest.mark.parametrize(
    ("fields", "body", "headers"),
    [
        ([b"temperature", b"21"], b"21", {}),
        ([b"body", b"21", b"unit", b"C"], b"21", {"unit": "C"}),
        ([b"a", b"1", b"b", b"2"], b"", {"a": "1", "b": "2"}),
        ([b"body", b"x", b"headers", b"no json"], b"x", {"headers": "no json"}),
        ([b"body", b"x", b"headers", b'{"n": 1}'], b"x", {"headers": '{"n": 1}'}),
        ([b"body", b"x", b"bad\xff", b"\xff"], b"x", {"bad\ufffd": "\ufffd"}),
        (
            [b"id", b"7", b"type", b"t", b"body", b"x", b"expires", b"1700000000"],
            b"x",
            {"id": "7", "type": "t", "expires": "1700000000"},
        ),
        ([b"id", b"7", b"body", b"x", b"key", b"k"], b"x", {"id": "7", "key": "k"}),
        ([b"id", b"7", b"body", b"x", b"at", b"noon", b"key", b"k"], b"x", {"id": "7", "at": "noon", "key": "k"}),
        ([b"a\0b", b"1", b"body", b"x"], b"x", {"a\0b": "1"}),
        ([b"body", b"first", b"body", b"second"], b"first", {"body": "second"}),
    ],
)
def test_entries_of_other_programs_are_delivered_as_they_are(fields: list[bytes], body: bytes, headers: dict[str, str]) -> None:
    """The body is the field `body` or the only one; what else there is becomes headers."""
    (delivery,) = packed((b"t", b"1700000000123-7", 1, fields))
    assert (delivery.id, delivery.body, delivery.headers) == ("1700000000123-7", body, headers)
    assert delivery.published_at == 1700000000.123


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("priority", b"high"),
        ("priority", b"inf"),
        ("priority", b"nan"),
        ("priority", b"1e400"),
        ("at", b"noon"),
        ("at", b"1.2.3"),
        ("expires", b"-1"),
        ("expires", b"9" * 5000),
        ("headers", b"[" * 100_000),
        ("headers", b'{"n": 1}'),
        ("headers", b'{"n": "\\ud800"}'),
        ("headers", b"{" + b" " * (1 << 20) + b"}"),
        ("reply", b'["planet", "x", ""]'),
        ("reply", b"[" * 100_000),
        ("key", b"\xff"),
        ("id", b"\xff"),
    ],
)
def test_a_field_of_ours_that_is_not_as_we_write_it_costs_that_entry_its_meaning_alone(name: str, value: bytes) -> None:
    """It is handed out raw, with what is wrong with it; its neighbours are whole."""
    field = b"narrowboat-" + name.encode()
    bad = [b"body", b"x", field, value, b"v", b"1"]
    good = [b"id", b"m", b"body", b"y"]
    before, found, behind = packed((b"a", b"5-0", 1, good), (b"t", b"5000-0", 3, bad), (b"b", b"6-0", 1, good))
    assert (before.body, behind.body, before.malformed, behind.malformed) == (b"y", b"y", "", "")
    assert (found.id, found.body, found.attempt, found.tag) == ("5000-0", b"x", 3, b"t")
    assert found.headers == {field.decode(): value.decode(errors="replace"), "v": "1"}
    assert name in found.malformed


def test_entries_of_the_first_version_are_read() -> None:
    """Its names had no mark, and its dead letters had ours behind."""
    old = [b"id", b"m1", b"body", b"x", b"at", b"12.5", b"key", b"k", b"priority", b"3", b"headers", b'{"a":"b"}']
    old += [b"correlation", b"c", b"type", b"t", b"reply", b'["inbox", "i", ""]', b"expires", b"1700000000000000"]
    dead = [b"narrowboat-dead-reason", b"why"]
    for fields, more in ((old, {}), (old + dead, {"narrowboat-dead-reason": "why"})):
        (found,) = packed((b"t", b"5000-0", 1, fields), now=1.7e15 - 2e6)
        assert found == Delivery("m1", b"x", {"a": "b", **more}, "k", 1, 12.5, 3, 2.0, "c", "t", Address(Kind.INBOX, "i"), b"t")
    (plain,) = packed((b"t", b"5000-0", 1, [b"id", b"m1", b"body", b"x", *dead]))
    assert (plain.id, plain.headers) == ("m1", {"narrowboat-dead-reason": "why"})


def test_an_entry_that_is_too_large_is_told_and_left_out() -> None:
    """The script sends its size alone."""
    (found,) = packed((b"t", b"5000-0", 1, [b"narrowboat-left", b"70000000"]))
    assert (found.id, found.body, dict(found.headers)) == ("5000-0", b"", {})
    assert "70000000" in found.malformed


# --- properties


@given(
    source=st.builds(Properties, st.floats(0.05, 43200), st.integers(0, 1000), st.booleans(), st.integers(0, 9)),
)
def test_properties_are_stored_exactly(source: Properties) -> None:
    """A lease of 0.1 must not differ from itself."""
    assert properties_of(texts_of(source)) == source


def test_a_refusal_says_what_is_stored() -> None:
    """And of whom."""
    queue = stream_keys(Address(Kind.QUEUE, "orders"), "", cluster=False)
    group = stream_keys(Address(Kind.SUBSCRIPTION, "orders", "g"), "", cluster=False)
    asked = Properties(ordered=True)
    assert refusal([b"ok"], queue, asked, HERE) is None
    missing = refusal([b"missing"], queue, asked, HERE)
    assert isinstance(missing, NotFound)
    differs = refusal([b"differs", b"30.0", b"5", b"0", b"0"], queue, asked, HERE)
    assert isinstance(differs, Conflict)
    assert "ordered is False and was asked as True" in str(differs)
    taken = refusal([b"taken", b"queue", b"topic"], group, asked, HERE)
    assert isinstance(taken, Conflict)
    assert "'orders' is a queue and cannot be a topic" in str(taken)


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:1/0?dedup=-1",
        "redis://localhost:1/0?durability=disk",
        "redis://localhost:1/0?declare=sometimes",
        "redis://localhost:1/0?durabilty=aof",
        "redis+raft://localhost:1/0",
    ],
)
def test_a_bad_url_is_refused_before_any_io(url: str) -> None:
    """Each one clear error."""
    with pytest.raises(ConfigurationError):
        narrowboat.broker(url)


def test_what_is_not_claimed_is_refused_before_any_io() -> None:
    """No server is asked: there is none on that port."""
    with narrowboat.broker("redis://localhost:1/0?dedup=0") as broker:
        with pytest.raises(Unsupported):
            broker.topic("prices").subscription("g", start="earliest")
        assert broker.capabilities.dedup.value == "absent"
    with pytest.raises(Unsupported):
        narrowboat.broker("redis://localhost:1/0", require="survives=crash")
    narrowboat.broker("redis://localhost:1/0?durability=fsync", require="survives=power").close()
