"""The transport under kazoo: a handler whose sockets, results and callbacks suit short pipelined exchanges.

kazoo asks a handler for everything that may block (`kazoo.interfaces.IHandler`). This one differs from kazoo's own threading
handler where that costs time or can hang:

- Completions and watches run on kazoo's I/O thread, at once. Ours only note what happened and wake a waiter. They need neither
  kazoo's two worker threads nor the thread hops through them.
- Reads and writes go through a buffer. A pipeline is then a few system calls instead of several for each request, and the
  handler never waits for bytes that TLS has decrypted already.
- The wake-up pipe with which callers wake the I/O thread never blocks. kazoo's socket pair does so once about 280 requests wait
  for a server that is away.
- A connection can be broken off (`abort`), and connecting has a time limit.

It runs no user code and knows nothing of locks.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from kazoo.handlers.threading import SequentialThreadingHandler

log = logging.getLogger("narrowboat.zookeeper")

_READ = select.POLLIN | select.POLLHUP | select.POLLERR | select.POLLNVAL
#: Bytes taken from the socket at once.
_CHUNK = 65536


class Result:
    """The future outcome of one request: kazoo's IAsyncResult without a condition variable, because no thread blocks on it."""

    __slots__ = ("_callbacks", "_lock", "exception", "ready_", "value")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[Result], object]] = []
        self.ready_ = False
        self.value: Any = None
        self.exception: Exception | None = None

    def ready(self) -> bool:
        """Whether the outcome is there."""
        return self.ready_

    def successful(self) -> bool:
        """Whether the request has succeeded."""
        return self.ready_ and self.exception is None

    def set(self, value: Any = None) -> None:
        """Resolve with a value. The first outcome counts: kazoo may report a closed connection for an answered request."""
        self._finish(value, None)

    def set_exception(self, exception: Exception) -> None:
        """Resolve with an error. The first outcome counts."""
        self._finish(None, exception)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """The value, or raise the error. Only for a result that is ready: kazoo's own completions call it."""
        if not self.ready_:
            raise TimeoutError("no outcome yet")
        if self.exception is not None:
            raise self.exception
        return self.value

    def rawlink(self, callback: Callable[[Result], object]) -> None:
        """Call `callback` with this once it is ready: on the I/O thread, or now."""
        with self._lock:
            if not self.ready_:
                self._callbacks.append(callback)
                return
        callback(self)

    def _finish(self, value: Any, exception: Exception | None) -> None:
        with self._lock:
            if self.ready_:
                return
            self.value, self.exception, self.ready_ = value, exception, True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)


class WakeupPipe:
    """Both ends of kazoo's wake-up socket pair: counts rings, and keeps its pipe readable while there are any.

    A thread that sends several requests holds it meanwhile (`held`), so that the I/O thread is woken once, for all of them.
    If it woke at the first, it would compete for the interpreter with the thread that sends the others.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reader, self._writer = os.pipe()
        self._lit = False  # whether there is a byte in the pipe
        self._holding: dict[int, None] = {}
        self.rings = 0

    def send(self, data: bytes) -> int:
        """Add one ring. Never blocks."""
        with self._lock:
            if self._writer < 0:
                raise OSError("the connection is closed")
            self.rings += 1
            if threading.get_ident() not in self._holding:
                self._light()
        return len(data)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """The rings of this thread wake the I/O thread once, at the end."""
        try:
            self._holding[threading.get_ident()] = None
            yield
        finally:
            self._holding.pop(threading.get_ident(), None)
            with self._lock:
                if self.rings and self._writer >= 0:
                    self._light()

    def recv(self, size: int) -> bytes:
        """Remove one ring."""
        with self._lock:
            if self.rings == 0:
                raise BlockingIOError
            self.rings -= 1
            if self.rings == 0 and self._lit:
                self._lit = False
                os.read(self._reader, 1)
        return b"\0"

    def _light(self) -> None:
        if not self._lit:
            self._lit = True
            os.write(self._writer, b"\0")

    def fileno(self) -> int:
        """The pipe's reading end."""
        return self._reader

    def pending(self) -> int:
        """How many rings wait."""
        return self.rings

    def close(self) -> None:
        """Idempotent: kazoo closes each of its two ends."""
        with self._lock:
            for end in (self._reader, self._writer):
                if end >= 0:
                    os.close(end)
            self._reader = self._writer = -1


