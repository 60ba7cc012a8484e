"""What failed keeps nothing of its caller's: the error of a call whose server is away leads to no circle that holds a lock."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import narrowboat
import narrowboat.aio

pytestmark = pytest.mark.usefixtures("no_collector")

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


def test_a_failed_acquire_of_the_asyncio_face_keeps_nothing_of_its_caller(port: int) -> None:
    async def main() -> None:
        async def fail() -> weakref.ref[Held]:
            held = Held()
            with contextlib.suppress(narrowboat.Unavailable):
                await locks.lock("a").acquire(timeout=0)
            return weakref.ref(held)

        async with narrowboat.aio.locks(f"redis://127.0.0.1:{port}?timeout=0.5") as locks:
            reference = await fail()
            async with asyncio.timeout(30):  # the lane's thread may be on its way out of the call
                while reference() is not None:
                    await asyncio.sleep(0.01)

    asyncio.run(main())
