"""`worker.test()`: handlers are called by the test alone, on a broker in memory, and what happened is told."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

import narrowboat
from narrowboat import Breaker, Retry, aio
from narrowboat.codecs import JSON
from narrowboat.errors import ConfigurationError, InvalidArgument, LockTimeout, RequestTimeout
from narrowboat.working.recording import Died, Handled, Retried

FACES = {"sync": narrowboat, "asyncio": aio}
Test = Callable[[Any, Any], Awaitable[None]]


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def maybe(value: Any) -> Any:
    """What a call of either face gives."""
    return await value if asyncio.iscoroutine(value) else value


def handler(face: str, function: Callable[[Any], Awaitable[object]]) -> Any:
    """A coroutine function, or a plain one that runs it: nothing in it suspends on the sync face."""
    if face == "asyncio":
        return function

    @functools.wraps(function)
    def plain(argument: Any) -> None:
        try:
            function(argument).__await__().send(None)
        except StopIteration:
            pass

    return plain


def rehearse(face: str, worker: Any, test: Test) -> None:
    """Run `test(worker, its test)` within its block."""

    async def main() -> None:
        if face == "sync":
            with worker.test() as opened:
                await test(worker, opened)
        else:
            async with worker.test() as opened:
                await test(worker, opened)

    asyncio.run(main())


def test_a_drain_tells_what_was_published_handled_retried_and_dead(face: str) -> None:
    """Retries are due by the test's own clock, which the drain moves; a message published by a handler reaches the next one."""
    worker = FACES[face].Worker(around=[])
    shipped: list[Any] = []

    async def ship(message: Any) -> None:
        if message.data == "bad":
            raise KeyError(message.data)
        if message.attempt < 3:
            raise OSError("down")
        await maybe(worker.broker.topic("events").publish(b"shipped", key="k", delay=7))

    async def tell(batch: Any) -> None:
        shipped.extend(message.body for message in batch)

    retry = Retry(first=10, factor=3, jitter=0, drop=(KeyError,))
    worker.queue("orders", codec=JSON, retry=retry, breaker=Breaker(after=1), timeout=5)(handler(face, ship))
    worker.subscription("events", "mail", batch=5)(handler(face, tell))

    async def test(worker: Any, opened: Any) -> None:
        begun = opened.clock()
        await maybe(worker.broker.queue("orders").publish(b'"good"', id="good"))
        await maybe(worker.broker.queue("orders").publish(b'"bad"', id="bad"))
        told = await maybe(opened.drain())
        assert told.retried == [Retried("orders", "good", 1, 10.0), Retried("orders", "good", 2, 30.0)]
        assert told.dead == [Died("orders", "bad", 1, "KeyError: 'bad'")]
        assert [(each.to, each.body, each.key, each.delay) for each in told.published] == [("events", b"shipped", "k", 7.0)]
        assert Handled("orders", "good", 3) in told.handled and len(told.handled) == 2
        assert (shipped, opened.clock() - begun) == ([b"shipped"], 47.0)
        again = await maybe(opened.drain())
        assert (again.published, again.handled, again.retried, again.dead) == ([], [], [], [])

    rehearse(face, worker, test)


def test_a_drain_moves_the_clock_no_further_than_it_may(face: str) -> None:
    """What is due later stays for the next drain."""
    worker = FACES[face].Worker()

    async def ship(message: Any) -> None:
        if message.attempt == 1:
            raise OSError

    worker.queue("orders", retry=Retry(first=60, jitter=0))(handler(face, ship))

    async def test(worker: Any, opened: Any) -> None:
        await maybe(worker.broker.queue("orders").publish(b"1"))
        told = await maybe(opened.drain(within=59))
        assert (len(told.retried), told.handled) == (1, [])
        assert len((await maybe(opened.drain(within=60))).handled) == 1

    rehearse(face, worker, test)


def test_a_message_that_comes_back_for_ever_ends_the_drain(face: str) -> None:
    """With an error that says so."""
    worker = FACES[face].Worker()

    async def ship(message: Any) -> None:
        raise OSError

    worker.queue("orders", max_deliveries=0, retry=Retry(first=0))(handler(face, ship))

    async def test(worker: Any, opened: Any) -> None:
        await maybe(worker.broker.queue("orders").publish(b"1"))
        with pytest.raises(RuntimeError, match="20 calls of handlers, and there are messages still"):
            await maybe(opened.drain(most=20))

    rehearse(face, worker, test)


