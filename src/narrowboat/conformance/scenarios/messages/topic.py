"""B12 to B16 and B100: topics: every group gets everything, its members share it, and it begins as it was declared."""

from __future__ import annotations

from narrowboat.conformance.message_kit import MessageKit, asks_for_a_topic
from narrowboat.conformance.scenario import scenario


@scenario("B12", "B16", needs="topics", refused=asks_for_a_topic)
async def every_group_gets_everything(kit: MessageKit) -> None:
    """Each group of a topic gets each message once; a group of the same name at another topic gets none of them."""
    broker = kit.broker()
    prices, other = broker.topic("prices"), broker.topic("other")
    async with (
        prices.subscription("a").consume() as a,
        prices.subscription("b").consume() as b,
        other.subscription("a").consume() as c,
    ):
        for n in range(20):
            await prices.publish(str(n).encode())
        for messages in (a, b):
            got = await kit.take(messages, 20, ack=True)
            assert sorted(int(m.body) for m in got) == list(range(20))
            await kit.nothing(messages)
        await kit.nothing(c)
        await other.publish(b"control")
        assert (await kit.one(c)).body == b"control"


@scenario("B13", needs="topics", refused=asks_for_a_topic)
async def members_of_a_group_share(kit: MessageKit) -> None:
    """Members of one group share its messages: together all of them, each exactly once."""
    total = 90
    done: list[int] = []
    topic = kit.broker().topic("prices")
    await topic.subscription("g").declare()
    await topic.publish_many([str(n).encode() for n in range(total)])

    async def member() -> None:
        async with kit.broker().topic("prices").subscription("g").consume(prefetch=5) as messages:
            while len(done) < total and (message := await messages.receive(0.3)) is not None:
                done.append(int(message.body))
                await message.ack()

    await kit.together(member(), member(), member())
    assert sorted(done) == list(range(total))


@scenario("B14", "B15", needs="topics", refused=asks_for_a_topic)
async def a_group_begins_when_it_is_declared(kit: MessageKit) -> None:
    """A topic without groups drops; a group gets what is published after declare() or consume() has returned, no less."""
    topic = kit.broker().topic("prices")
    await topic.publish(b"before")
    late = kit.broker().topic("prices").subscription("late")
    await late.declare()
    await topic.publish(b"after declare")
    assert await kit.drained(late) == [b"after declare"]
    async with topic.subscription("live").consume() as messages:
        await kit.broker().topic("prices").publish(b"after consume")
        assert (await kit.one(messages)).body == b"after consume"


async def _asks_for_earliest(kit: MessageKit) -> None:
    kit.broker().topic("prices").subscription("g", start="earliest")


@scenario("B14", needs="replay", refused=_asks_for_earliest)
async def a_group_from_the_earliest(kit: MessageKit) -> None:
    """A subscription that starts at the earliest begins with what its topic still has; another at the latest does not."""
    topic = kit.broker().topic("prices")
    await topic.subscription("first").declare()
    await topic.publish_many([b"0", b"1", b"2"])
    assert sorted(await kit.drained(topic.subscription("all", start="earliest"))) == [b"0", b"1", b"2"]
    assert await kit.drained(topic.subscription("new")) == []


@scenario("B100", needs="topics", refused=asks_for_a_topic)
async def leave_and_come_back(kit: MessageKit) -> None:
    """A member that leaves and comes back finds what was published meanwhile; a group that is deleted gets nothing more."""
    topic = kit.broker().topic("prices")
    g = topic.subscription("g")
    async with g.consume() as messages:
        await topic.publish(b"0")
        await (await kit.one(messages)).ack()
    await topic.publish(b"1")
    async with g.consume() as messages:
        await topic.publish(b"2")
        assert sorted(m.body for m in await kit.take(messages, 2, ack=True)) == [b"1", b"2"]
    assert await g.delete()
    await topic.publish(b"3")
    async with g.consume() as messages:
        await kit.nothing(messages)
        await topic.publish(b"4")
        assert (await kit.one(messages)).body == b"4"
