"""How a worker ends, and what one source that fails means for the others; on both faces."""

from __future__ import annotations

import asyncio
import queue
import threading
import uuid
from collections.abc import Iterator
from dataclasses import astuple
from typing import Any

import pytest
from test_worker import FACES, Log, living, logged, make, register, state, until

import narrowboat
from narrowboat import aio
from narrowboat.errors import AccessDenied, ConfigurationError, Conflict, Unavailable
from narrowboat.layers.faults import Faults


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def log() -> Iterator[Log]:
    with logged() as handler:
        yield handler


def test_a_source_that_is_away_is_waited_for_beside_others(face: str, url: str, log: Log) -> None:
    """The others work on; it is told once, and once that it is back."""
    faults, got = Faults(), queue.Queue[bytes]()
    with narrowboat.broker(url) as other:
        broker = FACES[face].broker(url, wrap=faults.wrap)
        worker = make(face, broker)
        register(worker.queue("orders"), face, lambda message: got.put(message.body))
        for _ in range(3):
            faults.fail("declare", Unavailable("no route to it", backend="memory"))
        other.queue("orders").publish(b"1")
        with living(worker, face):
            assert got.get(timeout=60) == b"1"
            assert worker.health().ready
        assert log.next() == ("WARNING", "'orders' cannot be consumed, and is tried again: no route to it")
        assert log.next()[1].startswith("'orders' is consumed again after ")
        close = broker.close()
        if close is not None:
            asyncio.run(close)


def test_a_source_that_fails_for_good_ends_the_worker_with_its_error(face: str, url: str) -> None:
    """The others drain: what runs there finishes."""
    with narrowboat.broker(url) as broker:
        broker.queue("orders", ordered=True).declare()
        worker = make(face, url)
        register(worker.queue("orders", max_deliveries=7), face, lambda message: None)
        register(worker.queue("other"), face, lambda message: None)
        with pytest.raises(Conflict, match="orders"):
            asyncio.run(worker.run()) if face == "asyncio" else worker.run(signals=False)


def test_within_with_a_failure_is_logged_and_seen_in_health_and_raised_at_the_end(face: str, url: str, log: Log) -> None:
    """A web server goes on meanwhile, and its probe can tell."""
    faults = Faults()
    faults.fail("declare", AccessDenied("not you", backend="memory"))
    broker = FACES[face].broker(url, wrap=faults.wrap)
    worker = make(face, broker)
    register(worker.queue("orders"), face, lambda message: None)
    with pytest.raises(AccessDenied), living(worker, face):
        until(lambda: not worker.health().live)
        assert (state(worker), worker.health().sources[0].error) == ("failed", "AccessDenied: not you")
        level, line = log.next()
        assert (level, "'orders' is consumed no more, and the worker drains" in line) == ("ERROR", True)
    close = broker.close()
    if close is not None:
        asyncio.run(close)


def test_leaving_drains(face: str, url: str) -> None:
    """What a handler has begun is finished and acked, what was not begun goes back uncounted; the worker may run again."""
    worker, begun, finish = make(face, url), threading.Semaphore(0), threading.Event()

    async def ship(message: Any) -> None:
        begun.release()
        while not finish.is_set():
            await asyncio.sleep(0.005)

    def ship_in_a_thread(message: Any) -> None:
        begun.release()
        finish.wait(60)

    worker.queue("orders")(ship_in_a_thread if face == "sync" else ship)
    with narrowboat.broker(url) as broker:
        broker.queue("orders").publish_many([b"1", b"2", b"3"])
        with living(worker, face):
            assert begun.acquire(timeout=60)
            worker.stop()
            until(lambda: astuple(broker.queue("orders").depth())[:2] == (2, 1))
            assert state(worker) == "draining"
            finish.set()
        assert astuple(broker.queue("orders").depth())[:2] == (2, 0)
        with living(worker, face):
            assert begun.acquire(timeout=60) and begun.acquire(timeout=60)
            until(lambda: astuple(broker.queue("orders").depth())[:2] == (0, 0))


def test_a_cancelled_run_gives_back_what_it_has(url: str) -> None:
    """On asyncio `run` is a coroutine as any other: its handlers and elected functions are cancelled, and end before it."""
    ended = []

    async def main() -> None:
        worker, begun, elected = aio.Worker(url, url), asyncio.Event(), asyncio.Event()

        async def works(event: asyncio.Event, name: str) -> None:
            event.set()
            try:
                await asyncio.sleep(600)
            finally:
                await asyncio.sleep(0.05)  # a cleanup that takes a while
                ended.append(name)

        @worker.queue("orders")
        async def ship(message: aio.Message[bytes]) -> None:
            await works(begun, "ship")

        @worker.elected("boss")
        async def lead(term: Any) -> None:
            await works(elected, "lead")

        async with aio.broker(url) as broker:
            orders = broker.queue("orders")
            await orders.publish(b"1")
            running = asyncio.create_task(worker.run(signals=False))
            await asyncio.wait_for(begun.wait(), 60)
            await asyncio.wait_for(elected.wait(), 60)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert sorted(ended) == ["lead", "ship"]
            async with orders.consume() as messages:
                message = await messages.receive(timeout=60)
                assert message is not None and message.body == b"1"

    asyncio.run(main())


def test_only_some_of_the_handlers(url: str) -> None:
    """By the function's name or the source's."""
    worker = narrowboat.Worker(url)

    @worker.queue("orders")
    def ship(message: narrowboat.Message[bytes]) -> None:
        worker.stop()

    @worker.queue("bills")
    def bill(message: narrowboat.Message[bytes]) -> None:
        raise AssertionError

    with narrowboat.broker(url) as broker:
        for only in ("ship", "orders"):
            broker.queue("bills").publish(b"1")
            broker.queue("orders").publish(b"1")
            worker.run(only=[only], signals=False)
        assert broker.queue("bills").depth().ready == 2
        with pytest.raises(
            ConfigurationError, match=r"unknown handler 'shop'. Did you mean 'ship'\? Known: bill, bills, orders"
        ):
            worker.run(only=["shop"])
