"""B128 to B131: a queue that exists changes: another limit and lease, under consumers that run, with no message lost."""

from __future__ import annotations

import math
import time
from typing import Any

from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.message_kit import MessageKit, numbered, publish_all
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.contract.messages import Address, Kind
from narrowboat.errors import NotFound, Unsupported


async def _asks_for_an_alter(kit: MessageKit) -> None:
    await kit.broker().queue("orders", max_deliveries=0).alter(max_deliveries=0)


async def _dies_after(kit: MessageKit, messages: Any, source: Any, attempts: int) -> None:
    """The next message is nacked again and again, and is a dead letter after `attempts` deliveries."""
    for attempt in range(1, attempts + 1):
        message = await kit.one(messages)
        assert message.attempt == attempt, f"attempt {message.attempt} came, and {attempt} was owed"
        assert message.max_deliveries == attempts, f"the limit is {message.max_deliveries}, and {attempts} was owed"
        await message.nack()
    await kit.depth_is(source, ready=0, in_flight=0, delayed=0, dead=1)
    await kit.dead_letter(source)


@scenario("B128", needs=("alter", "dead_letters"), refused=demand)
async def an_altered_limit_counts_for_the_next_consumer(kit: MessageKit) -> None:
    """A limit is altered up and down. A consumer that comes then, and asks for none, makes dead letters by it."""
    orders, operator = kit.queue(), kit.queue()
    await kit.queue(max_deliveries=2).declare()
    for limit in (3, 1):
        stored = await operator.alter(max_deliveries=limit)
        assert stored.max_deliveries == limit
        assert await operator.properties() == stored
        await orders.publish(b"x")
        async with orders.consume() as messages:
            await _dies_after(kit, messages, orders, limit)


@scenario("B128", tier="T", needs=("alter", "dead_letters"), refused=demand)
async def an_altered_limit_reaches_consumers_that_run(kit: MessageKit) -> None:
    """A limit is altered under a consumer that asked for none. What it fetches `alter_lag` later obeys it.

    Where that has no end, the consumer keeps the limit that it began with.
    """
    lag = kit.broker_claims.alter_lag
    orders, operator = kit.queue(), kit.queue()
    await kit.queue(max_deliveries=2).declare()
    async with orders.consume() as messages:
        await orders.publish(b"before")
        await (await kit.one(messages)).ack()
        await operator.alter(max_deliveries=4)
        if lag == math.inf:
            await orders.publish(b"after")
            await _dies_after(kit, messages, orders, 2)
            return
        await kit.nothing(messages, lag)
        await orders.publish(b"after")
        await _dies_after(kit, messages, orders, 4)


@scenario("B128", tier="T", needs=("alter", "extension"), refused=demand)
async def an_altered_lease_counts(kit: MessageKit) -> None:
    """A lease is altered from long to short. A consumer that comes then, and asks for none, has its messages so long."""
    short = kit.short_lease
    orders, operator = kit.queue(), kit.queue()
    await kit.queue(lease=kit.long_lease).declare()
    assert (await operator.alter(lease=short)).lease == short
    await orders.publish(b"x")
    async with orders.consume(auto_extend=False) as messages:
        await kit.one(messages)
        async with kit.queue().consume() as others:
            await kit.comes(others, b"x", attempt=2, within=kit.lapse(short) + 5)


@scenario("B128", needs=("alter", "dead_letters", "delay"), refused=demand)
async def an_alter_touches_no_message(kit: MessageKit) -> None:
    """What is ready, in flight or delayed when a limit is altered is kept: the one in flight is acked, the rest comes."""
    delay = 1.0
    orders, operator = kit.queue(), kit.queue()
    async with orders.consume(prefetch=1) as messages:
        await publish_all(orders, numbered(3))
        held = await kit.one(messages)
        await orders.publish(b"later", delay=delay)
        await operator.alter(max_deliveries=7)
        await kit.nothing(messages)  # prefetch is 1, so what comes now was released by the alter
        await held.ack()
        got = [message.body for message in await kit.take(messages, 3, delay + 10, ack=True)]
        await kit.nothing(messages)
    assert sorted([held.body, *got]) == sorted([*numbered(3), b"later"])
    await kit.depth_is(orders, ready=0, in_flight=0, delayed=0, dead=0)


