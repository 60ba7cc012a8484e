"""B51 and B52: time to live: what has expired is not delivered, and what has not is."""

from __future__ import annotations

import time

from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.message_kit import MessageKit
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.errors import InvalidArgument
from narrowboat.messaging import Outbound


async def _asks_for_ttl(kit: MessageKit) -> None:
    await kit.queue(max_deliveries=0).publish(b"x", ttl=1)


async def _asks_for_ttl_and_delay(kit: MessageKit) -> None:
    await kit.queue(max_deliveries=0).publish(b"x", ttl=2, delay=1)


@scenario("B51", tier="T", needs="ttl", refused=_asks_for_ttl)
async def expired_is_not_delivered(kit: MessageKit) -> None:
    """An expired message is not delivered and an unexpired one is, whether it waited in the queue or in a buffer."""
    orders = kit.queue(max_deliveries=0)
    await orders.publish(b"short", ttl=0.3)
    await orders.publish(b"long", ttl=600)
    await orders.publish(b"for ever")
    await kit.sleep(0.4)
    await kit.contains(orders, [b"for ever", b"long"])
    ttl = 0.6 * kit.stretch  # so that it is in the buffer before it expires
    await orders.publish(b"first")
    await orders.publish_many([Outbound(b"buffered", ttl=ttl), Outbound(b"beside it")])
    async with orders.consume(prefetch=10) as messages:
        first = await kit.one(messages)
        await kit.until_in_flight(orders, 3)
        await kit.sleep(ttl + 0.1)
        second = await kit.one(messages)
        assert {first.body, second.body} == {b"first", b"beside it"}, "a message came from the buffer after it had expired"
        await kit.nothing(messages)


@scenario("B51", needs="ttl", refused=_asks_for_ttl)
async def unexpired_is_delivered(kit: MessageKit) -> None:
    """The control: a message within its ttl is delivered, at once and again after a nack."""
    orders = kit.queue(max_deliveries=0)
    await orders.publish(b"x", ttl=60)
    async with orders.consume() as messages:
        await (await kit.one(messages)).nack()
        await kit.comes(messages, b"x", attempt=2)


@scenario("B52", tier="T", needs="ttl", refused=_asks_for_ttl)
async def ttl_counts_from_the_publish(kit: MessageKit) -> None:
    """The ttl counts from the publish, and a retry does not start it anew. An expired message is no dead letter."""
    orders = kit.queue(max_deliveries=0)
    await orders.publish(b"x", ttl=0.8)
    begun = time.monotonic()
    async with orders.consume() as messages:
        while (message := await messages.receive(0.3)) is not None:
            assert time.monotonic() - begun < kit.upper(0.8) + 0.3, "nacks kept a message beyond its ttl"
            await kit.sleep(0.1)
            await message.nack()
        assert time.monotonic() - begun >= 0.5, "the message expired before its ttl ended"
    await kit.depth_is(orders, ready=0, in_flight=0, dead=0)


@scenario("B51", tier="T", needs=("ttl", "depth=native"), refused=demand)
async def expired_is_not_counted(kit: MessageKit) -> None:
    """depth() does not count a message that has expired, although nobody has looked for one meanwhile."""
    orders = kit.queue(max_deliveries=0)
    await orders.publish(b"short", ttl=0.3)
    await orders.publish(b"long", ttl=600)
    await kit.sleep(0.5)
    depth = await orders.depth()
    assert (depth.ready, depth.dead) == (1, 0), f"one of two has expired, and is no dead letter: {depth}"
    await kit.contains(orders, [b"long"])


@scenario("B52", tier="T", needs=("ttl", "delay"), refused=_asks_for_ttl_and_delay)
async def the_ttl_of_a_delayed_message_counts_from_its_publish(kit: MessageKit) -> None:
    """What is due late in its ttl is delivered, if it is received before the ttl ends; afterwards it is not."""
    orders = kit.queue(max_deliveries=0)
    begun = time.monotonic()
    await orders.publish(b"gone", ttl=1.2, delay=0.9)
    await orders.publish(b"stays", ttl=600, delay=0.1)
    await kit.sleep(1.5 - (time.monotonic() - begun))
    await kit.contains(orders, [b"stays"])


@scenario("B52", needs=("ttl", "delay"), refused=_asks_for_ttl_and_delay)
async def a_ttl_that_ends_before_the_delay(kit: MessageKit) -> None:
    """A ttl that ends before the delay does, or is not above 0, is an InvalidArgument, and nothing is sent."""
    orders = kit.queue(max_deliveries=0)
    for ttl, delay in ((1, 1), (1, 2), (0, 0), (-1, 0)):
        await fails(InvalidArgument, orders.publish(b"x", ttl=ttl, delay=delay), what=f"ttl={ttl}, delay={delay}")
    assert not kit.seen.calls["send"]
