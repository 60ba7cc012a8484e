"""B22, B30, B31 and B133: leases: a message comes back when its lease ends and not before, and extension keeps it."""

from __future__ import annotations

import time
from typing import Any
from unittest import mock

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


@scenario("B30", tier="T", needs=("lease=message", "extension"), refused=demand)
async def extensions_do_not_add_up(kit: MessageKit) -> None:
    """However often a delivery was extended, its lease ends as long after the last extension as that one says."""
    lease, orders, other = await _two(kit, b"x")
    async with orders.consume(auto_extend=False) as messages:
        message = await kit.one(messages)
        for _ in range(20):
            before = time.monotonic()
            await message.extend(lease)
        after = time.monotonic()
        async with other.consume(auto_extend=False) as theirs:
            again = await kit.one(theirs, kit.lapse(lease) + 5)
            came = time.monotonic()
            assert came - before >= lease, "the message came back before its last extension ended"
            late = came - after - lease
            assert late <= kit.upper(kit.broker_claims.lease_lag), f"it came back {late:g} s after twenty extensions"
            await again.ack()


@scenario("B26", "B30", tier="T", needs="lease=message", refused=demand)
async def a_claim_ends_by_the_clock(kit: MessageKit) -> None:
    """An ack, a nack and an extension after the end of the lease are stale, although nobody has received anything since."""
    lease = kit.short_lease
    orders = await kit.filled(*numbered(3), lease=lease, max_deliveries=0)
    async with orders.consume(auto_extend=False, prefetch=3) as messages:
        first, second, third = await kit.take(messages, 3)
        await kit.sleep(kit.lapse(lease) + 0.1)
        await fails(StaleDelivery, first.ack())
        await fails(StaleDelivery, second.nack())
        await fails(StaleDelivery, third.extend(lease) if kit.can("extension") else third.ack())
    await kit.contains(kit.queue(lease=lease, max_deliveries=0), numbered(3))


@scenario("B133", tier="T", alone=True, needs="lease=message", refused=demand)
async def the_wall_clock_ends_no_lease(kit: MessageKit) -> None:
    """A client whose wall clock jumps by an hour, either way, has its lease for as long as ever, and not for longer."""
    lease, orders, other = await _two(kit)
    true = time.time
    async with orders.consume(auto_extend=False) as messages:
        for jump in (3600.0, -3600.0):
            await orders.publish(b"x")
            before = time.monotonic()
            await kit.one(messages)
            after = time.monotonic()
            with mock.patch("time.time", lambda jump=jump: true() + jump):
                async with other.consume(auto_extend=False) as theirs:
                    again = await kit.one(theirs, kit.lapse(lease) + 5)
                    came = time.monotonic()
                    assert came - before >= lease, f"the wall clock jumped by {jump:g} s, and ended a lease early"
                    late, lag = came - after - lease, kit.broker_claims.lease_lag
                    assert late <= kit.upper(lag), f"the wall clock jumped by {jump:g} s: it came back {late:g} s late"
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
