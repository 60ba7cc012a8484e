"""What becomes of the messages of a worker, on both faces; and what all tests of workers share."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest

import narrowboat
from narrowboat import Breaker, Retry, aio
from narrowboat.clock import ManualClock
from narrowboat.codecs import JSON
from narrowboat.contract import Broker, Source
from narrowboat.errors import Unavailable
from narrowboat.layers.faults import Faults
from narrowboat.layers.passing import PassingBroker

FACES = {"sync": narrowboat, "asyncio": aio}
SOON = Retry(first=0.01, factor=1)


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}"


def make(face: str, *arguments: Any, **options: Any) -> Any:
    return FACES[face].Worker(*arguments, **options)


def register(decorate: Any, face: str, function: Callable[[Any], object]) -> None:
    """A plain function as a handler of either face."""

    @functools.wraps(function)
    async def coroutine(argument: Any) -> object:
        return function(argument)

    decorate(function if face == "sync" else coroutine)


@contextlib.contextmanager
def living(worker: Any, face: str) -> Iterator[Any]:
    """Within `with worker` or, on a loop in a thread, `async with worker`. What ends it is raised at the end."""
    if face == "sync":
        with worker:
            yield worker
        return
    entered, raised = threading.Event(), []
    leave: list[Callable[[], object]] = []

    async def main() -> None:
        end = asyncio.Event()
        leave.append(functools.partial(asyncio.get_running_loop().call_soon_threadsafe, end.set))
        async with worker:
            entered.set()
            await end.wait()

    def body() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            raised.append(error)
        entered.set()

    thread = threading.Thread(target=body)
    thread.start()
    assert entered.wait(60)
    try:
        yield worker
    finally:
        with contextlib.suppress(RuntimeError):
            leave[0]()
        thread.join(60)
    if raised:
        raise raised[0]


def until(condition: Callable[[], object]) -> Any:
    """What health says changes in other threads; nobody is told."""
    ends = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < ends, "it did not come about within a minute"
        time.sleep(0.005)
    return found


def state(worker: Any, index: int = 0) -> str:
    return str(worker.health().sources[index].state)


class Log(logging.Handler):
    """The lines of the logger, to be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: queue.Queue[tuple[str, str]] = queue.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "narrowboat_event", "").startswith("connection_"):
            return  # those are the broker's; tests/test_reach.py
        if not record.getMessage().startswith("the worker "):  # it starts, drains and stops in each test
            self.lines.put((record.levelname, record.getMessage()))

    def next(self) -> tuple[str, str]:
        return self.lines.get(timeout=60)


@contextlib.contextmanager
def logged() -> Iterator[Log]:
    handler, logger = Log(), logging.getLogger("narrowboat")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@pytest.fixture
def log() -> Iterator[Log]:
    with logged() as handler:
        yield handler


@pytest.mark.parametrize("scheme", ["memory", "sqlite"])
def test_one_worker_handles_queues_and_subscriptions(face: str, scheme: str, url: str, tmp_path: Path) -> None:
    """Each handler gets the messages of its source, decoded; a batch comes as a sequence, and all of it is acked."""
    url = url if scheme == "memory" else f"sqlite:///{tmp_path}/shop.db"
    worker, got = make(face, url), queue.Queue[Any]()
    register(worker.queue("orders", codec=JSON, concurrency=2), face, lambda message: got.put(message.data))
    register(worker.subscription("prices", "page", batch=10), face, lambda batch: got.put([each.body for each in batch]))

    with living(worker, face), narrowboat.broker(url) as broker:
        until(lambda: worker.health().ready)
        broker.topic("prices").publish_many([b"1", b"2"])
        prices: list[bytes] = []
        while len(prices) < 2:
            prices += got.get(timeout=60)
        broker.queue("orders", codec=JSON).publish({"number": 1})
        assert (prices, got.get(timeout=60)) == ([b"1", b"2"], {"number": 1})
        until(lambda: [source.handled for source in worker.health().sources] >= [1, 1])
        until(lambda: astuple(broker.topic("prices").subscription("page").depth())[:2] == (0, 0))
        until(lambda: astuple(broker.queue("orders").depth())[:2] == (0, 0))


