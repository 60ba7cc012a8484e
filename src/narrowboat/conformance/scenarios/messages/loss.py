"""B62 to B87: nothing is lost: killed and stopped consumers, lost replies, members that come and go, whole histories."""

from __future__ import annotations

import contextlib
import random
import time
from typing import Any

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.checks.history_queues import History, check
from narrowboat.conformance.kit import Faults
from narrowboat.conformance.message_kit import MessageKit, publish_all
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.scenarios.messages.histories import acked, judged, published
from narrowboat.conformance.users.child import Link
from narrowboat.conformance.users.opening import opened
from narrowboat.errors import BrokerError, NarrowboatError, PublishFailed, PublishUnknown, StaleDelivery


@scenario("B62", tier="H", seconds=120)
async def drained_to_empty(kit: MessageKit) -> None:
    """Publishers and consumers work at once. Every confirmed message is delivered, and the depth is 0 in the end."""
    history, orders = History(), kit.queue()
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
    await kit.depth_is(orders, ready=0, in_flight=0, delayed=0, dead=0)
    verdict = check(history, drained=True)
    assert verdict.ok and verdict.deliveries == 4 * each, f"{4 * each} published; {verdict}"


@scenario("B86", tier="H", seconds=120)
async def no_duplicates_without_faults(kit: MessageKit) -> None:
    """Without faults no message is delivered twice, and none after its ack was answered. The report has both numbers."""
    history = History()
    orders, other = kit.queue(), kit.queue()
    count = max(50, int(1000 * kit.size))
    for start in range(0, count, 50):
        for receipt in await publish_all(orders, [b"x"] * min(50, count - start)):
            history.published(receipt.id)

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
    """A child: take a message, tell, ack it when told to, and tell how that went. It repeats that until it is killed."""
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


async def _taker(kit: MessageKit, orders: Any, lease: float) -> tuple[Any, str]:
    """A child that has just taken the first message of `orders`, and that message's id."""
    receipt = await orders.publish(b"x")
    child = await kit.child(takes_and_waits, url=kit.broker_url, lease=lease)
    told = await child.event("took")
    assert (told["id"], told["attempt"]) == (receipt.id, 1), f"the child took {told}, and {receipt.id} was owed"
    return child, receipt.id


@scenario("B63", "B64", tier="P", needs="scope=host", refused=demand, faults={Fault.PROCESS})
async def killed_in_its_handler(kit: MessageKit) -> None:
    """A consumer is killed in its handler. A peer gets the message within lease and lag, redelivered, as attempt 2."""
    lease = kit.short_lease
    orders = kit.queue(lease=lease, max_deliveries=0)
    child, id = await _taker(kit, orders, lease)
    killed = child.kill()
    async with orders.consume() as messages:
        again = await kit.one(messages, kit.lapse(lease) + 5)
        took = time.monotonic() - killed
        kit.measure("kill to redelivery", took, bound=lease + kit.broker_claims.lease_lag)
        assert took <= lease + kit.upper(kit.broker_claims.lease_lag), f"redelivered {took:g} s after the kill"
        assert (again.id, again.attempt, again.redelivered) == (id, 2, True)
        await again.ack()


@scenario("B65", tier="P", needs="scope=host", refused=demand, faults={Fault.PROCESS})
async def killed_right_after_its_ack(kit: MessageKit) -> None:
    """A consumer is killed right after its ack was answered. The message does not come back, and the next one comes."""
    lease = kit.short_lease
    orders = kit.queue(lease=lease, max_deliveries=0)
    child, _ = await _taker(kit, orders, lease)
    child.tell("ack")
    await child.event("acked")
    child.kill()
    async with orders.consume() as messages:
        await kit.nothing(messages, kit.lapse(lease) + 0.3)
        await orders.publish(b"control")
        await kit.comes(messages, b"control")


