"""Probes of a worker over HTTP, by the standard library: /live, /ready and /metrics for a supervisor such as Kubernetes.

    with Probes("127.0.0.1:8080", worker.health):
        worker.run()

One thread answers. It reads no body, keeps no connection, and asks no backend. So a client that is slow or hostile takes
nothing from the handlers but some of that thread's time. It is no web server: it has no TLS and asks nobody who they are.
Bind it to loopback, or to a network that only the supervisor reaches. What an answer says is in `answers.py`.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType

from narrowboat._engine.forks import watch_forks
from narrowboat._engine.listener import address_of, listen
from narrowboat.working.answers import REFUSED, answer, is_whole
from narrowboat.working.health import Health

#: Connections at a time. The oldest makes room for the next one, so idle clients keep no probe away.
MOST = 64
#: Bytes of a request. A probe's has some hundred.
REQUEST = 8192
#: Seconds after which a connection is closed, whatever it is at.
PATIENCE = 5.0
#: Seconds without looking for clients where the process has no file left for one.
PAUSE = 0.1


class _Client:
    """One connection: what has come, what is still to go, and when it ends."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.ends = time.monotonic() + PATIENCE
        self.came = bytearray()
        self.goes: memoryview | None = None


class Probes:
    """Bound when it is made, and answering while it is entered.

    Args:
        address: `HOST:PORT`, `[HOST]:PORT`, or a port alone on loopback; port 0 takes a free one.
        health: what `worker.health` is; from any thread, and without I/O.
        metrics: gives what is added to /metrics, in Prometheus' text format; without I/O as well.

    Raises:
        ConfigurationError: no address, or it cannot be bound, for example because the port is taken.
    """

    def __init__(self, address: str, health: Callable[[], Health], metrics: Callable[[], bytes] = bytes) -> None:
        self._health, self._metrics = health, metrics
        self._listener = listen(address, "answer probes", "Nothing was consumed")
        self._listener.setblocking(False)
        self._awake, self._wakes = socket.socketpair()
        self._clients: dict[socket.socket, _Client] = {}
        self._selector = selectors.DefaultSelector()
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="narrowboat-probes", daemon=True)
        watch_forks(self)

    @property
    def address(self) -> str:
        """Where it answers, with the port that was taken."""
        return address_of(self._listener)

    def __enter__(self) -> Probes:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._closing:  # also of a parent: the thread and the port are not this child's
            return
        self._closing = True
        if self._thread.ident is not None:
            self._wakes.send(b"x")
            self._thread.join()
        self.forked()

    def forked(self) -> None:
        """In a forked child the port is its parent's: let go of it. Also the end of this one."""
        self._closing = True
        self._selector.close()
        for each in (self._listener, self._awake, self._wakes, *self._clients):
            each.close()

    # -- the thread -----------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._awake, selectors.EVENT_READ)
        while not self._closing:
            ends = min((client.ends for client in self._clients.values()), default=None)
            for key, _ in self._selector.select(None if ends is None else max(0.0, ends - time.monotonic())):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.data is not None and key.fileobj in self._clients:
                    self._advance(key.data)
            now = time.monotonic()
            for client in [each for each in self._clients.values() if each.ends <= now]:
                self._close(client)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:  # gone again, or the process is out of files: its handlers need the next one more than a probe does
            if self._clients:
                self._close(next(iter(self._clients.values())))
            time.sleep(PAUSE)
            return
        if len(self._clients) >= MOST:
            self._close(next(iter(self._clients.values())))
        connection.setblocking(False)
        client = self._clients[connection] = _Client(connection)
        self._selector.register(connection, selectors.EVENT_READ, client)

    def _advance(self, client: _Client) -> None:
        try:
            if client.goes is None:
                self._read(client)
            if client.goes is not None:
                client.goes = client.goes[client.connection.send(client.goes) :]
                if not client.goes:
                    self._close(client)
        except BlockingIOError:
            pass
        except OSError:
            self._close(client)

    def _read(self, client: _Client) -> None:
        came = client.connection.recv(REQUEST)
        client.came += came
        if is_whole(client.came):
            client.goes = memoryview(answer(bytes(client.came), self._health, self._metrics))
        elif len(client.came) >= REQUEST:
            client.goes = memoryview(REFUSED)
        elif not came:
            self._close(client)
            return
        if client.goes is not None:
            self._selector.modify(client.connection, selectors.EVENT_WRITE, client)

    def _close(self, client: _Client) -> None:
        self._clients.pop(client.connection, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(client.connection)
        client.connection.close()
