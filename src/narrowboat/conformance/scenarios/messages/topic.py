"""B12 to B16 and B100: topics: every group gets everything, its members share it, and it begins as it was declared."""

from __future__ import annotations

from narrowboat.conformance.message_kit import MessageKit, are_same, asks_for_a_topic, numbered, publish_all
from narrowboat.conformance.scenario import scenario


@scenario("B12", "B16", needs="topics", refused=asks_for_a_topic)
async def every_group_gets_everything(kit: MessageKit) -> None:
    """Each group of a topic gets each message once. A group of the same name at another topic gets none of them."""
    broker = kit.broker()
    prices, other = broker.topic("prices"), broker.topic("other")
    async with (
        prices.subscription("a").consume() as a,
        prices.subscription("b").consume() as b,
        other.subscription("a").consume() as c,
    ):
        for body in numbered(20):
            await prices.publish(body)
        for messages in (a, b):
            got = await kit.take(messages, 20, ack=True)
            are_same(numbered(20), (m.body for m in got))
            await kit.nothing(messages)
        await kit.nothing(c)
        await other.publish(b"control")
        await kit.comes(c, b"control")


@scenario("B13", needs="topics", refused=asks_for_a_topic)
async def members_of_a_group_share(kit: MessageKit) -> None:
    """Members of one group share its messages: together they get all of them, each exactly once."""
    topic = kit.broker().topic("prices")
    await topic.subscription("g").declare()
    await publish_all(topic, numbered(90))
    await kit.share([kit.broker().topic("prices").subscription("g") for _ in range(3)], 90)


@scenario("B14", "B15", needs="topics", refused=asks_for_a_topic)
async def a_group_begins_when_it_is_declared(kit: MessageKit) -> None:
    """A topic without groups drops. A group gets all that is published after its declare() or consume() has returned."""
    topic = kit.broker().topic("prices")
    await topic.publish(b"before")
    late = kit.broker().topic("prices").subscription("late")
    await late.declare()
    await topic.publish(b"after declare")
    await kit.contains(late, [b"after declare"])
    async with topic.subscription("live").consume() as messages:
        await kit.broker().topic("prices").publish(b"after consume")
        await kit.comes(messages, b"after consume")


async def _asks_for_earliest(kit: MessageKit) -> None:
    kit.broker().topic("prices").subscription("g", start="earliest")


@scenario("B14", needs="replay", refused=_asks_for_earliest)
async def a_group_from_the_earliest(kit: MessageKit) -> None:
    """A subscription that starts at the earliest gets what its topic still has. One that starts at the latest does not."""
    topic = kit.broker().topic("prices")
    await topic.subscription("first").declare()
    await publish_all(topic, numbered(3))
    await kit.contains(topic.subscription("all", start="earliest"), numbered(3))
    await kit.contains(topic.subscription("new"), [])


@scenario("B100", needs="topics", refused=asks_for_a_topic)
async def a_topic_takes_its_groups_with_it(kit: MessageKit) -> None:
    """A topic that is deleted takes its groups and their messages with it: a group made later begins with nothing."""
    topic = kit.broker().topic("prices")
    await topic.subscription("g").declare()
    await topic.publish(b"old")
    assert await topic.delete()
    again = kit.broker().topic("prices")
    async with again.subscription("g").consume() as messages:
        await kit.nothing(messages)
        await again.publish(b"new")
        await kit.comes(messages, b"new")


@scenario("B100", needs="topics", refused=asks_for_a_topic)
async def leave_and_come_back(kit: MessageKit) -> None:
    """A member that comes back finds what was published meanwhile. A group that is deleted gets nothing more."""
    topic = kit.broker().topic("prices")
    g = topic.subscription("g")
    async with g.consume() as messages:
        await topic.publish(b"0")
        await kit.comes(messages, b"0")
    await topic.publish(b"1")
    async with g.consume() as messages:
        await topic.publish(b"2")
        assert sorted(m.body for m in await kit.take(messages, 2, ack=True)) == [b"1", b"2"]
    assert await g.delete()
    await topic.publish(b"3")
    async with g.consume() as messages:
        await kit.nothing(messages)
        await topic.publish(b"4")
        await kit.comes(messages, b"4")
