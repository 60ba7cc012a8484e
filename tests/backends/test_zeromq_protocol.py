"""The protocol of `narrowboat serve`, without a socket: what is packed comes out again; what is wrong is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narrowboat.capabilities import Scope, Support, Survives
from narrowboat.contract import (
    Ack,
    Address,
    Busy,
    Delivery,
    Grant,
    Holder,
    Kind,
    Mode,
    Nack,
    Outgoing,
    Properties,
    Receipt,
    Reject,
    Released,
    Request,
    Return,
    Source,
)
from narrowboat.driver.claims import keeper
from narrowboat.errors import (
    AccessDenied,
    Conflict,
    LeaseLost,
    NarrowboatError,
    NotFound,
    PublishFailed,
    Reason,
    StaleDelivery,
    Unavailable,
)
from narrowboat_zeromq.protocol import fields, frames, lock_items, message_items
from narrowboat_zeromq.protocol.faults import from_wire, to_wire
from narrowboat_zeromq.protocol.frames import Bodies, Malformed, pack, unpack

CLAIMS = keeper(Scope.HOST, Survives.POWER, work=Support.NATIVE, dedup=300.0)

#: What JSON escapes, what takes two halves there, and what it may be taken for.
ODD = 'aZ9 ."\\/{[,é€😀\u2028'
names = st.text(ODD, min_size=1, max_size=20)
words = st.text(ODD + "\0\n\x7f", max_size=20)
seconds = st.floats(0.001, 1e6, allow_nan=False)
tokens = st.integers(0, 2**63 - 1)
modes = st.one_of(
    st.just((Mode.EXCLUSIVE, None)), st.just((Mode.SHARED, None)), st.integers(1, 1000).map(lambda n: (Mode.SEMAPHORE, n))
)
addresses = st.one_of(
    st.builds(Address, st.sampled_from([Kind.QUEUE, Kind.TOPIC, Kind.INBOX]), names, st.just("")),
    st.builds(Address, st.just(Kind.SUBSCRIPTION), names, names),
)
tags = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=8).map(tuple)


def through(value: Any, bodies: list[bytes] | None = None) -> tuple[Any, Bodies]:
    """Over the wire and back."""
    head, found = unpack(pack([1, "ok", value], bodies or []))
    return head[2], found


@settings(deadline=None, max_examples=30)
@given(names, names, seconds, modes, st.booleans(), words)
def test_a_request_for_a_lock_comes_out_as_it_went_in(
    name: str, owner: str, ttl: float, mode: tuple[Mode, int | None], wait: bool, label: str
) -> None:
    asked = Request(name, owner, ttl, mode[0], mode[1], wait, print, label)
    value, _ = through(lock_items.wish(asked))
    assert lock_items.request(value, lambda owner: print) == asked

    grant = Grant(name, owner, 2**63 - 1, ttl, *mode)
    value, _ = through(lock_items.granted(grant))
    assert lock_items.grant(value) == grant
    value, _ = through(lock_items.answer(grant))
    assert lock_items.taken(value, asked) == grant


@settings(deadline=None, max_examples=30)
@given(names, tokens, words, modes, st.floats(0, 1e12), st.none() | seconds, st.none() | st.integers(0, 99), st.booleans())
def test_a_holder_comes_out_as_it_went_in(
    name: str,
    token: int,
    label: str,
    mode: tuple[Mode, int | None],
    since: float,
    left: float | None,
    waiters: int | None,
    foreign: bool,
) -> None:
    holder = Holder(name, token, label, *mode, since, left, waiters, foreign)
    value, _ = through(lock_items.shown(holder))
    assert lock_items.holder(value) == holder


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.builds(
            Outgoing,
            to=addresses,
            id=names,
            body=st.binary(max_size=200),
            headers=st.dictionaries(names, words, max_size=4),
            key=st.none() | names,
            published_at=st.floats(0, 1e12),
            delay=st.floats(0, 86400.0),
            priority=st.integers(0, 9),
            ttl=st.none() | seconds,
            correlation_id=st.none() | names,
            content_type=st.none() | names,
            reply_to=st.none() | addresses,
            dedup=st.booleans(),
            origin=st.none() | tags,
        ),
        max_size=5,
    )
)
def test_messages_come_out_as_they_went_in(messages: list[Outgoing]) -> None:
    rows, bodies = through([message_items.outgoing(each) for each in messages], [each.body for each in messages])
    assert [message_items.message(row, bodies, CLAIMS) for row in rows] == messages
    bodies.end()


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.builds(
            Delivery,
            id=names,
            body=st.binary(max_size=200),
            headers=st.dictionaries(names, words, max_size=4),
            key=st.none() | names,
            attempt=st.integers(1, 2**31),
            published_at=st.none() | st.floats(0, 1e12),
            priority=st.integers(0, 9),
            expires_in=st.none() | seconds,
            correlation_id=st.none() | names,
            content_type=st.none() | names,
            reply_to=st.none() | addresses,
            tag=tags,
            malformed=words,
            refused=st.just(""),  # a layer's, in front of the driver
        ),
        max_size=5,
    ),
    st.sampled_from([Ack(), Nack(), Nack(2.5), Return(), Reject("why not", 3)]),
)
def test_deliveries_and_what_becomes_of_them_come_out_as_they_went_in(deliveries: list[Delivery], outcome: Any) -> None:
    rows, bodies = through([message_items.delivery(each) for each in deliveries], [each.body for each in deliveries])
    assert [message_items.delivered(row, bodies) for row in rows] == deliveries
    for each in deliveries:
        value, _ = through(message_items.settlement((each, outcome)))
        found, how = message_items.settled(value)
        assert (found.id, found.attempt, found.tag, how) == (each.id, each.attempt, each.tag, outcome)


@settings(deadline=None, max_examples=30)
@given(addresses, st.floats(0.05, 3600.0), st.integers(0, 99), st.booleans(), st.integers(0, 9))
def test_a_source_comes_out_as_it_went_in(to: Address, lease: float, most: int, ordered: bool, levels: int) -> None:
    source = Source(to, Properties(lease, most, ordered, levels))
    value, _ = through(message_items.source(source))
    assert message_items.sourced(value, CLAIMS) == source


def conflict() -> Conflict:
    error = Conflict("it differs")
    error.stored = {"lease": 30.0}
    return error


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("away", sent=False),
        Unavailable("away", retryable=False),
        AccessDenied("no"),
        NotFound("nothing"),
        conflict(),
        LeaseLost("gone", name="invoice", reason=Reason.EVICTED, token=7),
        PublishFailed("no", id="m1", retryable=True),
        StaleDelivery("late", id="m2"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_keeps_its_type_its_text_and_what_a_program_acts_on(error: NarrowboatError) -> None:
    value, _ = through(to_wire(error))
    found = from_wire(value)
    assert type(found) is type(error) and str(found) == str(error) and found.backend == "zmq"
    for name in ("retryable", "sent", "id", "name", "reason", "token", "stored"):
        assert getattr(found, name, None) == getattr(error, name, None), name


def test_what_is_no_error_of_ours_is_not_shown_to_a_client() -> None:
    found = from_wire(through(to_wire(RuntimeError("the password is 1234")))[0])
    assert isinstance(found, Unavailable) and not found.retryable
    assert "RuntimeError" in str(found) and "1234" not in str(found)


@settings(deadline=None, max_examples=30)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_are_a_head(raw: bytes) -> None:
    try:
        head, _ = unpack([raw])
    except Malformed:
        return
    assert isinstance(head, list) and head == json.loads(raw)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)


@pytest.mark.parametrize("value", [10**400, -(10**400), float("inf"), float("nan"), True, None, "1"], ids=range(7))
def test_what_is_no_number_for_a_clock_is_refused(value: Any) -> None:
    """A whole number of JSON's may be larger than every float."""
    with pytest.raises(Malformed, match="published_at"):
        fields.finite("published_at", value)


