"""B32, B93, B94 and B99: run(): what becomes of the message of a handler, and how a run comes to its end."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.message_kit import MessageKit
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.users.child import Link
from narrowboat.conformance.users.opening import opened
from narrowboat.errors import Closed


@scenario("B32", "B34")
async def a_handler_that_raises_nacks(kit: MessageKit) -> None:
    """In run() an exception is a nack with attempts counted up, returning is an ack, and what comes next is handled."""
    orders = kit.queue()
    await orders.publish(b"twice")
    seen: list[tuple[bytes, int, bool]] = []

    async def handle(message: Any) -> None:
        seen.append((message.body, message.attempt, message.redelivered))
        if message.body == b"twice" and message.attempt == 1:
            raise ValueError("not yet")

    async with kit.at_work(orders, handle):
        await kit.eventually(lambda: len(seen) == 2, within=20, what="the second delivery")
        await orders.publish(b"next")
        await kit.eventually(lambda: len(seen) == 3, what="the next message")
    assert seen == [(b"twice", 1, False), (b"twice", 2, True), (b"next", 1, False)]
    await kit.depth_is(orders, ready=0, in_flight=0, delayed=0, dead=0)


@scenario("B32")
async def a_handler_may_settle_itself(kit: MessageKit) -> None:
    """A message that the handler settled is left alone, whether the handler returns or raises afterwards."""
    orders = kit.queue()
    await orders.publish_many([b"ack and raise", b"reject and return"])
    seen: list[bytes] = []

    async def handle(message: Any) -> None:
        seen.append(message.body)
        if message.body == b"ack and raise":
            await message.ack()
            raise ValueError("afterwards")
        await (message.reject("by hand") if kit.can("dead_letters") else message.ack())

    async with kit.at_work(orders, handle):
        await kit.eventually(lambda: len(seen) == 2, what="both handled")
    assert sorted(seen) == [b"ack and raise", b"reject and return"]
    await kit.depth_is(orders, ready=0, in_flight=0, delayed=0, dead=int(kit.can("dead_letters")))


class _Abort(BaseException):
    """What no handler catches."""


@scenario("B32")
async def a_base_exception_settles_nothing(kit: MessageKit) -> None:
    """A BaseException out of a handler ends run(), goes on to its caller, and its message comes back."""
    orders = kit.queue()
    await orders.publish(b"x")

    async def handle(message: Any) -> None:
        raise _Abort

    async def running() -> bool:
        try:
            await orders.run(handle, signals=False)
        except _Abort:
            return True
        return False

    assert await kit.spawn(running()), "the handler's BaseException did not reach the caller of run()"
    async with orders.consume() as messages:
        message = await kit.one(messages)
        assert (message.body, message.attempt) == (b"x", 2)
        await message.ack()


@scenario("B99")
async def one_failing_handler_stops_no_other(kit: MessageKit) -> None:
    """A handler that always fails, beside others on the same connection, stops none of them."""
    broker = kit.broker()
    bad, good = broker.queue("bad", max_deliveries=0), broker.queue("good")
    seen: list[bytes] = []
    failed = asyncio.Event()

    async def fails(message: Any) -> None:
        failed.set()
        raise ValueError("always")

    async def works(message: Any) -> None:
        seen.append(message.body)

    tasks = [kit.spawn(bad.run(fails, signals=False)), kit.spawn(good.run(works, signals=False, concurrency=2))]
    await bad.publish(b"poison")
    await kit.eventually(failed.is_set, what="the bad handler failed")
    for n in range(20):
        await good.publish(str(n).encode())
    await kit.eventually(lambda: len(seen) == 20, what="all good messages")
    good.stop()
    bad.stop()
    for task in tasks:
        await task
    assert sorted(map(int, seen)) == list(range(20))


# -- the end ----------------------------------------------------------------------------------------------------------


async def _at_work(kit: MessageKit, orders: Any, leave: asyncio.Event) -> tuple[asyncio.Task[Any], list[bytes]]:
    """A run whose first handler is at work, and stays so until `leave` is set; and the bodies that were handled."""
    entered = asyncio.Event()
    handled: list[bytes] = []

    async def handle(message: Any) -> None:
        entered.set()
        while not leave.is_set():  # noqa: ASYNC110  # an asyncio.Event cannot be waited for by the sync face's worker thread
            await asyncio.sleep(0.005)
        handled.append(message.body)

    task = kit.spawn(orders.run(handle, signals=False))
    await kit.eventually(entered.is_set, what="a handler runs")
    return task, handled


@scenario("B93")
async def stop_ends_a_run_in_order(kit: MessageKit) -> None:
    """stop() ends run(): what is in a handler is finished and acked, what was only fetched goes back, nothing new begins."""
    orders = kit.queue()
    await orders.publish_many([str(n).encode() for n in range(10)])
    leave = asyncio.Event()
    task, handled = await _at_work(kit, orders, leave)
    orders.stop()
    await kit.depth_is(orders, ready=9, in_flight=1)
    assert not task.done(), "run() did not wait for its handler"
    leave.set()
    await task
    assert len(handled) == 1
    await kit.depth_is(orders, ready=9, in_flight=0)
    if kit.can("uncounted_release"):
        async with orders.consume() as messages:
            assert {m.attempt for m in await kit.take(messages, 9)} == {1}


@scenario("B93")
async def stop_gives_back_what_came_behind_the_handler(kit: MessageKit) -> None:
    """What a backend pushed while the handler was at work goes back at stop() too, not only when that handler is done."""
    orders = kit.queue()
    await orders.publish(b"first")
    leave = asyncio.Event()
    task, _ = await _at_work(kit, orders, leave)
    await kit.queue().publish_many([str(n).encode() for n in range(9)])
    ends = time.monotonic() + 0.3  # a backend that does not push leaves them where they are: nothing to wait for
    while (not kit.can("depth") or (await orders.depth()).ready) and time.monotonic() < ends:  # noqa: ASYNC110  # nobody tells what was pushed
        await asyncio.sleep(0.01)
    orders.stop()
    await kit.depth_is(orders, ready=9, in_flight=1)
    assert not task.done(), "run() did not wait for its handler"
    leave.set()
    await task
    await kit.depth_is(orders, ready=9, in_flight=0)


@scenario("B94")
async def grace_ends(kit: MessageKit) -> None:
    """When the grace time is over run() returns, and what its handlers did not finish goes to peers at once."""
    orders = kit.queue(lease=kit.long_lease)
    peer = kit.queue(lease=kit.long_lease)
    await orders.publish(b"x")
    entered, leave = asyncio.Event(), asyncio.Event()

    async def handle(message: Any) -> None:
        entered.set()
        while not leave.is_set():  # noqa: ASYNC110  # see above
            await asyncio.sleep(0.005)

    task = kit.spawn(orders.run(handle, signals=False, grace=0.2))
    await kit.eventually(entered.is_set, what="the handler runs")
    stopped = time.monotonic()
    orders.stop()
    async with peer.consume() as messages:
        message = await kit.one(messages, 5)
        assert time.monotonic() - stopped >= 0.2, "it was taken away within the grace time"
        assert (message.body, message.attempt) == (b"x", 2)
        await message.ack()
    await asyncio.wait([task], timeout=kit.upper(5))
    assert task.done(), "run() did not return after its grace time"
    leave.set()


def runs_until_terminated(link: Link, url: str) -> None:
    """A child: run a handler that stands until it is told to go on; tell when run() has returned."""
    broker = opened(url)

    def handle(message: Any) -> None:
        link.tell("handling", body=message.body.decode())
        link.wait("go")

    broker.queue("orders").run(handle, grace=20)
    broker.close()
    link.tell("returned")


@scenario("B93", tier="P", needs="scope=host", refused=demand, faults={Fault.PROCESS})
async def sigterm_ends_a_run_in_order(kit: MessageKit) -> None:
    """SIGTERM: the handler finishes and its message is acked, what was fetched goes back at once, the exit code is 0."""
    orders = kit.queue()
    await orders.publish_many([str(n).encode() for n in range(5)])
    child = await kit.child(runs_until_terminated, url=kit.broker_url)
    first = await child.event("handling")
    child.terminate()
    await kit.depth_is(orders, ready=4, in_flight=1)
    child.tell("go")
    await child.event("returned")
    assert await child.exit() == 0
    assert sorted(await kit.drained(orders)) == sorted(str(n).encode() for n in range(5) if str(n) != first["body"])


@scenario("B99")
async def a_run_ends_when_its_broker_closes(kit: MessageKit) -> None:
    """run() ends when its broker is closed, and the handler under way is not left running behind it on asyncio."""
    broker = kit.broker()
    orders = broker.queue("orders")
    handled = asyncio.Event()

    async def handle(message: Any) -> None:
        handled.set()

    task = kit.spawn(orders.run(handle, signals=False))
    await orders.publish(b"x")
    await kit.eventually(handled.is_set, what="handled")
    await broker.close()
    await asyncio.wait([task], timeout=kit.upper(5))
    assert task.done(), "run() outlived its broker"
    assert task.cancelled() or isinstance(task.exception(), Closed | None)
