"""A worker on both faces: what becomes of messages, of a downstream that fails, of a backend that is away, of bad input."""

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
from pathlib import Path
from typing import Any

import pytest

import narrowboat
from narrowboat import Breaker, Retry, aio
from narrowboat.clock import ManualClock
from narrowboat.codecs import JSON
from narrowboat.errors import AccessDenied, ConfigurationError, Conflict, Unavailable
from narrowboat.layers.faults import Faults
from narrowboat.working import Handling

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
        self.lines.put((record.levelname, record.getMessage()))

    def next(self) -> tuple[str, str]:
        return self.lines.get(timeout=60)


@pytest.fixture
def log() -> Iterator[Log]:
    handler, logger = Log(), logging.getLogger("narrowboat")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


# -- messages -----------------------------------------------------------------------------------------------------


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
        until(lambda: broker.topic("prices").subscription("page").depth()[:2] == (0, 0))
        until(lambda: broker.queue("orders").depth()[:2] == (0, 0))


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
            until(lambda: broker.queue("orders").depth()[:4] == (0, 0, 0, 0))

    assert sorted(again) == [(b"2", 2), (b"3", 2)]
    assert "failed on 2 messages from" in log.next()[1]


def test_around_is_ordered_and_sees_what_the_handler_raises(face: str, url: str) -> None:
    """The first is outermost; one that swallows an exception makes it a success."""
    told: queue.Queue[Any] = queue.Queue()

    def around(name: str, *, swallow: bool = False) -> Any:
        @contextlib.contextmanager
        def plain(handling: Handling) -> Iterator[None]:
            told.put((name, handling.source, handling.handler, [message.body for message in handling.messages]))
            try:
                yield
            except ValueError:
                told.put((name, "ValueError"))
                if not swallow:
                    raise

        @contextlib.asynccontextmanager
        async def asynchronous(handling: Handling) -> Any:
            with plain(handling):
                yield

        return plain if face == "sync" else asynchronous

    worker = make(face, url, around=[around("outer", swallow=True), around("inner")])

    def ship(message: Any) -> None:
        raise ValueError

    register(worker.queue("orders"), face, ship)
    with living(worker, face), narrowboat.broker(url) as broker:
        broker.queue("orders").publish(b"1")
        assert [told.get(timeout=60) for _ in range(4)] == [
            ("outer", "orders", "ship", [b"1"]),
            ("inner", "orders", "ship", [b"1"]),
            ("inner", "ValueError"),
            ("outer", "ValueError"),
        ]
        until(lambda: worker.health().sources[0].handled == 1)
        assert worker.health().sources[0].failed == 0


# -- time ---------------------------------------------------------------------------------------------------------


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
        until(lambda: state(worker) == "paused" and orders.depth()[:2] == (5, 0))
        until(lambda: worker.health().sources[0].failed == 3 + begun.qsize())  # a fourth may have begun before the pause
        while begun.qsize():
            begun.get()
        gate.clear()
        clock.advance(10)
        begun.get(timeout=60)
        assert (orders.depth()[:2], state(worker)) == ((4, 1), "probing")
        gate.set()
        until(lambda: state(worker) == "paused" and orders.depth()[:2] == (5, 0))


# -- what fails ---------------------------------------------------------------------------------------------------


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
        broker.queue("orders", max_deliveries=3).declare()
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
            until(lambda: broker.queue("orders").depth()[:2] == (2, 1))
            assert state(worker) == "draining"
            finish.set()
        assert broker.queue("orders").depth()[:2] == (2, 0)
        with living(worker, face):
            assert begun.acquire(timeout=60) and begun.acquire(timeout=60)
            until(lambda: broker.queue("orders").depth()[:2] == (0, 0))


def test_a_cancelled_run_gives_back_what_it_has(url: str) -> None:
    """On asyncio `run` is a coroutine as any other: its handlers are cancelled with it."""

    async def main() -> None:
        worker, begun = aio.Worker(url), asyncio.Event()

        @worker.queue("orders")
        async def ship(message: aio.Message[bytes]) -> None:
            begun.set()
            await asyncio.sleep(600)

        async with aio.broker(url) as broker:
            orders = broker.queue("orders")
            await orders.publish(b"1")
            running = asyncio.create_task(worker.run(signals=False))
            await asyncio.wait_for(begun.wait(), 60)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
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
