"""AMQP's field tables: taken apart without being understood, understood one value at a time, and put together again. Pure.

pika turns a whole table into Python values while it takes frames from the socket, and raises on what the protocol allows
(a timestamp that no calendar has, a table in a table in a table): that ends the connection of everybody. Here an entry is
its name and its value as bytes. Only lengths are needed to find where the next one begins, so nothing recurses, and what is
published again has every type and bit that it came with. A value becomes a Python value when somebody wants to see it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

#: A name, and its value with the letter of its type before it.
Entry = tuple[bytes, bytes]

#: Tables and arrays in each other up to here are shown; what is deeper is shown as dots. It stays in the bytes.
DEEPEST = 32
DOTS = "..."

_NUMBERS = {
    kind: struct.Struct(f">{code}")
    for kind, code in zip(b"tbBsUuIiLlfdT", ("?", "b", "B", "h", "h", "H", "i", "I", "q", "q", "f", "d", "Q"), strict=True)
}
_SIZES = {kind: number.size for kind, number in _NUMBERS.items()} | {ord("V"): 0, ord("D"): 5}
_LONG = frozenset(b"SxAF")  # a length of four bytes follows
_TEXT, _BYTES, _ARRAY, _TABLE, _TIME, _DECIMAL = b"SxAFTD"


class Unreadable(ValueError):
    """Raised for bytes that the protocol does not allow."""


def text(data: bytes) -> str:
    """Bytes as text that becomes the same bytes again, whatever they are."""
    return data.decode("utf-8", "surrogateescape")


def data_of(text: str) -> bytes:
    """The reverse of `text`."""
    return text.encode("utf-8", "surrogateescape")


def split(data: bytes) -> list[Entry]:
    """The entries of a table; its own length is not part of `data`.

    >>> [(name, shown(value)) for name, value in split(join([entry("a", "x"), entry("b", "y")]))]
    [(b'a', 'x'), (b'b', 'y')]
    """
    entries: list[Entry] = []
    at, end = 0, len(data)
    while at < end:
        begins = at + 1 + data[at]
        ends = _end(data, begins)
        entries.append((data[at + 1 : begins], data[begins:ends]))
        at = ends
    return entries


def join(entries: Sequence[Entry]) -> bytes:
    """The reverse of `split`."""
    return b"".join([part for name, value in entries for part in (bytes((len(name),)), name, value)])


def entry(name: str, value: str) -> Entry:
    """An entry of ours: everything that we write is text."""
    data = data_of(value)
    return data_of(name), b"S%b%b" % (len(data).to_bytes(4), data)


def value_of(data: bytes, depth: int = 0) -> object:
    """An entry's value: text (which becomes the same bytes again), bytes, number, time, None, list or dict.

    >>> value_of(b"I" + (-7).to_bytes(4, signed=True))
    -7
    """
    kind = data[0]
    if kind == _TEXT:
        return text(data[5:])
    if kind == _BYTES:
        return data[5:]
    if kind == _TIME:
        return _time(int.from_bytes(data[1:]))
    if kind in _NUMBERS:
        return _NUMBERS[kind].unpack_from(data, 1)[0]
    if kind == _DECIMAL:
        return Decimal(int.from_bytes(data[2:6], signed=True)).scaleb(-data[1])
    if kind == _ARRAY:
        return DOTS if depth >= DEEPEST else [value_of(each, depth + 1) for each in _values(data[5:])]
    if kind == _TABLE:
        return DOTS if depth >= DEEPEST else {text(name): value_of(each, depth + 1) for name, each in split(data[5:])}
    return None


def shown(data: bytes) -> str:
    """An entry's value as the text that a user sees."""
    if data[0] == _TEXT or data[0] == _BYTES:
        return text(data[5:])
    value = value_of(data)
    return "" if value is None else str(value)


def is_too_deep(data: bytes) -> bool:
    """Whether a part of the value is not shown."""
    layers = [data]
    for _ in range(DEEPEST + 1):
        layers = [each for layer in layers if layer[0] in (_ARRAY, _TABLE) for each in _inside(layer)]
        if not layers:
            return False
    return True


def _inside(data: bytes) -> list[bytes]:
    return _values(data[5:]) if data[0] == _ARRAY else [value for _, value in split(data[5:])]


def _values(data: bytes) -> list[bytes]:
    values = []
    at = 0
    while at < len(data):
        ends = _end(data, at)
        values.append(data[at:ends])
        at = ends
    return values


def _end(data: bytes, at: int) -> int:
    """Where the value that begins at `at` ends."""
    if at >= len(data):
        raise Unreadable("a table ends in the middle of an entry")
    kind = data[at]
    size = _SIZES.get(kind)
    if size is None:
        if kind not in _LONG:
            raise Unreadable(f"a table has a field of the unknown type {bytes((kind,))!r}")
        size = 4 + int.from_bytes(data[at + 1 : at + 5])
    ends = at + 1 + size
    if ends > len(data):
        raise Unreadable("a table ends in the middle of a value")
    return ends


def _time(seconds: int) -> object:
    """A time, where the calendar has it; else the number as it is."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return seconds
