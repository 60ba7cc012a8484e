"""B53: priority: an urgent message goes first, and only the levels that were declared exist."""

from __future__ import annotations

from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.message_kit import MessageKit
from narrowboat.conformance.scenario import scenario
from narrowboat.errors import InvalidArgument


async def _asks_for_priority(kit: MessageKit) -> None:
    kit.queue(max_deliveries=0, priorities=3)


@scenario("B53", needs="priority", refused=_asks_for_priority)
async def a_higher_priority_goes_first(kit: MessageKit) -> None:
    """A higher priority is delivered first, and within one priority the older message, also after a requeue."""
    orders = kit.queue(max_deliveries=0, priorities=2)
    for n, priority in enumerate((0, 2, 1, 0, 2, 1)):
        await orders.publish(f"{priority}:{n}".encode(), priority=priority)
    async with orders.consume(prefetch=1) as messages:
        first = await kit.one(messages)
        assert (first.body, first.priority) == (b"2:1", 2)
        await first.nack()
        got = await kit.take(messages, 6, ack=True)
    order = [m.body for m in got]
    assert sorted(order[:2]) == [b"2:1", b"2:4"], f"the order is {order}"
    assert order[2:] == [b"1:2", b"1:5", b"0:0", b"0:3"], f"the order is {order}"


@scenario("B53", needs="priority", refused=_asks_for_priority)
async def priorities_have_their_levels(kit: MessageKit) -> None:
    """A priority above the source's levels is an InvalidArgument, and so are more levels than `priorities_max`."""
    broker = kit.broker()
    await fails(InvalidArgument, broker.queue("a", max_deliveries=0, priorities=1).publish(b"x", priority=2))
    await fails(InvalidArgument, broker.queue("b", max_deliveries=0).publish(b"x", priority=1))
    await fails(InvalidArgument, lambda: broker.queue("c", priorities=kit.broker_claims.priorities_max + 1))
    assert not kit.seen.calls["send"]
