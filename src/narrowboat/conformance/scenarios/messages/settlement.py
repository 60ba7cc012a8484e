"""B21 to B28 and B39: ack, nack and reject: a delivery is settled once, by the consumer that has it, and stays settled."""

from __future__ import annotations

import asyncio
from typing import Any

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.message_kit import MessageKit, asks_for_dead_letters, numbered, publish_all, received
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.users.child import Link
from narrowboat.conformance.users.opening import opened
from narrowboat.errors import NarrowboatError, SettleUnknown, StaleDelivery


@scenario("B21", tier="T", needs="lease=message", refused=demand)
async def acked_stays_away(kit: MessageKit) -> None:
    """An acknowledged message does not come back, also not after its lease would have ended."""
    lease = kit.short_lease
    orders = await kit.filled(b"x", lease=lease)
    async with orders.consume() as messages:
        await kit.comes(messages, b"x")
        await kit.nothing(messages, lease * 2)
        await orders.publish(b"control")
        await kit.comes(messages, b"control")


@scenario("B23")
async def nacked_comes_back_at_once(kit: MessageKit) -> None:
    """A nacked message comes back promptly. Many nacks in a row lose none."""
    orders = await kit.filled(*numbered(5), max_deliveries=0)
    async with orders.consume() as messages:
        for attempt in range(1, 21):
            with kit.within(kit.returned(2.0), "a nack without a delay was delayed"):
                got = await kit.take(messages, 5)
            assert sorted(m.body for m in got) == numbered(5)
            assert {m.attempt for m in got} == {attempt}
            for message in got:
                await message.nack()
    await kit.contains(orders, numbered(5))
    await kit.depth_is(orders, ready=0, in_flight=0)


@scenario("B24", needs="dead_letters", refused=asks_for_dead_letters)
async def rejected_is_a_dead_letter(kit: MessageKit) -> None:
    """A rejected message is not delivered again. It is a dead letter with the reason, after its first attempt."""
    orders = kit.queue()
    receipt = await orders.publish(b"bad")
    async with orders.consume() as messages:
        await (await kit.one(messages)).reject("no such article")
        await kit.nothing(messages)
        letter = await kit.dead_letter(orders)
        assert (letter.id, letter.body) == (receipt.id, b"bad")
        assert (letter.dead.reason, letter.dead.attempts, letter.dead.origin) == ("no such article", 1, "orders")
        await orders.publish(b"good")
        await kit.comes(messages, b"good")


async def _settle(message: Any, how: str) -> None:
    await (message.reject("why") if how == "reject" else getattr(message, how)())


@scenario("B25")
async def the_first_settlement_wins(kit: MessageKit) -> None:
    """Every second settlement of a delivery, of any kind, raises StaleDelivery and changes nothing."""
    orders = kit.queue(max_deliveries=0)
    async with orders.consume() as messages:
        for first in ("ack", "nack"):
            for second in ("ack", "nack", "reject") if kit.can("dead_letters") else ("ack", "nack"):
                await orders.publish(f"{first} {second}".encode())
                message = await kit.one(messages)
                await _settle(message, first)
                assert message.settled
                await fails(StaleDelivery, _settle(message, second))
                if first == "nack":
                    await kit.comes(messages, message.body)  # the late settlement did not change the first one
                await kit.nothing(messages, 0.05)
    await kit.depth_is(orders, ready=0, in_flight=0, dead=0)


@scenario("B26", tier="T", needs="lease=message", refused=demand)
async def a_stale_ack_changes_nothing(kit: MessageKit) -> None:
    """An ack, nack or reject after the lease raises StaleDelivery. The redelivered copy stays and can be settled."""
    async with kit.taken_over(3) as stale:
        await fails(StaleDelivery, stale[0].ack())
        await fails(StaleDelivery, stale[1].nack())
        await fails(StaleDelivery, stale[2].reject("late") if kit.can("dead_letters") else stale[2].nack())


