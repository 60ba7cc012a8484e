"""What `narrowboat_zeromq.library` stands on and pyzmq does not promise: tried on real sockets, within this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import pytest

zmq = pytest.importorskip("zmq")

from narrowboat_zeromq import library  # noqa: E402  # needs pyzmq

T = TypeVar("T")


@pytest.fixture
def hub() -> Iterator[library.Hub]:
    made = library.Hub("tcp://127.0.0.1:*", None, lambda key: False)
    yield made
    made.close()


def until(found: Callable[[], bool], wait: Callable[[], object]) -> None:
    """Wait for what the sockets tell."""
    ends = time.monotonic() + 20
    while not found():
        assert time.monotonic() < ends
        wait()


def take(into: list[T], found: Iterable[T]) -> list[T]:
    """What is there now, with what was found."""
    into.extend(found)
    return into


def test_a_wire_makes_one_connection_and_sends_nothing_twice() -> None:
    """After its server has gone and another one has come to the same address, it says that it has ended, and stays so."""
    first = library.Hub("tcp://127.0.0.1:*", None, lambda key: False)
    address = first.address
    context = library.context()
    wire = library.Wire(context, address, server=None, own=None)
    news: list[str] = []
    try:
        until(lambda: "ready" in take(news, wire.news()), lambda: wire.wait(0.1, writing=False))
        assert wire.send([b"one"])
        got: list[bytes] = []
        until(lambda: len(take(got, first.receive() or [])) == 2, lambda: first.wait(0.1))
        first.close()
        second = library.Hub(address, None, lambda key: False)
        try:
            until(lambda: "ended" in take(news, wire.news()), lambda: wire.wait(0.1, writing=False))
            wire.send([b"two"])
            second.wait(0.3)
            assert second.receive() is None
        finally:
            second.close()
    finally:
        wire.close()
        context.term()


def test_a_hub_is_told_of_a_peer_that_is_not_there(hub: library.Hub) -> None:
    with pytest.raises(library.Unroutable) as told:
        hub.send(b"nobody", [b"hello"])
    assert told.value.gone


def test_a_port_where_nobody_listens_is_told_at_once() -> None:
    closed = library.Hub("tcp://127.0.0.1:*", None, lambda key: False)
    address = closed.address
    closed.close()
    context = library.context()
    wire = library.Wire(context, address, server=None, own=None)
    news: list[str] = []
    try:
        until(lambda: "ended" in take(news, wire.news()), lambda: wire.wait(0.1, writing=False))
    finally:
        wire.close()
        context.term()


def test_who_is_let_in_is_asked_with_the_key_in_the_form_of_its_file() -> None:
    """The socket asks with 32 bytes; and says to the client whether it was denied."""
    own, client = library.new_pair(), library.new_pair()
    asked: list[str] = []
    hub = library.Hub("tcp://127.0.0.1:*", own, lambda key: not take(asked, [key]))
    context = library.context()
    wire = library.Wire(context, hub.address, server=own.public, own=client)
    news: list[str] = []
    try:
        until(lambda: "denied" in take(news, wire.news()), lambda: hub.wait(0.05))
        assert asked == [client.public]
    finally:
        wire.close()
        context.term()
        hub.close()
