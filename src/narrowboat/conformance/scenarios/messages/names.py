"""B11 and B16: names: those that are allowed do not meet, however odd; the others are refused before anything is sent."""

from __future__ import annotations

from typing import Any

from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.message_kit import MessageKit, asks_for_a_topic
from narrowboat.conformance.scenario import scenario
from narrowboat.contract.messages import Receipt
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
    """Twenty queues at once, a hundred messages each, under odd names: each gets its own and nothing of the others."""
    broker = kit.broker()
    names = [*NAMES, *(f"plain{n}" for n in range(20 - len(NAMES)))]

    async def fill(name: str) -> None:
        outcomes = await broker.queue(name).publish_many([f"{name}|{n}".encode() for n in range(100)])
        assert all(isinstance(each, Receipt) for each in outcomes), outcomes[:1]

    async def empty(name: str) -> None:
        # It takes all that is there at once: of queues that have met, each could happen to take just its own.
        async with broker.queue(name).consume(prefetch=2000) as messages:
            got = await kit.take(messages, 100, within=30, ack=True)
            await kit.nothing(messages)
        assert sorted(m.body for m in got) == sorted(f"{name}|{n}".encode() for n in range(100))

    await kit.together(*(fill(name) for name in names))
    await kit.together(*(empty(name) for name in names))


BAD_NAMES: list[Any] = ["", "x" * 1001, "a\nb", "\x00", "orders.dead", "orders.retry", "orders.delayed", 7, None, b"bytes"]


@scenario("B11")
async def names_that_cannot_be(kit: MessageKit) -> None:
    """Empty, too long, control characters, reserved endings, no text: an InvalidArgument, and nothing is sent."""
    broker = kit.broker()
    for name in BAD_NAMES:
        await fails(InvalidArgument, lambda name=name: broker.queue(name))  # type: ignore[misc]  # bound now
    assert not kit.seen.calls


@scenario("B11", needs="topics", refused=asks_for_a_topic)
async def names_that_no_topic_can_have(kit: MessageKit) -> None:
    """The same for topics and for groups, whose names have no dot."""
    broker = kit.broker()
    for name in BAD_NAMES:
        await fails(InvalidArgument, lambda name=name: broker.topic(name))  # type: ignore[misc]  # bound now
    for group in ("", "a.b", "dead", "a\nb"):
        await fails(InvalidArgument, lambda group=group: broker.topic("prices").subscription(group))  # type: ignore[misc]  # bound now
    assert not kit.seen.calls


@scenario("B16", needs="topics", refused=asks_for_a_topic)
async def one_name_is_a_queue_or_a_topic(kit: MessageKit) -> None:
    """Queues and topics share a namespace: one name as both is a Conflict, and what was there works on."""
    broker = kit.broker()
    await broker.queue("orders").declare()
    await fails(Conflict, broker.topic("orders").subscription("g").declare())
    await broker.queue("orders").publish(b"x")
    assert await kit.drained(broker.queue("orders")) == [b"x"]
