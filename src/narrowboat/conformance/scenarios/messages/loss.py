"""B62 to B87: nothing is lost: killed and stopped consumers, lost replies, members that come and go, whole histories."""

from __future__ import annotations

import random
import time
from typing import Any

import narrowboat
from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.checks.history_queues import History, check
from narrowboat.conformance.kit import Faults, Kit
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.scenarios.messages.common import (
    acked,
    depth_is,
    drained,
    emptied,
    judged,
    lease_of,
    nothing,
    one,
    published,
    take,
)
from narrowboat.conformance.users.child import Link
from narrowboat.conformance.users.opening import opened
from narrowboat.errors import NarrowboatError, PublishFailed, PublishUnknown, StaleDelivery


@scenario("B62", tier="H", seconds=120)
async def drained_to_empty(kit: Kit) -> None:
    """Publishers and consumers at once, then drained: every confirmed publish is seen and the depth is 0."""
    history, broker = History(), kit.broker()
    orders = broker.queue("orders")
    each = max(10, int(150 * kit.size))
    publishing = 4

    async def publisher() -> None:
        nonlocal publishing
        for _ in range(each):
            history.published((await orders.publish(b"x")).id)
        publishing -= 1

    async def consumer() -> None:
        async with orders.consume(prefetch=10) as messages:
            while (message := await messages.receive(0.3)) is not None or publishing:
                if message is not None:
                    await acked(history, message)

    await kit.together(*(publisher() for _ in range(4)), *(consumer() for _ in range(4)))
    await depth_is(kit, orders, ready=0, in_flight=0, delayed=0, dead=0)
    verdict = check(history, drained=True)
    assert verdict.ok and verdict.deliveries == 4 * each, str(verdict)


@scenario("B86", tier="H", seconds=120)
async def no_duplicates_without_faults(kit: Kit) -> None:
    """Without faults: no duplicate, no delivery after an answered ack; both as numbers."""
    history = History()
    orders, other = kit.broker().queue("orders"), kit.broker().queue("orders")
    count = max(50, int(1000 * kit.size))
    for start in range(0, count, 50):
        for each in await orders.publish_many([b"x"] * min(50, count - start)):
            assert not isinstance(each, Exception), each
            history.published(each.id)

    async def consumer(queue: Any) -> None:
        async with queue.consume(prefetch=20) as messages:
            while (message := await messages.receive(0.5)) is not None:
                await acked(history, message)

    await kit.together(consumer(orders), consumer(other), consumer(orders))
    verdict = check(history, drained=True)
    kit.measure("duplicates without a fault", float(len(verdict.duplicated)), "messages")
    kit.measure("deliveries after an answered ack", float(len(verdict.after_ack)), "messages")
    assert verdict.ok and not verdict.duplicated, str(verdict)


# -- processes --------------------------------------------------------------------------------------------------------


def takes_and_waits(link: Link, url: str, lease: float) -> None:
    """A child: take one message, tell, ack it when told to, tell how that went; again, until it is killed."""
    with opened(url).queue("orders", lease=lease, max_deliveries=0).consume(prefetch=1) as messages:
        for message in messages:
            link.tell("took", id=message.id, attempt=message.attempt)
            link.wait("ack")
            try:
                message.ack()
            except NarrowboatError as error:
                link.tell("refused", error=type(error).__name__)
            else:
                link.tell("acked")


@scenario("B63", "B64", tier="P", needs="scope=host", refused=demand, faults={Fault.PROCESS})
async def killed_in_its_handler(kit: Kit) -> None:
    """A consumer killed in its handler: a peer gets the message within lease and lag, flagged, with attempt 2."""
    lease = lease_of(kit)
    orders = kit.broker().queue("orders", lease=lease, max_deliveries=0)
    receipt = await orders.publish(b"x")
    child = await kit.child(takes_and_waits, url=kit.broker_url, lease=lease)
    told = await child.event("took")
    assert (told["id"], told["attempt"]) == (receipt.id, 1)
    killed = child.kill()
    async with orders.consume() as messages:
        again = await one(kit, messages, lease + kit.broker_claims.lease_lag + 5)
        took = time.monotonic() - killed
        kit.measure("kill to redelivery", took)
        assert took <= lease + kit.upper(kit.broker_claims.lease_lag), f"redelivered {took:g} s after the kill"
        assert (again.id, again.attempt, again.redelivered) == (receipt.id, 2, True)
        await again.ack()


