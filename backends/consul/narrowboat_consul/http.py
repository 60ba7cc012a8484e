"""Just enough HTTP/1.1 for one agent: how a request is written, and when a reply is complete.

Pure functions over bytes. The same few lines serve the blocking connections and the many open queries on one selector thread.
The standard library's client needs a thread for each open query, and its timeout starts anew with each piece that arrives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from narrowboat.dsn import hidden

#: Bytes of a reply's head, at most.
HEAD = 64 * 1024


class Malformed(Exception):
    """The other side does not speak HTTP, or uses a part of it that this parser does not read."""


class Reply(NamedTuple):
    """One complete reply."""

    code: int
    headers: Mapping[str, str]  #: by name in small letters
    body: bytes
    keep: bool  #: whether the connection can be used again


def request(method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """The bytes of a request. `target` is a path with its query, both quoted already.

    One of the headers is the token. No variable has it in clear on the way, and the repr of the bytes hides them.
    """
    length = f"Content-Length: {len(body)}\r\n" if body or method != "GET" else ""
    first = f"{method} {target} HTTP/1.1\r\n"
    return hidden("".join((first, *map("%s: %s\r\n".__mod__, headers.items()), length, "\r\n")).encode("latin-1") + body)


class Incoming:
    r"""One reply that arrives in pieces, of `largest` bytes at most. Each piece is parsed once, however many there are.

    >>> incoming = Incoming(1000)
    >>> incoming.take(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh") is None
    True
    >>> incoming.take(b"i")
    Reply(code=200, headers={'content-length': '2'}, body=b'hi', keep=True)

    `quotes`: an error may show what came. Not where a token was sent: whoever answers may repeat it, anywhere and in part.
    """

    def __init__(self, largest: int, *, quotes: bool = True) -> None:
        self._largest = largest
        self._quotes = quotes
        self._got = 0
        self._rest = bytearray()  # what was not taken apart yet
        self._head: tuple[int, dict[str, str], bool] | None = None
        self._length: int | None = None  # of the body, or of the chunk that is under way; None: unknown yet
        self._chunked = False
        self._body = bytearray()

    def take(self, piece: bytes) -> Reply | None:
        """The reply, once `piece` completes it; None before. An empty piece is the end of the connection."""
        self._got += len(piece)
        if self._got > self._largest:
            self._rest, self._body = bytearray(), bytearray()  # the error's traceback leads here, and is kept with it
            raise Malformed(f"a reply of more than {self._largest} bytes, which is what max_reply allows")
        self._rest += piece
        if self._head is None:
            self._read_head()
        if self._head is not None and (self._chunks() if self._chunked else self._whole(ended=not piece)):
            code, headers, keep = self._head
            return Reply(code, headers, bytes(self._body), keep)
        if not piece:
            raise Malformed("the connection was closed in the middle of a reply")
        return None

    def _read_head(self) -> None:
        if not self._rest[:8].startswith(b"HTTP/1."[: len(self._rest)]):
            raise self._malformed("HTTP", bytes(self._rest))
        ends = self._rest.find(b"\r\n\r\n", 0, HEAD)
        if ends < 0:
            if len(self._rest) >= HEAD:
                raise Malformed(f"the head of a reply has more than {HEAD} bytes")
            return
        head = bytes(self._rest[:ends])
        del self._rest[: ends + 4]
        first, *lines = head.decode("latin-1").split("\r\n")
        words = first.split(" ", 2)
        if len(words) < 2 or _number(words[1], 3) is None:
            raise self._malformed("a status", first)
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self._head = int(words[1]), headers, headers.get("connection", "").lower() != "close" and words[0] != "HTTP/1.0"
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        if not self._chunked and "content-length" in headers:
            self._length = _number(headers["content-length"], 15)
            if self._length is None or self._length > self._largest:
                raise self._malformed(f"a length of at most {self._largest} bytes", headers["content-length"])

    def _whole(self, *, ended: bool) -> bool:
        """Whether a body without chunks is complete. Without a length it ends with the connection."""
        self._body += self._rest
        self._rest.clear()
        if self._length is None:
            return ended
        if len(self._body) < self._length:
            return False
        del self._body[self._length :]
        return True

    def _chunks(self) -> bool:
        """Whether the last chunk has come."""
        at = 0  # what is before has been taken
        while True:
            if self._length is None:
                ends = self._rest.find(b"\r\n", at)
                if ends < 0:
                    break
                line = bytes(self._rest[at:ends])
                self._length, at = self._size(line), ends + 2
            if len(self._rest) < at + self._length + 2:
                break
            if self._length == 0:
                return True
            self._body += self._rest[at : at + self._length]
            at += self._length + 2
            self._length = None
        del self._rest[:at]
        return False

    def _size(self, line: bytes) -> int:
        digits = line.split(b";")[0].strip()
        if not digits or len(digits) > 12 or digits.strip(b"0123456789abcdefABCDEF"):
            raise self._malformed("the size of a chunk", line)
        size = int(digits, 16)
        if size > self._largest:
            raise Malformed(f"a chunk of {size} bytes")
        return size

    def _malformed(self, expected: str, found: bytes | str) -> Malformed:
        return Malformed(
            f"expected {expected}, got {found[:40]!r}" if self._quotes else f"expected {expected}, got something else"
        )


def _number(text: str, digits: int) -> int | None:
    """A plain number with a bounded number of digits. `isdigit` alone accepts digits that `int` refuses, and any length."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= digits else None
