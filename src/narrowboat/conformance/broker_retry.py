"""B40 to B55: attempts, dead letters, delays, time to live, priority and deduplication."""

from __future__ import annotations

import itertools
import time
from typing import Any

import narrowboat
from narrowboat import codecs
from narrowboat._backoff import after_failure
from narrowboat.conformance.broker_common import (
    depth_is,
    drained,
    first_error,
    lease_of,
    nothing,
    one,
    refuses,
    take,
    take_acked,
    until_in_flight,
)
from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.child import Link
from narrowboat.conformance.kit import Faults, Kit
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.errors import InvalidArgument
from narrowboat.messaging import Outbound


async def _asks_for_dead_letters(kit: Kit) -> None:
    kit.broker().queue("orders").dead_letters()


async def _asks_for_dead_letters_of_a_group(kit: Kit) -> None:
    kit.broker().topic("prices").subscription("a").dead_letters()


async def _asks_for_delay_on_a_topic(kit: Kit) -> None:
    await kit.broker().topic("prices").publish(b"x", delay=1)


async def _asks_for_delay(kit: Kit) -> None:
    await kit.broker().queue("orders", max_deliveries=0).publish(b"x", delay=1)


async def _asks_for_ttl(kit: Kit) -> None:
    await kit.broker().queue("orders", max_deliveries=0).publish(b"x", ttl=1)


async def _asks_for_ttl_and_delay(kit: Kit) -> None:
    await kit.broker().queue("orders", max_deliveries=0).publish(b"x", ttl=2, delay=1)


async def _asks_for_priority(kit: Kit) -> None:
    kit.broker().queue("orders", max_deliveries=0, priorities=3)


@scenario("B40", "B41", needs="dead_letters", refused=_asks_for_dead_letters)
async def delivered_exactly_so_often(kit: Kit) -> None:
    """A message that is always nacked is handed out max_deliveries times, no more and no less, then it is a dead letter."""
    for limit in (1, 3):
        orders = kit.broker().queue(f"orders{limit}", max_deliveries=limit)
        receipt = await orders.publish(b"poison", headers={"v": "1"}, key="k", correlation_id="c")
        async with orders.consume() as messages:
            for attempt in range(1, limit + 1):
                message = await one(kit, messages)
                assert message.attempt == attempt
                await message.nack()
            await nothing(messages)
        await depth_is(kit, orders, ready=0, in_flight=0, delayed=0, dead=1)
        async with orders.dead_letters().consume() as dead:
            letter = await one(kit, dead)
            await nothing(dead)
            assert (letter.id, letter.body, letter.key, letter.correlation_id) == (receipt.id, b"poison", "k", "c")
            assert letter.headers["v"] == "1"
            assert letter.dead is not None and letter.dead.reason
            assert (letter.dead.attempts, letter.dead.origin) == (limit, f"orders{limit}")
            await letter.ack()
        await depth_is(kit, orders, dead=0)


@scenario("B40", tier="T", needs=("dead_letters", "lease=message"), refused=demand("lease=message"))
async def crashes_count_as_deliveries(kit: Kit) -> None:
    """A message whose lease always runs out is dead after max_deliveries claims, and no handler sees it once more."""
    lease, limit = lease_of(kit), 2
    orders = kit.broker().queue("orders", lease=lease, max_deliveries=limit)
    await orders.publish(b"crash loop")
    async with orders.consume(auto_extend=False) as messages:
        for attempt in range(1, limit + 1):
            message = await one(kit, messages, lease + kit.broker_claims.lease_lag + 5)
            assert message.attempt == attempt
        await nothing(messages, lease + kit.broker_claims.lease_lag + 0.5)
    await depth_is(kit, orders, ready=0, in_flight=0, dead=1)
    async with orders.dead_letters().consume() as dead:
        letter = await one(kit, dead)
        assert letter.dead is not None and letter.dead.attempts == limit
        await letter.ack()


