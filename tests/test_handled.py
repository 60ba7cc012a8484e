"""How a handler ended, as listeners and the log hear it: of `run` and of a worker, on both faces."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import narrowboat
from narrowboat import Retry, aio, events
from narrowboat.clock import ManualClock


@pytest.fixture(params=["sync", "asyncio"])
def face(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}"


def coroutine(function: Callable[[Any], object]) -> Callable[[Any], Any]:
    """The same as a handler of the asyncio face."""

    @functools.wraps(function)
    async def called(argument: Any) -> object:
        return function(argument)

    return called


class Ear:
    """Listens; `got` returns once it has heard so many ends of handlers."""

    def __init__(self, count: int) -> None:
        self.heard: list[events.Handled] = []
        self._count = count
        self.enough = threading.Event()

    def __call__(self, event: Any) -> None:
        if isinstance(event, events.Handled):
            self.heard.append(event)
            if len(self.heard) == self._count:
                self.enough.set()


def run(face: str, url: str, ear: Ear, handle: Callable[[Any], object], **properties: Any) -> None:
    """`queue.run(handle)` until the ear has heard enough."""
    if face == "sync":
        with narrowboat.broker(url, listeners=[ear], random=lambda: 0.0) as broker:
            queue = broker.queue("orders", **properties)
            thread = threading.Thread(target=queue.run, args=(handle,), kwargs={"signals": False})
            thread.start()
            assert ear.enough.wait(60)
            queue.stop()
            thread.join()
        return

    async def main() -> None:
        async with aio.broker(url, listeners=[ear], random=lambda: 0.0) as broker:
            queue = broker.queue("orders", **properties)
            task = asyncio.create_task(queue.run(coroutine(handle), signals=False))
            assert await asyncio.to_thread(ear.enough.wait, 60)
            queue.stop()
            await task

    asyncio.run(main())


@pytest.fixture
def log() -> Iterator[list[logging.LogRecord]]:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign, assignment]
    logging.getLogger("narrowboat").addHandler(handler)
    yield records
    logging.getLogger("narrowboat").removeHandler(handler)


def publish(url: str, *bodies: bytes) -> narrowboat.Messaging:
    """A broker that keeps them there."""
    broker = narrowboat.broker(url)
    broker.queue("orders").publish_many(bodies)
    return broker


def test_each_end_of_a_handler_is_told_with_its_outcome(face: str, url: str) -> None:
    """Ack, nack, and what the handler did by itself; with the error, the attempt, and the time since the publish."""
    broken = ValueError("no stock")

    def handle(message: Any) -> None:
        if message.body == b"rope" and message.attempt == 1:
            raise broken
        if message.body == b"lamp" and face == "sync":
            message.reject("we have none")

    with publish(url, b"kettle", b"rope", b"lamp"):
        ear = Ear(4)
        run(face, url, ear, handle)

    told = [(event.attempt, event.outcome, event.error) for event in ear.heard]
    assert told.count((1, "nack", broken)) == 1 and told.count((2, "ack", None)) == 1
    assert told.count((1, "settled" if face == "sync" else "ack", None)) >= 1 and len(told) == 4
    assert all(event.source == "orders" and event.duration >= 0 and event.waited is not None for event in ear.heard)


def test_a_dead_letter_is_an_error_in_the_log_and_a_retry_a_warning(face: str, url: str, log: list[logging.LogRecord]) -> None:
    """With what happened, the message and the attempt as fields."""

    def handle(message: Any) -> None:
        raise ValueError("no stock")

    with publish(url, b"kettle"):
        ear = Ear(2)
        run(face, url, ear, handle, max_deliveries=2)

    assert [event.outcome for event in ear.heard] == ["nack", "reject"]
    (message,) = {event.id for event in ear.heard}
    found = [(each.levelname, vars(each)["narrowboat_event"], vars(each)["narrowboat_attempt"]) for each in log]
    assert found == [("WARNING", "handler_failed", 1), ("ERROR", "dead_letter", 2)]
    assert {vars(each)["narrowboat_message_id"] for each in log} == {message}
    assert "a dead letter" in log[1].getMessage() and "again in" in log[0].getMessage()


def test_a_duration_is_that_of_the_handler(url: str) -> None:
    """By the broker's clock; settling is not part of it."""
    clock, ear = ManualClock(), Ear(1)
    with narrowboat.broker(url, clock=clock, listeners=[ear]) as broker:
        queue = broker.queue("orders")
        queue.publish(b"kettle")
        thread = threading.Thread(target=queue.run, args=(lambda message: clock.advance(1.5),), kwargs={"signals": False})
        thread.start()
        assert ear.enough.wait(60)
        queue.stop()
        thread.join()

    assert ear.heard[0].duration == 1.5


def test_a_worker_tells_what_its_retry_decided_and_tells_it_once(face: str, url: str) -> None:
    """A handler in a worker is no other handler of `run`: the worker knows that this exception is not tried again."""
    ear = Ear(3)
    worker_class: Any = narrowboat.Worker if face == "sync" else aio.Worker
    module: Any = narrowboat if face == "sync" else aio

    def handle(message: Any) -> None:
        if message.body == b"rope":
            raise KeyError("rope")

    def many(batch: Any) -> None:
        pass

    def register(worker: Any) -> None:
        worker.queue("orders", retry=Retry(drop=(KeyError,)))(handle if face == "sync" else coroutine(handle))
        worker.queue("lamps", batch=10)(many if face == "sync" else coroutine(many))

    with publish(url, b"kettle", b"rope") as broker:
        broker.queue("lamps").publish(b"lamp")
        if face == "sync":
            with module.broker(url, listeners=[ear]) as mine:
                worker = worker_class(mine)
                register(worker)
                with worker:
                    assert ear.enough.wait(60)
        else:

            async def main() -> None:
                async with module.broker(url, listeners=[ear]) as mine:
                    worker = worker_class(mine)
                    register(worker)
                    async with worker:
                        assert await asyncio.to_thread(ear.enough.wait, 60)

            asyncio.run(main())

    told = sorted((event.source, event.outcome, type(event.error).__name__) for event in ear.heard)
    assert told == [("lamps", "ack", "NoneType"), ("orders", "ack", "NoneType"), ("orders", "reject", "KeyError")]
