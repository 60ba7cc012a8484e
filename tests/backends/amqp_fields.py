"""Every type of field that AMQP has, as bytes and as hypothesis strategies; written down here once more, from the protocol."""

from __future__ import annotations

import struct

from hypothesis import strategies as st

#: Letters and the code of their numbers.
NUMBERS = dict(zip("tbBsuUIilLfdT", "BbBhHhiIqqfdQ", strict=True))


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


NAMES = st.binary(max_size=255) | st.sampled_from(
    [b"CC", b"BCC", b"x-death", b"x-delivery-count", b"narrowboat-headers", b"narrowboat-attempts", b"narrowboat-expires"]
)
_LONG = st.binary(max_size=100) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass"))


def _number(kind: str) -> st.SearchStrategy[bytes]:
    size = struct.calcsize(">" + NUMBERS[kind])
    return st.binary(min_size=size, max_size=size).map(
        lambda data: kind.encode() + (bytes((data[0] & 1,)) if kind == "t" else data)
    )


_PLAIN = st.one_of(
    *(_number(kind) for kind in NUMBERS),
    st.just(b"V"),
    st.binary(min_size=5, max_size=5).map(lambda data: b"D" + data),
    _LONG.map(lambda data: value("S", data)),
    _LONG.map(lambda data: value("x", data)),
)
VALUES = st.recursive(
    _PLAIN,
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda each: value("A", b"".join(each)))
        | st.lists(st.tuples(NAMES, inner), max_size=4, unique_by=lambda pair: pair[0]).map(
            lambda each: value("F", table(each))
        )
    ),
    max_leaves=8,
)
TABLES = st.lists(st.tuples(NAMES, VALUES), max_size=6, unique_by=lambda pair: pair[0]).map(table)
