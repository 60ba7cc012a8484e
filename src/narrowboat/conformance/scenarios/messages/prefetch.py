"""B33 and B35 to B38: prefetch: what a consumer has out is bounded, holds up nothing else, and comes back when it is gone."""

from __future__ import annotations

import time

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.kit import Kit
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.scenarios.messages.common import depth_is, lease_of, nothing, one, take, until_in_flight
from narrowboat.conformance.users.child import Link
from narrowboat.conformance.users.opening import opened


@scenario("B33")
async def dropped_messages_go_back(kit: Kit) -> None:
    """Leaving a consumer settles nothing: what was handed out and dropped comes back at once, well before its lease ends."""
    orders = kit.broker().queue("orders", lease=max(30.0, kit.broker_claims.lease_min))
    await orders.publish_many([b"0", b"1", b"2"])
    async with orders.consume() as messages:
        await one(kit, messages)
    async with orders.consume() as messages:
        got = await take(kit, messages, 3, within=5, ack=True)
    assert sorted(m.body for m in got) == [b"0", b"1", b"2"]


@scenario("B35")
async def prefetch_bounds_what_is_unsettled(kit: Kit) -> None:
    """With prefetch=n no more than n messages are unsettled, buffered ones included, also for the next consumer."""
    orders = kit.broker().queue("orders")
    await orders.publish_many([str(n).encode() for n in range(12)])
    for round in range(2):
        async with orders.consume(prefetch=3) as messages:
            got = await take(kit, messages, 3)
            await nothing(messages)
            await depth_is(kit, orders, in_flight=3, within=0)
            await got[0].ack()
            fourth = await one(kit, messages)
            await depth_is(kit, orders, in_flight=3, within=0)
            assert fourth.body not in {m.body for m in got}
        await depth_is(kit, orders, in_flight=0, ready=11 - round)


@scenario("B36")
async def one_at_a_time(kit: Kit) -> None:
    """With prefetch=1 nothing new comes until the message in hand is settled, and then it comes promptly."""
    orders = kit.broker().queue("orders")
    await orders.publish_many([b"0", b"1"])
    async with orders.consume(prefetch=1) as messages:
        first = await one(kit, messages)
        waiting = kit.spawn(one(kit, messages))
        await kit.sleep(0.1)
        assert not waiting.done(), "a second message came while the first was unsettled"
        await first.ack()
        second = await waiting
        assert {first.body, second.body} == {b"0", b"1"}
        await second.ack()


@scenario("B37")
async def a_stuck_message_blocks_no_other(kit: Kit) -> None:
    """Where no order is asked for, a message that is not settled, even one of the same key, holds up no other."""
    orders = kit.broker().queue("orders")
    await orders.publish(b"stuck", key="k")
    async with orders.consume(prefetch=1) as stuck:
        message = await one(kit, stuck)
        for n in range(10):
            await orders.publish(str(n).encode(), key="k")
        async with orders.consume() as messages:
            got = await take(kit, messages, 10, ack=True)
            assert sorted(int(m.body) for m in got) == list(range(10))
        await message.ack()


@scenario("B34", "B38", needs="uncounted_release", refused=demand)
async def what_was_not_started_is_not_counted(kit: Kit) -> None:
    """A clean close returns what was only fetched ahead, at once and uncounted; what was handed out is counted."""
    orders = kit.broker().queue("orders", lease=max(30.0, kit.broker_claims.lease_min))
    await orders.publish_many([str(n).encode() for n in range(10)])
    async with orders.consume(prefetch=10) as messages:
        started = await one(kit, messages)
        await until_in_flight(kit, orders, 10)
    async with kit.broker().queue("orders", lease=max(30.0, kit.broker_claims.lease_min)).consume() as messages:
        got = await take(kit, messages, 10, within=5, ack=True)
    assert {m.body: m.attempt for m in got} == {str(n).encode(): 2 if str(n).encode() == started.body else 1 for n in range(10)}


def holds_a_buffer(link: Link, url: str, lease: float) -> None:
    """A child: fetch ten ahead, take one, tell, and wait to be killed."""
    with opened(url).queue("orders", lease=lease).consume(prefetch=10) as messages:
        message = messages.receive(10)
        assert message is not None
        link.tell("took", body=message.body.decode())
        link.wait("never")


@scenario("B38", tier="P", needs="scope=host", refused=demand, faults={Fault.PROCESS})
async def a_killed_consumers_buffer_comes_back(kit: Kit) -> None:
    """What a killed consumer had fetched and not handled comes back to others after the lease, all of it."""
    lease = lease_of(kit)
    orders = kit.broker().queue("orders", lease=lease)
    await orders.publish_many([str(n).encode() for n in range(10)])
    child = await kit.child(holds_a_buffer, url=kit.broker_url, lease=lease)
    await child.event("took")
    await until_in_flight(kit, orders, 10)
    killed = child.kill()
    async with orders.consume() as messages:
        got = await take(kit, messages, 10, within=lease + kit.broker_claims.lease_lag + 5, ack=True)
        kit.measure("redelivery after a kill", time.monotonic() - killed)
        assert sorted(int(m.body) for m in got) == list(range(10))
        await nothing(messages)
