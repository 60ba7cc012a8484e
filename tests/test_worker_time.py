"""A handler that takes too long, and a source that pauses: what runs, what waits, what is told; on both faces."""

from __future__ import annotations

import asyncio
import queue
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple
from typing import Any

import pytest
from test_worker import FACES, SOON, Log, living, logged, make, register, state, until

import narrowboat
from narrowboat import Breaker, Retry, aio
from narrowboat.clock import ManualClock


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


def test_a_thread_that_takes_too_long_is_told_and_its_message_given_back(url: str, log: Log) -> None:
    """It comes to another thread; the first one is counted as hung until it ends, and what it does then settles nothing."""
    worker, release, attempts = narrowboat.Worker(url), threading.Event(), queue.Queue[int]()

    @worker.queue("orders", concurrency=2, timeout=0.05, retry=SOON)
    def ship(message: narrowboat.Message[bytes]) -> None:
        attempts.put(message.attempt)
        if message.attempt == 1:
            release.wait(60)

    with worker, narrowboat.broker(url) as broker:
        broker.queue("orders").publish(b"1")
        assert [attempts.get(timeout=60) for _ in range(2)] == [1, 2]
        level, line = log.next()
        assert worker.health().sources[0].hung >= 1
        release.set()
        until(lambda: worker.health().sources[0].hung == 0)
        health = until(lambda: worker.health().sources[0] if worker.health().sources[0].handled else None)

    assert level == "WARNING" and "TimeoutError: no end within 0.05 s; its thread cannot be ended" in line
    assert (health.handled, health.failed) == (1, 1)


def test_a_task_that_takes_too_long_is_cancelled(url: str, log: Log) -> None:
    """A TimeoutError of the handler's own is another matter, and keeps its text."""
    worker, cancelled = aio.Worker(url), queue.Queue[str]()

    @worker.queue("orders", timeout=0.05, retry=SOON)
    async def ship(message: aio.Message[bytes]) -> None:
        if message.attempt == 2:
            raise TimeoutError("mine")
        if message.attempt == 1:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.put("cancelled")
                raise

    with living(worker, "asyncio"), narrowboat.broker(url) as broker:
        broker.queue("orders").publish(b"1")
        assert cancelled.get(timeout=60) == "cancelled"
        assert "TimeoutError: no end within 0.05 s; it was cancelled; attempt 1 of 5" in log.next()[1]
        assert "TimeoutError: mine; attempt 2 of 5" in log.next()[1]
        until(lambda: worker.health().sources[0].handled == 1)


def test_a_source_pauses_after_failures_in_a_row_and_probes(face: str, url: str, log: Log) -> None:
    """Each probe that fails makes the pause longer; one that succeeds lets it go on. The clock is the test's."""
    clock, down, attempts = ManualClock(), threading.Event(), queue.Queue[bytes]()
    worker = make(face, url, clock=clock, random=lambda: 1.0)
    down.set()

    def ship(message: Any) -> None:
        attempts.put(message.body)
        if down.is_set():
            raise OSError("down")

    options = {"max_deliveries": 0, "retry": Retry(first=0), "breaker": Breaker(after=3, first=10, factor=2)}
    register(worker.queue("orders", **options), face, ship)
    with living(worker, face), narrowboat.broker(url, clock=clock) as broker:
        broker.queue("orders", max_deliveries=0).publish_many([b"1", b"2", b"3", b"4", b"5"])
        for count, seconds in ((3, 10.0), (1, 20.0), (1, 40.0)):  # calls until the pause, and its length
            for _ in range(count):
                attempts.get(timeout=60)
            until(lambda: state(worker) == "paused")
            source = worker.health().sources[0]
            assert (source.resumes_in, worker.health().ready, worker.health().live) == (seconds, True, True)
            until(lambda: broker.queue("orders", max_deliveries=0).depth().ready == 5)
            assert attempts.empty()
            if count == 1 and seconds == 40.0:
                down.clear()
            clock.advance(seconds)
        for _ in range(5):
            attempts.get(timeout=60)
        until(lambda: state(worker) == "running" and worker.health().sources[0].handled == 5)

    lines = [log.lines.get() for _ in range(log.lines.qsize())]
    assert ("ERROR", "'orders' pauses for 10.0 s: ship failed 3 times in a row") in lines
    assert lines[-1] == ("INFO", "'orders' goes on: ship succeeds again")
    assert len([line for _, line in lines if "pauses" in line]) == 1, "told once, not at each probe"