@settings(deadline=None, max_examples=30)
@given(ANYTHING)
def test_no_field_lets_through_what_breaks_the_contract(value: Any) -> None:
    """Every decoder that a server runs on what a client sent either raises Malformed or gives a value of the contract."""
    for decode in (
        lambda: lock_items.request(value, lambda owner: print),
        lambda: lock_items.grant(value),
        lambda: message_items.message(value, Bodies([b"x" * 10]), CLAIMS),
        lambda: message_items.settled(value),
        lambda: message_items.claimed(value),
        lambda: message_items.sourced(value, CLAIMS),
        lambda: fields.address(value),
        lambda: fields.tag(value),
    ):
        try:
            decode()
        except Malformed:
            pass
    assert isinstance(from_wire(value), NarrowboatError)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"{}", "no JSON array"),
        (b"[]", "no JSON array"),
        (b"[1,NaN]", "NaN"),
        (b"[" * 100_000, "no JSON"),
        (b"[1" + b"0" * 5000 + b"]", "no JSON"),
        (b'[1,"\\ud800"]', "surrogate"),
    ],
)
def test_a_hostile_head_is_refused_with_the_reason(raw: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        unpack([raw])


def test_numbers_of_frames_items_and_bytes_are_bounded() -> None:
    with pytest.raises(Malformed, match="frames"):
        unpack([b"[1]"] * (frames.FRAMES_MAX + 1))
    with pytest.raises(Malformed, match="array of up to 1000"):
        fields.rows("messages", [0] * 1001)
    with pytest.raises(Malformed, match="where 2 are left"):
        Bodies([b"xy"]).take(3)
    with pytest.raises(Malformed, match="where 2 are left"):
        Bodies([b"xy"]).take(-1)
    with pytest.raises(Malformed, match="does not speak"):
        Bodies([b"xy"]).end()
    large = [b"x" * (9 * 1024 * 1024)] * 3
    packed = pack([1, "send"], large)
    assert len(packed) == 4 and max(map(len, packed)) <= frames.FRAME_MAX


def test_answers_that_are_no_grant_come_out_as_they_went_in() -> None:
    asked = Request("a", "o", 1.0, Mode.EXCLUSIVE, None, True, print, "")
    assert lock_items.taken(through(lock_items.answer(Busy(2.5)))[0], asked) == Busy(2.5)
    for each in Released:
        assert lock_items.released(through(lock_items.answer(each))[0]) is each
    sent = Outgoing(Address(Kind.QUEUE, "q"), "m", b"", {}, None, 0.0, 0.0, 0, None, None, None, None, False)
    for receipt in (Receipt("m"), Receipt("m", True)):
        assert message_items.received(through(message_items.receipt(receipt))[0], sent) == receipt


PAGE = (Path(__file__).parents[2] / "docs" / "zeromq-protocol.md").read_text(encoding="utf-8")


def test_every_example_of_the_page_is_what_the_decoders_take() -> None:
    """What a client says there is taken apart as the server does it; whatever it hears is a head."""
    lines = re.findall(r"^([→←]) (\[.*\])$", PAGE, re.MULTILINE)
    assert len(lines) > 20
    seen = set()
    for arrow, line in lines:
        head, _ = unpack([line.encode()])
        match head if arrow == "→" else [None, None]:
            case [2, "attempt" | "withdraw" as what, rows]:
                assert [lock_items.wish(lock_items.request(row, lambda owner: print)) for row in rows] == rows
            case [_, "renew" | "release" as what, rows]:
                assert [lock_items.granted(lock_items.grant(row)) for row in rows] == rows
            case [_, "send" as what, rows]:
                assert [message_items.outgoing(message_items.message(row, Bodies([b"hi"]), CLAIMS)) for row in rows] == rows
            case [_, "open" as what, _, source, bool()]:
                assert message_items.source(message_items.sourced(source, CLAIMS)) == source
            case [_, "settle" as what, _, rows]:
                assert [list(cast(Any, message_items.settled(row)[0].tag)) for row in rows] == [row[2] for row in rows]
            case [1, "attempt", [row]]:
                what = "refused"
                with pytest.raises(Malformed, match="mode: one of exclusive, shared, semaphore is allowed"):
                    lock_items.request(row, lambda owner: print)
            case _:
                continue
        seen.add(what)
    assert seen == {"attempt", "renew", "release", "send", "open", "settle", "refused"}
    for bound in (frames.FRAME_MAX, frames.BODIES_MAX, frames.FRAMES_MAX, frames.ITEMS_MAX):
        assert f"{bound:,}" in PAGE