@scenario("B26", faults={Fault.REPLY})
async def an_ack_without_an_answer_is_unknown(kit: MessageKit) -> None:
    """An ack whose exchange failed twice raises SettleUnknown, never StaleDelivery. A second ack then settles."""
    faults, orders = kit.faulty()
    await orders.publish(b"x")
    async with orders.consume() as messages:
        message = await kit.one(messages)
        faults.drop_request("settle", times=3)
        await fails(SettleUnknown, message.ack())
        faults.clear()
        await message.ack()
    await kit.contains(orders, [])


@scenario("B27")
async def an_old_delivery_settles_nothing_new(kit: MessageKit) -> None:
    """After its consumer or its broker was closed, an old delivery settles nothing. The copies of others stay theirs."""
    broker = kit.broker()
    orders, other = broker.queue("orders", max_deliveries=0), kit.queue(max_deliveries=0)
    await publish_all(orders, numbered(2))
    async with orders.consume() as messages:
        old = await kit.take(messages, 2)
    async with other.consume() as theirs:
        copies = await kit.take(theirs, 2)
        for message in old:
            await fails(NarrowboatError, message.ack())
        await broker.close()
        for message in old:
            await fails(NarrowboatError, message.nack())
        await kit.nothing(theirs)
        for copy in copies:
            await copy.ack()
    await kit.depth_is(other, ready=0, in_flight=0)


@scenario("B28")
async def acks_out_of_order_are_kept(kit: MessageKit) -> None:
    """Of five messages the third, first and second are acked in that order. Exactly the others come back."""
    orders = await kit.filled(*numbered(5))
    async with orders.consume() as messages:
        got = {m.body: m for m in await kit.take(messages, 5)}
        for body in (b"2", b"0", b"1"):
            await got[body].ack()
    await kit.contains(kit.queue(), [b"3", b"4"])


@scenario("B28")
async def one_ack_settles_one_message(kit: MessageKit) -> None:
    """An ack of the last of five messages settles that one. The four before it come back."""
    orders = await kit.filled(*numbered(5))
    async with orders.consume() as messages:
        *before, last = await kit.take(messages, 5)
        await last.ack()
    await kit.contains(orders, [message.body for message in before])


def acks_three(link: Link, url: str, lease: float) -> None:
    """A child: receive five, ack the third, first and second, tell, and wait to be killed."""
    with opened(url).queue("orders", lease=lease).consume(auto_extend=False) as messages:
        got = {message.body: message for message in (received(messages) for _ in range(5))}
        for body in (b"2", b"0", b"1"):
            got[body].ack()
        link.tell("acked")
        link.wait("never")


@scenario("B28", "B39", tier="P", needs="scope=host", refused=demand, faults={Fault.PROCESS})
async def acks_out_of_order_survive_a_kill(kit: MessageKit) -> None:
    """A consumer acks three of five messages out of order, and is killed. Exactly the other two come back."""
    lease = kit.short_lease
    orders = await kit.filled(*numbered(5), lease=lease)
    child = await kit.child(acks_three, url=kit.broker_url, lease=lease)
    await child.event("acked")
    child.kill()
    async with orders.consume() as messages:
        got = await kit.take(messages, 2, within=lease + 10, ack=True)
        assert sorted(m.body for m in got) == [b"3", b"4"]
        await kit.nothing(messages, lease)


@scenario("B39")
async def acks_outlive_the_connection(kit: MessageKit) -> None:
    """A message whose ack was answered does not come back when its connection closes and another one opens."""
    broker = kit.broker()
    await publish_all(broker.queue("orders"), numbered(3))
    async with broker.queue("orders").consume() as messages:
        got = await kit.take(messages, 3)
        await asyncio.gather(got[0].ack(), got[2].ack())
    await broker.close()
    await kit.contains(kit.queue(), [got[1].body])