def test_a_test_leaves_no_trace(face: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Afterwards the worker takes the broker that it was given, or the environment's; one without handlers is refused."""
    monkeypatch.delenv("NARROWBOAT_BROKER_URL", raising=False)
    given = FACES[face].broker("memory://given")
    worker, other = FACES[face].Worker(given), FACES[face].Worker()

    async def test(worker: Any, opened: Any) -> None:
        assert worker.broker is not given
        assert (await maybe(worker.locks.lock("a").try_acquire())).token > 0

    with pytest.raises(ConfigurationError, match="no handlers"):
        rehearse(face, worker, test)

    async def ship(message: Any) -> None: ...

    for each in (worker, other):
        each.queue("orders")(handler(face, ship))
        rehearse(face, each, test)
    assert worker.broker is given
    with pytest.raises(ConfigurationError, match="NARROWBOAT_BROKER_URL"):
        other.broker  # noqa: B018  # the look opens it


def test_a_test_within_a_test_is_refused_and_the_worker_keeps_what_it_had(face: str) -> None:
    """An inner test that ended gave the outer one the real URL: it would have published there."""
    worker: Any = FACES[face].Worker("memory://kept")

    async def ship(message: Any) -> None:
        """Nothing."""

    worker.queue("orders")(handler(face, ship))
    kept = worker.broker

    async def test(worker: Any, opened: Any) -> None:
        lent, inner = worker.broker, worker.test()
        assert lent is not kept
        with pytest.raises(InvalidArgument, match="under test"):
            await maybe(inner.__enter__() if face == "sync" else inner.__aenter__())
        with pytest.raises(InvalidArgument, match="under test"):
            await maybe(worker.run(signals=False))
        assert worker.broker is lent

    rehearse(face, worker, test)
    assert worker.broker is kept
    closed = kept.close()
    if closed is not None:
        asyncio.run(closed)


def test_a_request_is_answered_by_the_handlers_of_the_worker(face: str) -> None:
    """Whoever waits for the reply calls them, in the test and within a handler that is called by a drain."""
    worker: Any = FACES[face].Worker()
    asked: list[Any] = []

    async def double(message: Any) -> None:
        if message.attempt == 1:
            raise OSError("down")  # the reply comes after the delay of its retry
        await maybe(message.reply(message.data * 2))

    async def ask(message: Any) -> None:
        reply = await maybe(worker.broker.queue("double", codec=JSON).request(message.data, timeout=60))
        asked.append(reply.data)

    worker.queue("double", codec=JSON, retry=Retry(first=10, jitter=0))(handler(face, double))
    worker.queue("ask", codec=JSON, timeout=5)(handler(face, ask))

    async def test(worker: Any, opened: Any) -> None:
        reply = await maybe(worker.broker.queue("double", codec=JSON).request(3, timeout=60))
        assert reply.data == 6
        await maybe(worker.broker.queue("ask", codec=JSON).publish(5))
        told = await maybe(opened.drain())
        assert (asked, [each.source for each in told.handled], told.dead) == ([10], ["double", "ask"], [])

    rehearse(face, worker, test)


def test_a_request_that_nobody_answers_times_out(face: str) -> None:
    """By the test's clock, which it moves itself: no test waits for it."""
    worker: Any = FACES[face].Worker()

    async def ship(message: Any) -> None:
        """Answers nothing."""

    worker.queue("orders")(handler(face, ship))

    async def test(worker: Any, opened: Any) -> None:
        for name in ("orders", "nobody"):
            begun = opened.clock()
            with pytest.raises(RequestTimeout):
                await maybe(worker.broker.queue(name).request(b"1", timeout=60))
            assert 60 <= opened.clock() - begun < 70

    rehearse(face, worker, test)


def test_what_is_around_a_publish_is_so_in_a_test(face: str) -> None:
    """A broker that was given it has it in the test as well."""

    @contextlib.contextmanager
    def traced(publishing: Any) -> Iterator[None]:
        publishing.headers["trace"] = "1"
        yield

    worker: Any = FACES[face].Worker(FACES[face].broker("memory://traced", around=[traced]))
    seen: list[Any] = []

    async def ship(message: Any) -> None:
        seen.append(dict(message.headers))

    worker.queue("orders")(handler(face, ship))

    async def test(worker: Any, opened: Any) -> None:
        await maybe(worker.broker.queue("orders").publish(b"1"))
        await maybe(opened.drain())

    rehearse(face, worker, test)
    assert seen == [{"trace": "1"}]


@pytest.mark.timeout(120)
def test_a_busy_lock_moves_the_clock(face: str) -> None:
    """Until it is free, or its timeout is over: nobody else would."""
    worker, ended = FACES[face].Worker(), []

    async def once(message: Any) -> None:
        held = await maybe(worker.locks.lock("nightly", at_least=10).acquire())
        await maybe(held.release())
        ended.append(message.body)

    async def impatient(message: Any) -> None:
        try:
            await maybe(worker.locks.lock("taken", timeout=2).acquire())
        except LockTimeout:
            ended.append(message.body)

    worker.queue("once")(handler(face, once))
    worker.queue("impatient")(handler(face, impatient))

    async def test(worker: Any, opened: Any) -> None:
        await maybe(worker.broker.queue("once").publish_many([b"1", b"2"]))
        begun = opened.clock()
        assert not (await maybe(opened.drain())).dead
        assert (ended, opened.clock() - begun) == ([b"1", b"2"], 10)
        await maybe(worker.locks.lock("taken", ttl=3600).acquire())
        await maybe(worker.broker.queue("impatient").publish(b"3"))
        await maybe(opened.drain())
        assert (ended[2:], opened.clock() - begun) == ([b"3"], 12)

    rehearse(face, worker, test)