def test_a_retry_is_a_warning_and_a_dead_letter_an_error_once(face: str, url: str, log: Log) -> None:
    """The lines say which attempt of how many, the delay, and where the dead letter is; its reason is the exception."""
    worker = make(face, url, random=lambda: 1.0)

    def ship(message: Any) -> None:
        raise ValueError(f"no stock at {message.attempt}")

    register(worker.queue("orders", max_deliveries=2, retry=SOON), face, ship)
    with living(worker, face), narrowboat.broker(url) as broker:
        broker.queue("orders", max_deliveries=2).publish(b"1", id="first")
        first, second = log.next(), log.next()
        with broker.queue("orders", max_deliveries=2).dead_letters().consume() as dead:
            message = dead.receive(timeout=60)

    head = "the handler ship of 'orders' failed on message 'first': ValueError: no stock at"
    assert first == ("WARNING", f"{head} 1; attempt 1 of 2, again in 0.01 s")
    assert second == ("ERROR", f"{head} 2; dead letter after 2 of 2 (orders.dead)")
    assert message is not None and message.dead is not None and message.dead.reason == "ValueError: no stock at 2"
    assert log.lines.empty()


def test_an_exception_after_settling_does_not_vanish(face: str, url: str, log: Log) -> None:
    """What the handler settled itself is left alone, and the log still says that it failed."""
    worker = make(face, url)

    def refuse(message: narrowboat.Message[bytes]) -> None:
        message.ack()
        raise ValueError("after all")

    async def arefuse(message: aio.Message[bytes]) -> None:
        await message.ack()
        raise ValueError("after all")

    worker.queue("orders")(refuse if face == "sync" else arefuse)
    with living(worker, face), narrowboat.broker(url) as broker:
        broker.queue("orders").publish(b"1")
        level, line = log.next()
    assert (level, line.endswith("ValueError: after all; attempt 1 of 5, after it was settled")) == ("WARNING", True)


def test_a_batch_handler_that_is_cancelled_from_within_ends_nothing(url: str) -> None:
    """A CancelledError of its own is no cancellation of the worker: the batch comes back."""
    worker, attempts = aio.Worker(url), queue.Queue[int]()

    @worker.queue("orders", batch=10)
    async def ship(batch: Sequence[aio.Message[bytes]]) -> None:
        attempts.put(batch[0].attempt)
        if batch[0].attempt == 1:
            raise asyncio.CancelledError

    with living(worker, "asyncio"), narrowboat.broker(url) as broker:
        broker.queue("orders").publish(b"1")
        assert [attempts.get(timeout=60) for _ in range(2)] == [1, 2]


def test_an_exception_that_is_dropped_is_a_dead_letter_at_once(face: str, url: str, log: Log) -> None:
    """So is a body that cannot be decoded; neither counts for the pauses of the source."""
    worker = make(face, url)

    def ship(message: Any) -> None:
        raise KeyError(message.data)

    retry = Retry(drop=(LookupError,))
    register(worker.queue("orders", codec=JSON, retry=retry, breaker=Breaker(after=1)), face, ship)
    with living(worker, face), narrowboat.broker(url) as broker:
        broker.queue("orders").publish_many([b"1", b"{"])
        lines = sorted(log.next() for _ in range(2))
        health = until(lambda: worker.health().sources[0] if worker.health().sources[0].failed == 2 else None)

    assert [level for level, _ in lines] == ["ERROR", "ERROR"]
    assert any(line.endswith("after 1 of 5 (orders.dead), which is not tried again") for _, line in lines)
    assert any(line.endswith("after 1 of 5 (orders.dead), because its body cannot be decoded") for _, line in lines)
    assert (health.state, health.failures_in_a_row) == ("running", 0)


def test_a_batch_that_fails_comes_back_and_what_its_handler_settled_does_not(face: str, url: str, log: Log) -> None:
    """The rest is nacked in one exchange, and told in one line."""
    worker, handled = make(face, url), queue.Queue[Any]()

    async def settle(message: Any) -> None:
        done = message.ack()
        if done is not None:
            await done

    async def take(batch: Any) -> None:
        handled.put([(message.body, message.attempt) for message in batch])
        if len(batch) == 3:
            await settle(batch[0])
            raise OSError("down")

    def take_in_a_thread(batch: Any) -> None:
        with contextlib.suppress(StopIteration):
            take(batch).send(None)

    with narrowboat.broker(url) as broker:
        broker.queue("orders").publish_many([b"1", b"2", b"3"])
        worker.queue("orders", batch=3, retry=SOON)(take_in_a_thread if face == "sync" else take)
        with living(worker, face):
            assert handled.get(timeout=60) == [(b"1", 1), (b"2", 1), (b"3", 1)]
            again: list[Any] = []
            while len(again) < 2:
                again += handled.get(timeout=60)
            until(lambda: astuple(broker.queue("orders").depth())[:4] == (0, 0, 0, 0))

    assert sorted(again) == [(b"2", 2), (b"3", 2)]
    assert "failed on 2 messages from" in log.next()[1]


