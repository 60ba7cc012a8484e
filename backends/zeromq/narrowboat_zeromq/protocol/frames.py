r"""One message on the wire: a head, and the bodies that it speaks of.

The first frame is a head, a JSON array in UTF-8. The frames behind it hold the bodies, one after the other: the head says how
long each one is, and not in which frame it lies. What a peer sends is bounded before anything is made of it: the bytes of a
frame by the socket, the number of frames and their bytes here, the depth of a head by `json`, which gives up before the stack
does.

    >>> pack([7, "send", ["x", 2]], [b"hi"])
    [b'[7,"send",["x",2]]', b'hi']
    >>> head, bodies = unpack([b'[7,"send",["x",2]]', b"hi"])
    >>> head, bodies.take(2)
    ([7, 'send', ['x', 2]], b'hi')
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

#: The version of the protocol that this file speaks. A peer that speaks another one is refused in its greeting.
VERSION = 1
#: Bytes of one frame: the largest body that is claimed, and as much again for a batch of small ones and their head.
FRAME_MAX = 32 * 1024 * 1024
#: Bytes of the bodies of one request. Whoever has more makes several requests of them.
BODIES_MAX = 16 * 1024 * 1024
#: Frames of one message, the head included.
FRAMES_MAX = 1026
#: Items of one request: messages, requests for locks, settlements.
ITEMS_MAX = 1000
#: The largest id of a request: what every language's numbers can hold.
ID_MAX = 2**53 - 1

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class Malformed(ValueError):
    """What came is no message of this protocol; the text says why, for the peer and for people."""


def pack(head: Sequence[Any], bodies: Iterable[bytes] = ()) -> list[bytes]:
    """The frames of one message. Small bodies lie in one frame together; no frame is longer than `FRAME_MAX`."""
    frames = [_encode(head).encode("ascii")]
    part: list[bytes] = []
    size = 0
    for body in bodies:
        if size + len(body) > BODIES_MAX and part:
            frames.append(b"".join(part))
            part, size = [], 0
        part.append(body)
        size += len(body)
    if part:
        frames.append(b"".join(part))
    return frames


class Bodies:
    """The bodies of one message, to be taken in the order in which the head speaks of them."""

    def __init__(self, frames: Sequence[bytes]) -> None:
        self._whole = frames[0] if len(frames) == 1 else b"".join(frames)
        self._at = 0

    def take(self, length: object) -> bytes:
        """The next `length` bytes; `Malformed` where they are not there."""
        end = self._at + length if type(length) is int and length >= 0 else -1  # a subclass of int would be a bool
        if not 0 <= end <= len(self._whole):
            raise Malformed(f"a body of {length!r} bytes, where {len(self._whole) - self._at} are left")
        body = self._whole[self._at : end]
        self._at = end
        return body

    def end(self) -> None:
        """`Malformed` where bytes are left of which the head does not speak."""
        if self._at != len(self._whole):
            raise Malformed(f"{len(self._whole) - self._at} bytes of bodies of which the head does not speak")


def unpack(frames: Sequence[bytes]) -> tuple[list[Any], Bodies]:
    """The head and the bodies of one message; `Malformed` for whatever is none."""
    if not 1 <= len(frames) <= FRAMES_MAX:
        raise Malformed(f"{len(frames)} frames: allowed are 1 to {FRAMES_MAX}")
    raw = frames[0]
    try:
        head = json.loads(raw.decode("utf-8"), parse_constant=_no_number)
        if b"\\u" in raw:  # only an escape can make half of a surrogate pair, which no name may have
            _encode_all(head)
    except Malformed:
        raise
    except (ValueError, RecursionError) as error:
        raise Malformed(f"the head is no JSON in UTF-8: {type(error).__name__}") from None
    if not isinstance(head, list) or not head:
        raise Malformed("the head is no JSON array")
    return head, Bodies(frames[1:])


def _no_number(name: str) -> float:
    raise Malformed(f"the head has {name}, which is no number")


def _encode_all(head: object) -> None:
    try:
        json.dumps(head, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise Malformed("the head has half of a surrogate pair, which is no character") from None