@scenario("B128", needs=("alter", "dead_letters", "topics"), refused=demand)
async def one_group_is_altered_alone(kit: MessageKit) -> None:
    """One subscription of a topic is altered. It keeps its messages, and another group keeps its properties."""
    topic = kit.broker().topic("prices")
    a, b = topic.subscription("a"), topic.subscription("b")
    await a.declare()
    await b.declare()
    await topic.publish(b"x")
    altered, kept = await a.alter(max_deliveries=9), await b.properties()
    assert (altered.max_deliveries, kept and kept.max_deliveries) == (9, 5)
    assert await a.properties() == altered
    await kit.contains(a, [b"x"])
    await kit.contains(b, [b"x"])


@scenario("B129", needs=("alter", "dead_letters"), refused=demand)
async def each_consumer_has_its_own_limit(kit: MessageKit) -> None:
    """Two versions of a worker, with other limits, declare and consume one queue at once. Each has its own; none is refused."""
    old, new = kit.queue(max_deliveries=1), kit.queue(max_deliveries=3)
    await old.declare()
    await new.declare()
    assert (await new.properties()).max_deliveries == 1, "a declare has changed what is stored"
    for queue, limit in ((old, 1), (new, 3)):
        async with queue.consume() as messages:
            await queue.publish(b"x")
            await _dies_after(kit, messages, queue, limit)
    async with old.consume(prefetch=1), new.consume(prefetch=1):
        pass  # at once


@scenario("B129", tier="T", needs=("alter", "extension"), refused=demand)
async def each_consumer_has_its_own_lease(kit: MessageKit) -> None:
    """A consumer asks for a shorter lease than is stored, another one for none. Each has a message for its own."""
    short, long = kit.short_lease, kit.long_lease
    await kit.queue(lease=long).declare()
    brief = kit.queue(lease=short)
    async with brief.consume(prefetch=1, auto_extend=False) as messages:
        await publish_all(brief, numbered(2))
        mine = await kit.one(messages)
        async with kit.queue().consume(prefetch=1, auto_extend=False) as others:
            theirs = await kit.one(others)
            assert theirs.body != mine.body
            await theirs.ack()
            begun = time.monotonic()
            await kit.comes(others, mine.body, attempt=2, within=kit.lapse(short) + 5)
            assert not kit.over(begun, long), "it came back after the stored lease"


@scenario("B130", needs="alter", refused=_asks_for_an_alter)
async def what_is_not_there_is_not_altered(kit: MessageKit) -> None:
    """An alter of a queue or group that is not there, or was only published to, is NotFound, and nothing is made."""
    broker = kit.broker()
    orders = broker.queue("orders")
    assert await orders.properties() is None
    await fails(NotFound, orders.alter(max_deliveries=0))
    assert await orders.properties() is None
    await orders.publish(b"x")
    await fails(NotFound, orders.alter(max_deliveries=0))
    await kit.contains(orders, [b"x"])
    if kit.can("topics"):
        await fails(NotFound, broker.topic("prices").subscription("g").alter(max_deliveries=0))


@scenario("B130", needs="alter", refused=_asks_for_an_alter)
async def order_and_priorities_stay(kit: MessageKit) -> None:
    """An alter of `ordered` or `priorities` is Unsupported, and the text says the way out. Nothing was sent."""
    orders = kit.queue()
    for change in ({"ordered": True}, {"priorities": 3}):
        error = await fails(Unsupported, orders.alter(max_deliveries=0, **change))
        assert "another queue" in str(error), error
    assert not kit.seen.calls


@scenario("B131", needs="listing", refused=demand)
async def sources_are_listed(kit: MessageKit) -> None:
    """Queues, topics and groups are listed by name, whoever made them; dead letters, inboxes and what was deleted are not."""
    broker = kit.broker()
    assert await broker.sources() == []
    await broker.queue("orders").publish(b"x")
    await broker.queue("a b").declare()
    await broker.queue("gone").declare()
    await broker.queue("gone").delete()
    owed = [Address(Kind.QUEUE, "a b"), Address(Kind.QUEUE, "orders")]
    if kit.can("topics"):
        await broker.topic("prices").subscription("g").declare()
        owed += [Address(Kind.TOPIC, "prices"), Address(Kind.SUBSCRIPTION, "prices", "g")]
    if kit.can("dead_letters"):
        async with broker.queue("orders").consume() as messages:
            await (await kit.one(messages)).reject("no")
    assert await kit.broker().sources() == owed
