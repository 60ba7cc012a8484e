"""What failed keeps nothing of its caller's: the error of a call whose server is away leads to no circle that holds a lock."""

from __future__ import annotations

import contextlib
import gc
import socket
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import narrowboat

LOCKS: dict[str, Callable[[Any], object]] = {
    "acquire": lambda locks: locks.lock("a").acquire(timeout=0),
    "holders": lambda locks: locks.holders(),
    "evict": lambda locks: locks.evict("a", 1),
}
MESSAGES: dict[str, Callable[[Any], object]] = {
    "publish": lambda broker: broker.queue("q").publish(b"x"),
    "depth": lambda broker: broker.queue("q").depth(),
    "consume": lambda broker: broker.queue("q").consume(),
}


class Held:
    """Stands for what a caller has and lets go of."""


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def port() -> int:
    """Where no server listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def is_kept(face: Any, call: Callable[[Any], object]) -> bool:
    def fail() -> weakref.ref[Held]:
        held = Held()
        with contextlib.suppress(narrowboat.Unavailable, narrowboat.PublishFailed):
            call(face)
        return weakref.ref(held)

    return fail()() is not None


@pytest.mark.parametrize("call", LOCKS)
@pytest.mark.parametrize("scheme", ["redis", "consul"])
def test_a_failed_call_of_locks_keeps_nothing_of_its_caller(port: int, scheme: str, call: str) -> None:
    with narrowboat.locks(f"{scheme}://127.0.0.1:{port}?timeout=0.5") as locks:
        assert not is_kept(locks, LOCKS[call])


@pytest.mark.parametrize("call", MESSAGES)
@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_failed_call_of_messages_keeps_nothing_of_its_caller(port: int, scheme: str, call: str) -> None:
    with narrowboat.broker(f"{scheme}://127.0.0.1:{port}?timeout=0.5") as broker:
        assert not is_kept(broker, MESSAGES[call])
