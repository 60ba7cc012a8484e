"""Just enough HTTP/1.1 for one agent: what a request looks like, and when a reply is complete.

Pure functions over bytes, so that the same few lines serve the blocking connections and the many open queries on one
selector thread. The standard library's own client needs a thread for each open query, and its time-out starts anew with
each piece that arrives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from narrowboat.dsn import hidden

#: What a reply may have at most: far above what a transaction or a listing gives, far below what would hurt.
LARGEST = 64 * 1024 * 1024


class Malformed(Exception):
    """The other side does not speak HTTP, or more of it than is read here."""


class Reply(NamedTuple):
    """One complete reply."""

    code: int
    headers: Mapping[str, str]  #: by name in small letters
    body: bytes
    keep: bool  #: whether the connection can be used again


def request(method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """The bytes of a request. `target` is a path with its query, both quoted already.

    One of the headers is the token: no variable has it in clear on the way, and the bytes have a repr that does not show them.
    """
    length = f"Content-Length: {len(body)}\r\n" if body or method != "GET" else ""
    first = f"{method} {target} HTTP/1.1\r\n"
    return hidden("".join((first, *map("%s: %s\r\n".__mod__, headers.items()), length, "\r\n")).encode("latin-1") + body)


def parse(data: bytes | bytearray, *, ended: bool = False) -> Reply | None:
    r"""The reply in `data`, or None when more of it is to come. `ended`: the other side has closed.

    >>> parse(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    Reply(code=200, headers={'content-length': '2'}, body=b'hi', keep=True)
    >>> parse(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh") is None
    True
    """
    if not data[:8].startswith(b"HTTP/1."[: len(data)]):
        raise Malformed(f"expected HTTP, got {bytes(data[:40])!r}")
    head, found, rest = bytes(data).partition(b"\r\n\r\n")
    if not found:
        if ended:
            raise Malformed("the connection was closed in the middle of a reply")
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[1].isdigit():
        raise Malformed(f"expected a status, got {first[:40]!r}")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    keep = headers.get("connection", "").lower() != "close" and words[0] != "HTTP/1.0"
    body = _body(headers, rest, ended=ended)
    return None if body is None else Reply(int(words[1]), headers, body, keep)


def _body(headers: Mapping[str, str], rest: bytes, *, ended: bool) -> bytes | None:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = _chunks(rest)
    elif "content-length" in headers:
        if not headers["content-length"].isdigit() or int(headers["content-length"]) > LARGEST:
            raise Malformed(f"a reply of {headers['content-length'][:40]!r} bytes")
        length = int(headers["content-length"])
        body = rest[:length] if len(rest) >= length else None
    else:
        body = rest if ended else None  # it ends with the connection
    if body is None and ended:
        raise Malformed("the connection was closed in the middle of a reply")
    return body


def _chunks(rest: bytes) -> bytes | None:
    parts: list[bytes] = []
    while True:
        line, found, rest = rest.partition(b"\r\n")
        if not found:
            return None
        try:
            size = int(line.split(b";")[0], 16)
        except ValueError:
            raise Malformed(f"expected the size of a chunk, got {line[:40]!r}") from None
        if size > LARGEST:
            raise Malformed(f"a chunk of {size} bytes")
        if len(rest) < size + 2:
            return None
        if size == 0:
            return b"".join(parts)
        parts.append(rest[:size])
        rest = rest[size + 2 :]