@scenario("B41", needs=("dead_letters", "topics"), refused=_asks_for_dead_letters_of_a_group)
async def a_group_has_dead_letters_of_its_own(kit: Kit) -> None:
    """What one group of a topic rejects is that group's dead letter alone; another group's copy is untouched."""
    topic = kit.broker().topic("prices")
    a, b = topic.subscription("a"), topic.subscription("b")
    async with a.consume() as in_a, b.consume() as in_b:
        await topic.publish(b"x")
        await (await one(kit, in_a)).reject("by a")
        await (await one(kit, in_b)).ack()
    await depth_is(kit, a, dead=1)
    await depth_is(kit, b, dead=0, ready=0)
    async with a.dead_letters().consume() as dead:
        letter = await one(kit, dead)
        assert letter.dead is not None and letter.dead.origin == "prices.a"
        await letter.ack()


@scenario("B42", needs="dead_letters", refused=_asks_for_dead_letters)
async def what_cannot_be_decoded_dies(kit: Kit) -> None:
    """Bytes that the codec cannot decode become a dead letter with the bytes as they are; the consumer lives on."""
    broker = kit.broker()
    await broker.queue("orders").publish(b"\xff{no json")
    await broker.queue("orders").publish(b'{"n": 1}')
    orders = broker.queue("orders", codec=codecs.JSON)
    seen: list[Any] = []

    async def handle(message: Any) -> None:
        seen.append(message.data)

    task = kit.spawn(orders.run(handle, signals=False))
    await kit.eventually(lambda: seen == [{"n": 1}], what="the good message")
    await depth_is(kit, orders, within=30, ready=0, in_flight=0, delayed=0, dead=1)
    orders.stop()
    await task
    assert await drained(broker.queue("orders").dead_letters()) == [b"\xff{no json"]


@scenario("B43", needs="dead_letters", refused=_asks_for_dead_letters)
async def dead_letters_are_redriven_once(kit: Kit) -> None:
    """redrive() moves dead letters back in their order, each once, as they were, with fresh attempts; a count limits it."""
    orders = kit.broker().queue("orders")
    receipts = await orders.publish_many([str(n).encode() for n in range(6)])
    assert not any(isinstance(each, Exception) for each in receipts)
    async with orders.consume() as messages:
        for message in await take(kit, messages, 6):
            await message.reject("later")
    dead = orders.dead_letters()
    assert await dead.redrive(2) == 2
    await depth_is(kit, orders, ready=2, dead=4)
    assert await dead.redrive() == 4
    assert await dead.redrive() == 0
    async with orders.consume() as messages:
        got = await take_acked(kit, messages, 6)
        await nothing(messages)
    assert [m.body for m in got] == [str(n).encode() for n in range(6)]
    assert {m.attempt for m in got} == {1}
    assert all(m.dead is None for m in got), "a redriven message still says that it is dead"
    assert {m.id for m in got} == {each.id for each in receipts if not isinstance(each, Exception)}


@scenario("B44", needs="dead_letters", refused=_asks_for_dead_letters, faults={Fault.REPLY})
async def a_lost_reply_on_the_way_to_the_dead_letters(kit: Kit) -> None:
    """When the answer to a reject is lost the message is a dead letter, once or more with the same id, never lost."""
    faults = Faults()
    orders = kit.broker(faults=faults).queue("orders")
    receipt = await orders.publish(b"x")
    async with orders.consume() as messages:
        message = await one(kit, messages)
        faults.drop_reply("settle")
        try:
            await message.reject("bad")
        except narrowboat.BrokerError:
            pass
        await nothing(messages)
    async with orders.dead_letters().consume() as dead:
        letter = await one(kit, dead)
        assert letter.id == receipt.id
        await letter.ack()
        while (twin := await dead.receive(0.2)) is not None:
            assert twin.id == receipt.id
            await twin.ack()


def rejects_for_ever(link: Link, url: str, lease: float) -> None:
    """A child: reject every message, telling before each, until it is killed."""
    with narrowboat.broker(url).queue("orders", lease=lease).consume(prefetch=1) as messages:
        for message in messages:
            link.tell("rejecting", id=message.id)
            message.reject("bad")


