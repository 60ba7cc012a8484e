"""ZooKeeper: a message without sense in the middle of a healthy session costs a connection, and the next call works."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

import narrowboat
from integration.servers import ZooKeeperServer


def frame(*parts: bytes) -> bytes:
    """A message with its length."""
    body = b"".join(parts)
    return struct.pack(">i", len(body)) + body


EVENT, AUTH = -1, -4

NONSENSE = {
    "garbage": struct.pack(">i", 200) + random.Random(3).randbytes(200),
    "short": frame(b"abc"),
    "empty": frame(),
    "negative": struct.pack(">i", -1),
    "2 GB": struct.pack(">i", 2**31 - 1),
    "an event elsewhere": frame(struct.pack(">iqi", EVENT, 0, 0), struct.pack(">iii", 3, 3, 2), b"\xff\xfe"),
    "an event cut off": frame(struct.pack(">iqi", EVENT, 0, 0)),
    "a login that nobody asked for": frame(struct.pack(">iqi", AUTH, 0, 0)),
    "an answer that nobody asked for": frame(struct.pack(">iqi", 99999, 1, 0)),
    "an unknown error": frame(struct.pack(">iqi", 1, 1, 12345)),
}


class Between:
    """Passes on what client and server say, and puts something of its own before the server's next word."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.next: bytes | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def sent(self) -> bool:
        """Whether there is nothing left that it would put in."""
        return self.next is None

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            for ends in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, injects: bool) -> None:
        try:
            while data := source.recv(65536):
                if injects and self.next is not None:
                    data, self.next = self.next + data, None
                target.sendall(data)
        except OSError:
            pass
        finally:
            source.close()
            try:
                target.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self) -> None:
        """No more clients."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def between(zookeeper_server: ZooKeeperServer) -> Iterator[Between]:
    made = Between(zookeeper_server.port)
    yield made
    made.close()


@pytest.mark.parametrize("kind", NONSENSE)
def test_after_nonsense_the_next_calls_work(between: Between, kind: str) -> None:
    """In the same session: what is held stays held, and the thread that reads is the same."""
    with narrowboat.locks(f"zookeeper://127.0.0.1:{between.port}?prefix=between&timeout=3&session_ttl=6&tick=0.5") as locks:
        held = locks.lock("held").acquire(timeout=5)
        between.next = NONSENSE[kind]
        for _ in range(6):
            try:
                locks.lock("a").acquire(timeout=5).release()
            except narrowboat.NarrowboatError:
                assert between.sent(), "nothing was sent yet, and yet it failed"
                between.next = None
        for _ in range(3):
            locks.lock("a").acquire(timeout=5).release()
        assert between.sent()
        held.check()
        held.release()