@pytest.mark.parametrize(
    ("error", "traced"), [(Unavailable("the other backend has no answer"), False), (OSError("down"), True)]
)
def test_an_outage_of_ours_is_told_without_a_traceback(
    face: str, url: str, error: Exception, traced: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It is met at each message: an hour of tracebacks would fill a disk, and the text says all."""
    worker, again = make(face, url), threading.Event()

    def take(message: Any) -> None:
        if message.attempt == 1:
            raise error
        again.set()

    register(worker.queue("orders", retry=SOON), face, take)
    with caplog.at_level(logging.WARNING, "narrowboat"), narrowboat.broker(url) as broker, living(worker, face):
        broker.queue("orders").publish(b"1")
        assert again.wait(60)
    told = [record for record in caplog.records if str(error) in record.getMessage()]
    assert [record.exc_info is not None for record in told] == [traced]


def test_an_ack_that_is_lost_is_told(face: str, url: str, log: Log) -> None:
    """The handler has returned and the message comes again: one warning says both."""
    faults, attempts = Faults(), queue.Queue[int]()
    broker = FACES[face].broker(url, wrap=faults.wrap)
    worker = make(face, broker)
    register(worker.queue("orders"), face, lambda message: attempts.put(message.attempt))
    for _ in range(4):  # each settlement is tried twice, and `run` tries it once more
        faults.fail("settle", Unavailable("no route to it", backend="memory"))
    with living(worker, face), narrowboat.broker(url) as other:
        other.queue("orders").publish(b"1")
        level, line = log.next()
    assert (level, attempts.get(timeout=60)) == ("WARNING", 1)
    assert line.startswith("the handler <lambda> of 'orders' returned, but 1 of its messages could not be acked and may come ")
    assert "no route to it" in line and log.lines.empty()
    close = broker.close()
    if close is not None:
        asyncio.run(close)


@pytest.mark.parametrize("batch", [None, 1])
def test_a_lease_that_ended_before_the_handler_returned_is_told(face: str, url: str, log: Log, batch: int | None) -> None:
    """Another consumer has the message by then."""
    clock, again = ManualClock(), threading.Event()
    worker = make(face, url, clock=clock)

    def slow(given: Any) -> None:
        if (given if batch is None else given[0]).attempt > 1:
            again.set()
        else:
            clock.advance(31)

    register(worker.queue("orders", batch=batch, lease=30, max_extend=0), face, slow)
    with living(worker, face), narrowboat.broker(url, clock=clock) as broker:
        broker.queue("orders").publish(b"1", id="first")
        level, line = log.next()
        assert again.wait(60)
    assert level == "WARNING" and "'first'" in line
    assert "1 of its messages could not be acked and may come again" in line
    assert log.lines.empty()


class Slow(PassingBroker):
    """Declares a subscription when a message was handled, or at the fifth try."""

    def __init__(self, inner: Broker, handled: threading.Event) -> None:
        super().__init__(inner)
        self.handled = handled
        self.tries = 0

    def declare(self, source: Source, *, earliest: bool) -> None:
        if source.address.group:
            self.tries += 1
            if self.tries < 5 and not self.handled.is_set():
                raise Unavailable("not yet")
        self.inner.declare(source, earliest=earliest)


@pytest.mark.parametrize("by", ["queue", "schedule"])
def test_what_a_handler_publishes_at_the_first_start_reaches_the_worker_s_subscriptions(face: str, by: str, url: str) -> None:
    """Nothing is consumed before all sources are declared: until then a topic drops what is published."""
    handled, got = threading.Event(), queue.Queue[bytes]()
    with narrowboat.broker(url, wrap=lambda inner: Slow(inner, handled)) as made, narrowboat.broker(url) as other:
        other.queue("orders").publish(b"1")
        broker: Any = made if face == "sync" else aio.broker(url, wrap=lambda inner: Slow(inner, handled))
        worker = make(face, broker)

        def order(argument: Any) -> None:
            if not handled.is_set():  # ticks come again
                other.topic("shipped").publish(b"1")
            handled.set()

        register(worker.queue("orders") if by == "queue" else worker.every(0.05), face, order)
        register(worker.subscription("shipped", "mail"), face, lambda message: got.put(message.body))
        with living(worker, face):
            assert got.get(timeout=60) == b"1"
        if face == "asyncio":
            asyncio.run(broker.close())
