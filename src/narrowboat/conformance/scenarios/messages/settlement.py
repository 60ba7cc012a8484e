"""B21 to B28 and B39: ack, nack and reject: each delivery is settled once, by whom it was handed to, and stays so."""

from __future__ import annotations

import asyncio
from typing import Any

import narrowboat
from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.kit import Faults, Kit
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.scenarios.messages.common import (
    asks_for_dead_letters,
    depth_is,
    drained,
    lease_of,
    nothing,
    one,
    take,
)
from narrowboat.conformance.users.child import Link
from narrowboat.conformance.users.opening import opened
from narrowboat.errors import StaleDelivery


@scenario("B21", tier="T", needs="lease=message", refused=demand)
async def acked_stays_away(kit: Kit) -> None:
    """An acknowledged message does not come back, also not after its lease would have ended."""
    lease = lease_of(kit)
    orders = kit.broker().queue("orders", lease=lease)
    await orders.publish(b"x")
    async with orders.consume() as messages:
        await (await one(kit, messages)).ack()
        await nothing(messages, lease * 2)
        await orders.publish(b"control")
        assert (await one(kit, messages)).body == b"control"


@scenario("B23")
async def nacked_comes_back_at_once(kit: Kit) -> None:
    """A nacked message comes back promptly; many nacks in a row keep everything."""
    orders = kit.broker().queue("orders", max_deliveries=0)
    await orders.publish_many([str(n).encode() for n in range(5)])
    async with orders.consume() as messages:
        for attempt in range(1, 21):
            with kit.within(2.0, "a nack without a delay was delayed"):
                got = await take(kit, messages, 5)
            assert sorted(m.body for m in got) == [b"0", b"1", b"2", b"3", b"4"]
            assert {m.attempt for m in got} == {attempt}
            for message in got:
                await message.nack()
        for message in await take(kit, messages, 5):
            await message.ack()
        await nothing(messages)
    await depth_is(kit, orders, ready=0, in_flight=0)


@scenario("B24", needs="dead_letters", refused=asks_for_dead_letters)
async def rejected_is_a_dead_letter(kit: Kit) -> None:
    """A rejected message is not delivered again and is a dead letter with the reason, at its first attempt."""
    orders = kit.broker().queue("orders")
    receipt = await orders.publish(b"bad")
    async with orders.consume() as messages:
        await (await one(kit, messages)).reject("no such article")
        await nothing(messages)
        async with orders.dead_letters().consume() as dead:
            letter = await one(kit, dead)
            assert (letter.id, letter.body) == (receipt.id, b"bad")
            assert letter.dead is not None and letter.dead.reason == "no such article"
            assert (letter.dead.attempts, letter.dead.origin) == (1, "orders")
            await letter.ack()
        await orders.publish(b"good")
        assert (await one(kit, messages)).body == b"good"


@scenario("B25")
async def the_first_settlement_wins(kit: Kit) -> None:
    """Every second settlement of a delivery, of any kind, is StaleDelivery and changes nothing."""
    orders = kit.broker().queue("orders", max_deliveries=0)
    async with orders.consume() as messages:
        for first in ("ack", "nack"):
            for second in ("ack", "nack", "reject") if kit.can("dead_letters") else ("ack", "nack"):
                await orders.publish(f"{first} {second}".encode())
                message = await one(kit, messages)
                await getattr(message, first)()
                assert message.settled
                await fails(StaleDelivery, message.reject("why") if second == "reject" else getattr(message, second)())
                if first == "nack":
                    again = await one(kit, messages)
                    assert again.body == message.body, "the late settlement changed the first one"
                    await again.ack()
                await nothing(messages, 0.05)
    await depth_is(kit, orders, ready=0, in_flight=0, dead=0)


@scenario("B26", tier="T", needs="lease=message", refused=demand)
async def a_stale_ack_changes_nothing(kit: Kit) -> None:
    """An ack, nack or reject after the lease is StaleDelivery; the redelivered copy survives and can be settled."""
    lease = lease_of(kit)
    orders, other = (kit.broker().queue("orders", lease=lease, max_deliveries=0) for _ in range(2))
    await orders.publish_many([b"0", b"1", b"2"])
    async with orders.consume(auto_extend=False) as messages:
        stale = await take(kit, messages, 3)
        async with other.consume() as theirs:
            copies = await take(kit, theirs, 3, lease + kit.broker_claims.lease_lag + 5)
            await fails(StaleDelivery, stale[0].ack())
            await fails(StaleDelivery, stale[1].nack())
            await fails(StaleDelivery, stale[2].reject("late") if kit.can("dead_letters") else stale[2].nack())
            await nothing(messages)
            for copy in copies:
                await copy.ack()
    await depth_is(kit, orders, ready=0, in_flight=0, dead=0)


