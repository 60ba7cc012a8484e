"""B102 and B132: what can be seen from outside: events, depths and the age of the oldest message tell the truth."""

from __future__ import annotations

import time
from typing import Any

from narrowboat import events
from narrowboat.conformance.message_kit import MessageKit, numbered
from narrowboat.conformance.scenario import demand, scenario


@scenario("B102")
async def events_tell_the_truth(kit: MessageKit) -> None:
    """Listeners get one event for each publish, delivery, settlement and dead letter. Trace headers pass through."""
    told: list[Any] = []
    orders = kit.broker(listeners=[told.append]).queue("orders")
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    dies = kit.can("dead_letters")
    for body in (b"ack", b"nack", b"reject"):
        await orders.publish(body, headers=trace)
    async with orders.consume() as messages:
        for message in await kit.take(messages, 3):
            assert dict(message.headers) == trace
            if message.body == b"reject" and dies:
                await message.reject("bad")
            elif message.body == b"nack":
                await message.nack()
            else:
                await message.ack()
        await (await kit.one(messages)).ack()
    count = {kind: sum(isinstance(each, kind) for each in told) for kind in (events.Published, events.Delivered)}
    assert count == {events.Published: 3, events.Delivered: 4}
    outcomes = sorted(each.outcome for each in told if isinstance(each, events.Settled))
    assert outcomes == ["ack"] * (2 if dies else 3) + ["nack"]
    dead = [(each.reason, each.attempts, each.source) for each in told if isinstance(each, events.DeadLettered)]
    assert dead == ([("bad", 1, "orders")] if dies else [])


@scenario("B102", needs="depth=native", refused=demand)
async def depth_counts_right(kit: MessageKit) -> None:
    """depth() counts what is ready, in flight, delayed and dead. purge() drops what is not in flight."""
    orders = await kit.filled(*numbered(6))
    async with orders.consume(prefetch=3) as messages:
        got = await kit.take(messages, 3)
        await (got[0].reject("bad") if kit.can("dead_letters") else got[0].ack())
        await (got[1].nack(delay=60) if kit.can("delay") else got[1].ack())
    dead, delayed = int(kit.can("dead_letters")), int(kit.can("delay"))
    depth = await orders.depth()
    assert (depth.ready, depth.in_flight, depth.delayed, depth.dead) == (4, 0, delayed, dead), f"before the purge: {depth}"
    assert await orders.purge() == 4 + delayed
    depth = await orders.depth()
    assert (depth.ready, depth.in_flight, depth.delayed, depth.dead) == (0, 0, 0, dead), f"after the purge: {depth}"


@scenario("B102", needs="depth=native", refused=demand)
async def a_purge_leaves_what_is_out(kit: MessageKit) -> None:
    """purge() drops what is ready, and leaves what a consumer has: its ack is good, its nack brings the message back."""
    orders = await kit.filled(*numbered(5), max_deliveries=0)
    async with orders.consume(prefetch=2) as messages:
        first, second = await kit.take(messages, 2)
        assert await kit.queue(max_deliveries=0).purge() == 3, "three of five were ready"
        await kit.depth_is(orders, ready=0, in_flight=2)
        await first.ack()
        await second.nack()
        await kit.comes(messages, second.body, attempt=2)
    await kit.depth_is(orders, ready=0, in_flight=0)


#: Seconds: a server's clock may count in milliseconds, and may be slewed.
_NEARLY = 0.02


async def _oldest_since(source: Any, before: float, after: float) -> None:
    """The oldest ready message of `source` has been so since a moment between `before` and `after`."""
    asked = time.monotonic()
    oldest = (await source.depth()).oldest
    assert oldest is not None, "a message is ready, and oldest is None"
    least, most = max(0.0, asked - after - _NEARLY), time.monotonic() - before + _NEARLY
    assert least <= oldest <= most, f"oldest is {oldest:g} s, and {least:g} to {most:g} s were owed"


@scenario("B132", needs="oldest", refused=demand)
async def the_oldest_ready_message_has_an_age(kit: MessageKit) -> None:
    """It grows with time. What is in flight, settled, delayed or dead does not count; without a ready message there is none."""
    orders = kit.queue(max_deliveries=0)
    await orders.declare()
    assert (await orders.depth()).oldest is None
    published = []
    for body in (b"first", b"second"):
        before = time.monotonic()
        await orders.publish(body)
        published.append((before, time.monotonic()))
        await kit.sleep(0.2)
    await _oldest_since(orders, *published[0])
    await kit.sleep(0.2)
    await _oldest_since(orders, *published[0])
    async with orders.consume(prefetch=1) as messages:
        first = await kit.one(messages)
        await _oldest_since(orders, *published[1])
        await (first.reject("bad") if kit.can("dead_letters") else first.ack())
        second = await kit.one(messages)
        assert (await orders.depth()).oldest is None, "all are in flight or dead"
        await second.nack()
        await (await kit.one(messages)).nack(delay=60 if kit.can("delay") else 0)
    if kit.can("delay"):
        assert (await orders.depth()).oldest is None, "it is delayed"
    await orders.purge()
    assert (await orders.depth()).oldest is None, "the queue is empty"


@scenario("B132", needs=("oldest", "priority"), refused=demand)
async def the_oldest_is_not_the_next(kit: MessageKit) -> None:
    """A younger message of a higher priority is handed out first, and the older one is still the oldest."""
    orders = kit.queue(priorities=1)
    before = time.monotonic()
    await orders.publish(b"low")
    after = time.monotonic()
    await kit.sleep(0.2)
    await orders.publish(b"high", priority=1)
    await _oldest_since(orders, before, after)
    async with orders.consume(prefetch=1) as messages:
        assert (await kit.one(messages)).body == b"high"
        await _oldest_since(orders, before, after)


@scenario("B132", needs=("oldest", "order"), refused=demand)
async def what_waits_for_its_turn_has_an_age(kit: MessageKit) -> None:
    """A message behind one of its key that is in flight is ready by the count, and may be the oldest."""
    orders = kit.queue(ordered=True)
    await orders.publish(b"first", key="k")
    await kit.sleep(0.2)
    before = time.monotonic()
    await orders.publish(b"second", key="k")
    after = time.monotonic()
    async with orders.consume() as messages:
        await kit.one(messages)
        await _oldest_since(orders, before, after)


@scenario("B132", tier="T", needs=("oldest", "delay"), refused=demand)
async def a_delayed_message_waits_from_when_it_is_due(kit: MessageKit) -> None:
    """Its age begins then, and is no age of its delay."""
    delay = 0.8
    orders = kit.queue()
    before = time.monotonic()
    await orders.publish(b"x", delay=delay)
    after = time.monotonic()
    await kit.depth_is(orders, within=delay + kit.broker_claims.delay_lag + 5, ready=1)
    await _oldest_since(orders, before + delay, after + delay + kit.broker_claims.delay_lag)
