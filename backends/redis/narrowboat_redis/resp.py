"""Redis's protocol in its second version: commands into bytes, bytes into replies. Pure, without I/O.

Replies of scripts are short and come by the thousand; reading them here costs a tenth of what a general client pays.
An error reply is a value, not an exception: in a pipeline it belongs to one command.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class ErrorReply(Exception):
    """An error that the server answered instead of a result. `code` is its first word: ERR, NOSCRIPT, MOVED ..."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
        self.code = text.partition(" ")[0]


class ProtocolError(Exception):
    """The bytes are not the protocol of a Redis server."""


class NotRedis(ProtocolError):
    """The same in answer to the first commands: another kind of server listens at that address."""


def pack(*arguments: bytes) -> bytes:
    r"""One command.

    >>> pack(b"GET", b"a")
    b'*2\r\n$3\r\nGET\r\n$1\r\na\r\n'
    """
    return b"*%d\r\n" % len(arguments) + pack_arguments(arguments)


def pack_arguments(arguments: Sequence[bytes]) -> bytes:
    """The arguments of a command without their number in front."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in arguments])


#: Bytes of a line: a status, an error, a length. What an error is cut to, in characters.
_LINE, _TEXT = 1 << 20, 1000
#: How deep arrays may stand in each other, and how many values one reply may have: each costs far more here than on the way.
_DEPTH, _VALUES = 16, 250_000


class Reader:
    """Bytes in, replies out. One for each connection. Bytes that were parsed once are not parsed again when more arrive.

    `most`: the largest reply, in bytes. A larger one, or one that announces more, is a `ProtocolError` before it takes memory.
    """

    __slots__ = ("_buffer", "_later", "_missing", "_most", "_passed", "_position", "_stack", "_values")

    def __init__(self, most: int = 1 << 26) -> None:
        self._most = most
        self._passed = 0  # bytes of an incomplete reply that were parsed and dropped from the buffer
        self._values = 0  # values of that reply so far
        self._buffer = b""
        self._position = 0
        self._later: list[bytes] = []
        self._missing = 0  # bytes that have to arrive before parsing can go on
        self._stack: list[tuple[list[Any], int]] = []  # incomplete arrays, the innermost last

    def feed(self, data: bytes) -> None:
        """More bytes from the connection."""
        self._later.append(data)
        self._missing -= len(data)

    def take(self, replies: list[Any], wanted: int) -> bool:
        """Append complete replies until there are `wanted`. False: there are not yet, feed more."""
        if self._later and self._missing <= 0:
            if self._stack:
                self._passed += self._position
                if self._passed > self._most:
                    raise self._too_much(f"more than {self._most} bytes")
            rest = self._buffer[self._position :]
            self._buffer = b"".join((rest, *self._later)) if rest or len(self._later) > 1 else self._later[0]
            self._later.clear()
            self._position = 0
        elif len(replies) < wanted and self._missing > 0:
            return False
        try:
            return self._take(replies, wanted)
        except ValueError:  # a length that is no number
            problem = str(self._nonsense())
        except ProtocolError as error:
            problem = str(error)
        self.drop()
        raise ProtocolError(problem)  # out here no frame of a traceback keeps what was read

    def drop(self) -> None:
        """Drop the buffer. The connection is not read any more."""
        self._buffer, self._position = b"", 0
        self._later.clear()
        self._stack.clear()

    def _take(self, replies: list[Any], wanted: int) -> bool:
        buffer, position, stack = self._buffer, self._position, self._stack
        value: Any
        self._missing = 0
        while len(replies) < wanted:
            end = buffer.find(b"\r\n", position)
            if end < 0:
                self._missing = 1
                if len(buffer) - position > _LINE:
                    raise self._too_much(f"a line of more than {_LINE} bytes")
                break
            kind = buffer[position]
            if kind == 36:  # $
                length = int(buffer[position + 1 : end])
                if length > self._most:
                    raise self._too_much(f"{length} bytes")
                following = end + 4 + length if length >= 0 else end + 2
                if following > len(buffer):
                    self._missing = following - len(buffer)
                    break
                value = buffer[end + 2 : following - 2] if length >= 0 else None
                position = following
            else:
                line = buffer[position + 1 : end]
                following = end + 2
                if kind == 58:  # :
                    value = int(line)
                elif kind == 42:  # *
                    count = int(line)
                    self._values += count
                    if self._values > _VALUES or len(stack) >= _DEPTH:
                        raise self._too_much(f"{self._values} values, {len(stack) + 1} deep")
                    if count > 0:
                        stack.append(([], count))
                        position = following
                        continue
                    value = None if count < 0 else []
                elif kind == 43:  # +
                    value = line
                elif kind == 45:  # -
                    value = ErrorReply(_cut(line))
                else:
                    self._position = position
                    raise self._nonsense()
                position = following
            while stack:
                values, count = stack[-1]
                values.append(value)
                if len(values) < count:
                    break
                stack.pop()
                value = values
            else:
                self._passed = self._values = 0
                replies.append(value)
        self._position = position
        return len(replies) >= wanted

    def _too_much(self, found: str) -> ProtocolError:
        return ProtocolError(f"a reply of {found}; allowed are {self._most} bytes (max_reply=) in {_VALUES} values")

    def _nonsense(self) -> ProtocolError:
        return ProtocolError(f"expected a reply, found {self._buffer[self._position : self._position + 20]!r}")


def shown(reply: object) -> str:
    """The beginning of a reply, for the text of an error.

    >>> shown(b"a" * 1000) == repr(b"a" * 60), shown([b"a", 1]), shown(None)
    (True, 'a list of 2', 'None')
    """
    if isinstance(reply, list):
        return f"a list of {len(reply)}"
    return repr(reply[:60] if isinstance(reply, bytes) else reply)[:300]


def _cut(line: bytes) -> str:
    text = line[: 4 * _TEXT].decode("utf-8", "replace")[:_TEXT]
    return text if len(line) <= len(text.encode()) else f"{text}... ({len(line)} bytes)"
