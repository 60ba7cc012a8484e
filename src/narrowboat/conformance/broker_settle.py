"""B21 to B39: leases, acknowledgement and what comes back."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import narrowboat
from narrowboat.conformance.broker_common import (
    depth_is,
    drained,
    lease_of,
    nothing,
    one,
    raises,
    take,
    take_acked,
    until_in_flight,
)
from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.child import Link
from narrowboat.conformance.kit import Faults, Kit
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.errors import StaleDelivery

LEASED = demand("lease=message")


@scenario("B21", tier="T", needs="lease=message", refused=LEASED)
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


@scenario("B22", "B34", tier="T", needs="lease=message", refused=LEASED)
async def unsettled_comes_back_after_its_lease(kit: Kit) -> None:
    """An unsettled message comes back after its lease, not before, within the declared lag, and is counted."""
    lease = lease_of(kit)
    orders, other = (kit.broker().queue("orders", lease=lease) for _ in range(2))
    receipt = await orders.publish(b"x")
    async with orders.consume(auto_extend=False) as messages, other.consume(auto_extend=False) as theirs:
        before = time.monotonic()
        first = await one(kit, messages)
        after = time.monotonic()
        assert (first.attempt, first.redelivered) == (1, False)
        again = await one(kit, theirs, lease + kit.broker_claims.lease_lag + 5)
        came = time.monotonic()
        assert came - before >= lease, f"it came back {lease - (came - before):g} s before its lease ended"
        late = came - after - lease
        assert late <= kit.upper(kit.broker_claims.lease_lag), f"it came back {late:g} s late"
        kit.measure("redelivery after the lease", max(late, 0.0))
        assert (again.id, again.attempt, again.redelivered) == (receipt.id, 2, True)
        await again.ack()


@scenario("B23")
async def nacked_comes_back_at_once(kit: Kit) -> None:
    """A nacked message comes back promptly; many nacks in a row keep everything."""
    orders = kit.broker().queue("orders", max_deliveries=0)
    await orders.publish_many([str(n).encode() for n in range(5)])
    async with orders.consume() as messages:
        for attempt in range(1, 21):
            begun = time.monotonic()
            got = await take(kit, messages, 5)
            assert sorted(m.body for m in got) == [b"0", b"1", b"2", b"3", b"4"]
            assert {m.attempt for m in got} == {attempt}
            assert time.monotonic() - begun < kit.upper(2.0), "a nack without a delay was delayed"
            for message in got:
                await message.nack()
        for message in await take(kit, messages, 5):
            await message.ack()
        await nothing(messages)
    await depth_is(kit, orders, ready=0, in_flight=0)


async def _asks_for_dead_letters(kit: Kit) -> None:
    kit.broker().queue("orders").dead_letters()


@scenario("B24", needs="dead_letters", refused=_asks_for_dead_letters)
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
            for second in ("ack", "nack", "reject"):
                await orders.publish(f"{first} {second}".encode())
                message = await one(kit, messages)
                await getattr(message, first)()
                assert message.settled
                await raises(StaleDelivery, message.reject("why") if second == "reject" else getattr(message, second)())
                if first == "nack":
                    again = await one(kit, messages)
                    assert again.body == message.body, "the late settlement changed the first one"
                    await again.ack()
                await nothing(messages, 0.05)
    await depth_is(kit, orders, ready=0, in_flight=0, dead=0)


@scenario("B26", tier="T", needs="lease=message", refused=LEASED)
async def a_stale_ack_changes_nothing(kit: Kit) -> None:
    """An ack, nack or reject after the lease is StaleDelivery; the redelivered copy survives and can be settled."""
    lease = lease_of(kit)
    orders, other = (kit.broker().queue("orders", lease=lease, max_deliveries=0) for _ in range(2))
    await orders.publish_many([b"0", b"1", b"2"])
    async with orders.consume(auto_extend=False) as messages:
        stale = await take(kit, messages, 3)
        async with other.consume() as theirs:
            copies = await take(kit, theirs, 3, lease + kit.broker_claims.lease_lag + 5)
            await raises(StaleDelivery, stale[0].ack())
            await raises(StaleDelivery, stale[1].nack())
            await raises(StaleDelivery, stale[2].reject("late"))
            await nothing(messages)
            for copy in copies:
                await copy.ack()
    await depth_is(kit, orders, ready=0, in_flight=0, dead=0)


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
            await raises(narrowboat.NarrowboatError, message.ack())
        await broker.close()
        for message in old:
            await raises(narrowboat.NarrowboatError, message.nack())
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
    with narrowboat.broker(url).queue("orders", lease=lease).consume(auto_extend=False) as messages:
        got: dict[bytes, Any] = {}
        while len(got) < 5:
            message = messages.receive(10)
            assert message is not None
            got[message.body] = message
        for body in (b"3", b"1", b"2"):
            got[body].ack()
        link.tell("acked")
        link.wait("never")


@scenario("B28", "B39", tier="P", needs="scope=host", refused=demand("scope=host"), faults={Fault.PROCESS})
async def acks_out_of_order_survive_a_kill(kit: Kit) -> None:
    """The same with a consumer that is killed: what was acked stays away, exactly the rest comes back."""
    lease = lease_of(kit)
    orders = kit.broker().queue("orders", lease=lease)
    await orders.publish_many([str(n).encode() for n in range(1, 6)])
    child = await kit.child(acks_three, url=kit.broker_url, lease=lease)
    await child.event("acked")
    child.kill()
    async with orders.consume() as messages:
        got = await take_acked(kit, messages, 2, within=lease + 10)
        assert sorted(m.body for m in got) == [b"4", b"5"]
        await nothing(messages, lease)


@scenario("B29")
async def a_batch_that_is_stale_in_part(kit: Kit) -> None:
    """Batch settlement gives one outcome for each: those already settled are stale, the others are settled."""
    orders = kit.broker().queue("orders", max_deliveries=0)
    await orders.publish_many([str(n).encode() for n in range(6)])
    async with orders.consume() as messages:
        seen = 0
        async for batch in messages.batches(6, wait=2.0):
            seen += len(batch)
            early = [m for m in batch if int(m.body) % 2]
            for message in early:
                await message.nack()
            outcomes = await batch.ack()
            for message, outcome in zip(batch, outcomes, strict=True):
                assert isinstance(outcome, StaleDelivery) if int(message.body) % 2 else outcome is None, (message, outcome)
            if seen >= 6:
                break
        got = await take_acked(kit, messages, 3)
        assert sorted(m.body for m in got) == [b"1", b"3", b"5"]
        await nothing(messages)


@scenario("B30", tier="T", needs="lease=message", refused=LEASED)
async def extended_beyond_the_first_lease(kit: Kit) -> None:
    """extend() keeps a delivery past its original lease; without it the message comes back then; extending late fails."""
    lease = lease_of(kit)
    orders, other = (kit.broker().queue("orders", lease=lease) for _ in range(2))
    await orders.publish(b"x")
    async with orders.consume(auto_extend=False) as messages, other.consume(auto_extend=False) as theirs:
        message = await one(kit, messages)
        extended = time.monotonic()
        await message.extend(lease * 3)
        await nothing(theirs, lease * 1.5)
        again = await one(kit, theirs, lease * 2 + kit.broker_claims.lease_lag + 5)
        assert time.monotonic() - extended >= lease * 3, "the extension was cut short"
        await raises(StaleDelivery, message.extend(lease))
        await raises(StaleDelivery, message.ack())
        await again.ack()


@scenario("B31", tier="T", needs="lease=message", refused=LEASED)
async def slow_handlers_keep_their_messages(kit: Kit) -> None:
    """With automatic extension a handler slower than the lease, and what is buffered behind it, is delivered once."""
    lease = lease_of(kit)
    orders, other = (kit.broker().queue("orders", lease=lease) for _ in range(2))
    await orders.publish_many([b"0", b"1", b"2"])
    async with orders.consume(prefetch=3) as messages, other.consume() as theirs:
        message = await one(kit, messages)
        await until_in_flight(kit, orders, 3)
        await nothing(theirs, lease * 3)
        await message.ack()
        await take_acked(kit, messages, 2)
    await depth_is(kit, orders, ready=0, in_flight=0)


@scenario("B31", tier="T", needs="lease=message", refused=LEASED)
async def extension_ends_at_its_limit(kit: Kit) -> None:
    """Automatic extension goes on no longer than max_extend: a handler that hangs does not keep its message for ever."""
    lease = lease_of(kit)
    orders, other = (kit.broker().queue("orders", lease=lease) for _ in range(2))
    await orders.publish(b"x")
    async with orders.consume(max_extend=lease * 2) as messages, other.consume() as theirs:
        message = await one(kit, messages)
        again = await one(kit, theirs, lease * 2 + kit.broker_claims.lease_lag + 5)
        assert again.attempt == 2
        await raises(StaleDelivery, message.ack())
        await again.ack()


@scenario("B32", "B34")
async def a_handler_that_raises_nacks(kit: Kit) -> None:
    """In run() an exception is a nack with attempts counted up, returning is an ack, and what comes next is handled."""
    orders = kit.broker().queue("orders")
    await orders.publish(b"twice")
    seen: list[tuple[bytes, int, bool]] = []

    async def handle(message: Any) -> None:
        seen.append((message.body, message.attempt, message.redelivered))
        if message.body == b"twice" and message.attempt == 1:
            raise ValueError("not yet")

    task = kit.spawn(orders.run(handle, signals=False))
    await kit.eventually(lambda: len(seen) == 2, within=20, what="the second delivery")
    await orders.publish(b"next")
    await kit.eventually(lambda: len(seen) == 3, what="the next message")
    orders.stop()
    await task
    assert seen == [(b"twice", 1, False), (b"twice", 2, True), (b"next", 1, False)]
    await depth_is(kit, orders, ready=0, in_flight=0, delayed=0, dead=0)


@scenario("B32")
async def a_handler_may_settle_itself(kit: Kit) -> None:
    """A message that the handler settled is left alone, whether the handler returns or raises afterwards."""
    orders = kit.broker().queue("orders")
    await orders.publish_many([b"ack and raise", b"reject and return"])
    seen: list[bytes] = []

    async def handle(message: Any) -> None:
        seen.append(message.body)
        if message.body == b"ack and raise":
            await message.ack()
            raise ValueError("afterwards")
        await message.reject("by hand")

    task = kit.spawn(orders.run(handle, signals=False))
    await kit.eventually(lambda: len(seen) == 2, what="both handled")
    orders.stop()
    await task
    assert sorted(seen) == [b"ack and raise", b"reject and return"]
    await depth_is(kit, orders, ready=0, in_flight=0, delayed=0, dead=1)


class _Abort(BaseException):
    """What no handler catches."""


@scenario("B32")
async def a_base_exception_settles_nothing(kit: Kit) -> None:
    """A BaseException out of a handler ends run(), goes on to its caller, and its message comes back."""
    orders = kit.broker().queue("orders")
    await orders.publish(b"x")

    async def handle(message: Any) -> None:
        raise _Abort

    async def running() -> bool:
        try:
            await orders.run(handle, signals=False)
        except _Abort:
            return True
        return False

    assert await kit.spawn(running()), "the handler's BaseException did not reach the caller of run()"
    async with orders.consume() as messages:
        message = await one(kit, messages)
        assert (message.body, message.attempt) == (b"x", 2)
        await message.ack()


@scenario("B33")
async def dropped_messages_go_back(kit: Kit) -> None:
    """Leaving a consumer settles nothing: what was handed out and dropped comes back at once, well before its lease ends."""
    orders = kit.broker().queue("orders", lease=max(30.0, kit.broker_claims.lease_min))
    await orders.publish_many([b"0", b"1", b"2"])
    async with orders.consume() as messages:
        await one(kit, messages)
    async with orders.consume() as messages:
        got = await take_acked(kit, messages, 3, within=5)
    assert sorted(m.body for m in got) == [b"0", b"1", b"2"]


@scenario("B34")
async def attempts_count_across_consumers(kit: Kit) -> None:
    """Attempt starts at 1 and counts each claim, across consumers and connections; redelivered says the same."""
    await kit.broker().queue("orders", max_deliveries=0).publish(b"x")
    for attempt in range(1, 5):
        broker = kit.broker()
        async with broker.queue("orders", max_deliveries=0).consume() as messages:
            message = await one(kit, messages)
            assert (message.attempt, message.redelivered) == (attempt, attempt > 1)
            if attempt % 2:
                await message.nack()
        await broker.close()


@scenario("B34", "B38", needs="uncounted_release", refused=demand("uncounted_release"))
async def what_was_not_started_is_not_counted(kit: Kit) -> None:
    """A clean close returns what was only fetched ahead, at once and uncounted; what was handed out is counted."""
    orders = kit.broker().queue("orders", lease=max(30.0, kit.broker_claims.lease_min))
    await orders.publish_many([str(n).encode() for n in range(10)])
    async with orders.consume(prefetch=10) as messages:
        started = await one(kit, messages)
        await until_in_flight(kit, orders, 10)
    async with kit.broker().queue("orders", lease=max(30.0, kit.broker_claims.lease_min)).consume() as messages:
        got = await take_acked(kit, messages, 10, within=5)
    assert {m.body: m.attempt for m in got} == {str(n).encode(): 2 if str(n).encode() == started.body else 1 for n in range(10)}


@scenario("B35")
async def prefetch_bounds_what_is_unsettled(kit: Kit) -> None:
    """With prefetch=n no more than n messages are unsettled, buffered ones included, also for the next consumer."""
    orders = kit.broker().queue("orders")
    await orders.publish_many([str(n).encode() for n in range(12)])
    for round in range(2):
        async with orders.consume(prefetch=3) as messages:
            got = await take(kit, messages, 3)
            await nothing(messages)
            depth = await orders.depth()
            assert depth.in_flight in (None, 3), depth
            await got[0].ack()
            fourth = await one(kit, messages)
            depth = await orders.depth()
            assert depth.in_flight in (None, 3), depth
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
            got = await take_acked(kit, messages, 10)
            assert sorted(int(m.body) for m in got) == list(range(10))
        await message.ack()


def holds_a_buffer(link: Link, url: str, lease: float) -> None:
    """A child: fetch ten ahead, take one, tell, and wait to be killed."""
    with narrowboat.broker(url).queue("orders", lease=lease).consume(prefetch=10) as messages:
        message = messages.receive(10)
        assert message is not None
        link.tell("took", body=message.body.decode())
        link.wait("never")


@scenario("B38", tier="P", needs="scope=host", refused=demand("scope=host"), faults={Fault.PROCESS})
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
        got = await take_acked(kit, messages, 10, within=lease + kit.broker_claims.lease_lag + 5)
        kit.measure("redelivery after a kill", time.monotonic() - killed)
        assert sorted(int(m.body) for m in got) == list(range(10))
        await nothing(messages)


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


@scenario("B26", faults={Fault.REPLY})
async def an_ack_without_an_answer_is_unknown(kit: Kit) -> None:
    """An ack whose exchange failed twice is SettleUnknown, never success and never stale; settling again then settles."""
    faults = Faults()
    orders = kit.broker(faults=faults).queue("orders")
    await orders.publish(b"x")
    async with orders.consume() as messages:
        message = await one(kit, messages)
        faults.drop_request("settle", times=3)
        await raises(narrowboat.SettleUnknown, message.ack())
        faults.clear()
        await message.ack()
    assert await drained(orders) == []
