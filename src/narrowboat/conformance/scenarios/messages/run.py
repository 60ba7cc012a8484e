"""B32, B93, B94 and B99: run(): what becomes of the message of a handler, and how a run ends."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.message_kit import MessageKit, are_same, numbered, publish_all
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.users.child import Link
from narrowboat.conformance.users.opening import opened
from narrowboat.errors import Closed


@scenario("B32", "B34")
async def a_handler_that_raises_nacks(kit: MessageKit) -> None:
    """In run() an exception is a nack and counts as an attempt, a return is an ack, and the next message is handled."""
    orders = await kit.filled(b"twice")
    seen: list[tuple[bytes, int, bool]] = []

    async def handle(message: Any) -> None:
        seen.append((message.body, message.attempt, message.redelivered))
        if message.body == b"twice" and message.attempt == 1:
            raise ValueError("not yet")

    async with kit.at_work(orders, handle):
        await kit.eventually(lambda: len(seen) == 2, within=20, what="the message is delivered twice")
        await orders.publish(b"next")
        await kit.eventually(lambda: len(seen) == 3, what="the next message is handled")
    assert seen == [(b"twice", 1, False), (b"twice", 2, True), (b"next", 1, False)]
    await kit.depth_is(orders, ready=0, in_flight=0, delayed=0, dead=0)


@scenario("B32")
async def a_handler_may_settle_itself(kit: MessageKit) -> None:
    """run() leaves a message alone that its handler has settled, whether the handler returns or raises afterwards."""
    orders = await kit.filled(b"ack and raise", b"reject and return")
    seen: list[bytes] = []

    async def handle(message: Any) -> None:
        seen.append(message.body)
        if message.body == b"ack and raise":
            await message.ack()
            raise ValueError("afterwards")
        await (message.reject("by hand") if kit.can("dead_letters") else message.ack())

    async with kit.at_work(orders, handle):
        await kit.eventually(lambda: len(seen) == 2, what="both messages are handled")
    assert sorted(seen) == [b"ack and raise", b"reject and return"]
    await kit.depth_is(orders, ready=0, in_flight=0, delayed=0, dead=int(kit.can("dead_letters")))


class _Abort(BaseException):
    """An error that no handler catches."""


@scenario("B32")
async def a_base_exception_settles_nothing(kit: MessageKit) -> None:
    """A BaseException in a handler ends run() and reaches its caller. The message comes back."""
    orders = await kit.filled(b"x")

    async def handle(message: Any) -> None:
        raise _Abort

    async def runs() -> bool:
        try:
            await orders.run(handle, signals=False)
        except _Abort:
            return True
        return False

    assert await kit.spawn(runs()), "the handler's BaseException did not reach the caller of run()"
    async with orders.consume() as messages:
        await kit.comes(messages, b"x", attempt=2)


@scenario("B99")
async def one_failing_handler_stops_no_other(kit: MessageKit) -> None:
    """A handler that always fails stops no other handler of the same connection."""
    broker = kit.broker()
    bad, good = broker.queue("bad", max_deliveries=0), broker.queue("good")
    seen: list[bytes] = []
    failed = asyncio.Event()

    async def fails(message: Any) -> None:
        failed.set()
        raise ValueError("always")

    async def works(message: Any) -> None:
        seen.append(message.body)

    async with kit.at_work(bad, fails), kit.at_work(good, works, concurrency=2):
        await bad.publish(b"poison")
        await kit.eventually(failed.is_set, what="the bad handler is called")
        for body in numbered(20):
            await good.publish(body)
        await kit.eventually(lambda: len(seen) == 20, what="all good messages are handled")
    are_same(numbered(20), seen)


# -- the end ----------------------------------------------------------------------------------------------------------


class _Slow:
    """A handler that stands still until `leave()`, and what it has handled."""

    def __init__(self) -> None:
        self._left = False
        self.entered = False
        self.handled: list[bytes] = []

    async def handle(self, message: Any) -> None:
        """Stand still, and note the body."""
        self.entered = True
        while not self._left:  # noqa: ASYNC110  # the sync face's worker thread cannot wait for an asyncio.Event
            await asyncio.sleep(0.005)
        self.handled.append(message.body)

    def leave(self) -> None:
        """Let it return, now and whenever it is called again."""
        self._left = True


async def _handling(kit: MessageKit, orders: Any, slow: _Slow, **terms: Any) -> asyncio.Task[Any]:
    """A run of `orders` whose handler has begun, and stands still."""
    task = kit.spawn(orders.run(slow.handle, signals=False, **terms))
    await kit.eventually(lambda: slow.entered, what="a handler runs")
    return task


async def _stops_in_order(kit: MessageKit, orders: Any, slow: _Slow, task: asyncio.Task[Any]) -> None:
    """stop() returns nine messages at once, waits for the handler of the tenth, and acks that one."""
    orders.stop()
    await kit.depth_is(orders, ready=9, in_flight=1)
    assert not task.done(), "run() did not wait for its handler"
    slow.leave()
    await task
    assert len(slow.handled) == 1, f"run() handled {slow.handled} after stop()"
    await kit.depth_is(orders, ready=9, in_flight=0)


@scenario("B93")
async def stop_ends_a_run_in_order(kit: MessageKit) -> None:
    """After stop() a run finishes and acks what its handler has, returns what was only fetched, and begins nothing new."""
    orders, slow = await kit.filled(*numbered(10)), _Slow()
    await _stops_in_order(kit, orders, slow, await _handling(kit, orders, slow))
    if kit.can("uncounted_release"):
        async with orders.consume() as messages:
            assert {m.attempt for m in await kit.take(messages, 9)} == {1}


@scenario("B93")
async def stop_gives_back_what_came_behind_the_handler(kit: MessageKit) -> None:
    """stop() returns at once what the backend pushed behind a handler at work, and does not wait for that handler."""
    orders, slow = await kit.filled(b"first"), _Slow()
    task = await _handling(kit, orders, slow)
    await publish_all(kit.queue(), numbered(9))
    ends = time.monotonic() + 0.3  # a backend that does not push leaves them where they are: nothing to wait for
    while (not kit.can("depth") or (await orders.depth()).ready) and time.monotonic() < ends:  # noqa: ASYNC110  # nobody tells what was pushed
        await asyncio.sleep(0.01)
    await _stops_in_order(kit, orders, slow, task)


@scenario("B94")
async def grace_ends(kit: MessageKit) -> None:
    """When the grace time is over run() returns, and peers get at once what its handlers did not finish."""
    orders, slow = await kit.filled(b"x", lease=kit.long_lease), _Slow()
    task = await _handling(kit, orders, slow, grace=0.2)
    stopped = time.monotonic()
    orders.stop()
    async with kit.queue(lease=kit.long_lease).consume() as messages:
        message = await kit.one(messages)
        assert time.monotonic() - stopped >= 0.2, "a peer got the message within the grace time"
        assert (message.body, message.attempt) == (b"x", 2)
        await message.ack()
    await asyncio.wait([task], timeout=kit.upper(5))
    assert task.done(), "run() did not return after its grace time"
    slow.leave()


def runs_until_terminated(link: Link, url: str) -> None:
    """A child: run a handler that stands still until it is told to go on; tell when run() has returned."""
    broker = opened(url)

    def handle(message: Any) -> None:
        link.tell("handling", body=message.body.decode())
        link.wait("go")

    broker.queue("orders").run(handle, grace=20)
    broker.close()
    link.tell("returned")


@scenario("B93", tier="P", needs="scope=host", refused=demand, faults={Fault.PROCESS})
async def sigterm_ends_a_run_in_order(kit: MessageKit) -> None:
    """After SIGTERM a run acks what its handler has and returns at once what was only fetched. The exit code is 0."""
    orders = await kit.filled(*numbered(5))
    child = await kit.child(runs_until_terminated, url=kit.broker_url)
    first = await child.event("handling")
    child.terminate()
    await kit.depth_is(orders, ready=4, in_flight=1)
    child.tell("go")
    await child.event("returned")
    assert await child.exit() == 0
    await kit.contains(orders, [body for body in numbered(5) if body != first["body"].encode()])


@scenario("B99")
async def a_run_ends_when_its_broker_closes(kit: MessageKit) -> None:
    """run() ends when its broker is closed. On asyncio the handler under way does not outlive it."""
    broker = kit.broker()
    orders = broker.queue("orders")
    handled = asyncio.Event()

    async def handle(message: Any) -> None:
        handled.set()

    task = kit.spawn(orders.run(handle, signals=False))
    await orders.publish(b"x")
    await kit.eventually(handled.is_set, what="the message is handled")
    await broker.close()
    await asyncio.wait([task], timeout=kit.upper(5))
    assert task.done(), "run() outlived its broker"
    assert task.cancelled() or isinstance(task.exception(), Closed | None)
