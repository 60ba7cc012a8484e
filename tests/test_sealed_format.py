"""The sealed form: what is sealed opens, what is changed does not, and other languages can do it by the page alone."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from narrowboat.contract import Address, Delivery, Kind, Outgoing
from narrowboat.layers.changing import Unopened
from narrowboat.layers.sealed.format import Marker, Sealer, fields, milliseconds, place_of, read_marker
from narrowboat.layers.sealed.keys import ED25519, KINDS, Key, public_half, subkey
from narrowboat.layers.sealed.layer import sealed_for
from tools.seal_vectors import vectors

VECTORS = Path(__file__).parent.parent / "docs" / "sealed-vectors.json"
SECRET = bytes(range(32))
ORDERS = Address(Kind.QUEUE, "orders")

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
addresses = st.builds(Address, st.sampled_from([Kind.QUEUE, Kind.TOPIC, Kind.INBOX]), names, st.just(""))
messages = st.builds(
    Outgoing,
    to=addresses,
    id=names,
    body=st.binary(max_size=300),
    headers=st.dictionaries(names.filter(lambda name: not name.startswith("narrowboat-")), text, max_size=4),
    key=st.none() | names,
    published_at=st.floats(0, 1e11),
    delay=st.just(0.0),
    priority=st.integers(0, 9),
    ttl=st.none(),
    correlation_id=st.none() | names,
    content_type=st.none() | names,
    reply_to=st.none() | st.builds(Address, st.just(Kind.INBOX), names, st.just("")),
    dedup=st.booleans(),
)
kinds = st.sampled_from(KINDS)


def key(kind: str, secret: bytes = SECRET) -> Key:
    return Key("k1", kind, 0.0, secret, public_half(secret) if kind == ED25519 else None)


def delivered(message: Outgoing) -> Delivery:
    return Delivery(
        message.id,
        message.body,
        message.headers,
        message.key,
        1,
        None,  # some backends keep whole seconds, others nothing
        message.priority,
        None,
        message.correlation_id,
        message.content_type,
        message.reply_to,
        "tag",
    )


def sealed(kind: str, message: Outgoing) -> Outgoing:
    return Sealer(key(kind), place_of(message.to)).seal(message, milliseconds(1796040000.0), bytes(12))


def opened(kind: str, delivery: Delivery, to: Address, secret: bytes = SECRET) -> Delivery | None:
    marker = read_marker(delivery.headers["narrowboat-seal"])
    return Sealer(key(kind, secret), place_of(to)).open(delivery, marker)


@given(kinds, messages)
def test_what_is_sealed_opens_as_it_was(kind: str, message: Outgoing) -> None:
    """Whatever it has. The time of the publish comes from the seal, to the millisecond."""
    found = opened(kind, delivered(sealed(kind, message)), message.to)

    assert found is not None
    assert found._replace(published_at=None) == delivered(message)
    assert abs((found.published_at or 0.0) - message.published_at) <= 0.0005 + message.published_at * 1e-15


@given(kinds, messages, st.data())
def test_what_is_changed_does_not_open(kind: str, message: Outgoing, data: Any) -> None:
    """Each part that is bound, one at a time; and with another secret, or for another address, nothing does."""
    whole = delivered(sealed(kind, message))
    name = data.draw(st.sampled_from(["body", "id", "key", "content_type", "correlation_id", "marker"]))
    if name == "marker":
        marker = whole.headers["narrowboat-seal"]
        head, _, tail = marker.rpartition(".")
        raw = bytearray(base64.urlsafe_b64decode(tail + "=" * (-len(tail) % 4)))
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        text = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        changed = whole._replace(headers={**whole.headers, "narrowboat-seal": f"{head}.{text}"})
    else:
        other = data.draw((st.binary() if name == "body" else names).filter(lambda value: value != getattr(whole, name)))
        changed = whole._replace(**{name: other})
    assert opened(kind, changed, message.to) is None
    assert opened(kind, whole, data.draw(addresses.filter(lambda to: to != message.to))) is None
    assert opened(kind, whole, message.to, bytes(32)) is None


@given(st.lists(st.none() | text), st.lists(st.none() | text))
def test_no_two_lists_of_fields_are_alike(one: list[str | None], other: list[str | None]) -> None:
    """So nothing that is bound can be taken for something else."""
    assert (fields(*one) == fields(*other)) is (one == other)


@given(st.text() | st.from_regex(r"v1\.[A-Za-z0-9_-]{1,70}\.[A-Za-z0-9_-]{20,110}"))
def test_any_text_is_a_marker_or_refused(text: str) -> None:
    try:
        marker = read_marker(text)
    except Unopened:
        return
    assert isinstance(marker, Marker) and len(marker.times) == 12 and len(marker.tail) >= 12
    assert marker.sealed_at >= 0
    for kind in KINDS:
        assert Sealer(key(kind), place_of(ORDERS)).open(delivered(_plain()), marker) is None


def _plain() -> Outgoing:
    return Outgoing(ORDERS, "1", b"x", {}, None, 0.0, 0.0, 0, None, None, None, None, False)


def test_a_genuine_head_that_is_none_is_refused_and_not_believed() -> None:
    """Whoever has the key may seal anything."""
    sealer = Sealer(key("aes-256-gcm"), place_of(ORDERS))
    for content in (b"", b"\0\0\0\xff", b"\0\0\0\4\0\0\0\1", b"\0\0\0\4\xff\xff\xff\xff"):
        bound = sealer._bound("1", None, None, None, bytes(12))
        tail, body = sealer.suite.seal(bound, content, bytes(12))
        with pytest.raises((ValueError, struct.error)):
            sealer.open(delivered(_plain())._replace(body=body), Marker("k1", bytes(12), tail))


def test_an_address_is_bound_by_its_kind_and_its_topic() -> None:
    group = Address(Kind.SUBSCRIPTION, "prices", "g")
    assert place_of(group) == place_of(Address(Kind.TOPIC, "prices")) != place_of(Address(Kind.QUEUE, "prices"))
    assert sealed_for("orders") == [ORDERS]


def test_subkeys_are_those_of_the_standard() -> None:
    place = place_of(ORDERS)
    expected = HKDF(SHA256(), 32, None, b"narrowboat-seal v1" + place).derive(SECRET)
    assert subkey(SECRET, place) == expected


@pytest.mark.parametrize(("seconds", "kept"), [(0.0, 0), (-5.0, 0), (1.2345, 1234), (1e30, 2**48 - 1)])
def test_times_are_whole_milliseconds(seconds: float, kept: int) -> None:
    assert int.from_bytes(milliseconds(seconds), "big") == kept


# -- the vectors ----------------------------------------------------------------------------------------------------


def test_the_vectors_are_what_is_made_now() -> None:
    """A difference is another format, which needs another version."""
    assert json.loads(VECTORS.read_text(encoding="utf-8")) == vectors()


@pytest.mark.parametrize("vector", vectors(), ids=lambda vector: f"{vector['key']['kind']} {vector['message']['id']}")
def test_the_page_is_enough_to_open_them(vector: dict[str, Any]) -> None:
    """By the words of `docs/sealed-format.md`, without a line of ours."""
    was, found, ours = vector["message"], vector["sealed"], vector["key"]

    def listed(*texts: str | None) -> bytes:
        return b"".join(b"\xff" * 4 if t is None else struct.pack(">I", len(t.encode())) + t.encode() for t in texts)

    version, key_id, data = found["headers"]["narrowboat-seal"].split(".")
    raw = base64.urlsafe_b64decode(data + "=" * (-len(data) % 4))
    times, tail = raw[:12], raw[12:]
    assert (version, key_id) == ("v1", ours["id"])
    assert struct.unpack(">HIHI", times) == struct.unpack(">HIHI", b"".join(struct.pack(">Q", vector[n])[2:] for n in _TIMES))
    place = listed(*found["to"])
    clear = (found["id"], found["key"], found["content_type"], found["correlation_id"])
    bound = listed(version, key_id) + place + listed(*clear) + times
    head = b""
    if was["headers"] or was["reply_to"]:
        pairs = sorted(was["headers"].items(), key=lambda pair: pair[0].encode())
        head = listed(*(was["reply_to"] or [None] * 3), *[text for pair in pairs for text in pair])
    content = struct.pack(">I", len(head)) + head + bytes.fromhex(was["body"])
    secret = bytes.fromhex(ours["secret"])
    derived = HKDF(SHA256(), 32, None, b"narrowboat-seal v1" + place).derive(secret)
    if ours["kind"] == "aes-256-gcm":
        assert tail.hex() == vector["nonce"]
        assert AESGCM(derived).decrypt(tail, bytes.fromhex(found["body"]), bound) == content
        assert list(found["headers"]) == ["narrowboat-seal"] and found["reply_to"] is None
        return
    if ours["kind"] == "hmac-sha256":
        assert hmac.new(derived, bound + content, hashlib.sha256).digest() == tail
    else:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(ours["public"])).verify(tail, bound + content)
    assert {**found, "headers": was["headers"]} == was


_TIMES = ("published_ms", "sealed_ms")