@scenario("B26", faults={Fault.REPLY})
async def an_ack_without_an_answer_is_unknown(kit: Kit) -> None:
    """An ack whose exchange failed twice is SettleUnknown, never success and never stale; settling again then settles."""
    faults = Faults()
    orders = kit.broker(faults=faults).queue("orders")
    await orders.publish(b"x")
    async with orders.consume() as messages:
        message = await one(kit, messages)
        faults.drop_request("settle", times=3)
        await fails(narrowboat.SettleUnknown, message.ack())
        faults.clear()
        await message.ack()
    assert await drained(orders) == []


@scenario("B27")
async def an_old_delivery_settles_nothing_new(kit: Kit) -> None:
    """After its consumer was closed, or its broker, an old delivery settles nothing: the copies of others stay theirs."""
    broker = kit.broker()
    orders, other = broker.queue("orders", max_deliveries=0), kit.broker().queue("orders", max_deliveries=0)
    await orders.publish_many([b"0", b"1"])
    async with orders.consume() as messages:
        old = await take(kit, messages, 2)
    async with other.consume() as theirs:
        copies = await take(kit, theirs, 2)
        for message in old:
            await fails(narrowboat.NarrowboatError, message.ack())
        await broker.close()
        for message in old:
            await fails(narrowboat.NarrowboatError, message.nack())
        await nothing(theirs)
        for copy in copies:
            await copy.ack()
    await depth_is(kit, other, ready=0, in_flight=0)


@scenario("B28")
async def acks_out_of_order_are_kept(kit: Kit) -> None:
    """Of five messages the third, first and second are acked in that order; exactly the others come back."""
    broker = kit.broker()
    orders = broker.queue("orders")
    await orders.publish_many([str(n).encode() for n in range(1, 6)])
    async with orders.consume() as messages:
        got = {m.body: m for m in await take(kit, messages, 5)}
        for body in (b"3", b"1", b"2"):
            await got[body].ack()
    assert sorted(await drained(kit.broker().queue("orders"))) == [b"4", b"5"]


@scenario("B28")
async def one_ack_settles_one_message(kit: Kit) -> None:
    """Acknowledging the last of five settles that one: the four before it come back."""
    orders = kit.broker().queue("orders")
    await orders.publish_many([str(n).encode() for n in range(5)])
    async with orders.consume() as messages:
        got = await take(kit, messages, 5)
        await got[4].ack()
        left = sorted(m.body for m in got[:4])
    assert sorted(await drained(orders)) == left


def acks_three(link: Link, url: str, lease: float) -> None:
    """A child: receive five, ack the third, first and second, tell, and wait to be killed."""
    with opened(url).queue("orders", lease=lease).consume(auto_extend=False) as messages:
        got: dict[bytes, Any] = {}
        while len(got) < 5:
            message = messages.receive(10)
            assert message is not None
            got[message.body] = message
        for body in (b"3", b"1", b"2"):
            got[body].ack()
        link.tell("acked")
        link.wait("never")


@scenario("B28", "B39", tier="P", needs="scope=host", refused=demand, faults={Fault.PROCESS})
async def acks_out_of_order_survive_a_kill(kit: Kit) -> None:
    """The same with a consumer that is killed: what was acked stays away, exactly the rest comes back."""
    lease = lease_of(kit)
    orders = kit.broker().queue("orders", lease=lease)
    await orders.publish_many([str(n).encode() for n in range(1, 6)])
    child = await kit.child(acks_three, url=kit.broker_url, lease=lease)
    await child.event("acked")
    child.kill()
    async with orders.consume() as messages:
        got = await take(kit, messages, 2, within=lease + 10, ack=True)
        assert sorted(m.body for m in got) == [b"4", b"5"]
        await nothing(messages, lease)


@scenario("B39")
async def acks_outlive_the_connection(kit: Kit) -> None:
    """What was acked with an answer does not come back when its connection closes and another one opens."""
    broker = kit.broker()
    await broker.queue("orders").publish_many([b"0", b"1", b"2"])
    async with broker.queue("orders").consume() as messages:
        got = await take(kit, messages, 3)
        await asyncio.gather(got[0].ack(), got[2].ack())
        left = got[1].body
    await broker.close()
    assert await drained(kit.broker().queue("orders")) == [left]
