"""Messages over a network that breaks: cuts, lost requests and replies, black holes, slowness, by a proxy before the server."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from typing import Any

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.history_queues import History
from narrowboat.conformance.faults.network import Network
from narrowboat.conformance.kit import Faults, Kit
from narrowboat.conformance.scenario import scenario
from narrowboat.conformance.scenarios.messages.common import acked, depth_is, drained, judged, one, published, take
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

#: Seconds that one driver call may block in these scenarios.
OPERATION = 2.0


def _through(kit: Kit, network: Network, plan: Faults | None = None) -> Any:
    return kit.broker(url=network.url, timeout=OPERATION, faults=plan)


def _lease(kit: Kit) -> float:
    return max(kit.broker_claims.lease_min, 3.0)


async def _published(queue: Any, body: bytes, within: float) -> None:
    """Publish it, again with the same id while the outcome is unknown."""
    deadline = time.monotonic() + within
    while True:
        try:
            await queue.publish(body, id=body.decode())
            return
        except (PublishUnknown, Unavailable):
            assert time.monotonic() < deadline, f"{body!r} could not be published within {within:g} s of trying"
            await asyncio.sleep(0.05)


@scenario("B71", tier="N", faults=PROXY, seconds=120)
async def an_idle_consumer_comes_back(kit: Kit) -> None:
    """An idle consumer whose connection is cut gets what is published later, in time and once."""
    network = await kit.network()
    orders = _through(kit, network).queue("orders", max_deliveries=0)
    outside = kit.broker().queue("orders", max_deliveries=0)
    bound = 4 * OPERATION + kit.broker_claims.wake_bound + 5
    async with orders.consume() as messages:
        await outside.publish(b"first")
        await _acked(await one(kit, messages))
        for fault in (network.reset, network.cut):
            begun = await kit.blocking(_timed, fault)
            await kit.sleep(0.2)
            await kit.blocking(network.heal)
            await outside.publish(fault.__name__.encode())
            message = await one(kit, messages, bound)
            kit.measure(f"idle consumer, {fault.__name__} to the next message", time.monotonic() - begun)
            assert message.body == fault.__name__.encode()
            await _acked(message)
            assert await messages.receive(0.3) is None, "delivered twice: two subscriptions"
    await depth_is(kit, outside, ready=0, in_flight=0)


async def _acked(message: Any) -> None:
    """Settle it, again while the outcome is unknown: the connection may be the one that was cut."""
    for _ in range(5):
        try:
            await message.ack()
            return
        except SettleUnknown:
            await asyncio.sleep(0.1)
    raise AssertionError("five acks in a row are of unknown outcome")


def _timed(fault: Callable[[], object]) -> float:
    now = time.monotonic()
    fault()
    return now


@scenario("B72", "B73", tier="N", faults=PROXY, seconds=120)
async def a_publish_whose_connection_breaks(kit: Kit) -> None:
    """A publish cut before it arrives, or before its answer does, is told as unknown or succeeds; it is there at most once."""
    network, plan = await kit.network(), Faults()
    orders = _through(kit, network, plan).queue("orders", max_deliveries=0)
    sure: list[str] = []
    unsure: list[str] = []
    for turn, strike in enumerate((network.drop_request, network.drop_reply) * 2):
        body = f"m{turn}"
        await orders.publish(f"warm {turn}".encode())  # or the next request would be one that makes the connection again
        sure.append(f"warm {turn}")
        before = network.dropped
        plan.call("send", lambda items, strike=strike: strike())  # type: ignore[misc]  # bound now
        with kit.within(3 * OPERATION + 2, "a publish that is cut"):
            error: PublishUnknown | None = None
            try:
                await orders.publish(body.encode(), id=body)
            except PublishUnknown as unknown:
                error = unknown
        (sure if error is None else unsure).append(body)
        assert error is None or error.id == body
        assert network.dropped > before, "nothing was lost: the scenario tests nothing"
        await kit.blocking(network.heal)
    await orders.publish(b"last")
    bodies = [body.decode() for body in await drained(kit.broker().queue("orders", max_deliveries=0), idle=1.0)]
    assert len(bodies) == len(set(bodies)), f"delivered twice: {sorted(bodies)}"
    assert set(sure) | {"last"} <= set(bodies), f"confirmed and lost: {(set(sure) | {'last'}) - set(bodies)}"
    assert set(bodies) <= set(sure) | set(unsure) | {"last"}, "from nowhere"


@scenario("B74", "B75", tier="N", faults=PROXY, seconds=120)
async def a_fetch_or_ack_whose_connection_breaks(kit: Kit) -> None:
    """A fetch or an ack whose reply is lost loses no message: each comes in the end, once more at most, and can be settled."""
    network, plan = await kit.network(), Faults()
    lease = _lease(kit)
    orders = _through(kit, network, plan).queue("orders", max_deliveries=0, lease=lease)
    outside = kit.broker().queue("orders", max_deliveries=0, lease=lease)
    ids = [(await outside.publish(b"x")).id for _ in range(5)]
    seen: dict[str, int] = dict.fromkeys(ids, 0)
    settled: set[str] = set()  # with an answer, or with one that was lost: then it may come once more
    plan.call("receive", lambda items: network.drop_reply())
    deadline = time.monotonic() + kit.upper(2 * lease + kit.broker_claims.lease_lag + 4 * OPERATION + 10)
    async with orders.consume(prefetch=2) as messages:
        while settled != set(ids):
            assert time.monotonic() < deadline, f"{len(settled)} of {len(ids)} came and could be acked; seen {seen}"
            message = await messages.receive(0.5)
            if message is None:
                continue
            seen[message.id] += 1
            if sum(seen.values()) % 3 == 2:
                plan.call("settle", lambda items: network.drop_reply())
            try:
                await message.ack()
            except StaleDelivery:
                continue
            except SettleUnknown:
                pass
            settled.add(message.id)
        while (message := await messages.receive(lease + kit.broker_claims.lease_lag)) is not None:
            seen[message.id] += 1
            await _acked(message)
    assert max(seen.values()) <= 3, f"redelivered over and over: {seen}"
    await depth_is(kit, outside, within=lease + kit.broker_claims.lease_lag + 5, ready=0, in_flight=0)


@scenario("B76", "B77", tier="N", faults=PROXY, seconds=180)
async def a_black_hole_swallows_no_message(kit: Kit) -> None:
    """In a black hole a publish ends in time as unknown; once it has ended all goes on, and nothing is lost."""
    network = await kit.network()
    lease = _lease(kit)
    orders = _through(kit, network).queue("orders", max_deliveries=0, lease=lease)
    outside = kit.broker().queue("orders", max_deliveries=0, lease=lease)
    async with orders.consume(prefetch=5) as messages:
        await outside.publish(b"first")
        held = await one(kit, messages)
        await kit.blocking(network.black_hole)
        outcomes = []
        for _ in range(2):
            with kit.within(3 * OPERATION + 2, "a publish in a black hole", measure="publish in a black hole"):
                try:
                    await orders.publish(b"doubtful")
                except PublishFailed:
                    outcomes.append("failed")
                except (PublishUnknown, Unavailable):
                    outcomes.append("unknown")
                else:
                    raise AssertionError("a publish into a black hole was confirmed")
        with kit.within(4 * OPERATION + 2, "an ack in a black hole"):
            try:
                await held.ack()
            except NarrowboatError:
                pass
        await outside.publish(b"meanwhile")
        await kit.blocking(network.heal)
        healed = time.monotonic()
        bodies: list[bytes] = []
        bound = kit.upper(2 * lease + kit.broker_claims.lease_lag + 6 * OPERATION + 20)
        while b"meanwhile" not in bodies:
            message = await messages.receive(max(0.0, healed + bound - time.monotonic()))
            assert message is not None, f"nothing came within {bound:g} s after the network had healed"
            bodies.append(message.body)
            try:
                await _acked(message)
            except BrokerError:
                bodies.pop()
        kit.measure("end of a black hole to the message published meanwhile", time.monotonic() - healed)
    left = await drained(outside, idle=lease + kit.broker_claims.lease_lag)
    doubtful = [*bodies, *left].count(b"doubtful")
    assert doubtful <= outcomes.count("unknown"), f"{doubtful} delivered; of the publishes {outcomes}"


@scenario("B78", tier="N", faults=PROXY, seconds=180)
async def a_slow_network_changes_nothing(kit: Kit) -> None:
    """With 100 ms each way, with bytes one by one, and at a megabit a second: slower, and all else the same."""
    for slow in ({"latency": 0.1}, {"piece": 1}, {"rate": 131072.0, "piece": 1400}):
        network = await kit.network()
        await kit.blocking(functools.partial(network.slow, **slow))
        broker = kit.broker(url=network.url, timeout=20)
        orders = broker.queue("orders", max_deliveries=0, lease=max(30.0, kit.broker_claims.lease_min))
        sent = [f"{number}".encode() * 50 for number in range(10)]
        for body in sent:
            await orders.publish(body)
        async with orders.consume(prefetch=4) as messages:
            got = await take(kit, messages, len(sent), 60, ack=True)
        assert sorted(message.body for message in got) == sorted(sent)
        assert all(message.attempt == 1 for message in got), "redelivered because it was slow"
        await broker.close()


@scenario("B84", tier="N", faults=PROXY, seconds=180)
async def faults_within_faults(kit: Kit) -> None:
    """Cuts that strike while the last one is being recovered from: work goes on, nothing confirmed is lost, tries are few."""
    network = await kit.network()
    history = History()
    orders = _through(kit, network).queue("orders", max_deliveries=0, lease=_lease(kit))
    outside = kit.broker().queue("orders", max_deliveries=0, lease=_lease(kit))
    done = asyncio.Event()

    async def publisher() -> None:
        number = 0
        while not done.is_set():
            id, number = f"m{number}", number + 1
            await published(history, orders, id, failed=(PublishFailed, Unavailable))
            await asyncio.sleep(0.01)

    async def consumer() -> None:
        async with orders.consume(prefetch=5) as messages:
            while not done.is_set():
                try:
                    message = await messages.receive(0.2)
                except Unavailable:  # told, and it may ask again
                    continue
                if message is not None:
                    await acked(history, message, (BrokerError,))

    async def trouble() -> None:
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
        done.set()

    await kit.together(publisher(), consumer(), trouble())
    await _published(orders, b"last", 20.0)
    history.published("last")
    verdict = await judged(kit, history, outside, _lease(kit) + kit.broker_claims.lease_lag, (BrokerError,))
    assert verdict.ok, str(verdict)
