"""A record as it lies on the server, whose headers are taken apart when they are used.

A name of a header is what every client can give: UTF-8, and what stands before a NUL in it. Where one is no UTF-8, librdkafka
gives none of a record's headers, so nobody gets them.
"""

from __future__ import annotations

from typing import NamedTuple

Headers = list[tuple[str, bytes | None]]

#: What is told of a record with a name that is no UTF-8.
NO_UTF8 = "one of them has a name that is no UTF-8"
#: Bits of the longest number that is read.
_BITS = 63


class Stored(NamedTuple):
    """A record as it lies on the server."""

    topic: str
    partition: int
    offset: int
    timestamp: int  #: milliseconds since the epoch; -1: none
    key: bytes | None
    value: bytes | None
    packed: bytes  #: its headers, how many and then each, as they were written

    @property
    def headers(self) -> Headers:
        """Names and values, in their order. None where they cannot be read."""
        try:
            return unpack_headers(self.packed)
        except (IndexError, ValueError):
            return []

    @property
    def problem(self) -> str:
        """What is wrong with it, in a sentence; empty where nothing is."""
        try:
            unpack_headers(self.packed)
        except (IndexError, ValueError) as error:
            return f"its headers cannot be read: {error}"
        return ""


class Raw(Stored):
    """A batch that could not be taken apart, as if it were one record."""

    problem = "its batch cannot be read: the body is the whole batch, as it lies on the server"


def unpack_headers(packed: bytes) -> Headers:
    r"""Names and values.

    >>> unpack_headers(b"\x04\x02a\x04xy\x02b\x01")
    [('a', b'xy'), ('b', None)]
    """
    found: Headers = []
    count, position = varint(packed, 0)
    for _ in range(count):
        size, position = varint(packed, position)
        if size < 0:
            raise ValueError("a name has no length")  # it would lead back, and round and round
        try:
            name = packed[position : position + size].partition(b"\0")[0].decode()
        except UnicodeDecodeError:
            raise ValueError(NO_UTF8) from None
        size, position = varint(packed, position + size)
        held = None
        if size >= 0:
            held = packed[position : position + size]
            position += size
        found.append((name, held))
    if position != len(packed):
        raise ValueError("they do not end where the record does")
    return found


def pack_headers(headers: Headers) -> bytes:
    r"""The reverse of `unpack_headers`.

    >>> pack_headers([("a", b"xy"), ("b", None)])
    b'\x04\x02a\x04xy\x02b\x01'
    """
    found = [_packed(len(headers))]
    for name, value in headers:
        data = name.encode()
        found += (_packed(len(data)), data)
        found += (_packed(-1),) if value is None else (_packed(len(value)), value)
    return b"".join(found)


def _packed(number: int) -> bytes:
    rest = number * 2 if number >= 0 else -2 * number - 1
    found = bytearray()
    while rest > 127:
        found.append(rest & 127 | 128)
        rest >>= 7
    found.append(rest)
    return bytes(found)


def varint(data: bytes, position: int) -> tuple[int, int]:
    r"""The number that begins there, as the format writes them (zigzag, seven bits a byte), and where it ends.

    >>> varint(b"\x04", 0), varint(b"\x03", 0), varint(b"\xac\x02", 0)
    ((2, 1), (-2, 1), (150, 2))
    """
    byte = data[position]
    position += 1
    if not byte & 0x81:  # nearly all of them: lengths, and distances to the record before
        return byte >> 1, position
    if byte < 128:
        return ~(byte >> 1), position
    found, shift = byte & 127, 7
    while True:
        byte = data[position]
        position += 1
        found |= (byte & 127) << shift
        if byte < 128:
            return (found >> 1) ^ -(found & 1), position
        shift += 7
        if shift > _BITS:
            raise ValueError("no number is so long")
