"""B41 to B44: dead letters: what cannot be handled is kept as it was, with the reason, and can be sent back."""

from __future__ import annotations

import contextlib
from typing import Any

from narrowboat import codecs
from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.message_kit import MessageKit, are_same, asks_for_dead_letters, numbered, publish_all
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.users.child import Link
from narrowboat.conformance.users.opening import opened
from narrowboat.errors import BrokerError
from narrowboat.messaging import Outbound


async def _asks_for_dead_letters_of_a_group(kit: MessageKit) -> None:
    kit.broker().topic("prices").subscription("a").dead_letters()


@scenario("B41", needs=("dead_letters", "topics"), refused=_asks_for_dead_letters_of_a_group)
async def a_group_has_dead_letters_of_its_own(kit: MessageKit) -> None:
    """A message that one group of a topic rejects is that group's dead letter alone. Another group's copy is untouched."""
    topic = kit.broker().topic("prices")
    a, b = topic.subscription("a"), topic.subscription("b")
    async with a.consume() as in_a, b.consume() as in_b:
        await topic.publish(b"x")
        await (await kit.one(in_a)).reject("by a")
        await kit.comes(in_b, b"x")
    await kit.depth_is(a, dead=1)
    await kit.depth_is(b, dead=0, ready=0)
    letter = await kit.dead_letter(a)
    assert letter.dead.origin == "prices.a"


@scenario("B41", needs="dead_letters", refused=asks_for_dead_letters)
async def dead_letters_die_once(kit: MessageKit) -> None:
    """A dead letter that is rejected is gone. It neither comes again nor is kept anywhere else."""
    orders = await kit.filled(b"x")
    async with orders.consume() as messages:
        await (await kit.one(messages)).reject("bad")
    async with orders.dead_letters().consume() as dead:
        await (await kit.one(dead)).reject("worse")
        await kit.nothing(dead)
    await kit.depth_is(orders, ready=0, in_flight=0, dead=0)


@scenario("B42", needs="dead_letters", refused=asks_for_dead_letters)
async def what_cannot_be_decoded_dies(kit: MessageKit) -> None:
    """Bytes that the codec cannot decode become a dead letter with these bytes. The consumer goes on."""
    broker = kit.broker()
    await broker.queue("orders").publish(b"\xff{no json")
    await broker.queue("orders").publish(b'{"n": 1}')
    orders = broker.queue("orders", codec=codecs.JSON)
    seen: list[Any] = []

    async def handle(message: Any) -> None:
        seen.append(message.data)

    async with kit.at_work(orders, handle):
        await kit.eventually(lambda: seen == [{"n": 1}], what="the good message is handled")
        await kit.depth_is(orders, within=30, ready=0, in_flight=0, delayed=0, dead=1)
    await kit.contains(broker.queue("orders").dead_letters(), [b"\xff{no json"])


@scenario("B43", needs="dead_letters", refused=asks_for_dead_letters)
async def dead_letters_are_redriven_once(kit: MessageKit) -> None:
    """redrive() moves dead letters back in their order, each once and as it was, as attempt 1. A count limits it."""
    orders = kit.queue()
    # Of one key: a log of several partitions knows no order of others.
    receipts = await publish_all(orders, [Outbound(body, key="k") for body in numbered(6)])
    async with orders.consume() as messages:
        for message in await kit.take(messages, 6):
            await message.reject("later")
    dead = orders.dead_letters()
    assert await dead.redrive(2) == 2
    await kit.depth_is(orders, ready=2, dead=4)
    assert await dead.redrive() == 4
    assert await dead.redrive() == 0
    async with orders.consume() as messages:
        got = await kit.take(messages, 6, ack=True)
        await kit.nothing(messages)
    bodies = [m.body for m in got]
    if kit.can("uncounted_release"):
        assert bodies == numbered(6)
        assert {m.attempt for m in got} == {1}
    are_same(numbered(6), bodies)
    assert {m.key for m in got} == {"k"}
    assert all(m.dead is None for m in got), "a redriven message still says that it is dead"
    assert {m.id for m in got} == {receipt.id for receipt in receipts}


