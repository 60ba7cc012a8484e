"""Every type of field that AMQP has, as bytes and as hypothesis strategies; written down here once more, from the protocol.

For the tests without a server, which take all of it, and for those with one, which take what a server of RabbitMQ's takes.
"""

from __future__ import annotations

import struct

from hypothesis import strategies as st

#: Letters and the code of their numbers.
NUMBERS = dict(zip("tbBsuUIilLfdT", "BbBhHhiIqqfdQ", strict=True))


class Written:
    """Properties as bytes, in the place of pika's own: it asks for them when they are published, and looks into none."""

    INDEX = 60

    def __init__(self, data: bytes) -> None:
        self._data = data

    def encode(self) -> list[bytes]:
        return [self._data]


def value(kind: str, payload: bytes) -> bytes:
    """A field whose length stands before it."""
    return kind.encode() + struct.pack(">I", len(payload)) + payload


def table(entries: list[tuple[bytes, bytes]]) -> bytes:
    """A table without its length."""
    return b"".join(bytes((len(name),)) + name + data for name, data in entries)


def deep(kind: str, levels: int) -> bytes:
    """An array or table in itself so many times."""
    data = b"V"
    for _ in range(levels):
        data = value(kind, table([(b"a", data)]) if kind == "F" else data)
    return data


#: Names that mean something to us or to the server.
_KNOWN = [
    b"x-death",
    b"x-delivery-count",
    b"narrowboat-headers",
    b"narrowboat-attempts",
    b"narrowboat-expires",
    b"narrowboat-id",
]
NAMES = st.binary(max_size=255) | st.sampled_from([b"CC", b"BCC", *_KNOWN])
_LONG = st.binary(max_size=100) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass"))


def _number(kind: str) -> st.SearchStrategy[bytes]:
    size = struct.calcsize(">" + NUMBERS[kind])
    return st.binary(min_size=size, max_size=size).map(
        lambda data: kind.encode() + (bytes((data[0] & 1,)) if kind == "t" else data)
    )


#: A server closes the connection for a fraction that is no number.
_FINITE = st.floats(allow_nan=False, allow_infinity=False).map(lambda number: b"d" + struct.pack(">d", number)) | st.floats(
    width=32, allow_nan=False, allow_infinity=False
).map(lambda number: b"f" + struct.pack(">f", number))


def values(numbers: str) -> st.SearchStrategy[bytes]:
    """Values with these types of numbers, whatever their bytes, and all others."""
    plain = st.one_of(
        *(_number(kind) for kind in numbers),
        _FINITE,
        st.just(b"V"),
        st.binary(min_size=5, max_size=5).map(lambda data: b"D" + data),
        _LONG.map(lambda data: value("S", data)),
        _LONG.map(lambda data: value("x", data)),
    )
    return st.recursive(
        plain,
        lambda inner: (
            st.lists(inner, max_size=4).map(lambda each: value("A", b"".join(each)))
            | st.lists(st.tuples(NAMES, inner), max_size=4, unique_by=lambda pair: pair[0]).map(
                lambda each: value("F", table(each))
            )
        ),
        max_leaves=8,
    )


def _entries(names: st.SearchStrategy[bytes], of: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[tuple[bytes, bytes]]]:
    return st.lists(st.tuples(names, of), max_size=6, unique_by=lambda pair: pair[0])


VALUES = values("".join(NUMBERS))
TABLES = _entries(NAMES, VALUES).map(table)
#: A server refuses "U", fractions that are no numbers, and what routes copies where it is no list of names.
ACCEPTED = _entries(
    st.binary(max_size=255).filter(lambda name: name not in (b"CC", b"BCC")) | st.sampled_from(_KNOWN),
    values("tbBsuIilLT"),
)
_SHORT = st.none() | st.binary(max_size=255).map(lambda data: data.decode("utf-8", "surrogateescape"))
#: The other properties, by name. Without what a server compares (user id), obeys (expiration) or refuses (other modes).
PROPERTIES = st.fixed_dictionaries(
    {
        **dict.fromkeys(
            ("content_type", "content_encoding", "correlation_id", "reply_to", "message_id", "type", "app_id"), _SHORT
        ),
        "priority": st.none() | st.integers(0, 255),
        "timestamp": st.none() | st.integers(0, 2**64 - 1),
        "delivery_mode": st.none() | st.integers(1, 2),
    }
)