@scenario("B66", "B80", tier="P", needs="scope=host", refused=demand, faults={Fault.PROCESS})
async def a_zombies_ack_is_stale(kit: MessageKit) -> None:
    """A consumer stands still until after its lease. Its ack is stale, a peer's copy stays the peer's, and it consumes on."""
    lease = kit.short_lease
    orders = kit.queue(lease=lease, max_deliveries=0)
    child, _ = await _taker(kit, orders, lease)
    child.stop()
    async with orders.consume() as messages:
        copy = await kit.one(messages, kit.lapse(lease) + 5)
        assert copy.attempt == 2
        child.tell("ack")
        child.resume()
        assert (await child.event("refused", "acked")).get("error") == "StaleDelivery", "the late ack was not stale"
        await kit.nothing(messages, 0.3)
        await copy.ack()
    await kit.depth_is(orders, ready=0, in_flight=0)
    receipt = await orders.publish(b"next")
    assert (await child.event("took"))["id"] == receipt.id, "the consumer that stood still did not get the next message"
    child.tell("ack")
    await child.event("acked")


@scenario("B80", tier="T", needs="lease=message", refused=demand)
async def a_lost_delivery_can_do_nothing(kit: MessageKit) -> None:
    """A consumer that lost a delivery can neither ack, nack, reject nor extend it, and its new owner keeps it."""
    async with kit.taken_over(4) as zombies:
        await fails(StaleDelivery, zombies[0].extend(kit.short_lease) if kit.can("extension") else zombies[0].nack())
        await fails(StaleDelivery, zombies[1].nack())
        await fails(StaleDelivery, zombies[2].reject("no") if kit.can("dead_letters") else zombies[2].nack())
        await fails(StaleDelivery, zombies[3].ack())


# -- lost requests and replies ----------------------------------------------------------------------------------------


@scenario("B73", faults={Fault.REPLY})
async def an_unconfirmed_publish_is_unknown(kit: MessageKit) -> None:
    """A publish whose answer is lost raises PublishUnknown and is not repeated by itself. The message is there once."""
    faults, orders = kit.faulty(max_deliveries=0)
    faults.drop_reply("send")
    error = await fails(PublishUnknown, orders.publish(b"x", id="a"))
    assert error.retryable and error.id == "a"
    assert kit.seen.calls["send"] == 1
    await kit.contains(orders, [b"x"])


@scenario("B73", needs="dedup", refused=demand, faults={Fault.REPLY})
async def repeating_with_the_same_id(kit: MessageKit) -> None:
    """An unknown publish is repeated with the same id. The message comes once, whether request or answer was lost."""
    for lost in ("drop_reply", "drop_request"):
        faults, orders = kit.faulty(max_deliveries=0)
        getattr(faults, lost)("send")
        await fails(PublishUnknown, orders.publish(b"x", id=lost))
        receipt = await orders.publish(b"x", id=lost)
        assert receipt.duplicate is (lost == "drop_reply")
        await kit.contains(orders, [b"x"])


@scenario("B73", faults={Fault.REPLY})
async def a_refused_publish_is_never_delivered(kit: MessageKit) -> None:
    """A publish that the backend refuses raises that refusal, not PublishUnknown, and is never delivered."""
    faults, orders = kit.faulty(max_deliveries=0)
    faults.fail("send", PublishFailed("no room", id="a"))
    await fails(PublishFailed, orders.publish(b"refused", id="a"))
    await orders.publish(b"good")
    await kit.contains(orders, [b"good"])


@scenario("B75", faults={Fault.REPLY})
async def an_ack_whose_answer_is_lost(kit: MessageKit) -> None:
    """The answer of an ack is lost. The consumer goes on, calls the backend few times, and gets at most one redelivery."""
    faults, orders = kit.faulty(max_deliveries=0)
    await orders.publish(b"x")
    async with orders.consume() as messages:
        message = await kit.one(messages)
        faults.drop_reply("settle")
        with contextlib.suppress(BrokerError):
            await message.ack()
        assert kit.seen.calls["settle"] <= 3, f"{kit.seen.calls['settle']} calls for one ack"
        await orders.publish(b"next")
        seen = [message.body for message in await kit.emptied(messages)]
        assert seen.count(b"next") == 1 and seen.count(b"x") <= 1, (
            f"{seen} came, and b'next' once and b'x' at most once were owed"
        )
    await kit.contains(orders, [])