@scenario("B65", tier="P", needs="scope=host", refused=demand, faults={Fault.PROCESS})
async def killed_right_after_its_ack(kit: Kit) -> None:
    """A consumer killed right after its ack was answered: the message never comes back; the next one does."""
    lease = lease_of(kit)
    orders = kit.broker().queue("orders", lease=lease, max_deliveries=0)
    await orders.publish(b"x")
    child = await kit.child(takes_and_waits, url=kit.broker_url, lease=lease)
    await child.event("took")
    child.tell("ack")
    await child.event("acked")
    child.kill()
    async with orders.consume() as messages:
        await nothing(messages, lease + kit.broker_claims.lease_lag + 0.3)
        await orders.publish(b"control")
        assert (await one(kit, messages)).body == b"control"


@scenario("B66", "B80", tier="P", needs="scope=host", refused=demand, faults={Fault.PROCESS})
async def a_zombies_ack_is_stale(kit: Kit) -> None:
    """A consumer stopped past its lease and continued: its ack is stale, the peer's copy survives, then it consumes on."""
    lease = lease_of(kit)
    orders = kit.broker().queue("orders", lease=lease, max_deliveries=0)
    await orders.publish(b"x")
    child = await kit.child(takes_and_waits, url=kit.broker_url, lease=lease)
    await child.event("took")
    child.stop()
    async with orders.consume() as messages:
        copy = await one(kit, messages, lease + kit.broker_claims.lease_lag + 5)
        assert copy.attempt == 2
        child.tell("ack")
        child.resume()
        assert (await child.event("refused", "acked")).get("error") == "StaleDelivery"
        await nothing(messages, 0.3)
        await copy.ack()
    await depth_is(kit, orders, ready=0, in_flight=0)
    receipt = await orders.publish(b"next")
    assert (await child.event("took"))["id"] == receipt.id
    child.tell("ack")
    await child.event("acked")


@scenario("B80", tier="T", needs="lease=message", refused=demand)
async def a_lost_delivery_can_do_nothing(kit: Kit) -> None:
    """Who lost a delivery can neither ack, nack, reject nor extend it, and none of that takes it from its new owner."""
    lease = lease_of(kit)
    first, second = (kit.broker().queue("orders", lease=lease, max_deliveries=0) for _ in range(2))
    await first.publish_many([b"0", b"1", b"2", b"3"])
    async with first.consume(auto_extend=False) as messages, second.consume() as theirs:
        zombies = await take(kit, messages, 4)
        copies = await take(kit, theirs, 4, lease + kit.broker_claims.lease_lag + 5)
        await fails(StaleDelivery, zombies[0].extend(lease))
        await fails(StaleDelivery, zombies[1].nack())
        await fails(StaleDelivery, zombies[2].reject("no") if kit.can("dead_letters") else zombies[2].nack())
        await fails(StaleDelivery, zombies[3].ack())
        await nothing(messages, lease)
        for copy in copies:
            await copy.ack()
    await depth_is(kit, first, ready=0, in_flight=0, dead=0)


# -- lost requests and replies ----------------------------------------------------------------------------------------


@scenario("B73", faults={Fault.REPLY})
async def an_unconfirmed_publish_is_unknown(kit: Kit) -> None:
    """A publish whose answer is lost is PublishUnknown and is not repeated behind the caller's back; it is there once."""
    faults = Faults()
    orders = kit.broker(faults=faults).queue("orders", max_deliveries=0)
    faults.drop_reply("send")
    error = await fails(PublishUnknown, orders.publish(b"x", id="a"))
    assert error.retryable and error.id == "a"
    assert kit.seen.calls["send"] == 1
    assert await drained(orders) == [b"x"]


@scenario("B73", needs="dedup", refused=demand, faults={Fault.REPLY})
async def repeating_with_the_same_id(kit: Kit) -> None:
    """Repeating an unknown publish with the same id delivers once, whether its request or its answer was lost."""
    for lost in ("drop_reply", "drop_request"):
        faults = Faults()
        orders = kit.broker(faults=faults).queue("orders", max_deliveries=0)
        getattr(faults, lost)("send")
        await fails(PublishUnknown, orders.publish(b"x", id=lost))
        receipt = await orders.publish(b"x", id=lost)
        assert receipt.duplicate is (lost == "drop_reply")
        assert await drained(orders) == [b"x"]


@scenario("B73", faults={Fault.REPLY})
async def a_refused_publish_is_never_delivered(kit: Kit) -> None:
    """A publish that the backend refuses raises that refusal, is not called unknown, and is never delivered."""
    faults = Faults()
    orders = kit.broker(faults=faults).queue("orders", max_deliveries=0)
    faults.fail("send", PublishFailed("no room", id="a"))
    await fails(PublishFailed, orders.publish(b"refused", id="a"))
    await orders.publish(b"good")
    assert await drained(orders) == [b"good"]