def test_a_probe_is_one_message_whatever_the_concurrency(face: str, url: str) -> None:
    """Nothing else is fetched meanwhile, so others may have it."""
    clock, begun, gate = ManualClock(), queue.Queue[int](), threading.Event()
    worker = make(face, url, clock=clock)

    async def ship(message: Any) -> None:
        begun.put(message.attempt)
        while not gate.is_set():
            await asyncio.sleep(0.005)
        raise OSError("down")

    def ship_in_a_thread(message: Any) -> None:
        begun.put(message.attempt)
        gate.wait(60)
        raise OSError("down")

    options = {"max_deliveries": 0, "retry": Retry(first=0), "breaker": Breaker(after=1, first=10, jitter=0)}
    worker.queue("orders", concurrency=3, **options)(ship_in_a_thread if face == "sync" else ship)
    with living(worker, face), narrowboat.broker(url, clock=clock) as broker:
        orders = broker.queue("orders", max_deliveries=0)
        orders.publish_many([b"1", b"2", b"3", b"4", b"5"])
        for _ in range(3):
            begun.get(timeout=60)
        gate.set()
        until(lambda: state(worker) == "paused" and astuple(orders.depth())[:2] == (5, 0))
        until(lambda: worker.health().sources[0].failed == 3 + begun.qsize())  # a fourth may have begun before the pause
        while begun.qsize():
            begun.get()
        gate.clear()
        clock.advance(10)
        begun.get(timeout=60)
        assert (astuple(orders.depth())[:2], state(worker)) == ((4, 1), "probing")
        gate.set()
        until(lambda: state(worker) == "paused" and astuple(orders.depth())[:2] == (5, 0))


def gated(face: str, gate: threading.Event, begin: Callable[[Any], object]) -> Any:
    """A handler that goes on to the end of its test unless `begin` says otherwise."""

    def plain(message: Any) -> None:
        if begin(message):
            assert gate.wait(60)

    async def coroutine(message: Any) -> None:
        if begin(message):
            while not gate.is_set():
                await asyncio.sleep(0.005)

    return plain if face == "sync" else coroutine


def test_a_pause_is_no_end(face: str, url: str) -> None:
    """A handler that runs when it begins may finish, however short the grace time; nothing is fetched meanwhile."""
    worker, gate, slow = make(face, url, grace=0), threading.Event(), queue.Queue[int]()

    def begin(message: Any) -> bool:
        if message.body == b"slow":
            slow.put(message.attempt)
            return True
        slow.put(slow.get(timeout=60))  # once the slow one has begun
        raise OSError("down")

    options = {"concurrency": 2, "retry": Retry(first=0), "breaker": Breaker(after=1, first=60)}
    worker.queue("orders", **options)(gated(face, gate, begin))
    with narrowboat.broker(url) as broker:
        orders = broker.queue("orders")
        orders.publish_many([b"slow", b"bad", b"bad"])
        with living(worker, face):
            until(lambda: state(worker) == "paused" and astuple(orders.depth())[:2] == (2, 1))
            gate.set()
            until(lambda: worker.health().sources[0].handled == 1)
    assert slow.get_nowait() == 1 and slow.empty()


def test_the_grace_time_ends_a_pause_as_well(face: str, url: str) -> None:
    """Whoever leaves meanwhile does not wait for the handlers longer than that."""
    worker, gate, begun = make(face, url, grace=0.05), threading.Event(), queue.Queue[int]()

    def begin(message: Any) -> bool:
        if message.body == b"slow":
            begun.put(message.attempt)
            return True
        begun.get(timeout=60)
        raise OSError("down")

    options = {"concurrency": 2, "retry": Retry(first=0), "breaker": Breaker(after=1, first=60)}
    worker.queue("orders", **options)(gated(face, gate, begin))
    with narrowboat.broker(url) as broker:
        orders = broker.queue("orders")
        orders.publish_many([b"slow", b"bad"])
        with living(worker, face):
            until(lambda: state(worker) == "paused" and astuple(orders.depth())[:2] == (1, 1))
        assert astuple(orders.depth())[:2] == (2, 0)
        gate.set()


