"""Redis: the error of a server that cannot be reached keeps nothing of its caller's."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

import narrowboat


class Held:
    """Stands for what a caller has and lets go of."""


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def url() -> str:
    """Where no server listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"redis://127.0.0.1:{server.getsockname()[1]}?timeout=0.5"


def test_a_failed_acquire_keeps_nothing_of_its_caller_on_the_asyncio_face(url: str) -> None:
    async def main() -> None:
        async def fail() -> Any:
            held = Held()
            with contextlib.suppress(narrowboat.Unavailable):
                await locks.lock("a").acquire(timeout=0)
            return weakref.ref(held)

        async with narrowboat.aio.locks(url) as locks:
            reference = await fail()
            await asyncio.sleep(0.2)  # the lane's thread may be on its way out of the call
            assert reference() is None

    asyncio.run(main())
