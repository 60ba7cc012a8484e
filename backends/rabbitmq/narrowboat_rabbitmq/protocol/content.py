"""The properties of one message, as they stand in its frame and as fields. Pure.

The headers stay bytes until somebody needs them. Text that is no UTF-8 becomes the same bytes again.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final

from narrowboat_rabbitmq.protocol.table import Entry, Unreadable, join, split

#: The fields in the order in which a frame has them; the first one's flag is the highest bit. Bytes of those that are numbers.
_NAMES: Final = (
    *("content_type", "content_encoding", "table", "delivery_mode", "priority", "correlation_id", "reply_to"),
    *("expiration", "message_id", "timestamp", "type", "user_id", "app_id", "cluster_id"),
)
_SIZES = {"delivery_mode": 1, "priority": 1, "timestamp": 8}
_FIELDS = tuple((1 << (15 - place), name, _SIZES.get(name, 0)) for place, name in enumerate(_NAMES))


class Content:
    """See the module's text. A field that is None is not there."""

    # Defaults of the class and not of each object: most messages have three of these.
    content_type: str | None = None
    content_encoding: str | None = None
    table: bytes | None = None  #: the headers, as they stand in the frame
    delivery_mode: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp: int | None = None
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    cluster_id: str | None = None

    def __init__(self, headers: Sequence[Entry] | None = None, **fields: Any) -> None:
        self.__dict__.update(fields)
        if headers:
            self.table = join(headers)

    @property
    def headers(self) -> list[Entry]:
        """The headers, one by one; `Unreadable` where they are no table."""
        try:
            return split(self.table) if self.table else []
        except IndexError as error:
            raise Unreadable("a table ends in the middle of an entry") from error

    def encode(self) -> bytes:
        """Its bytes, as they stand in a frame."""
        flags = 0
        parts = [b""]
        field = self.__dict__.get
        for flag, name, size in _FIELDS:
            value = field(name)
            if value is None:
                continue
            flags |= flag
            if size:
                parts.append(value.to_bytes(size))
            elif value.__class__ is str:
                data = value.encode("utf-8", "surrogateescape")
                parts.append(bytes((len(data),)) + data)
            else:
                parts.append(len(value).to_bytes(4) + value)
        parts[0] = flags.to_bytes(2)
        return b"".join(parts)


def read(data: bytes) -> Content:
    """The reverse of `encode`; `Unreadable` for what it never makes."""
    try:
        return _read(data)
    except IndexError as error:
        raise Unreadable("the properties end in the middle of a field") from error


def _read(data: bytes) -> Content:
    flags = int.from_bytes(data[:2])
    if len(data) < 2 or flags & 3:
        raise Unreadable("the properties have fields that the protocol does not know")
    fields: dict[str, Any] = {}
    at = 2
    for name, size in _present(flags):
        if size:
            fields[name] = int.from_bytes(data[at : at + size])
        elif name == "table":
            size = int.from_bytes(data[at : at + 4])
            at += 4
            fields[name] = data[at : at + size]
        else:
            size = data[at]
            at += 1
            fields[name] = data[at : at + size].decode("utf-8", "surrogateescape")
        at += size
    if at > len(data):
        raise Unreadable("the properties end in the middle of a field")
    content = Content()
    content.__dict__ = fields
    return content


@functools.lru_cache(256)
def _present(flags: int) -> tuple[tuple[str, int], ...]:
    return tuple((name, size) for flag, name, size in _FIELDS if flags & flag)
