"""B47 to B49: delays: a delayed message is never early, late by no more than was declared, and holds up no other."""

from __future__ import annotations

import time

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.message_kit import MessageKit, asks_for_delay
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.users.child import Link
from narrowboat.conformance.users.opening import opened
from narrowboat.errors import InvalidArgument


async def _asks_for_delay_on_a_topic(kit: MessageKit) -> None:
    await kit.broker().topic("prices").publish(b"x", delay=1)


@scenario("B47", tier="T", needs="delay", refused=asks_for_delay)
async def delayed_is_never_early(kit: MessageKit) -> None:
    """A delayed message is never early, and late by at most the declared lag; so is a nack with a delay."""
    orders = kit.queue(max_deliveries=0)
    async with orders.consume() as messages:
        for delay in (0.25, 0.8):
            before = time.monotonic()
            await orders.publish(b"x", delay=delay)
            after = time.monotonic()
            message = await kit.one(messages, delay + kit.broker_claims.delay_lag + 5)
            _on_time(kit, "publish with a delay", delay, before, after)
            before = time.monotonic()
            await message.nack(delay=delay)
            after = time.monotonic()
            message = await kit.one(messages, delay + kit.broker_claims.delay_lag + 5)
            _on_time(kit, "nack with a delay", delay, before, after)
            assert message.attempt == 2
            await message.ack()
        await kit.nothing(messages)


def _on_time(kit: MessageKit, what: str, delay: float, before: float, after: float) -> None:
    now = time.monotonic()
    assert now - before >= delay, f"{what}: {delay - (now - before):g} s early"
    late = now - after - delay
    assert late <= kit.upper(kit.broker_claims.delay_lag), f"{what}: {late:g} s late"
    kit.measure(f"lateness of a {what}", max(0.0, late))


@scenario("B47", needs="delay", refused=asks_for_delay)
async def a_delay_beyond_the_longest_is_refused(kit: MessageKit) -> None:
    """A delay above the declared longest, or a negative one, is an InvalidArgument and nothing is sent."""
    orders = kit.queue(max_deliveries=0)
    for delay in (kit.broker_claims.delay_max + 1, -1, float("nan"), float("inf")):
        await fails(InvalidArgument, lambda delay=delay: orders.publish(b"x", delay=delay))  # type: ignore[misc]  # bound now
    assert not kit.seen.calls["send"]


@scenario("B48", tier="T", needs="delay", refused=asks_for_delay)
async def delays_are_independent(kit: MessageKit) -> None:
    """A message with a long delay holds up none with a shorter one, nor one without; depth counts what is delayed."""
    orders = kit.queue(max_deliveries=0)
    longest = min(60.0, kit.broker_claims.delay_max)
    await orders.publish(b"long", delay=longest)
    await orders.publish(b"short", delay=0.4)
    await orders.publish(b"now")
    await kit.depth_is(orders, within=0.2, delayed=2)
    async with orders.consume() as messages:
        for body in (b"now", b"short"):
            message = await kit.one(messages)
            assert message.body == body
            await message.ack()
        await kit.nothing(messages)
    await kit.depth_is(orders, ready=0, in_flight=0, delayed=1)


@scenario("B48", tier="T", needs=("delay", "topics"), refused=_asks_for_delay_on_a_topic)
async def a_delayed_message_for_a_topic(kit: MessageKit) -> None:
    """A delayed publish to a topic goes to the groups that exist when it is due, once to each."""
    topic = kit.broker().topic("prices")
    await topic.subscription("early").declare()
    await topic.publish(b"x", delay=0.6)
    async with topic.subscription("late").consume() as late, topic.subscription("early").consume() as early:
        for messages in (early, late):
            message = await kit.one(messages)
            assert message.body == b"x"
            await message.ack()
            await kit.nothing(messages, 0.1)


def schedules(link: Link, url: str, delay: float) -> None:
    """A child: publish with a delay, nack with a delay, tell, and wait to be killed."""
    orders = opened(url).queue("orders")
    orders.publish(b"nacked")
    with orders.consume() as messages:
        message = messages.receive(10)
        assert message is not None
        message.nack(delay=delay)
    orders.publish(b"delayed", delay=delay)
    link.tell("scheduled")
    link.wait("never")


@scenario("B49", tier="P", needs=("delay", "scope=host"), refused=demand, faults={Fault.PROCESS})
async def delays_survive_a_kill(kit: MessageKit) -> None:
    """Delayed and nacked messages come when they are due although their publisher and consumer was killed."""
    child = await kit.child(schedules, url=kit.broker_url, delay=0.5)
    told = await child.event("scheduled")
    child.kill()
    async with kit.queue().consume() as messages:
        got = await kit.take(messages, 2, ack=True)
        assert {m.body: m.attempt for m in got} == {b"nacked": 2, b"delayed": 1}
        assert time.monotonic() - told["at"] >= 0.4


@scenario("B49", tier="T", needs="delay", refused=asks_for_delay)
async def delays_outlive_the_connection(kit: MessageKit) -> None:
    """A delayed message comes when it is due although the connection that published it is closed."""
    broker = kit.broker()
    keeper = kit.queue()
    await keeper.declare()
    await broker.queue("orders").publish(b"x", delay=0.4)
    await broker.close()
    async with keeper.consume() as messages:
        assert (await kit.one(messages)).body == b"x"
