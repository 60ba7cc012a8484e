"""B47 to B49: delays: a delayed message is never early, at most `delay_lag` late, and holds up no other."""

from __future__ import annotations

import time

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.message_kit import MessageKit, asks_for_delay, received
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.users.child import Link
from narrowboat.conformance.users.opening import opened
from narrowboat.errors import InvalidArgument


async def _asks_for_delay_on_a_topic(kit: MessageKit) -> None:
    await kit.broker().topic("prices").publish(b"x", delay=1)


@scenario("B47", tier="T", needs="delay", refused=asks_for_delay)
async def delayed_is_never_early(kit: MessageKit) -> None:
    """A message that is published or nacked with a delay is never early, and at most `delay_lag` late."""
    orders = kit.queue(max_deliveries=0)
    async with orders.consume() as messages:
        for delay in (0.25, 0.8):
            patience = delay + kit.broker_claims.delay_lag + 5
            before = time.monotonic()
            await orders.publish(b"x", delay=delay)
            after = time.monotonic()
            message = await kit.one(messages, patience)
            _on_time(kit, "publish with a delay", delay, before, after)
            before = time.monotonic()
            await message.nack(delay=delay)
            after = time.monotonic()
            message = await kit.one(messages, patience)
            _on_time(kit, "nack with a delay", delay, before, after)
            assert message.attempt == 2
            await message.ack()
        await kit.nothing(messages)


def _on_time(kit: MessageKit, what: str, delay: float, before: float, after: float) -> None:
    """The message came just now. Its delay began between `before` and `after`."""
    now = time.monotonic()
    assert now - before >= delay, f"{what}: {delay - (now - before):g} s early"
    late = now - after - delay
    assert late <= kit.upper(kit.broker_claims.delay_lag), f"{what}: {late:g} s late"
    kit.measure(f"lateness of a {what}", max(0.0, late), bound=kit.broker_claims.delay_lag)


@scenario("B47", needs="delay", refused=asks_for_delay)
async def a_delay_beyond_the_longest_is_refused(kit: MessageKit) -> None:
    """A delay above `delay_max`, below 0 or not finite is an InvalidArgument, and nothing is sent."""
    orders = kit.queue(max_deliveries=0)
    for delay in (kit.broker_claims.delay_max + 1, -1, float("nan"), float("inf")):
        await fails(InvalidArgument, orders.publish(b"x", delay=delay), what=f"delay={delay:g}")
    assert not kit.seen.calls["send"]


@scenario("B48", tier="T", needs="delay", refused=asks_for_delay)
async def delays_are_independent(kit: MessageKit) -> None:
    """A message with a long delay holds up none with a shorter one or with none. depth() counts the delayed ones."""
    orders = kit.queue(max_deliveries=0)
    async with orders.consume() as messages:  # before: a consumer that opens for longer than the short delay finds both ready
        await orders.publish(b"long", delay=min(60.0, kit.broker_claims.delay_max))
        due = time.monotonic() + 1.0
        await orders.publish(b"short", delay=1.0)
        await orders.publish(b"now")
        try:
            await kit.depth_is(orders, within=0.2, delayed=2)
        except AssertionError:  # a machine that stood still finds the short one due
            if time.monotonic() < due:
                raise
        first = await kit.one(messages)
        assert first.body == b"now" or time.monotonic() >= due, f"{first.body!r} came first, before it was due"
        await first.ack()
        await kit.comes(messages, b"short" if first.body == b"now" else b"now")
        await kit.nothing(messages)
    await kit.depth_is(orders, ready=0, in_flight=0, delayed=1)


@scenario("B48", tier="T", needs=("delay", "topics"), refused=_asks_for_delay_on_a_topic)
async def a_delayed_message_for_a_topic(kit: MessageKit) -> None:
    """A delayed message for a topic goes to the groups that exist when it is due, once to each."""
    topic = kit.broker().topic("prices")
    await topic.subscription("early").declare()
    delay = 0.6 * kit.stretch
    due = time.monotonic() + delay
    await topic.publish(b"x", delay=delay)
    async with topic.subscription("late").consume() as late, topic.subscription("early").consume() as early:
        there = time.monotonic() < due  # on a machine that stood still it may be due before the late group exists
        for messages in (early, late) if there else (early,):
            await kit.comes(messages, b"x")
            await kit.nothing(messages, 0.1)


@scenario("B47", "B86", tier="S", needs="delay", refused=asks_for_delay, seconds=120)
async def what_is_due_comes_to_one_of_many(kit: MessageKit) -> None:
    """Batches come due while consumers of eight connections look: each message comes to one of them, which acks it."""
    orders = kit.queue(lease=kit.long_lease, max_deliveries=0)
    await orders.declare()
    await kit.rush(orders, lambda: kit.queue(lease=kit.long_lease, max_deliveries=0), max(6, int(20 * kit.size)), delay=0.1)


@scenario("B48", "B86", tier="S", needs=("delay", "topics"), refused=_asks_for_delay_on_a_topic, seconds=120)
async def what_is_due_in_a_topic_comes_to_one_of_many(kit: MessageKit) -> None:
    """The same for a topic and one group of it: each message is given to the group once."""
    topic = kit.broker().topic("prices")
    await topic.subscription("g").declare()
    await kit.rush(topic, lambda: kit.broker().topic("prices").subscription("g"), max(6, int(20 * kit.size)), delay=0.1)


def schedules(link: Link, url: str, delay: float) -> None:
    """A child: publish with a delay, nack with a delay, tell, and wait to be killed."""
    orders = opened(url).queue("orders")
    orders.publish(b"nacked")
    with orders.consume() as messages:
        received(messages).nack(delay=delay)
    orders.publish(b"delayed", delay=delay)
    link.tell("scheduled")
    link.wait("never")


@scenario("B49", tier="P", needs=("delay", "scope=host"), refused=demand, faults={Fault.PROCESS})
async def delays_survive_a_kill(kit: MessageKit) -> None:
    """The process that published and nacked with a delay is killed. Both messages come when they are due."""
    # Beyond the time for which a call of the consumer that has left may still take, and count, what becomes ready.
    delay = 0.5 + kit.broker_claims.return_lag
    child = await kit.child(schedules, url=kit.broker_url, delay=delay)
    told = await child.event("scheduled")
    child.kill()
    async with kit.queue().consume() as messages:
        got = await kit.take(messages, 2, ack=True)
        assert {m.body: m.attempt for m in got} == {b"nacked": 2, b"delayed": 1}
        assert time.monotonic() - told["at"] >= delay - 0.1, "both came before they were due"


@scenario("B49", tier="T", needs="delay", refused=asks_for_delay)
async def delays_outlive_the_connection(kit: MessageKit) -> None:
    """The connection that published a delayed message is closed. The message comes when it is due."""
    broker, keeper = kit.broker(), kit.queue()
    await keeper.declare()
    await broker.queue("orders").publish(b"x", delay=0.4)
    await broker.close()
    async with keeper.consume() as messages:
        await kit.comes(messages, b"x")
