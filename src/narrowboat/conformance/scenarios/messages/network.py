"""Messages over a network that breaks: cuts, lost requests and replies, black holes, slowness, by a proxy before the server."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.kit import Faults
from narrowboat.conformance.message_kit import MessageKit, numbered, publish_all
from narrowboat.conformance.scenario import scenario
from narrowboat.conformance.scenarios.messages.histories import Traffic, judged, lease_for_outages
from narrowboat.errors import (
    BrokerError,
    NarrowboatError,
    PublishFailed,
    PublishUnknown,
    SettleUnknown,
    StaleDelivery,
    Unavailable,
)

PROXY = {Fault.PROXY}


async def _here_and_outside(kit: MessageKit, faults: Faults | None = None, **terms: Any) -> tuple[Any, Any, Any]:
    """A network, and the queue `orders` twice: through that network, and past it."""
    network = await kit.network()
    orders = kit.broker(url=network.url, timeout=kit.operation, faults=faults).queue("orders", max_deliveries=0, **terms)
    return network, orders, kit.queue(max_deliveries=0, **terms)


async def _published(queue: Any, id: str, within: float) -> None:
    """Publish under `id`, again with the same id while the outcome is unknown."""
    deadline = time.monotonic() + within
    while True:
        try:
            await queue.publish(b"x", id=id)
            return
        except (PublishUnknown, Unavailable):
            assert time.monotonic() < deadline, f"{id!r} could not be published within {within:g} s of trying"
            await asyncio.sleep(0.05)


async def _acked(message: Any) -> None:
    """Ack it, again while the outcome is unknown: the connection may be the one that was cut."""
    for _ in range(5):
        try:
            await message.ack()
            return
        except SettleUnknown:
            await asyncio.sleep(0.1)
    raise AssertionError("five acks in a row have an unknown outcome")


@scenario("B71", tier="N", faults=PROXY, seconds=120)
async def an_idle_consumer_comes_back(kit: MessageKit) -> None:
    """The connection of an idle consumer is cut. The consumer gets what is published later, in time and once."""
    network, orders, outside = await _here_and_outside(kit)
    bound = 4 * kit.operation + kit.broker_claims.wake_bound + 5
    async with orders.consume() as messages:
        await outside.publish(b"first")
        await _acked(await kit.one(messages))
        for fault in (network.reset, network.cut):
            begun = await kit.blocking(_timed, fault)
            await kit.sleep(0.2)
            await kit.blocking(network.heal)
            await outside.publish(fault.__name__.encode())
            message = await kit.one(messages, bound)
            kit.measure(f"idle consumer, {fault.__name__} to the next message", time.monotonic() - begun, bound=bound)
            assert message.body == fault.__name__.encode()
            await _acked(message)
            await kit.nothing(messages, 0.3)  # two subscriptions would deliver it twice
    await kit.depth_is(outside, ready=0, in_flight=0)


def _whatever(fault: Callable[[], object]) -> Callable[[object], object]:
    """The fault, whatever the call is about."""
    return lambda items: fault()


def _timed(fault: Callable[[], object]) -> float:
    now = time.monotonic()
    fault()
    return now


@scenario("B72", "B73", tier="N", faults=PROXY, seconds=120)
async def a_publish_whose_connection_breaks(kit: MessageKit) -> None:
    """A publish loses its request or its reply. It succeeds or raises PublishUnknown, and is there at most once."""
    plan = Faults()
    network, orders, outside = await _here_and_outside(kit, plan)
    sure: list[str] = []
    unsure: dict[str, str | None] = {}  #: by body, the id that the error names
    for turn, strike in enumerate((network.drop_request, network.drop_reply) * 2):
        body = f"m{turn}"
        await orders.publish(f"warm {turn}".encode())  # or the next request would be one that makes the connection again
        sure.append(f"warm {turn}")
        before = network.dropped
        plan.call("send", _whatever(strike))
        with kit.within(3 * kit.operation + 2, "a publish that is cut"):
            try:
                await orders.publish(body.encode(), id=body)
                sure.append(body)
            except PublishUnknown as error:
                unsure[body] = error.id
        assert network.dropped > before, "no request and no reply was lost: the scenario tests nothing"
        await kit.blocking(network.heal)
    assert all(id == body for body, id in unsure.items()), f"errors name other ids than their messages have: {unsure}"
    await orders.publish(b"last")
    sure.append("last")
    bodies = [body.decode() for body in await kit.drained(outside, idle=1.0)]
    assert len(bodies) == len(set(bodies)), f"delivered twice: {sorted(bodies)}"
    assert set(sure) <= set(bodies), f"confirmed and lost: {set(sure) - set(bodies)}"
    assert set(bodies) <= {*sure, *unsure}, f"never published: {set(bodies) - {*sure, *unsure}}"


@scenario("B27", tier="N", faults=PROXY, seconds=120)
async def a_delivery_of_a_connection_that_broke(kit: MessageKit) -> None:
    """The connection breaks under two deliveries. An ack of them later settles them, or says that it does not, and no other."""
    lease = lease_for_outages(kit)
    network, orders, outside = await _here_and_outside(kit, lease=lease)
    await outside.publish(b"settled before")  # so that what comes first on the next connection has another number than on this
    async with orders.consume() as messages:
        await _acked(await kit.one(messages))
        await publish_all(outside, numbered(2))
        old = await kit.take(messages, 2)
        await kit.blocking(network.reset)
        await kit.blocking(network.heal)
        await outside.publish(b"new")
        came: set[bytes] = set()
        while b"new" not in came:  # perhaps behind copies of the two
            came.add((await kit.one(messages, kit.lapse(lease) + 4 * kit.operation + 5)).body)
        acked, unknown = set(), set()
        for message in old:
            try:
                await message.ack()
                acked.add(message.body)
            except SettleUnknown:
                unknown.add(message.body)
            except StaleDelivery:
                pass
        with contextlib.suppress(Unavailable):  # of another connection that broke: what is unsettled comes after its lease
            await messages.close()
    async with outside.consume() as messages:
        owed = {*numbered(2), b"new"} - acked - unknown
        got: set[bytes] = set()
        while not owed <= got:
            message = await messages.receive(kit.upper(kit.returned(kit.lapse(lease) + 5)))
            assert message is not None, f"nobody has acked {owed - got}, and an ack of another delivery has settled them"
            got.add(message.body)
        assert not got & acked, f"{got & acked} came after an ack that was answered"


@scenario("B74", "B75", tier="N", faults=PROXY, seconds=120)
async def a_fetch_or_ack_whose_connection_breaks(kit: MessageKit) -> None:
    """A fetch or an ack loses its reply. Each message comes in the end, twice more at most, and can be settled."""
    plan, lease = Faults(), lease_for_outages(kit)
    network, orders, outside = await _here_and_outside(kit, plan, lease=lease)
    ids = [(await outside.publish(b"x")).id for _ in range(5)]
    seen: dict[str, int] = dict.fromkeys(ids, 0)
    settled: set[str] = set()  # with an answer, or with one that was lost: then it may come once more
    plan.call("receive", _whatever(network.drop_reply))
    deadline = time.monotonic() + kit.upper(2 * kit.lapse(lease) + 4 * kit.operation + 10)
    async with orders.consume(prefetch=2) as messages:
        while settled != set(ids):
            assert time.monotonic() < deadline, f"{len(settled)} of {len(ids)} came and could be acked; seen {seen}"
            try:
                message = await messages.receive(0.5)
            except Unavailable:  # for half a second the server was not reached
                continue
            if message is None:
                continue
            seen[message.id] += 1
            if sum(seen.values()) % 3 == 2:
                plan.call("settle", _whatever(network.drop_reply))
            try:
                await message.ack()
            except StaleDelivery:
                continue
            except SettleUnknown:
                pass
            settled.add(message.id)
        while (message := await messages.receive(kit.lapse(lease))) is not None:
            seen[message.id] += 1
            await _acked(message)
    assert max(seen.values()) <= 3, f"redelivered over and over: {seen}"
    await kit.depth_is(outside, within=kit.lapse(lease) + 5, ready=0, in_flight=0)


@scenario("B76", "B77", tier="N", faults=PROXY, seconds=180)
async def a_black_hole_swallows_no_message(kit: MessageKit) -> None:
    """In a black hole a publish fails or is unknown, in time. Once the network is back all goes on, and nothing is lost."""
    lease = lease_for_outages(kit)
    network, orders, outside = await _here_and_outside(kit, lease=lease)
    async with orders.consume(prefetch=5) as messages:
        await outside.publish(b"first")
        held = await kit.one(messages)
        await kit.blocking(network.black_hole)
        outcomes = []
        for _ in range(2):
            with kit.within(3 * kit.operation + 2, "a publish in a black hole", measure="publish in a black hole"):
                try:
                    await orders.publish(b"doubtful")
                except PublishFailed:
                    outcomes.append("failed")
                except (PublishUnknown, Unavailable):
                    outcomes.append("unknown")
                else:
                    raise AssertionError("a publish into a black hole was confirmed")
        with kit.within(4 * kit.operation + 2, "an ack in a black hole"), contextlib.suppress(NarrowboatError):
            await held.ack()
        await outside.publish(b"meanwhile")
        await kit.blocking(network.heal)
        healed = time.monotonic()
        bodies: list[bytes] = []
        bound = kit.upper(2 * kit.lapse(lease) + 6 * kit.operation + 20)
        while b"meanwhile" not in bodies:
            message = await messages.receive(max(0.0, healed + bound - time.monotonic()))
            assert message is not None, f"no message came within {bound:g} s after the network was back"
            with contextlib.suppress(BrokerError):
                await _acked(message)
                bodies.append(message.body)
        kit.measure("end of a black hole to the message published meanwhile", time.monotonic() - healed)
    left = await kit.drained(outside, idle=kit.lapse(lease))
    doubtful = [*bodies, *left].count(b"doubtful")
    assert doubtful <= outcomes.count("unknown"), f"{doubtful} delivered; of the publishes {outcomes}"


@scenario("B127", tier="N", faults=PROXY, seconds=90)
async def a_close_in_a_black_hole(kit: MessageKit) -> None:
    """A broker that waits in one consumer and has messages of another in its hands is closed in one operation timeout."""
    network, timeout = await kit.network(), 2 * kit.operation
    for source in ("orders", "empty"):  # a first use may take longer than the time-out of what follows
        await kit.broker().queue(source, max_deliveries=0).declare()
    for since in (0.0, 0.2 * kit.operation):  # of which the fetch that is under way may have used up a part
        broker = kit.broker(url=network.url, timeout=timeout)
        orders, empty = (broker.queue(source, max_deliveries=0) for source in ("orders", "empty"))
        await orders.publish_many([b"1", b"2", b"3"])
        async with contextlib.AsyncExitStack() as left:
            messages = await left.enter_async_context(orders.consume(prefetch=3))
            idle = await left.enter_async_context(empty.consume())
            await kit.one(messages)
            waiting = asyncio.ensure_future(idle.receive(60))
            await asyncio.sleep(0)
            await kit.blocking(network.black_hole)
            await asyncio.sleep(since)
            with kit.within(1.5 * timeout, "a close in a black hole", measure="close in a black hole"):
                await broker.close()
            with contextlib.suppress(NarrowboatError):
                await waiting
        await kit.blocking(network.heal)


@scenario("B78", tier="N", faults=PROXY, seconds=180)
async def a_slow_network_changes_nothing(kit: MessageKit) -> None:
    """With 100 ms each way, with bytes one by one, and at a megabit a second, all is slower and nothing else changes."""
    for slow in ({"latency": 0.1}, {"piece": 1}, {"rate": 131072.0, "piece": 1400}):
        network = await kit.network()
        await kit.blocking(functools.partial(network.slow, **slow))
        broker = kit.broker(url=network.url, timeout=20)
        orders = broker.queue("orders", max_deliveries=0, lease=kit.long_lease)
        sent = [f"{number}".encode() * 50 for number in range(10)]
        for body in sent:
            await orders.publish(body)
        async with orders.consume(prefetch=4) as messages:
            got = await kit.take(messages, len(sent), 60, ack=True)
        assert sorted(message.body for message in got) == sorted(sent)
        assert all(message.attempt == 1 for message in got), "redelivered because it was slow"
        await broker.close()


@scenario("B84", tier="N", faults=PROXY, seconds=180)
async def faults_within_faults(kit: MessageKit) -> None:
    """Cuts strike during the recovery from the last one. Work goes on, nothing confirmed is lost, and tries are few."""
    network, orders, outside = await _here_and_outside(kit, lease=lease_for_outages(kit))
    traffic = Traffic(orders)

    async def trouble() -> None:
        await kit.eventually(lambda: traffic.consumers == 1, within=30, what="the consumer is open")
        for _ in range(3):
            await kit.sleep(0.3)
            await kit.blocking(network.cut)
            await kit.sleep(0.1)
            await kit.blocking(network.heal)
            await kit.sleep(0.02)
            await kit.blocking(network.reset)
        await kit.blocking(network.cut)
        before = network.accepted
        await kit.sleep(1.0)
        await kit.blocking(network.heal)
        kit.measure("connections tried in a second without a server", network.accepted - before, "connections")
        await kit.sleep(1.0)
        traffic.end()

    await kit.together(traffic.publish("m", pause=0.01), traffic.consume(5), trouble())
    await _published(orders, "last", 20.0)
    traffic.history.published("last")
    verdict = await judged(traffic.history, outside, kit.lapse(lease_for_outages(kit)), (BrokerError,))
    assert verdict.ok, str(verdict)
