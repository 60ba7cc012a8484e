"""B33 and B35 to B38: prefetch: what a consumer has unsettled is bounded, holds up no other message, and comes back."""

from __future__ import annotations

import time

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.message_kit import MessageKit, are_same, numbered, received
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.users.child import Link
from narrowboat.conformance.users.opening import opened


@scenario("B33")
async def dropped_messages_go_back(kit: MessageKit) -> None:
    """A consumer that is left settles nothing. Its unsettled messages come back at once, well before their lease ends."""
    orders = await kit.filled(*numbered(3), lease=kit.long_lease)
    async with orders.consume() as messages:
        await kit.one(messages)
    await kit.contains(orders, numbered(3), within=5)


@scenario("B35")
async def prefetch_bounds_what_is_unsettled(kit: MessageKit) -> None:
    """With prefetch=n no more than n messages are unsettled, buffered ones included, also for the next consumer."""
    orders = await kit.filled(*numbered(12))
    for round in range(2):
        async with orders.consume(prefetch=3) as messages:
            got = await kit.take(messages, 3)
            await kit.nothing(messages)
            await kit.depth_is(orders, in_flight=3, within=0)
            await got[0].ack()
            fourth = await kit.one(messages)
            await kit.depth_is(orders, in_flight=3, within=0)
            assert fourth.body not in {m.body for m in got}
        await kit.depth_is(orders, in_flight=0, ready=11 - round)


@scenario("B36")
async def one_at_a_time(kit: MessageKit) -> None:
    """With prefetch=1 no second message comes until the first is settled. Then it comes promptly."""
    orders = await kit.filled(*numbered(2))
    async with orders.consume(prefetch=1) as messages:
        first = await kit.one(messages)
        waiting = kit.spawn(kit.one(messages))
        await kit.sleep(0.1)
        assert not waiting.done(), "a second message came while the first was unsettled"
        await first.ack()
        second = await waiting
        assert {first.body, second.body} == {b"0", b"1"}
        await second.ack()


@scenario("B37")
async def a_stuck_message_blocks_no_other(kit: MessageKit) -> None:
    """In a source without order an unsettled message holds up no other, not even one of the same key."""
    orders = kit.queue()
    await orders.publish(b"stuck", key="k")
    async with orders.consume(prefetch=1) as stuck:
        message = await kit.one(stuck)
        for body in numbered(10):
            await orders.publish(body, key="k")
        async with orders.consume() as messages:
            got = await kit.take(messages, 10, ack=True)
            are_same(numbered(10), (m.body for m in got))
        await message.ack()


@scenario("B34", "B38", needs="uncounted_release", refused=demand)
async def what_was_not_started_is_not_counted(kit: MessageKit) -> None:
    """A consumer that closes returns at once what it has buffered. Only what was handed out counts as an attempt."""
    orders = await kit.filled(*numbered(10), lease=kit.long_lease)
    async with orders.consume(prefetch=10) as messages:
        started = await kit.one(messages)
        await kit.until_in_flight(orders, 10)
    async with kit.queue(lease=kit.long_lease).consume() as messages:
        got = await kit.take(messages, 10, within=5, ack=True)
    assert {m.body: m.attempt for m in got} == {body: 2 if body == started.body else 1 for body in numbered(10)}


def holds_a_buffer(link: Link, url: str, lease: float) -> None:
    """A child: fetch ten ahead, take one, tell, and wait to be killed."""
    with opened(url).queue("orders", lease=lease).consume(prefetch=10) as messages:
        link.tell("took", body=received(messages).body.decode())
        link.wait("never")


@scenario("B38", tier="P", needs="scope=host", refused=demand, faults={Fault.PROCESS})
async def a_killed_consumers_buffer_comes_back(kit: MessageKit) -> None:
    """A consumer is killed with unsettled and buffered messages. All of them come to others after the lease."""
    lease = kit.short_lease
    orders = await kit.filled(*numbered(10), lease=lease)
    child = await kit.child(holds_a_buffer, url=kit.broker_url, lease=lease)
    await child.event("took")
    if kit.can("depth"):  # else nobody sees from outside what the child has fetched with its first
        await kit.until_in_flight(orders, 10)
    killed = child.kill()
    async with orders.consume() as messages:
        got = await kit.take(messages, 10, within=kit.lapse(lease) + 5, ack=True)
        kit.measure("redelivery after a kill", time.monotonic() - killed, bound=kit.lapse(lease) + 5)
        are_same(numbered(10), (m.body for m in got))
        await kit.nothing(messages)