@scenario(
    "B44",
    tier="P",
    needs=("dead_letters", "scope=host"),
    refused=demand("scope=host"),
    faults={Fault.PROCESS},
)
async def killed_on_the_way_to_the_dead_letters(kit: Kit) -> None:
    """A consumer killed while it rejects loses nothing: every message is ready again or a dead letter."""
    lease, count = lease_of(kit), 60
    orders = kit.broker().queue("orders", lease=lease)
    receipts = await orders.publish_many([str(n).encode() for n in range(count)])
    ids = {each.id for each in receipts if not isinstance(each, Exception)}
    child = await kit.child(rejects_for_ever, url=kit.broker_url, lease=lease)
    for _ in range(10):
        await child.event("rejecting")
    child.kill()
    found: list[str] = []
    async with orders.dead_letters().consume() as dead:
        while (letter := await dead.receive(0.3)) is not None:
            found.append(letter.id)
            await letter.ack()
    async with orders.consume() as messages:
        while (message := await messages.receive(lease + kit.broker_claims.lease_lag + 1)) is not None:
            found.append(message.id)
            await message.ack()
    assert set(found) == ids, f"lost: {len(ids - set(found))}, unexpected: {len(set(found) - ids)}"
    assert len(found) <= count + 1, "more than one duplicate"


@scenario("B46")
async def retries_back_off(kit: Kit) -> None:
    """The delay after a failure grows with the attempts, jitters, and stays under its cap and the backend's longest delay."""
    for draw in (0.0, 0.5, 0.999):
        delays = [after_failure(attempt, lambda draw=draw: draw, 3600.0) for attempt in range(1, 40)]  # type: ignore[misc]  # bound now
        assert all(later >= sooner for sooner, later in itertools.pairwise(delays)), delays
        assert delays[-1] == delays[-2], "no cap"
        assert delays[5] > delays[0] > 0
    assert after_failure(3, lambda: 0.1, 3600.0) != after_failure(3, lambda: 0.9, 3600.0), "no jitter"
    assert max(after_failure(30, lambda: 0.999, 2.0), after_failure(30, lambda: 0.0, 2.0)) <= 2.0


@scenario("B46", tier="T", needs="delay", refused=_asks_for_delay)
async def a_failed_handler_waits_before_its_retry(kit: Kit) -> None:
    """In run() the second try of a failed message comes later than at once."""
    orders = kit.broker(random=lambda: 0.5).queue("orders")
    await orders.publish(b"x")
    at: list[float] = []

    async def handle(message: Any) -> None:
        at.append(time.monotonic())
        if message.attempt < 2:
            raise ValueError("not yet")

    task = kit.spawn(orders.run(handle, signals=False))
    await kit.eventually(lambda: len(at) == 2, within=20, what="the retry")
    orders.stop()
    await task
    least = after_failure(1, lambda: 0.5, kit.broker_claims.delay_max)
    assert at[1] - at[0] >= least, f"tried again after {at[1] - at[0]:g} s, configured are {least:g} s"


@scenario("B47", tier="T", needs="delay", refused=_asks_for_delay)
async def delayed_is_never_early(kit: Kit) -> None:
    """A delayed message is never early, and late by at most the declared lag; so is a nack with a delay."""
    orders = kit.broker().queue("orders", max_deliveries=0)
    async with orders.consume() as messages:
        for delay in (0.25, 0.8):
            before = time.monotonic()
            await orders.publish(b"x", delay=delay)
            after = time.monotonic()
            message = await one(kit, messages, delay + kit.broker_claims.delay_lag + 5)
            _on_time(kit, "publish with a delay", delay, before, after)
            before = time.monotonic()
            await message.nack(delay=delay)
            after = time.monotonic()
            message = await one(kit, messages, delay + kit.broker_claims.delay_lag + 5)
            _on_time(kit, "nack with a delay", delay, before, after)
            assert message.attempt == 2
            await message.ack()
        await nothing(messages)


