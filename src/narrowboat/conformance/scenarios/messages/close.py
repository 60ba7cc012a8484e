"""B88 to B92 and B95: close: it ends whatever is under way, promptly, as often as one likes, and loses nothing."""

from __future__ import annotations

import asyncio
import time

import narrowboat
from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.kit import Faults
from narrowboat.conformance.message_kit import MessageKit
from narrowboat.conformance.scenario import scenario
from narrowboat.errors import Closed


@scenario("B88")
async def used_after_close(kit: MessageKit) -> None:
    """Every use after close is Closed; closing twice, a consumer or a broker, is the same as once."""
    broker = kit.broker()
    orders = broker.queue("orders")
    await orders.publish(b"x")
    consumer = orders.consume()
    async with consumer as messages:
        await kit.one(messages)
        await messages.close()
        await messages.close()
        await fails(Closed, messages.receive(0))
    await broker.close()
    await broker.close()
    await fails(Closed, orders.publish(b"y"))
    await fails(Closed, orders.publish_many([b"y"]))
    if kit.can("depth"):
        await fails(Closed, orders.depth())
    await fails(Closed, broker.ping())
    await fails(Closed, lambda: broker.queue("other"))
    assert await kit.drained(kit.queue()) == [b"x"]


@scenario("B89")
async def nothing_before_the_first_use(kit: MessageKit) -> None:
    """Making a broker, queues and topics connects to nothing; closing one that was never used, and stop() early, are fine."""
    broker = kit.broker()
    orders = broker.queue("orders")
    orders.stop()
    assert not kit.seen.calls
    await broker.close()
    assert not kit.seen.calls["open"]
    async with kit.queue().consume() as messages:
        messages.stop()
        assert await messages.receive(5) is None


@scenario("B90")
async def close_wakes_who_waits(kit: MessageKit) -> None:
    """A broker closed under a blocked receive wakes it with Closed, promptly, also with unread messages in its buffer."""
    broker = kit.broker()
    orders = broker.queue("orders")
    async with orders.consume() as messages:

        async def wait() -> float:
            await fails(Closed, messages.receive(60))
            return time.monotonic()

        waiting = [kit.spawn(wait()) for _ in range(3)]
        await kit.eventually(lambda: kit.seen.calls["receive"], what="a look")
        await kit.sleep(0.05)
        closed = time.monotonic()
        await broker.close()
        for task in waiting:
            assert await task - closed < kit.upper(2.0)
    again = kit.broker()
    await again.queue("orders").publish_many([b"0", b"1", b"2"])
    async with again.queue("orders").consume() as messages:
        await kit.one(messages)
        await kit.until_in_flight(again.queue("orders"), 3)
        with kit.within(5.0, "close with unread messages"):
            await again.close()
    assert sorted(await kit.drained(kit.queue())) == [b"0", b"1", b"2"]


@scenario("B90", "B95", faults={Fault.REPLY})
async def close_during_a_publish(kit: MessageKit) -> None:
    """A broker closed under publishes: each ends, promptly, with a receipt or an error, and every receipt is delivered."""
    faults = Faults()
    broker = kit.broker(faults=faults)
    orders = broker.queue("orders")
    gate = faults.hold("send")

    async def publish(n: int) -> str:
        try:
            return (await orders.publish(str(n).encode())).id
        except narrowboat.NarrowboatError:
            return ""

    tasks = [kit.spawn(publish(n)) for n in range(10)]
    assert await kit.blocking(gate.reached.wait, 5)

    closing = kit.spawn(broker.close())
    await kit.sleep(0.05)
    gate.open()
    await closing
    done, pending = await asyncio.wait(tasks, timeout=kit.upper(5))
    assert not pending, "a publish did not end when its broker was closed"
    confirmed = {task.result() for task in done} - {""}
    async with kit.queue().consume() as messages:
        found = {message.id for message in await kit.emptied(messages)}
    assert confirmed and confirmed <= found


@scenario("B91")
async def consumers_close_alone(kit: MessageKit) -> None:
    """Closing one consumer leaves the others and the connection alone."""
    broker = kit.broker()
    orders, other = broker.queue("orders"), broker.queue("other")
    async with orders.consume() as staying, other.consume() as beside:
        async with orders.consume():
            pass
        await orders.publish(b"x")
        await other.publish(b"y")
        assert (await kit.one(staying)).body == b"x"
        assert (await kit.one(beside)).body == b"y"
    assert kit.seen.calls["open"] == 1


@scenario("B92")
async def many_closes_at_once(kit: MessageKit) -> None:
    """Ten closes at once end, and a new broker works."""
    broker = kit.broker()
    await broker.queue("orders").publish(b"x")

    async def close() -> None:
        await broker.close()

    await kit.together(*(close() for _ in range(10)))
    assert await kit.drained(kit.queue()) == [b"x"]


@scenario("B95")
async def what_was_published_before_close_is_there(kit: MessageKit) -> None:
    """Everything that was published before the publisher's close is there for a reader that comes afterwards."""
    broker = kit.broker()
    orders = broker.queue("orders")

    async def publish(n: int) -> None:
        await orders.publish(str(n).encode())

    await kit.together(*(publish(n) for n in range(40)))
    await broker.close()
    assert sorted(map(int, await kit.drained(kit.queue()))) == list(range(40))