def test_no_more_threads_hang_than_there_are_places(url: str) -> None:
    """Neither probe nor message begins another; health says that a restart would help; one that ends gives its place back."""
    worker, gate, mutex = narrowboat.Worker(url), threading.Event(), threading.Lock()
    running = peak = 0

    @worker.queue("orders", concurrency=2, timeout=0.05, retry=SOON, breaker=Breaker(after=1, first=0.01, most=0.01))
    def ship(message: narrowboat.Message[bytes]) -> None:
        nonlocal running, peak
        with mutex:
            running += 1
            peak = max(peak, running)
        gate.wait(60)
        with mutex:
            running -= 1

    with narrowboat.broker(url) as broker:
        orders = broker.queue("orders", max_deliveries=5)
        orders.publish_many([b"1", b"2", b"3", b"4", b"5"])
        with worker:
            source = until(lambda: worker.health().sources[0] if state(worker) == "hung" else None)
            assert (source.hung, worker.health().ready, worker.health().live) == (2, False, False)
            until(lambda: astuple(orders.depth())[1] == 0)
            gate.set()
            until(lambda: worker.health().sources[0].handled == 5 and astuple(orders.depth())[:4] == (0, 0, 0, 0))
            assert worker.health().ready and worker.health().live
    assert peak == 2


def test_one_thread_that_hangs_keeps_no_pause(url: str) -> None:
    """The others are waited for, and not that one: the probe comes, with the places that are left."""
    worker, gate, got = narrowboat.Worker(url), threading.Event(), queue.Queue[bytes]()

    @worker.queue("orders", concurrency=2, timeout=0.05, retry=Retry(first=60), breaker=Breaker(after=1, first=0.01))
    def ship(message: narrowboat.Message[bytes]) -> None:
        if message.body == b"hang":
            gate.wait(60)
        got.put(message.body)

    with narrowboat.broker(url) as broker, worker:
        broker.queue("orders").publish(b"hang")
        until(lambda: worker.health().sources[0].failed == 1)
        broker.queue("orders").publish_many([b"1", b"2", b"3"])
        assert sorted(got.get(timeout=60) for _ in range(3)) == [b"1", b"2", b"3"]
        assert (worker.health().sources[0].hung, worker.health().live) == (1, True)
        gate.set()
        assert got.get(timeout=60) == b"hang"


def test_a_batch_that_hangs_keeps_no_message_from_others(url: str) -> None:
    """What was fetched behind it goes back, and nothing else comes until it ends."""
    worker, gate, begun = narrowboat.Worker(url), threading.Event(), queue.Queue[int]()

    @worker.queue("orders", batch=2, timeout=0.05, retry=SOON, breaker=None)
    def ship(batch: Sequence[narrowboat.Message[bytes]]) -> None:
        begun.put(len(batch))
        gate.wait(60)

    with narrowboat.broker(url) as broker:
        broker.queue("orders").publish_many([b"1", b"2", b"3", b"4"])
        with worker:
            until(lambda: state(worker) == "hung" and astuple(broker.queue("orders").depth())[:2] == (4, 0))
            assert begun.qsize() == 1
            gate.set()
            until(lambda: astuple(broker.queue("orders").depth())[:4] == (0, 0, 0, 0))


def test_a_batch_that_does_not_end_keeps_nobody(url: str, log: Log) -> None:
    """The grace time is all that it gets: its messages go back, its thread is left behind, and one line says so."""
    worker, gate, begun = narrowboat.Worker(url, grace=0), threading.Event(), threading.Event()

    @worker.queue("orders", batch=2)
    def ship(batch: Sequence[narrowboat.Message[bytes]]) -> None:
        begun.set()
        gate.wait(60)

    with narrowboat.broker(url) as broker:
        broker.queue("orders").publish(b"1")
        with worker:
            assert begun.wait(60)
        text = "'orders' has ended before 1 of the calls of ship: what those have not settled comes again"
        assert log.next() == ("WARNING", text)
        assert astuple(broker.queue("orders").depth())[:2] == (1, 0)
        gate.set()