class BufferedSocket:
    """A connected socket, plain or TLS, with a buffer in each direction. Used by the I/O thread only, but for `abort`."""

    def __init__(self, sock: Any) -> None:
        self._socket = sock
        self._read = bytearray()
        self._written = bytearray()

    def fileno(self) -> int:
        """The socket's."""
        return int(self._socket.fileno())

    def setblocking(self, flag: bool) -> None:
        """As the socket's."""
        self._socket.setblocking(flag)

    def getpeername(self) -> Any:
        """As the socket's."""
        return self._socket.getpeername()

    def pending(self) -> int:
        """The number of bytes that can be read without waiting."""
        if self._read:
            return len(self._read)
        decrypted = getattr(self._socket, "pending", None)
        return int(decrypted()) if decrypted is not None else 0

    def read(self, size: int) -> bytes | None:
        """As `recv`; None when there is nothing yet, and at once for no bytes."""
        try:
            return self.recv(size) if size else b""
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None

    def recv(self, size: int) -> bytes:
        """As the socket's; reads ahead as much as the socket has."""
        if not self._read:
            chunk = self._socket.recv(_CHUNK)
            if len(chunk) <= size:
                return bytes(chunk)
            self._read += chunk
        taken = bytes(self._read[:size])
        del self._read[:size]
        return taken

    def send(self, data: bytes) -> int:
        """Buffer the bytes until the next `flush`, which comes before any wait for an answer."""
        self._written += data
        return len(data)

    def flush(self) -> bool:
        """Write the buffer. False: the socket takes no more now."""
        while self._written:
            try:
                sent = self._socket.send(self._written)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            del self._written[:sent]
        return True

    def abort(self) -> None:
        """Break the connection off: a reader sees its end."""
        try:
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        """Idempotent."""
        try:
            self.flush()
        except OSError:
            pass
        self._socket.close()


class Handler(SequentialThreadingHandler):  # type: ignore[misc]  # see the import
    """See the module's text.

    Args:
        timeout: seconds that connecting may take.
        tls: how to connect; None: plainly.
        connecting: called before each try, on the I/O thread.
    """

    name = "narrowboat"
    #: False makes kazoo call completions where they happen.
    running = False

    def __init__(self, timeout: float, tls: ssl.SSLContext | None, connecting: Callable[[], None]) -> None:
        super().__init__()
        self._tls = tls
        self._connecting = connecting
        self.timeout = timeout
        self._socket: BufferedSocket | None = None
        self.wakeup = WakeupPipe()
        self.last_error: Exception | None = None  #: why the last try to connect failed
        self.closing = threading.Event()

    def start(self) -> None:
        """Nothing: no worker threads."""

    def stop(self) -> None:
        """Nothing."""

    def async_result(self) -> Result:
        """A `Result`."""
        return Result()

    def dispatch_callback(self, callback: Any) -> None:
        """Call a watch, now."""
        try:
            callback.func(*callback.args)
        except Exception:
            log.exception("a watch of our own raised")

    def spawn(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> threading.Thread:
        """Start kazoo's I/O thread. A stop while it waits to reconnect is no error worth a traceback."""

        def run() -> None:
            try:
                func(*args, **kwargs)
            except InterruptedError:
                pass

        thread = threading.Thread(target=run, name="narrowboat-zookeeper", daemon=True)
        thread.start()
        return thread

    def create_socket_pair(self) -> tuple[WakeupPipe, WakeupPipe]:
        """The wake-up pipe, for both ends: a client is started once."""
        return self.wakeup, self.wakeup

    def create_connection(self, address: tuple[str, int], hostname: str | None = None, **_: object) -> BufferedSocket:
        """Connect within our own timeout, and keep the error. kazoo's own method leaks a socket with each failed handshake."""
        if self.closing.is_set():
            raise OSError("closed")
        self._connecting()
        try:
            sock = socket.create_connection(address, timeout=self.timeout)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._tls is not None:
                    sock = self._tls.wrap_socket(sock, server_hostname=hostname)
            except BaseException:
                sock.close()
                raise
        except OSError as error:
            self.last_error = error
            raise
        self.last_error = None
        buffered = self._socket = BufferedSocket(sock)
        if self.closing.is_set():
            self.abort()
        return buffered

    def abort(self) -> None:
        """Break off the connection, if there is one; kazoo then makes a new one in the same session."""
        if self._socket is not None:
            self._socket.abort()

    def select(
        self, rlist: list[Any], wlist: list[Any], xlist: list[Any], timeout: float | None = None
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """As `select.select`, but for any number of descriptors, and with regard to buffered bytes."""
        if wlist:
            return [], wlist, []  # a wire takes everything and writes it before the next read
        ready = [each for each in rlist if each.pending()]
        if any(isinstance(each, WakeupPipe) for each in ready):
            return ready, [], []  # more requests are to be written: gather them first
        sockets = [each for each in rlist if isinstance(each, BufferedSocket)]
        ends = None if timeout is None else time.monotonic() + timeout
        while True:
            flushed = all(each.flush() for each in sockets)  # there is one at most
            if ready:
                return ready, [], []
            poll = select.poll()
            found = {}
            for each in rlist:
                number = each.fileno()
                found[number] = each
                poll.register(number, _READ if flushed or isinstance(each, WakeupPipe) else _READ | select.POLLOUT)
            left = None if ends is None else max(0.0, ends - time.monotonic()) * 1000 + 0.5
            ready = [found[number] for number, events in poll.poll(left) if events & _READ]
            if ready or (ends is not None and time.monotonic() >= ends):
                return ready, [], []