def _on_time(kit: Kit, what: str, delay: float, before: float, after: float) -> None:
    now = time.monotonic()
    assert now - before >= delay, f"{what}: {delay - (now - before):g} s early"
    late = now - after - delay
    assert late <= kit.upper(kit.broker_claims.delay_lag), f"{what}: {late:g} s late"
    kit.measure(f"lateness of a {what}", max(0.0, late))


@scenario("B47", needs="delay", refused=_asks_for_delay)
async def a_delay_beyond_the_longest_is_refused(kit: Kit) -> None:
    """A delay above the declared longest, or a negative one, is an InvalidArgument and nothing is sent."""
    orders = kit.broker().queue("orders", max_deliveries=0)
    for delay in (kit.broker_claims.delay_max + 1, -1, float("nan"), float("inf")):
        await first_error(InvalidArgument, lambda delay=delay: orders.publish(b"x", delay=delay))  # type: ignore[misc]  # bound now
    assert not kit.seen.calls["send"]


@scenario("B48", tier="T", needs="delay", refused=_asks_for_delay)
async def delays_are_independent(kit: Kit) -> None:
    """A message with a long delay holds up none with a shorter one, nor one without; depth counts what is delayed."""
    orders = kit.broker().queue("orders", max_deliveries=0)
    longest = min(60.0, kit.broker_claims.delay_max)
    await orders.publish(b"long", delay=longest)
    await orders.publish(b"short", delay=0.4)
    await orders.publish(b"now")
    await depth_is(kit, orders, within=0.2, delayed=2)
    async with orders.consume() as messages:
        for body in (b"now", b"short"):
            message = await one(kit, messages)
            assert message.body == body
            await message.ack()
        await nothing(messages)
    await depth_is(kit, orders, ready=0, in_flight=0, delayed=1)


@scenario("B48", tier="T", needs=("delay", "topics"), refused=_asks_for_delay_on_a_topic)
async def a_delayed_message_for_a_topic(kit: Kit) -> None:
    """A delayed publish to a topic goes to the groups that exist when it is due, once to each."""
    topic = kit.broker().topic("prices")
    await topic.subscription("early").declare()
    await topic.publish(b"x", delay=0.6)
    async with topic.subscription("late").consume() as late, topic.subscription("early").consume() as early:
        for messages in (early, late):
            message = await one(kit, messages)
            assert message.body == b"x"
            await message.ack()
            await nothing(messages, 0.1)


def schedules(link: Link, url: str, delay: float) -> None:
    """A child: publish with a delay, nack with a delay, tell, and wait to be killed."""
    orders = narrowboat.broker(url).queue("orders")
    orders.publish(b"nacked")
    with orders.consume() as messages:
        message = messages.receive(10)
        assert message is not None
        message.nack(delay=delay)
    orders.publish(b"delayed", delay=delay)
    link.tell("scheduled")
    link.wait("never")


@scenario("B49", tier="P", needs=("delay", "scope=host"), refused=demand("scope=host"), faults={Fault.PROCESS})
async def delays_survive_a_kill(kit: Kit) -> None:
    """Delayed and nacked messages come when they are due although their publisher and consumer was killed."""
    child = await kit.child(schedules, url=kit.broker_url, delay=0.5)
    told = await child.event("scheduled")
    child.kill()
    async with kit.broker().queue("orders").consume() as messages:
        got = await take_acked(kit, messages, 2)
        assert {m.body: m.attempt for m in got} == {b"nacked": 2, b"delayed": 1}
        assert time.monotonic() - told["at"] >= 0.4


@scenario("B49", tier="T", needs="delay", refused=_asks_for_delay)
async def delays_outlive_the_connection(kit: Kit) -> None:
    """A delayed message comes when it is due although the connection that published it is closed."""
    broker = kit.broker()
    keeper = kit.broker().queue("orders")
    await keeper.declare()
    await broker.queue("orders").publish(b"x", delay=0.4)
    await broker.close()
    async with keeper.consume() as messages:
        assert (await one(kit, messages)).body == b"x"


