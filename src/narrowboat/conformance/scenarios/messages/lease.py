"""B22, B30 and B31: leases: a message comes back when its lease ends and not before, and extension keeps it."""

from __future__ import annotations

import time
from typing import Any

from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.message_kit import MessageKit, numbered, publish_all
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.errors import StaleDelivery


async def _two(kit: MessageKit, *bodies: bytes) -> tuple[float, Any, Any]:
    """A short lease, and the queue `orders` with `bodies` and that lease on two connections."""
    lease = kit.short_lease
    orders, other = kit.queue(lease=lease), kit.queue(lease=lease)
    await publish_all(orders, bodies)
    return lease, orders, other


@scenario("B22", "B34", tier="T", needs="lease=message", refused=demand)
async def unsettled_comes_back_after_its_lease(kit: MessageKit) -> None:
    """An unsettled message comes back after its lease, not before, within `lease_lag`, and counts as an attempt."""
    lease, orders, other = await _two(kit)
    receipt = await orders.publish(b"x")
    async with orders.consume(auto_extend=False) as messages, other.consume(auto_extend=False) as theirs:
        before = time.monotonic()
        first = await kit.one(messages)
        after = time.monotonic()
        assert (first.attempt, first.redelivered) == (1, False)
        again = await kit.one(theirs, kit.lapse(lease) + 5)
        came = time.monotonic()
        assert came - before >= lease, f"it came back {lease - (came - before):g} s before its lease ended"
        late = came - after - lease
        assert late <= kit.upper(kit.broker_claims.lease_lag), f"it came back {late:g} s late"
        kit.measure("redelivery after the lease", max(late, 0.0), bound=kit.broker_claims.lease_lag)
        assert (again.id, again.attempt, again.redelivered) == (receipt.id, 2, True)
        await again.ack()


@scenario("B30", tier="T", needs=("lease=message", "extension"), refused=demand)
async def extended_beyond_the_first_lease(kit: MessageKit) -> None:
    """extend() keeps a delivery past its first lease. The message comes back when the extension ends; then it is stale."""
    lease, orders, other = await _two(kit, b"x")
    async with orders.consume(auto_extend=False) as messages, other.consume(auto_extend=False) as theirs:
        message = await kit.one(messages)
        extended = time.monotonic()
        await message.extend(lease * 3)
        await kit.nothing(theirs, lease * 1.5)
        again = await kit.one(theirs, kit.lapse(lease * 2) + 5)
        assert time.monotonic() - extended >= lease * 3, "the message came back before its extension ended"
        await fails(StaleDelivery, message.extend(lease))
        await fails(StaleDelivery, message.ack())
        await again.ack()


@scenario("B31", tier="T", needs=("lease=message", "extension"), refused=demand)
async def slow_handlers_keep_their_messages(kit: MessageKit) -> None:
    """Automatic extension keeps a message whose handler is slower than the lease, and what is buffered behind it."""
    lease, orders, other = await _two(kit, *numbered(3))
    async with orders.consume(prefetch=3) as messages, other.consume() as theirs:
        message = await kit.one(messages)
        await kit.until_in_flight(orders, 3)
        await kit.nothing(theirs, lease * 3)
        await message.ack()
        await kit.take(messages, 2, ack=True)
    await kit.depth_is(orders, ready=0, in_flight=0)


@scenario("B31", tier="T", needs=("lease=message", "extension"), refused=demand)
async def extension_ends_at_its_limit(kit: MessageKit) -> None:
    """Automatic extension ends after max_extend: a handler that hangs does not keep its message for ever."""
    lease, orders, other = await _two(kit, b"x")
    async with orders.consume(max_extend=lease * 2) as messages, other.consume() as theirs:
        message = await kit.one(messages)
        again = await kit.one(theirs, kit.lapse(lease * 2) + 5)
        assert again.attempt == 2
        await fails(StaleDelivery, message.ack())
        await again.ack()
