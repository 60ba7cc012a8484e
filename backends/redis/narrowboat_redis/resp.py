"""Redis's protocol in its second version: commands into bytes, bytes into replies. Pure, without I/O.

Replies of scripts are short and come by the thousand; reading them here costs a tenth of what a general client pays.
An error reply is a value, not an exception: in a pipeline it belongs to one command.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class ErrorReply(Exception):
    """What the server answered instead of a result. `code` is its first word: ERR, NOSCRIPT, MOVED ..."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
        self.code = text.partition(" ")[0]


class ProtocolError(Exception):
    """That is not what a Redis server sends."""


def pack(*arguments: bytes) -> bytes:
    r"""One command.

    >>> pack(b"GET", b"a")
    b'*2\r\n$3\r\nGET\r\n$1\r\na\r\n'
    """
    return b"*%d\r\n" % len(arguments) + pack_arguments(arguments)


def pack_arguments(arguments: Sequence[bytes]) -> bytes:
    """The arguments of a command without their number in front."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in arguments])


class Reader:
    """Bytes in, replies out. One for each connection."""

    __slots__ = ("_buffer", "_position")

    def __init__(self) -> None:
        self._buffer = b""
        self._position = 0

    def feed(self, data: bytes) -> None:
        """More bytes from the connection."""
        if self._position < len(self._buffer):
            self._buffer = self._buffer[self._position :] + data
        else:
            self._buffer = data
        self._position = 0

    def take(self, replies: list[Any], wanted: int) -> bool:
        """Add complete replies until there are `wanted`. Whether there are; False: feed more."""
        buffer = self._buffer
        position = self._position
        while len(replies) < wanted:
            end = buffer.find(b"\r\n", position)
            if end < 0:
                break
            kind = buffer[position]
            if kind == 36:  # $
                length = int(buffer[position + 1 : end])
                if length < 0:
                    replies.append(None)
                    position = end + 2
                    continue
                following = end + 4 + length
                if following > len(buffer):
                    break
                replies.append(buffer[end + 2 : following - 2])
                position = following
            elif kind == 58:  # :
                replies.append(int(buffer[position + 1 : end]))
                position = end + 2
            else:
                found = _parse(buffer, position)
                if found is None:
                    break
                value, position = found
                replies.append(value)
        self._position = position
        return len(replies) >= wanted


def _parse(buffer: bytes, position: int) -> tuple[Any, int] | None:
    """One reply and where the next begins; None when it is not complete yet."""
    end = buffer.find(b"\r\n", position)
    if end < 0:
        return None
    kind, line = buffer[position : position + 1], buffer[position + 1 : end]
    following = end + 2
    try:
        if kind == b"+":
            return line, following
        if kind == b"-":
            return ErrorReply(line.decode("utf-8", "replace")), following
        if kind == b":":
            return int(line), following
        if kind == b"$":
            length = int(line)
            if length < 0:
                return None, following
            past = following + length + 2
            return None if past > len(buffer) else (buffer[following : past - 2], past)
        if kind == b"*":
            values = []
            if int(line) < 0:
                return None, following
            for _ in range(int(line)):
                found = _parse(buffer, following)
                if found is None:
                    return None
                value, following = found
                values.append(value)
            return values, following
    except ValueError:
        pass  # a number that is none: told below
    raise ProtocolError(f"expected a reply, found {buffer[position : position + 20]!r}")