@scenario("B51", tier="T", needs="ttl", refused=_asks_for_ttl)
async def expired_is_not_delivered(kit: Kit) -> None:
    """An expired message is not delivered, an unexpired one is, whether it waited in the queue or in a buffer."""
    orders = kit.broker().queue("orders", max_deliveries=0)
    await orders.publish(b"short", ttl=0.3)
    await orders.publish(b"long", ttl=600)
    await orders.publish(b"for ever")
    await kit.sleep(0.4)
    async with orders.consume() as messages:
        got = await take_acked(kit, messages, 2)
        assert sorted(m.body for m in got) == [b"for ever", b"long"]
        await nothing(messages)
    await orders.publish(b"first")
    await orders.publish_many([Outbound(b"buffered", ttl=0.6), Outbound(b"beside it")])
    async with orders.consume(prefetch=10) as messages:
        first = await one(kit, messages)
        await until_in_flight(kit, orders, 3)
        await kit.sleep(0.7)
        second = await one(kit, messages)
        assert {first.body, second.body} == {b"first", b"beside it"}, "delivered from the buffer although it had expired"
        await nothing(messages)


@scenario("B51", needs="ttl", refused=_asks_for_ttl)
async def unexpired_is_delivered(kit: Kit) -> None:
    """The control: a message within its ttl is delivered, at once and again after a nack."""
    orders = kit.broker().queue("orders", max_deliveries=0)
    await orders.publish(b"x", ttl=60)
    async with orders.consume() as messages:
        await (await one(kit, messages)).nack()
        message = await one(kit, messages)
        assert (message.body, message.attempt) == (b"x", 2)
        await message.ack()


@scenario("B52", tier="T", needs="ttl", refused=_asks_for_ttl)
async def ttl_counts_from_the_publish(kit: Kit) -> None:
    """The ttl counts from the publish and a retry does not start it anew; what expires is no dead letter."""
    orders = kit.broker().queue("orders", max_deliveries=0)
    await orders.publish(b"x", ttl=0.8)
    begun = time.monotonic()
    async with orders.consume() as messages:
        while (message := await messages.receive(0.3)) is not None:
            assert time.monotonic() - begun < kit.upper(0.8) + 0.3, "it outlived its ttl by being nacked"
            await kit.sleep(0.1)
            await message.nack()
        assert time.monotonic() - begun >= 0.5, "it went away before its ttl ended"
    await depth_is(kit, orders, ready=0, in_flight=0, dead=0)


@scenario("B52", needs=("ttl", "delay"), refused=_asks_for_ttl_and_delay)
async def a_ttl_that_ends_before_the_delay(kit: Kit) -> None:
    """A ttl that ends before the delay does, or is not above zero, is an InvalidArgument, and nothing is sent."""
    orders = kit.broker().queue("orders", max_deliveries=0)
    for ttl, delay in ((1, 1), (1, 2), (0, 0), (-1, 0)):
        await first_error(InvalidArgument, lambda ttl=ttl, delay=delay: orders.publish(b"x", ttl=ttl, delay=delay))  # type: ignore[misc]  # bound now
    assert not kit.seen.calls["send"]


@scenario("B53", needs="priority", refused=_asks_for_priority)
async def a_higher_priority_goes_first(kit: Kit) -> None:
    """A higher priority is delivered first, within one priority the older one, also after a requeue."""
    orders = kit.broker().queue("orders", max_deliveries=0, priorities=2)
    for n, priority in enumerate((0, 2, 1, 0, 2, 1)):
        await orders.publish(f"{priority}:{n}".encode(), priority=priority)
    async with orders.consume(prefetch=1) as messages:
        first = await one(kit, messages)
        assert (first.body, first.priority) == (b"2:1", 2)
        await first.nack()
        got = await take_acked(kit, messages, 6)
    order = [m.body for m in got]
    assert sorted(order[:2]) == [b"2:1", b"2:4"], order
    assert order[2:] == [b"1:2", b"1:5", b"0:0", b"0:3"], order


