"""B88 to B92 and B95: close: it ends what is under way, promptly, as often as it is called, and loses nothing."""

from __future__ import annotations

import asyncio
import time

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.kit import Faults
from narrowboat.conformance.message_kit import MessageKit, numbered, publish_all
from narrowboat.conformance.scenario import scenario
from narrowboat.errors import Closed, NarrowboatError


@scenario("B88")
async def used_after_close(kit: MessageKit) -> None:
    """Every use after close raises Closed. A consumer or a broker can be closed twice."""
    broker = kit.broker()
    orders = broker.queue("orders")
    await orders.publish(b"x")
    async with orders.consume() as messages:
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
    await kit.contains(kit.queue(), [b"x"])


@scenario("B89")
async def nothing_before_the_first_use(kit: MessageKit) -> None:
    """A new broker, queue or topic connects to nothing. It can be closed unused, and stop() may come first."""
    broker = kit.broker()
    broker.queue("orders").stop()
    assert not kit.seen.calls
    await broker.close()
    assert not kit.seen.calls["open"]
    async with kit.queue().consume() as messages:
        messages.stop()
        assert await messages.receive(5) is None


@scenario("B90")
async def close_wakes_who_waits(kit: MessageKit) -> None:
    """A broker that is closed wakes a blocked receive with Closed, promptly, also with unread messages in its buffer."""
    broker = kit.broker()
    async with broker.queue("orders").consume() as messages:

        async def wait() -> float:
            await fails(Closed, messages.receive(60))
            return time.monotonic()

        waiting = [kit.spawn(wait()) for _ in range(3)]
        await kit.eventually(lambda: kit.seen.calls["receive"], what="the consumer asks the driver")
        await kit.sleep(0.05)
        closed = time.monotonic()
        await broker.close()
        for task in waiting:
            took = await task - closed
            assert took < kit.upper(2.0), f"a blocked receive ended {took:.2g} s after the close"
    again = kit.broker()
    orders = again.queue("orders")
    await publish_all(orders, numbered(3))
    async with orders.consume() as messages:
        await kit.one(messages)
        await kit.until_in_flight(orders, 3)
        with kit.within(5.0, "close with unread messages"):
            await again.close()
    await kit.contains(kit.queue(), numbered(3))


@scenario("B90", "B95", faults={Fault.REPLY})
async def close_during_a_publish(kit: MessageKit) -> None:
    """A broker is closed under publishes. Each ends promptly with a receipt or an error, and each receipt is delivered."""
    faults = Faults()
    broker = kit.broker(faults=faults)
    orders = broker.queue("orders")
    gate = faults.hold("send")

    async def publish(body: bytes) -> str:
        try:
            return str((await orders.publish(body)).id)
        except NarrowboatError:
            return ""

    tasks = [kit.spawn(publish(body)) for body in numbered(10)]
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
    assert confirmed and confirmed <= found, f"{len(confirmed)} were confirmed, {len(confirmed - found)} of them are lost"


@scenario("B91")
async def consumers_close_alone(kit: MessageKit) -> None:
    """A consumer that is closed leaves the others and the connection alone."""
    broker = kit.broker()
    orders, other = broker.queue("orders"), broker.queue("other")
    async with orders.consume() as staying, other.consume() as beside:
        async with orders.consume():
            pass
        await orders.publish(b"x")
        await other.publish(b"y")
        await kit.comes(staying, b"x")
        await kit.comes(beside, b"y")
    assert kit.seen.calls["open"] == 1


@scenario("B92")
async def many_closes_at_once(kit: MessageKit) -> None:
    """Ten closes at once end, and a new broker works."""
    broker = kit.broker()
    await broker.queue("orders").publish(b"x")
    await kit.together(*(broker.close() for _ in range(10)))
    await kit.contains(kit.queue(), [b"x"])


@scenario("B95")
async def what_was_published_before_close_is_there(kit: MessageKit) -> None:
    """A reader that comes after the publisher's close gets all that was published."""
    broker = kit.broker()
    orders = broker.queue("orders")
    await kit.together(*(orders.publish(body) for body in numbered(40)))
    await broker.close()
    await kit.contains(kit.queue(), numbered(40))