@scenario("B75", faults={Fault.REPLY})
async def an_ack_whose_answer_is_lost(kit: Kit) -> None:
    """When an ack's answer is lost the consumer lives on, there is no storm of errors, and at most one redelivery."""
    faults = Faults()
    orders = kit.broker(faults=faults).queue("orders", max_deliveries=0)
    await orders.publish(b"x")
    async with orders.consume() as messages:
        message = await one(kit, messages)
        faults.drop_reply("settle")
        try:
            await message.ack()
        except narrowboat.BrokerError:
            pass
        assert kit.seen.calls["settle"] <= 3
        await orders.publish(b"next")
        seen = [message.body for message in await emptied(messages)]
        assert seen.count(b"next") == 1 and seen.count(b"x") <= 1, seen
    assert await drained(orders) == []


@scenario("B75", faults={Fault.REPLY})
async def a_fetch_that_fails_is_tried_again(kit: Kit) -> None:
    """A consumer whose fetches fail for a while goes on by itself; the errors do not end its iteration."""
    faults = Faults()
    orders = kit.broker(faults=faults).queue("orders", max_deliveries=0)
    async with orders.consume() as messages:
        faults.drop_request("receive", times=3)
        await orders.publish(b"x")
        assert (await one(kit, messages, 20)).body == b"x"


# -- members ----------------------------------------------------------------------------------------------------------


@scenario("B79", tier="H", seconds=120)
async def members_come_and_go(kit: Kit) -> None:
    """Consumers join and leave under flow: nothing is lost, and what is delivered twice is at most what was in flight."""
    history, count, prefetch, rounds = History(), max(40, int(300 * kit.size)), 5, 4
    await kit.broker().queue("orders", max_deliveries=0).declare()
    publisher = kit.broker().queue("orders", max_deliveries=0)
    published = False

    async def publish() -> None:
        nonlocal published
        for _ in range(count):
            history.published((await publisher.publish(b"x")).id)
        published = True

    async def member(number: int) -> None:
        for round in range(rounds):
            last = round == rounds - 1
            async with kit.broker().queue("orders", max_deliveries=0).consume(prefetch=prefetch) as messages:
                handled = 0
                while last or handled < 7 + number:
                    message = await messages.receive(0.4)
                    if message is None:
                        if last and not published:
                            continue
                        break
                    history.delivered(message.id, message.attempt)
                    handled += 1
                    if handled == 7 + number and not last:
                        break  # leaves with this one in its hands
                    await message.ack()
                    history.acked(message.id)

    await kit.together(publish(), *(member(n) for n in range(3)))
    verdict = await judged(kit, history, publisher, 0.3)  # with what the last to leave gave back
    assert verdict.ok, str(verdict)
    assert len(verdict.duplicated) <= 3 * (rounds - 1), str(verdict)


@scenario("B87", tier="H", faults={Fault.REPLY}, seconds=180)
async def a_mixed_history_with_faults(kit: Kit) -> None:
    """A mixed run with lost requests and replies, nacks and dropped deliveries passes the history checker."""
    chance = random.Random(kit.size)  # a plan of faults, no secret
    history, faults = History(), Faults()
    broker = kit.broker(faults=faults)
    orders = broker.queue("orders", max_deliveries=0)
    each = max(15, int(1000 * kit.size / 4))
    publishing = 4

    async def publisher(number: int) -> None:
        nonlocal publishing
        for n in range(each):
            id = f"{number}-{n}"
            draw = chance.random()
            if draw < 0.02:
                faults.drop_reply("send")
            elif draw < 0.04:
                faults.drop_request("send")
            await published(history, orders, id)
        publishing -= 1

    async def consumer() -> None:
        async with orders.consume(prefetch=10) as messages:
            while True:
                message = await messages.receive(1.0)
                if message is None:
                    if publishing:
                        continue
                    return
                draw = chance.random()
                if draw < 0.02:
                    faults.drop_reply("settle")
                elif draw < 0.04:
                    faults.drop_request("settle")
                if draw > 0.9:
                    history.delivered(message.id, message.attempt)
                    try:
                        await message.nack()
                    except narrowboat.BrokerError:
                        history.ack_unknown(message.id)
                    continue
                await acked(history, message, (narrowboat.BrokerError,))

    await kit.together(*(publisher(n) for n in range(4)), *(consumer() for _ in range(4)))
    faults.clear()
    verdict = await judged(kit, history, kit.broker().queue("orders", max_deliveries=0), 0.5, (narrowboat.BrokerError,))
    kit.measure("duplicates in the mixed run", float(len(verdict.duplicated)), "messages")
    assert verdict.ok, str(verdict)