@scenario("B53", needs="priority", refused=_asks_for_priority)
async def priorities_have_their_levels(kit: Kit) -> None:
    """A priority above the source's levels, or levels above the declared most, is an InvalidArgument."""
    broker = kit.broker()
    await first_error(InvalidArgument, lambda: broker.queue("a", max_deliveries=0, priorities=1).publish(b"x", priority=2))
    await first_error(InvalidArgument, lambda: broker.queue("b", max_deliveries=0).publish(b"x", priority=1))
    refuses(InvalidArgument, lambda: broker.queue("c", priorities=kit.broker_claims.priorities_max + 1))
    assert not kit.seen.calls["send"]


@scenario("B54", needs="dedup", refused=demand("dedup"))
async def one_id_is_delivered_once(kit: Kit) -> None:
    """A second message of a caller's id within the window is dropped and its receipt says so, also after the first is gone."""
    orders = kit.broker().queue("orders", max_deliveries=0)
    assert not (await orders.publish(b"1", id="a")).duplicate
    assert (await orders.publish(b"2", id="a")).duplicate
    assert (await kit.broker().queue("orders", max_deliveries=0).publish(b"3", id="a")).duplicate
    assert await drained(orders) == [b"1"]
    assert (await orders.publish(b"4", id="a")).duplicate, "forgotten when it was consumed"
    assert not (await orders.publish(b"5", id="b")).duplicate
    for _ in range(3):
        assert not (await orders.publish(b"no id")).duplicate
    outcomes = await orders.publish_many([Outbound(b"6", id="c"), Outbound(b"7", id="c")])
    assert [getattr(each, "duplicate", each) for each in outcomes] == [False, True]
    assert sorted(await drained(orders)) == [b"5", b"6", b"no id", b"no id", b"no id"]
    assert not (await kit.broker().queue("other", max_deliveries=0).publish(b"8", id="a")).duplicate, "ids are a source's own"


@scenario("B54", tier="T", needs="dedup", refused=demand("dedup"))
async def an_id_is_accepted_after_the_window(kit: Kit) -> None:
    """After the window an id is accepted again; the window is a URL option where the claim says how long it is."""
    window = 0.5
    url = kit.broker_url + ("&" if "?" in kit.broker_url else "?") + f"dedup={window:g}"
    if kit.broker_claims.dedup_window < 5:
        url, window = kit.broker_url, kit.broker_claims.dedup_window
    orders = kit.broker(url=url).queue("orders", max_deliveries=0)
    await orders.publish(b"1", id="a")
    begun = time.monotonic()

    async def accepted() -> bool:
        return not (await orders.publish(b"2", id="a")).duplicate

    await kit.sleep(window)
    await kit.eventually(accepted, within=window + 5, every=0.05, what="the id is accepted again")
    assert time.monotonic() - begun >= window
    assert sorted(await drained(orders)) == [b"1", b"2"]


@scenario("B55", tier="T", alone=True)
async def a_nack_loop_does_not_spin(kit: Kit) -> None:
    """A handler that always fails is tried at the pace of the backoff: no busy loop between the tries."""
    orders = kit.broker(random=lambda: 0.5).queue("orders", max_deliveries=0)
    await orders.publish(b"poison")
    tries: list[float] = []

    async def handle(message: Any) -> None:
        tries.append(time.monotonic())
        raise ValueError("always")

    task = kit.spawn(orders.run(handle, signals=False))
    await kit.eventually(lambda: tries, what="the first try")
    before, spent = dict(kit.seen.calls), time.process_time()
    await kit.sleep(1.5)
    spent = time.process_time() - spent
    calls = sum(kit.seen.calls.values()) - sum(before.values())
    orders.stop()
    await task
    assert len(tries) <= 12, f"{len(tries)} tries in 1.5 s"
    assert calls <= 150, f"{calls} calls of the driver in 1.5 s"
    kit.measure("processor time of a nack loop, a second", spent / 1.5)
