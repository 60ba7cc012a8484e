"""One connection to a Redis server, and one exchange over it.

A packed pipeline is sent in one go, and its replies are read in one go. Every step has a time limit. Nothing is retried here:
only the core knows which call is safe to repeat. `opening` makes connections.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
import sys
import time
from typing import Any

from narrowboat.driver.endpoint import HostPort
from narrowboat_redis.resp import Reader

#: Seconds without use after which a connection is checked before it is used again. A server that was restarted meanwhile has
#: closed it, and the next call would fail for nothing. Shorter costs a system call for each exchange.
_IDLE = 1.0
_CHUNK = 65536
#: Whether the kernel ends a call that takes too long. Python's own timeouts cost one more system call for each call.
_KERNEL_TIMES = sys.platform.startswith("linux")
_ALL = 1 << 30


class Connection:
    """For one thread at a time; an owner that shares it guards it with a mutex."""

    def __init__(self, connected: socket.socket, address: HostPort, timeout: float, most: int) -> None:
        self.address = address
        self._socket = connected
        self._process = os.getpid()
        self._reader = Reader(most)
        self._timeout = timeout
        self._kernel_times = _KERNEL_TIMES and not hasattr(connected, "pending")  # a TLS socket needs Python's timeouts
        self.limit(timeout)
        self._used = time.monotonic()
        self.busy = False  #: something was sent whose reply was not read: nothing more can be read from it

    def usable(self) -> bool:
        """Whether it may be used again; False where an exchange was broken off or the server has closed it."""
        if self.busy:
            return False
        if time.monotonic() - self._used < _IDLE:
            return True
        return not self.readable(0.0)

    def readable(self, seconds: float) -> bool:
        """Whether bytes, or the end of the connection, arrive within `seconds`."""
        if self.pending():
            return True
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            return bool(selector.select(seconds))

    def send(self, data: bytes, ends: float | None = None) -> None:
        """Send commands, until `ends`. From here on it is busy until all replies are read."""
        self.busy = True
        if ends is not None and (left := ends - time.monotonic()) < 0.9 * self._step:
            self.limit(left)  # the caller has used a part of the timeout already
        try:
            if len(data) <= _CHUNK or ends is None:
                self._socket.sendall(data)
                return
            rest = memoryview(data)  # whoever takes it byte by byte must not keep us
            while rest:
                rest = rest[self._socket.send(rest) :]
                if rest and time.monotonic() > ends:
                    raise _timed_out()
        except BlockingIOError:
            raise _timed_out() from None

    def receive(self, number: int, ends: float) -> list[Any]:
        """Read that many replies, until `ends` by `time.monotonic`. Raises TimeoutError, OSError or ProtocolError."""
        replies: list[Any] = []
        while not self._reader.take(replies, number):
            self._reader.feed(self._more())
            left = ends - time.monotonic()
            if left <= 0 and not self._reader.take(replies, number):
                raise _timed_out()  # each step has a limit, but a server that sends a byte a second would never reach it
            if len(replies) < number and left < self._step / 2:
                self.limit(left)
        if self._step != self._timeout:
            self.limit(self._timeout)
        self.busy = False
        self._used = time.monotonic()
        return replies

    def once(self, data: bytes, ends: float) -> Any:
        """Send one command and return its reply. Faster than `send` and `receive` where a short reply arrives in one piece."""
        self.busy = True
        try:
            self._socket.sendall(data)
            answer = self._socket.recv(_CHUNK)
        except BlockingIOError:
            raise _timed_out() from None
        if answer.endswith(b"\r\n") and self._step == self._timeout:
            kind = answer[0]
            begin = answer.index(b"\n") + 1
            if kind == 36 and answer[1 : begin - 2] == b"%d" % (len(answer) - begin - 2):  # $: all of it and no more
                value: Any = answer[begin:-2]
            elif kind == 58 and answer.count(b"\n") == 1:  # :
                value = int(answer[1:-2])
            else:
                self._reader.feed(answer)
                return self.receive(1, ends)[0]
            self.busy = False
            self._used = time.monotonic()
            return value
        if not answer:
            raise ConnectionResetError(_CLOSED)
        self._reader.feed(answer)
        return self.receive(1, ends)[0]

    def _more(self) -> bytes:
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            raise _timed_out() from None
        if not data:
            raise ConnectionResetError(_CLOSED)
        return data

    def fileno(self) -> int:
        """For poll."""
        return self._socket.fileno()

    def pending(self) -> bool:
        """Whether TLS has buffered bytes that poll does not see."""
        pending = getattr(self._socket, "pending", None)
        return pending is not None and bool(pending())

    def read(self) -> list[Any]:
        """The bytes that have arrived, at least one: for a subscription, whose replies come unasked."""
        self._reader.feed(self._more())
        replies: list[Any] = []
        self._reader.take(replies, _ALL)
        return replies

    def ask(self, *commands: bytes) -> list[Any]:
        """Send packed commands and return their replies."""
        self.send(b"".join(commands))
        return self.receive(len(commands), time.monotonic() + self._timeout)

    def limit(self, seconds: float) -> None:
        """Set the timeout of each step of the next exchange."""
        self._step = max(seconds, 0.001)
        if self._kernel_times:
            span = struct.pack("ll", int(self._step), int(self._step % 1 * 1e6))
            self._socket.settimeout(None)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, span)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, span)
        else:
            self._socket.settimeout(self._step)

    def allow(self, seconds: float) -> None:
        """Set the timeout of the exchanges after the next one."""
        self._timeout = seconds

    def close(self, *, hard: bool = False) -> None:
        """Close the connection. `hard`: discard bytes that are not sent yet, so that they cannot arrive later."""
        with contextlib.suppress(OSError):
            if hard:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif self._process == os.getpid():  # a child of ours that has its descriptor would keep it open
                self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._reader.drop()


_CLOSED = "the connection was closed by the server"


def _timed_out() -> TimeoutError:
    return TimeoutError("timed out")
