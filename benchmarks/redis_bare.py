"""The bare client at its best: a socket, and hiredis to pack and to read. It has no time limits, no errors and no retries.

What the benchmarks of Redis are held against where no client library reaches it. It is for measuring alone.
"""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Any, Self

import hiredis

from narrowboat.dsn import Url

_NOTHING = object()
_pack: Any = hiredis.pack_command  # its annotation allows one argument


class Bare:
    """One connection to the server at `url`, as a context manager."""

    def __init__(self, url: str) -> None:
        host = Url.parse(url).hosts[0]
        self._socket = socket.create_connection((host.name, host.port or 6379))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)

    def many(self, *commands: bytes) -> list[Any]:
        """Send packed commands in one go; their replies."""
        self._socket.sendall(b"".join(commands))
        replies: list[Any] = []
        while len(replies) < len(commands):
            self._reader.feed(self._socket.recv(65536))
            while (reply := self._reader.gets()) is not _NOTHING:
                replies.append(reply)
        return replies

    def call(self, *arguments: bytes) -> Any:
        """Send one command; its reply."""
        return self.many(_pack(arguments))[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None) -> None:
        self._socket.close()


def packed(*arguments: bytes) -> bytes:
    """A command, for `many`."""
    data: bytes = _pack(arguments)
    return data
