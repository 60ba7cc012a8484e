"""The sealed form of a message, version 1. Pure; `docs/sealed-format.md` describes it for other languages, with vectors.

A header of the message, the *marker*, names the version and the key, and carries two times and a nonce or signature:

    narrowboat-seal: v1.<key id>.<base64url: published ms (6 bytes), sealed ms (6 bytes), nonce (12) or signature (32, 64)>

*Fields* are texts one behind the other, each after its length in four bytes; none at all is the length 2**32 - 1. What is
*bound* are the fields version, key id, kind and name of the address, id, key, content type and correlation id, and then the two
times. The *content* is a head after its length in four bytes, and the body. The head is empty, or has the fields kind, name and
group of the address for replies, and then each header and its value, sorted by UTF-8.

A concealing key replaces the body by AES-256-GCM(nonce, content, bound), and headers and reply address are in it alone. A
signing key leaves all of it in clear, and signs bound + content.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from narrowboat.contract import Address, Delivery, Kind, Outgoing
from narrowboat.contract.messages import DEAD_PREFIX
from narrowboat.layers.changing import Unopened
from narrowboat.layers.sealed.keys import Key

MARKER = "narrowboat-seal"
VERSION = "v1"
#: Bytes that a concealing seal adds to headers and body, with the longest address for replies.
OVERHEAD = 16 + 4 + 3 * 4 + 8 + 2 * 4000
_TIMES = 12
_TIME_MAX = 2**48 - 1
_NONE = b"\xff\xff\xff\xff"
_NONES = 3 * _NONE
#: Addresses for which a key's sealers are remembered. Each inbox is one, so there is no end to them.
_REMEMBERED = 1024
_SHAPE = re.compile(r"v1\.([A-Za-z0-9_-]{1,64})\.([A-Za-z0-9_-]{32,102})")
KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

#: At half the price of `Outgoing(...)` and `_replace`, which is paid for each message.
_outgoing: Callable[[tuple[Any, ...]], Outgoing] = partial(tuple.__new__, Outgoing)
_delivery: Callable[[tuple[Any, ...]], Delivery] = partial(tuple.__new__, Delivery)


class Marker(NamedTuple):
    """A marker taken apart."""

    key_id: str
    times: bytes
    tail: bytes

    @property
    def sealed_at(self) -> float:
        """In seconds since the epoch."""
        return int.from_bytes(self.times[6:], "big") / 1000


def fields(*texts: str | None) -> bytes:
    """Texts with their lengths.

    >>> fields("ab", "", None).hex(" ")
    '00 00 00 02 61 62 00 00 00 00 ff ff ff ff'
    """
    return b"".join([_NONE if text is None else _counted(text.encode()) for text in texts])


def place_of(address: Address) -> bytes:
    """An address as it is bound: of a subscription its topic, since a publisher knows no group."""
    kind = Kind.TOPIC if address.kind is Kind.SUBSCRIPTION else address.kind
    return fields(kind.value, address.name)


class Sealer:
    """What one key does for the messages of one address. Thread-safe."""

    __slots__ = ("_marker", "_prefix", "suite")

    def __init__(self, key: Key, place: bytes) -> None:
        self.suite = key.suite(place)
        self._prefix = fields(VERSION, key.id) + place
        self._marker = f"{VERSION}.{key.id}."

    def seal(self, message: Outgoing, sealed_at: bytes, nonce: bytes) -> Outgoing:
        """`message`, sealed at `sealed_at` (`milliseconds`) with a `nonce` that is never used again."""
        # Taken apart once, and no call more than it takes: this is paid for each message.
        to, id, body, headers, name, published_at, delay, priority, ttl, correlation, kind, reply_to, dedup, origin = message
        times = milliseconds(published_at) + sealed_at
        tail, sealed = self.suite.seal(
            self._bound(id, name, kind, correlation, times), content_of(headers, reply_to, body), nonce
        )
        marker = self._marker + base64.urlsafe_b64encode(times + tail).rstrip(b"=").decode()
        if self.suite.conceals:
            body, headers, reply_to = sealed, {MARKER: marker}, None
        else:
            headers = {**headers, MARKER: marker}
        return _outgoing(
            (to, id, body, headers, name, published_at, delay, priority, ttl, correlation, kind, reply_to, dedup, origin)
        )

    def open(self, delivery: Delivery, marker: Marker) -> Delivery | None:
        """`delivery` as it was before `seal`; None where this key did not seal it for this address."""
        id, body, headers, name, attempt, _, priority, expires_in, correlation, kind, reply_to, tag, malformed, _ = delivery
        times, suite = marker.times, self.suite
        if len(marker.tail) != suite.tail:
            return None
        if not suite.conceals:
            signed = {key: text for key, text in headers.items() if key != MARKER and not key.startswith(DEAD_PREFIX)}
            body = content_of(signed, reply_to, body)
        try:
            content = suite.open(self._bound(id, name, kind, correlation, times), marker.tail, body)
        except Exception:  # of each library another one, and none says why
            return None
        headers, reply_to, body = _taken_apart(content)
        published_at = int.from_bytes(times[:6], "big") / 1000 or None
        return _delivery(
            (
                id,
                body,
                headers,
                name,
                attempt,
                published_at,
                priority,
                expires_in,
                correlation,
                kind,
                reply_to,
                tag,
                malformed,
                "",
            )
        )

    def _bound(self, id: str, key: str | None, content_type: str | None, correlation_id: str | None, times: bytes) -> bytes:
        if key is content_type is correlation_id is None:
            return b"".join((self._prefix, _counted(id.encode()), _NONES, times))  # the common case
        return self._prefix + fields(id, key, content_type, correlation_id) + times


def sealer(key: Key, place: bytes) -> Sealer:
    """The one of `key` for an address, as `place_of` has it."""
    made: Sealer | None = key.made.get(place)
    if made is None:
        if len(key.made) >= _REMEMBERED:
            key.made.clear()
        made = key.made[place] = Sealer(key, place)
    return made


def read_marker(text: str) -> Marker:
    """Take a marker apart; `Unopened` where it is none."""
    found = _SHAPE.fullmatch(text)
    if found is None:
        raise Unopened(f"its header {MARKER} is of no version that is known here")
    key_id, data = found.groups()
    try:
        raw = base64.urlsafe_b64decode(data + "=" * (-len(data) % 4))
    except binascii.Error:
        raise Unopened(f"its header {MARKER} is damaged") from None
    return Marker(key_id, raw[:_TIMES], raw[_TIMES:])


def content_of(headers: Mapping[str, str], reply_to: Address | None, body: bytes) -> bytes:
    """What is concealed or signed of a message."""
    if not headers and reply_to is None:
        return b"\0\0\0\0" + body
    head = fields(*((None, None, None) if reply_to is None else (reply_to.kind.value, reply_to.name, reply_to.group)))
    # Code points sort as UTF-8 does.
    return _counted(head + fields(*[text for pair in sorted(headers.items()) for text in pair])) + body


def _taken_apart(content: bytes) -> tuple[dict[str, str], Address | None, bytes]:
    """The reverse of `content_of`. The content is genuine, so an error here is of the sealer's."""
    (length,) = struct.unpack_from(">I", content)
    if not length:
        return {}, None, content[4:]
    texts: list[Any] = []
    at, end = 4, 4 + length
    while at < end:
        size = content[at : at + 4]
        at += 4
        if size == _NONE:
            texts.append(None)
            continue
        behind = at + int.from_bytes(size, "big")
        if behind > end:
            raise ValueError("it ends too early")
        texts.append(content[at:behind].decode())
        at = behind
    kind, name, group, *pairs = texts
    headers = dict(zip(pairs[::2], pairs[1::2], strict=True))
    return headers, None if kind is None else Address(Kind(kind), name, group), content[end:]


def _counted(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def milliseconds(seconds: float) -> bytes:
    """A time since the epoch, in six bytes."""
    return min(max(round(seconds * 1000), 0), _TIME_MAX).to_bytes(6, "big")
