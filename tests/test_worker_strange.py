"""Handlers and messages that are not what they seem: none is acked unhandled, and none dies for another's fault."""

from __future__ import annotations

import asyncio
import functools
import queue
import threading
import uuid
from dataclasses import astuple
from typing import Any

import pytest
from test_worker import FACES, SOON, living, make, until

import narrowboat
from narrowboat import Breaker, aio
from narrowboat.codecs import JSON
from narrowboat.errors import InvalidArgument


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}"


def generator(message: Any) -> Any:
    yield message


async def asynchronous_generator(message: Any) -> Any:
    yield message


@pytest.mark.parametrize("function", [generator, asynchronous_generator])
def test_a_handler_with_a_yield_is_refused(face: str, function: Any) -> None:
    """A call of it would run none of it, and its message be acked."""
    with pytest.raises(InvalidArgument, match=rf"{function.__name__} has a yield in it"):
        make(face).queue("orders")(function)


def test_a_coroutine_behind_a_plain_decorator_is_a_failure_and_no_ack(url: str) -> None:
    async def ship(message: Any) -> None:
        """Never run in a thread."""

    @functools.wraps(ship)
    def wrapped(*arguments: Any) -> Any:
        return ship(*arguments)

    del wrapped.__wrapped__  # a decorator that tells nobody
    worker = narrowboat.Worker(url)
    worker.queue("orders", retry=SOON, max_deliveries=2, breaker=None)(wrapped)
    with living(worker, "sync"), narrowboat.broker(url) as broker:
        broker.queue("orders").publish(b"1")
        until(lambda: broker.queue("orders").depth().dead == 1)
        until(lambda: worker.health().sources[0].failed == 2)
        assert worker.health().sources[0].handled == 0


def test_bodies_that_cannot_be_decoded_cost_their_own_messages_one_attempt(face: str, url: str) -> None:
    """Of a batch: found one at a time, five of them used up the deliveries of all others."""
    worker, handled = make(face, url), queue.Queue[Any]()

    def take(batch: Any) -> None:
        handled.put([(message.data, message.attempt) for message in batch])

    async def coroutine(batch: Any) -> None:
        take(batch)

    with narrowboat.broker(url) as broker:
        broker.queue("orders").publish_many([b"{" if number % 2 else b"%d" % number for number in range(20)])
        worker.queue("orders", codec=JSON, batch=20, retry=SOON)(take if face == "sync" else coroutine)
        with living(worker, face):
            good: list[Any] = []
            while len(good) < 10:
                good += handled.get(timeout=60)
            until(lambda: astuple(broker.queue("orders").depth())[:4] == (0, 0, 0, 10))
    assert sorted(good) == [(number, 2) for number in range(0, 20, 2)]


def test_the_messages_of_a_batch_that_fails_count_for_the_pause(face: str, url: str) -> None:
    """Else a queue of some batches is dead before a downstream that is away has failed often enough."""
    worker = make(face, url)

    def take(batch: Any) -> None:
        raise ConnectionError("away")

    async def coroutine(batch: Any) -> None:
        take(batch)

    worker.queue("orders", batch=100, retry=SOON, breaker=Breaker(first=60))(take if face == "sync" else coroutine)
    with narrowboat.broker(url) as broker:
        broker.queue("orders").publish_many([b"1"] * 50)
        with living(worker, face):
            until(lambda: worker.health().sources[0].state == "paused")
        assert broker.queue("orders").depth().dead == 0


def test_a_handler_whose_own_wait_was_cancelled_has_failed(url: str) -> None:
    """It was neither acked nor given back, and kept its place for ever."""
    worker, attempts = aio.Worker(url), queue.Queue[int]()

    @worker.queue("orders", retry=SOON)
    async def ship(message: aio.Message[bytes]) -> None:
        attempts.put(message.attempt)
        if message.attempt == 1:
            task = asyncio.ensure_future(asyncio.sleep(60))
            task.cancel()
            await task

    with living(worker, "asyncio"), narrowboat.broker(url) as broker:
        broker.queue("orders").publish(b"1")
        assert [attempts.get(timeout=60) for _ in range(2)] == [1, 2]
        until(lambda: astuple(broker.queue("orders").depth())[:4] == (0, 0, 0, 0))
        until(lambda: worker.health().sources[0].failed == 1)


def test_handlers_that_look_for_locks_at_once_get_the_same(url: str) -> None:
    """Which the worker closes at its end."""
    worker, found = narrowboat.Worker(locks=url), []
    gate = threading.Barrier(8)

    def look() -> None:
        gate.wait(60)
        found.append(worker.locks)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 8 and len(set(map(id, found))) == 1
    found[0].close()
