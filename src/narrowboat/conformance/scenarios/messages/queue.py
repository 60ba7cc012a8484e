"""B13, B15 and B18: queues: they keep messages without consumers, consumers share them, a declare or delete harms none."""

from __future__ import annotations

from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.message_kit import MessageKit, numbered, publish_all
from narrowboat.conformance.scenario import scenario
from narrowboat.errors import Conflict, NarrowboatError, NotFound, PublishFailed, PublishUnknown


@scenario("B13")
async def consumers_of_a_queue_share(kit: MessageKit) -> None:
    """Consumers of one queue, on one connection and on several, share its messages: each goes to exactly one."""
    broker = kit.broker()
    await publish_all(broker.queue("orders"), numbered(90))
    await kit.share([broker.queue("orders"), broker.queue("orders"), kit.queue()], 90)


@scenario("B13", "B86", tier="S", seconds=120)
async def consumers_that_are_woken_at_once_share(kit: MessageKit) -> None:
    """Batches wake consumers of eight connections at the same moment: each message comes to one of them, which acks it."""
    orders = kit.queue(lease=kit.long_lease)
    await orders.declare()
    await kit.rush(orders, lambda: kit.queue(lease=kit.long_lease), max(10, int(40 * kit.size)))


@scenario("B15")
async def a_queue_keeps_without_consumers(kit: MessageKit) -> None:
    """A queue that was never consumed from keeps what is published to it, also when the publisher has closed."""
    broker = kit.broker()
    await publish_all(broker.queue("orders"), numbered(3))
    await broker.close()
    await kit.contains(kit.queue(), numbered(3))


@scenario("B18")
async def declaring_again_changes_nothing(kit: MessageKit) -> None:
    """A second declare() keeps the messages. One for another order, or other priorities, is a Conflict, and changes nothing."""
    other = kit.broker()
    lease = max(20.0, kit.broker_claims.lease_min)
    orders = kit.queue(lease=lease)
    await orders.declare()
    await orders.publish(b"x")
    await orders.declare()
    await other.queue("orders", lease=lease).declare()
    for claim, otherwise in (("order", {"ordered": True}), ("priority", {"priorities": 1})):
        if kit.can(claim):
            await fails(Conflict, other.queue("orders", lease=lease, **otherwise).declare())
    await kit.contains(orders, [b"x"])


@scenario("B18")
async def a_queue_deleted_under_its_publisher(kit: MessageKit) -> None:
    """A queue is deleted behind a publisher's back. What a publish confirms then is in the queue made anew."""
    orders = await kit.filled(b"old")
    assert await kit.queue().delete()
    owed = {b"new", b"next"}
    try:
        await orders.publish(b"new")
    except (NotFound, PublishFailed, PublishUnknown):
        owed.remove(b"new")
    await orders.publish(b"next")  # it knows by now
    got: set[bytes] = set()
    async with kit.queue().consume() as messages:
        while not owed <= got:
            message = await kit.one(messages, 10)
            got.add(message.body)
            await message.ack()
    assert b"old" not in got


@scenario("B18")
async def a_queue_deleted_while_consumed(kit: MessageKit) -> None:
    """A queue is deleted under a consumer. The consumer gets NotFound, or goes on with the queue made anew, and never hangs."""
    orders, other = await kit.filled(b"old"), kit.queue()
    async with orders.consume() as messages:
        message = await kit.one(messages)
        assert await other.delete()
        assert not await other.delete(), "the queue could be deleted twice"
        await fails(NarrowboatError, message.ack())
        await other.publish(b"new")
        try:
            again = await messages.receive(kit.upper(5))
        except NotFound:
            return
        assert again is not None, "neither a message nor an error"
        assert again.body == b"new"
        await again.ack()
