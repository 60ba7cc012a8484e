"""What other programs may write into an AMQP message's properties: read as pika reads it where pika can, kept as it was."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties, frame, spec
from pika import data as pika_data

from integration.amqp_fields import NAMES, TABLES, VALUES, deep, value
from narrowboat.contract import Address, Kind, Outgoing
from narrowboat_rabbitmq.protocol.content import Content, read
from narrowboat_rabbitmq.protocol.envelope import CUT, Raw, _fitting, delivery_of, properties_of, republished
from narrowboat_rabbitmq.protocol.frames import message
from narrowboat_rabbitmq.protocol.table import DEEPEST, Unreadable, entry, join, shown, split, value_of

#: What a field of text takes.
SHORT = st.text(max_size=60)


def delivered(content: Content | bytes, body: bytes = b"x") -> Any:
    data = content if isinstance(content, bytes) else content.encode()
    return delivery_of(Raw(1, False, data, body), None, 2000.0, counted=True)


def plain(value: object) -> object:
    """What pika made of it, with text in the place of bytes that are none."""
    if isinstance(value, int):
        return int(value)  # pika has a class of its own for long ones
    if isinstance(value, dict):
        return {plain(name): plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value


def same(ours: object, theirs: object) -> bool:
    """Equal, but for what pika loses: fractions, and which of text and bytes it was."""
    if isinstance(ours, str) and isinstance(theirs, bytes):
        return ours.encode("utf-8", "surrogateescape") == theirs
    if isinstance(ours, float):
        return int(ours) == theirs
    if isinstance(ours, dict) and isinstance(theirs, dict):
        pairs = zip(ours.items(), theirs.items(), strict=True)
        return all(same(one[0], other[0]) and same(one[1], other[1]) for one, other in pairs)
    if isinstance(ours, list) and isinstance(theirs, list):
        return all(same(one, other) for one, other in zip(ours, theirs, strict=True))
    return ours == theirs and isinstance(ours, bytes) is isinstance(theirs, bytes)


@given(VALUES)
def test_a_value_is_what_pika_makes_of_it_where_pika_can(data: bytes) -> None:
    try:
        theirs, read_to = pika_data.decode_value(data, 0)
    except (ValueError, OverflowError, OSError):
        shown(data)  # a time that no calendar has, or a number that is none: pika raises, and here it is shown
        return
    assert read_to == len(data)
    assert same(value_of(data), plain(theirs))


@given(st.lists(st.tuples(NAMES, VALUES), max_size=6))
def test_a_table_is_taken_apart_and_put_together_byte_for_byte(entries: list[tuple[bytes, bytes]]) -> None:
    assert split(join(entries)) == entries


@given(TABLES)
def test_whatever_stands_in_the_headers_is_delivered_and_published_again_as_it_was(data: bytes) -> None:
    got = delivered(Content(headers=split(data), message_id="a"))
    assert got.body == b"x"
    assert got.id == "a" or any(name == b"narrowboat-id" for name, _ in split(data))
    assert all(isinstance(part, str) for pair in got.headers.items() for part in pair)
    assert got.attempt >= 1
    kept = republished(got.tag, {"narrowboat-dead-reason": "bad"}, attempts=0)
    back = read(kept.encode())
    assert back.headers[-1] == entry("narrowboat-dead-reason", "bad")
    assert set(back.headers[:-1]) <= set(split(data))
    theirs = [
        each for each in split(data) if not each[0].startswith((b"x-", b"narrowboat-")) and each[0] not in (b"CC", b"BCC")
    ]
    assert [each for each in back.headers if each in theirs] == theirs


@given(SHORT, SHORT, st.binary(max_size=20), st.booleans(), st.none() | SHORT, st.integers(1, 10))
def test_a_message_has_the_frames_that_pika_makes_of_it(
    exchange: str, key: str, body: bytes, mandatory: bool, type: str | None, most: int
) -> None:
    publish = spec.Basic.Publish(exchange=exchange, routing_key=key, mandatory=mandatory)
    frames = [frame.Method(7, publish), frame.Header(7, len(body), BasicProperties(type=type, delivery_mode=2))]
    frames += [frame.Body(7, body[at : at + most]) for at in range(0, len(body), most)]
    content = Content(type=type, delivery_mode=2)
    assert message(7, exchange, key, body, content, mandatory, most) == [each.marshal() for each in frames]


@given(st.binary(max_size=200))
def test_bytes_that_are_no_properties_are_delivered_raw_and_say_so(data: bytes) -> None:
    got = delivered(data, b"body")
    assert got.body == b"body"
    try:
        read(data)
    except Unreadable:
        assert "cannot be read" in got.malformed


def test_fields_that_are_no_text_are_the_same_bytes_again() -> None:
    odd = "caf\udce9"
    was = Content(
        message_id=odd, correlation_id=odd, content_type=odd, type=odd, app_id=odd, content_encoding="gzip", priority=255
    )
    kept = republished(delivered(was).tag, {}, attempts=0)
    assert b"caf\xe9" in kept.encode()
    for field in ("message_id", "correlation_id", "content_type", "type", "app_id", "content_encoding", "priority"):
        assert getattr(kept, field) == getattr(was, field)


def test_a_name_that_is_no_text_is_the_same_bytes_again() -> None:
    got = delivered(Content(headers=[(b"caf\xe9", value("S", b"x"))]))
    assert dict(got.headers) == {"caf\udce9": "x"}
    assert republished(got.tag, {}, attempts=0).headers == [(b"caf\xe9", value("S", b"x"))]


@pytest.mark.parametrize("name", [b"CC", b"BCC"])
def test_what_routes_copies_is_seen_and_never_sent_again(name: bytes) -> None:
    got = delivered(Content(headers=[(name, value("A", value("S", b"audit")))]))
    assert dict(got.headers) == {name.decode(): "['audit']"}
    assert republished(got.tag, {}, attempts=3).headers == [entry("narrowboat-attempts", "3")]


@pytest.mark.parametrize(
    "odd",
    ["[" * 100_000, "1" * 10_000, '{"a": 1}', '{"a":' + "[" * 900 + "]" * 900 + "}", "no JSON", '["a"]'],
    ids=["deep", "digits", "number", "nested", "text", "list"],
)
def test_headers_of_ours_that_another_program_spoiled_are_shown_as_they_are(odd: str) -> None:
    got = delivered(Content(headers=[entry("narrowboat-headers", odd), entry("mine", "1")]))
    assert dict(got.headers) == {"mine": "1", "narrowboat-headers": odd}
    assert "narrowboat-headers" in got.malformed


@pytest.mark.parametrize("kind", ["A", "F"])
def test_depth_is_bounded_and_told(kind: str) -> None:
    shallow, far = delivered(Content(headers=[(b"a", deep(kind, DEEPEST - 1))])), Content(headers=[(b"a", deep(kind, 15_000))])
    assert not shallow.malformed
    got = delivered(far)
    assert "..." in got.headers["a"]
    assert "deep" in got.malformed
    assert republished(got.tag, {}, attempts=0).headers == far.headers


@pytest.mark.parametrize("count", ["inf", "nan", "-5", "1e9", "9" * 5000, ""])
def test_a_count_that_is_none_is_no_count(count: str) -> None:
    assert delivered(Content(headers=[entry("narrowboat-attempts", count)])).attempt == 1


@pytest.mark.parametrize("number", [struct.pack(">d", float("inf")), struct.pack(">d", float("nan"))])
def test_a_number_that_is_none_is_no_count(number: bytes) -> None:
    assert (
        delivered(Content(headers=[(b"x-delivery-count", b"d" + number), (b"narrowboat-expires", b"d" + number)])).attempt == 1
    )


def test_what_is_too_large_to_be_published_again_loses_its_largest_headers_and_says_which() -> None:
    large = (b"large", value("S", b"x" * 125_000))
    got = delivered(Content(headers=[(b"small", value("S", b"y")), large]))
    kept = republished(got.tag, {"narrowboat-dead-reason": "bad"}, attempts=0)
    assert kept.headers == [(b"small", value("S", b"y")), entry("narrowboat-dead-reason", "bad"), entry(CUT, "large")]


def test_leaving_out_takes_one_look_at_each_header() -> None:
    """A frame of another program's has room for tens of thousands of headers, and each of them may have to go."""
    sizes: list[int] = []

    class Value(bytes):
        def __len__(self) -> int:
            sizes.append(1)
            return super().__len__()

    headers: list[tuple[bytes, bytes]] = [(b"%d" % number, Value(b"V")) for number in range(20_000)]
    kept = _fitting(headers, [])
    assert len(headers) // 2 < len(kept) < len(headers)
    assert len(sizes) < 10 * len(headers)


def test_headers_with_surrogates_can_be_published() -> None:
    odd = "caf\udce9"
    message = properties_of(_outgoing({odd: odd, "x" * 300: odd}), 0.0)
    assert dict(delivered(message).headers) == {odd: odd, "x" * 300: odd}


def _outgoing(headers: dict[str, str]) -> Outgoing:
    return Outgoing(Address(Kind.QUEUE, "q"), "id", b"x", headers, None, 0.0, 0.0, 0, None, None, None, None, dedup=False)
