"""B11 and B16: names: no two allowed names meet, however odd. Others are refused before anything is sent."""

from __future__ import annotations

from functools import partial
from typing import Any

from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.message_kit import MessageKit, are_same, asks_for_a_topic, publish_all
from narrowboat.conformance.scenario import scenario
from narrowboat.errors import Conflict, InvalidArgument

#: Names that are allowed, however odd. No two of them may meet.
NAMES = [
    "a",
    "A",
    "a b",
    "a/b",
    "a%2Fb",
    "a_b",
    "a-b",
    "ünïcödé",
    "鍵",
    "a.b",
    "a..b",
    "x" * 300,
    "x" * 301,
    "'; drop",
    "%",
    "*",
    "#",
]


@scenario("B11")
async def queues_do_not_meet(kit: MessageKit) -> None:
    """Twenty queues with odd names get a hundred messages each, all at once. Each queue has its own and no other."""
    broker = kit.broker()
    names = [*NAMES, *(f"plain{n}" for n in range(20 - len(NAMES)))]

    def bodies(name: str) -> list[bytes]:
        return [f"{name}|{n}".encode() for n in range(100)]

    async def fill(name: str) -> None:
        await publish_all(broker.queue(name), bodies(name))

    async def empty(name: str) -> None:
        # It takes all that is there at once: of queues that have met, each could happen to take just its own.
        async with broker.queue(name).consume(prefetch=2000) as messages:
            got = await kit.take(messages, 100, within=30, ack=True)
            await kit.nothing(messages)
        are_same(bodies(name), (m.body for m in got))

    await kit.together(*(fill(name) for name in names))
    await kit.together(*(empty(name) for name in names))


BAD_NAMES: list[Any] = ["", "x" * 1001, "a\nb", "\x00", "orders.dead", "orders.retry", "orders.delayed", 7, None, b"bytes"]


@scenario("B11")
async def names_that_cannot_be(kit: MessageKit) -> None:
    """A name that is empty, too long, reserved, no text or has control characters is an InvalidArgument. Nothing is sent."""
    broker = kit.broker()
    for name in BAD_NAMES:
        await fails(InvalidArgument, partial(broker.queue, name), what=repr(name))
    assert not kit.seen.calls


@scenario("B11", needs="topics", refused=asks_for_a_topic)
async def names_that_no_topic_can_have(kit: MessageKit) -> None:
    """The same holds for topics, and for groups, whose names have no dot."""
    broker = kit.broker()
    for name in BAD_NAMES:
        await fails(InvalidArgument, partial(broker.topic, name), what=repr(name))
    prices = broker.topic("prices")
    for group in ("", "a.b", "dead", "a\nb"):
        await fails(InvalidArgument, partial(prices.subscription, group), what=repr(group))
    assert not kit.seen.calls


@scenario("B16", needs="topics", refused=asks_for_a_topic)
async def one_name_is_a_queue_or_a_topic(kit: MessageKit) -> None:
    """Queues and topics share a namespace: one name as both is a Conflict, and the queue that was there works on."""
    broker = kit.broker()
    orders = broker.queue("orders")
    await orders.declare()
    await fails(Conflict, broker.topic("orders").subscription("g").declare())
    await orders.publish(b"x")
    await kit.contains(orders, [b"x"])
