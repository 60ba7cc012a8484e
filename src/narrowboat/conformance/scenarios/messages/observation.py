"""B102: what can be seen from outside: events and depths tell the truth."""

from __future__ import annotations

from typing import Any

from narrowboat import events
from narrowboat.conformance.kit import Kit
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.scenarios.messages.common import one, take


@scenario("B102")
async def events_tell_the_truth(kit: Kit) -> None:
    """Listeners are told of each publish, delivery, settlement and dead letter, once; trace headers pass through."""
    told: list[Any] = []
    orders = kit.broker(listeners=[told.append]).queue("orders")
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    for body in (b"ack", b"nack", b"reject"):
        await orders.publish(body, headers=trace)
    async with orders.consume() as messages:
        for message in await take(kit, messages, 3):
            assert dict(message.headers) == trace
            if message.body == b"reject":
                await message.reject("bad")
            elif message.body == b"nack":
                await message.nack()
            else:
                await message.ack()
        await (await one(kit, messages)).ack()
    count = {kind: sum(isinstance(each, kind) for each in told) for kind in (events.Published, events.Delivered)}
    assert count == {events.Published: 3, events.Delivered: 4}
    assert sorted(each.outcome for each in told if isinstance(each, events.Settled)) == ["ack", "ack", "nack"]
    (dead,) = [each for each in told if isinstance(each, events.DeadLettered)]
    assert (dead.reason, dead.attempts, dead.source) == ("bad", 1, "orders")


@scenario("B102", needs="depth=native", refused=demand("depth=native"))
async def depth_counts_right(kit: Kit) -> None:
    """depth() counts what is ready, in flight, delayed and dead, as it is; purge() drops what is not in flight."""
    orders = kit.broker().queue("orders")
    await orders.publish_many([str(n).encode() for n in range(6)])
    async with orders.consume(prefetch=3) as messages:
        got = await take(kit, messages, 3)
        await got[0].reject("bad")
        await got[1].nack(delay=60)
    depth = await orders.depth()
    assert (depth.ready, depth.in_flight, depth.delayed, depth.dead) == (4, 0, 1, 1), depth
    assert await orders.purge() == 5
    depth = await orders.depth()
    assert (depth.ready, depth.in_flight, depth.delayed, depth.dead) == (0, 0, 0, 1), depth