@scenario("B75", faults={Fault.REPLY})
async def a_fetch_that_fails_is_tried_again(kit: MessageKit) -> None:
    """A consumer whose fetches fail for a while goes on by itself. The errors do not end its iteration."""
    faults, orders = kit.faulty(max_deliveries=0)
    async with orders.consume() as messages:
        faults.drop_request("receive", times=3)
        await orders.publish(b"x")
        await kit.comes(messages, b"x", within=20)


# -- members ----------------------------------------------------------------------------------------------------------


@scenario("B79", tier="H", seconds=120)
async def members_come_and_go(kit: MessageKit) -> None:
    """Consumers join and leave under flow. Nothing is lost, and at most what was in flight is delivered twice."""
    history, count, rounds = History(), max(40, int(300 * kit.size)), 4
    orders = kit.queue(max_deliveries=0)
    await orders.declare()
    publishing = True

    async def publish() -> None:
        nonlocal publishing
        for _ in range(count):
            history.published((await orders.publish(b"x")).id)
        publishing = False

    async def member(number: int) -> None:
        for _ in range(rounds - 1):
            async with kit.queue(max_deliveries=0).consume(prefetch=5) as messages:
                for handled in range(7 + number):
                    if (message := await messages.receive(0.4)) is None:
                        break
                    if handled == 6 + number:  # it leaves with this one unsettled
                        history.delivered(message.id, message.attempt)
                    else:
                        await acked(history, message)
        async with kit.queue(max_deliveries=0).consume(prefetch=5) as messages:
            while (message := await messages.receive(0.4)) is not None or publishing:
                if message is not None:
                    await acked(history, message)

    await kit.together(publish(), *(member(n) for n in range(3)))
    verdict = await judged(history, orders, 0.3)  # with what the last to leave returned
    assert verdict.ok, str(verdict)
    assert len(verdict.duplicated) <= 3 * (rounds - 1), str(verdict)


@scenario("B87", tier="H", faults={Fault.REPLY}, seconds=180)
async def a_mixed_history_with_faults(kit: MessageKit) -> None:
    """A mixed run with lost requests, lost replies and nacks loses nothing and invents nothing."""
    chance = random.Random(kit.size)  # a plan of faults, no secret
    history = History()
    faults, orders = kit.faulty(max_deliveries=0)
    each = max(15, int(1000 * kit.size / 4))
    publishing = 4

    async def publisher(number: int) -> None:
        nonlocal publishing
        for n in range(each):
            _lose(faults, "send", chance.random())
            await published(history, orders, f"{number}-{n}")
        publishing -= 1

    async def consumer() -> None:
        async with orders.consume(prefetch=10) as messages:
            while (message := await messages.receive(1.0)) is not None or publishing:
                if message is None:
                    continue
                draw = chance.random()
                _lose(faults, "settle", draw)
                if draw <= 0.9:
                    await acked(history, message, (BrokerError,))
                    continue
                history.delivered(message.id, message.attempt)
                try:
                    await message.nack()
                except BrokerError:
                    history.ack_unknown(message.id)

    await kit.together(*(publisher(n) for n in range(4)), *(consumer() for _ in range(4)))
    faults.clear()
    verdict = await judged(history, kit.queue(max_deliveries=0), 0.5, (BrokerError,))
    kit.measure("duplicates in the mixed run", float(len(verdict.duplicated)), "messages")
    assert verdict.ok, str(verdict)


def _lose(faults: Faults, operation: str, draw: float) -> None:
    """Of a hundred calls, two lose their reply and two their request."""
    if draw < 0.02:
        faults.drop_reply(operation)
    elif draw < 0.04:
        faults.drop_request(operation)
