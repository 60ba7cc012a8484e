"""B102: what can be seen from outside: events and depths tell the truth."""

from __future__ import annotations

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
