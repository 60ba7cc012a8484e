"""The frames that publish a message: the call, its properties, its body. Pure.

pika makes and copies some twenty objects for them, which costs more than the message's whole way to the socket beside it.
"""

from __future__ import annotations

import functools
import struct

from narrowboat_rabbitmq.protocol.content import Content
from narrowboat_rabbitmq.protocol.table import data_of

_METHOD, _HEADER, _BODY, _END = 1, 2, 3, b"\xce"
#: basic.publish: its class, its number, and a field that is not used.
_PUBLISH = struct.pack(">HHH", 60, 40, 0)
#: What a frame begins with: its type, its channel, the bytes of its payload. With a header's: its class, a field that is not
#: used, the bytes of the body.
_HEAD, _HEADER_HEAD = struct.Struct(">BHL"), struct.Struct(">BHLHHQ")


def message(
    channel: int, exchange: str, routing_key: str, body: bytes, properties: Content, mandatory: bool, most: int
) -> list[bytes]:
    """The frames of a message, of which one carries at most `most` bytes of the body.

    >>> [len(frame) for frame in message(1, "", "orders", b"12345", Content(), True, 3)]
    [23, 22, 11, 10]
    """
    content, size = properties.encode(), len(body)
    frames = [
        _publish(channel, exchange, routing_key, mandatory),
        b"%b%b%b" % (_HEADER_HEAD.pack(_HEADER, channel, 12 + len(content), 60, 0, size), content, _END),
    ]
    if 0 < size <= most:
        frames.append(_frame(_BODY, channel, body))
    else:
        frames.extend(_frame(_BODY, channel, body[at : at + most]) for at in range(0, size, most))
    return frames


@functools.lru_cache(256)
def _publish(channel: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    return _frame(_METHOD, channel, b"%b%b%b%c" % (_PUBLISH, _short(exchange), _short(routing_key), mandatory))


def _short(text: str) -> bytes:
    data = data_of(text)
    return bytes((len(data),)) + data


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return b"%b%b%b" % (_HEAD.pack(kind, channel, len(payload)), payload, _END)