@scenario("B43", needs="dead_letters", refused=asks_for_dead_letters)
async def a_part_of_many_dead_letters_is_redriven(kit: MessageKit) -> None:
    """redrive(120) of 230 moves the 120 oldest, and leaves the others in their order, whatever it has fetched on the way."""
    orders, bodies = kit.queue(), numbered(230)
    await publish_all(orders, [Outbound(body, key="k") for body in bodies])
    async with orders.consume() as messages:
        for _ in range(5):
            for message in await kit.take(messages, 46):
                await message.reject("later")
    dead = orders.dead_letters()
    assert await dead.redrive(120) == 120
    async with orders.consume() as messages, dead.consume() as letters:
        moved = [message.body for message in await kit.take(messages, 120, ack=True)]
        left = [letter.body for letter in await kit.take(letters, 110, ack=True)]
    found = moved + left
    are_same(bodies, found)
    if kit.can("uncounted_release"):
        wrong = [at for at in range(230) if found[at] != bodies[at]]
        assert not wrong, f"{len(wrong)} are out of order, the first in place {wrong[0]}: {found[wrong[0]]!r}"


@scenario("B43", needs="dead_letters", refused=asks_for_dead_letters)
async def chosen_dead_letters_are_redriven(kit: MessageKit) -> None:
    """redrive(ids=) moves the letters with these ids and no others. An id that is not there moves nothing."""
    orders = kit.queue()
    receipts = await publish_all(orders, numbered(5))
    async with orders.consume() as messages:
        for message in await kit.take(messages, 5):
            await message.reject("later")
    dead, ids = orders.dead_letters(), [receipts[at].id for at in (3, 1)]
    assert await dead.redrive(ids=[*ids, "nobody"]) == 2
    assert await dead.redrive(ids=ids) == 0
    await kit.contains(orders, [b"1", b"3"])
    await kit.depth_is(orders, ready=0, in_flight=0, dead=3)


@scenario("B44", needs="dead_letters", refused=asks_for_dead_letters, faults={Fault.REPLY})
async def a_lost_reply_on_the_way_to_the_dead_letters(kit: MessageKit) -> None:
    """The answer to a reject is lost. The message is a dead letter, once or more with the same id, and never lost."""
    faults, orders = kit.faulty()
    receipt = await orders.publish(b"x")
    async with orders.consume() as messages:
        message = await kit.one(messages)
        faults.drop_reply("settle")
        with contextlib.suppress(BrokerError):
            await message.reject("bad")
        await kit.nothing(messages)
    async with orders.dead_letters().consume() as dead:
        letter = await kit.one(dead)
        await letter.ack()
        assert {each.id for each in (letter, *await kit.emptied(dead, 0.2))} == {receipt.id}


def rejects_for_ever(link: Link, url: str, lease: float) -> None:
    """A child: tell of each message, and reject it, until it is killed."""
    with opened(url).queue("orders", lease=lease).consume(prefetch=1) as messages:
        for message in messages:
            link.tell("rejecting", id=message.id)
            message.reject("bad")


@scenario("B44", tier="P", needs=("dead_letters", "scope=host"), refused=demand, faults={Fault.PROCESS})
async def killed_on_the_way_to_the_dead_letters(kit: MessageKit) -> None:
    """A consumer is killed while it rejects. Every message is ready again or a dead letter, and at most one is both."""
    lease, count = kit.short_lease, 60
    orders = kit.queue(lease=lease)
    ids = {receipt.id for receipt in await publish_all(orders, numbered(count))}
    child = await kit.child(rejects_for_ever, url=kit.broker_url, lease=lease)
    for _ in range(10):
        await child.event("rejecting")
    child.kill()
    async with orders.dead_letters().consume() as dead:
        found = [letter.id for letter in await kit.emptied(dead)]
    async with orders.consume() as messages:
        found += [message.id for message in await kit.emptied(messages, kit.lapse(lease) + 1)]
    assert set(found) == ids, f"lost: {len(ids - set(found))}, unexpected: {len(set(found) - ids)}"
    assert len(found) <= count + 1, f"{len(found) - count} duplicates"
