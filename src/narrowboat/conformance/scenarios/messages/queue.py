"""B13, B15 and B18: queues: they keep what nobody consumes yet, consumers share them, a declaration or deletion harms none."""

from __future__ import annotations

from typing import Any

from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.message_kit import MessageKit
from narrowboat.conformance.scenario import scenario
from narrowboat.errors import Conflict, NarrowboatError, NotFound


@scenario("B13")
async def consumers_of_a_queue_share(kit: MessageKit) -> None:
    """Consumers of one queue, on one connection and on several, share its messages: each goes to exactly one."""
    broker, total = kit.broker(), 90
    done: list[int] = []
    await broker.queue("orders").publish_many([str(n).encode() for n in range(total)])

    async def member(own: Any) -> None:
        async with own.queue("orders").consume(prefetch=5) as messages:
            while len(done) < total and (message := await messages.receive(0.3)) is not None:
                done.append(int(message.body))
                await message.ack()

    await kit.together(member(broker), member(broker), member(kit.broker()))
    assert sorted(done) == list(range(total))


@scenario("B15")
async def a_queue_keeps_without_consumers(kit: MessageKit) -> None:
    """What is published to a queue that nobody has ever consumed is kept, also when its publisher has closed."""
    broker = kit.broker()
    await broker.queue("orders").publish_many([b"0", b"1", b"2"])
    await broker.close()
    assert sorted(await kit.drained(kit.queue())) == [b"0", b"1", b"2"]


@scenario("B18")
async def declaring_again_changes_nothing(kit: MessageKit) -> None:
    """declare() is idempotent and keeps the messages; other properties are a Conflict that changes nothing."""
    broker, other = kit.broker(), kit.broker()
    lease = max(20.0, kit.broker_claims.lease_min)
    orders = broker.queue("orders", lease=lease)
    await orders.declare()
    await orders.publish(b"x")
    await orders.declare()
    await other.queue("orders", lease=lease).declare()
    await fails(Conflict, other.queue("orders", lease=lease + 10).declare())
    assert await kit.drained(orders) == [b"x"]


@scenario("B18")
async def a_queue_deleted_while_consumed(kit: MessageKit) -> None:
    """A queue deleted under a consumer: the consumer gets a typed error or goes on with the queue made anew; no hang."""
    broker, other = kit.broker(), kit.broker()
    orders = broker.queue("orders")
    await orders.publish(b"old")
    async with orders.consume() as messages:
        message = await kit.one(messages)
        assert await other.queue("orders").delete()
        assert not await other.queue("orders").delete(), "it was there twice"
        await fails(NarrowboatError, message.ack())
        await other.queue("orders").publish(b"new")
        try:
            again = await messages.receive(kit.upper(5))
        except NotFound:
            return
        assert again is not None, "neither a message nor an error"
        assert again.body == b"new"
        await again.ack()
