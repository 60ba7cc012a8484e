"""ZooKeeper: the transport under kazoo, on socket pairs, and the thread that removes what is over."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any, Never

import pytest

from narrowboat_zookeeper import janitor
from narrowboat_zookeeper.handler import BufferedSocket, Handler, Result, WakeupPipe

#: the wire under test, and the other end
Pair = tuple[BufferedSocket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(5)
    wire = BufferedSocket(ours)
    yield wire, theirs
    wire.close()
    theirs.close()


@pytest.fixture
def handler() -> Iterator[Handler]:
    made = Handler(1.0, None, lambda: None)
    yield made
    made.wakeup.close()


def test_what_is_sent_is_gathered_until_somebody_waits(pair: Pair, handler: Handler) -> None:
    wire, peer = pair
    wire.send(b"one")
    wire.send(b"two")
    peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        peer.recv(100)
    assert handler.select([wire, handler.wakeup], [], [], 0.0) == ([], [], [])
    assert peer.recv(100) == b"onetwo"


def test_what_was_read_ahead_is_readable_without_the_socket(pair: Pair, handler: Handler) -> None:
    wire, peer = pair
    peer.sendall(b"abcdef")
    assert handler.select([wire], [], [], 5.0)[0] == [wire]
    assert wire.recv(2) == b"ab"
    assert wire.pending() == 4
    assert handler.select([wire], [], [], 5.0)[0] == [wire]
    assert [wire.recv(3), wire.recv(3)] == [b"cde", b"f"]
    peer.close()
    assert handler.select([wire], [], [], 5.0)[0] == [wire]
    assert wire.recv(1) == b""


def test_more_than_the_socket_takes_is_written_as_it_takes_it(pair: Pair, handler: Handler) -> None:
    wire, peer = pair
    data = bytes(range(256)) * 20_000
    received = bytearray()

    def read() -> None:
        while len(received) < len(data):
            received.extend(peer.recv(65536))
        peer.sendall(b"!")

    reader = threading.Thread(target=read)
    wire.send(data)
    reader.start()
    assert handler.select([wire], [], [], 10.0)[0] == [wire]
    reader.join()
    assert received == data


def test_an_aborted_wire_is_at_its_end_for_whoever_reads(pair: Pair, handler: Handler) -> None:
    wire, _ = pair
    threading.Timer(0.05, wire.abort).start()
    assert handler.select([wire], [], [], 10.0)[0] == [wire]
    assert wire.recv(1) == b""


def test_a_bell_counts_and_never_blocks(handler: Handler) -> None:
    bell = WakeupPipe()
    for _ in range(10_000):  # a socket pair is full after about 280
        bell.send(b"\0")
    assert handler.select([bell], [], [], 0.0)[0] == [bell]
    for _ in range(10_000):
        assert bell.recv(1) == b"\0"
    assert handler.select([bell], [], [], 0.0)[0] == []
    with pytest.raises(BlockingIOError):
        bell.recv(1)
    bell.close()
    bell.close()
    with pytest.raises(OSError, match="closed"):
        bell.send(b"\0")


def test_a_bell_that_is_held_wakes_nobody_until_it_is_let_go_and_others_ring_through(handler: Handler) -> None:
    bell = WakeupPipe()
    woken = threading.Event()

    def wait() -> None:
        handler.select([bell], [], [], 10.0)
        woken.set()

    waiting = threading.Thread(target=wait)
    with bell.held():
        waiting.start()
        bell.send(b"\0")
        bell.send(b"\0")
        assert not woken.wait(0.05)
    assert woken.wait(5)
    waiting.join()
    assert bell.rings == 2
    for _ in range(2):
        bell.recv(1)
    with bell.held():
        other = threading.Thread(target=bell.send, args=(b"\0",))
        other.start()
        other.join()
        assert handler.select([bell], [], [], 5.0)[0] == [bell]
    bell.close()


def test_a_result_calls_back_once_and_keeps_its_first_outcome() -> None:
    told: list[Any] = []
    result = Result()
    result.rawlink(told.append)
    assert not result.ready()
    with pytest.raises(TimeoutError):
        result.get()
    result.set("value")
    result.set_exception(OSError())
    result.rawlink(told.append)
    assert told == [result, result]
    assert (result.get(), result.successful()) == ("value", True)
    failed = Result()
    failed.set_exception(OSError("no"))
    assert not failed.successful()
    with pytest.raises(OSError, match="no"):
        failed.get()


def test_connecting_is_refused_once_closing_and_its_failure_is_remembered(handler: Handler) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        handler.create_connection(address).close()
    with pytest.raises(OSError):  # whatever the system says
        handler.create_connection(address)
    assert isinstance(handler.last_error, OSError)
    handler.closing.set()
    with pytest.raises(OSError, match="closed"):
        handler.create_connection(address)


def test_a_watch_that_raises_does_not_reach_the_connection(handler: Handler, caplog: pytest.LogCaptureFixture) -> None:
    class Callback:
        args = (1,)

        @staticmethod
        def func(number: int) -> Never:
            raise ValueError(number)

    handler.dispatch_callback(Callback)
    assert "raised" in caplog.text


def test_the_janitor_looks_while_there_is_something_to_look_after_and_then_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(janitor, "IDLE", 0.05)
    looks, found = [], []
    idle = threading.Event()

    def look() -> bool:
        looks.append(1)
        found.extend(made.due())
        if found:
            idle.set()
        return False

    made = janitor.Janitor(look, every=0.02)
    made.note("/a")
    assert idle.wait(5)
    assert found == ["/a"]
    made.look_now()
    made.note("/b")
    made.close(5)
    assert made.rest() in (["/b"], [])
    assert made._thread.end(0.0), "it still runs"
    made.stir()
    assert made._thread.end(0.0), "it still runs"
