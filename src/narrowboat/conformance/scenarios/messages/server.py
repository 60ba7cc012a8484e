"""Messages and their server: restarts, kills, deletions, rights and room that are taken away."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Any

from narrowboat.capabilities import Settlement
from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.message_kit import MessageKit
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.scenarios.messages.histories import Traffic, judged, lease_for_outages
from narrowboat.errors import (
    AccessDenied,
    BrokerError,
    NarrowboatError,
    NotFound,
    PublishFailed,
    PublishUnknown,
    Unavailable,
)


async def _through(kit: MessageKit, end: str) -> None:
    """The server ends, by `stop` or `kill`, and is back again."""
    await kit.blocking(getattr(kit.server, end))
    await kit.blocking(kit.server.start)
    await kit.eventually(
        lambda: kit.answers(kit.broker(timeout=kit.operation)), within=60, what="the server answers", every=0.1
    )


async def _under_load(kit: MessageKit, ends: list[str], *, ordered: bool = False) -> None:
    """Publish and consume while the server ends and comes back, empty the queue, and check the history.

    Where `settlement` is only `received`, an ack of the last second before a kill may have been lost with the server.
    """
    terms: dict[str, Any] = {"max_deliveries": 0, "lease": lease_for_outages(kit), "ordered": ordered}
    traffic = Traffic(kit.broker(timeout=kit.operation).queue("orders", **terms))
    forgiven: set[str] = set()

    async def trouble() -> None:
        await kit.eventually(lambda: traffic.consumers == 2, within=30, what="both consumers are open")
        for end in ends:
            await kit.sleep(0.5)
            begun = time.monotonic()
            await kit.blocking(getattr(kit.server, end))
            if end == "kill" and kit.broker_claims.settlement is Settlement.RECEIVED:
                last = time.monotonic() - 1.0  # the call itself may take its time before it kills
                forgiven.update(id for id, at in tuple(traffic.answered.items()) if at > last)
            await _through(kit, "start")
            kit.measure(f"server {end} to its next answer", time.monotonic() - begun)
        await kit.sleep(0.5)
        traffic.end()

    publishers = (traffic.publish(name, keyed=ordered) for name in "ab")
    await kit.together(*publishers, traffic.consume(10), traffic.consume(10), trouble())
    idle = kit.lapse(lease_for_outages(kit)) + 1
    verdict = await judged(traffic.history, kit.queue(**terms), idle, (BrokerError,), ordered=ordered)
    kit.measure("duplicates across the server's ends", float(len(verdict.duplicated)), "messages")
    verdict = dataclasses.replace(verdict, after_ack=tuple(id for id in verdict.after_ack if id not in forgiven))
    assert verdict.ok, str(verdict)


@scenario("B67", "B39", tier="R", needs="survives=crash", refused=demand, faults={Fault.RESTART}, seconds=240)
async def restarted_twice_under_load(kit: MessageKit) -> None:
    """The server is restarted twice under load. No confirmed message is lost, and no acknowledged one comes back."""
    await _under_load(kit, ["stop", "stop"])


@scenario("B68", "B39", tier="R", needs="survives=crash", refused=demand, faults={Fault.KILL}, seconds=240)
async def killed_under_load(kit: MessageKit) -> None:
    """The server is killed under load. No confirmed message is lost, and no ack is forgotten where that is claimed."""
    await _under_load(kit, ["kill"])


@scenario("B60", tier="R", needs=("order", "survives=crash"), refused=demand, faults={Fault.RESTART}, seconds=240)
async def order_is_kept_across_a_restart(kit: MessageKit) -> None:
    """The server is restarted under load. The first deliveries of each key still come in the order of their publishing."""
    await _under_load(kit, ["stop"], ordered=True)


@scenario("B49", tier="R", needs=("delay", "survives=crash"), refused=demand, faults={Fault.RESTART}, seconds=180)
async def delayed_messages_survive_a_restart(kit: MessageKit) -> None:
    """Delayed messages and those whose retry is due later survive a restart of the server, and are not early."""
    terms: dict[str, Any] = {"max_deliveries": 0, "lease": max(lease_for_outages(kit), 20.0)}
    orders = kit.queue(**terms)
    delay = min(5.0, kit.broker_claims.delay_max)
    await orders.publish(b"retried")
    async with orders.consume() as messages:
        retried = await kit.one(messages)
        due = time.monotonic() + delay
        await retried.nack(delay=delay)
    await orders.publish(b"delayed", delay=delay)
    await _through(kit, "stop")
    async with kit.queue(**terms).consume() as messages:
        got = await kit.take(messages, 2, delay + kit.broker_claims.delay_lag + 30)
        assert time.monotonic() >= due, f"both came {due - time.monotonic():g} s before they were due"
        assert sorted(each.body for each in got) == [b"delayed", b"retried"]
        for each in got:
            await each.ack()


@scenario("B101", tier="R", faults={Fault.KILL}, seconds=120)
async def a_ping_tells_whether_it_is_there(kit: MessageKit) -> None:
    """`ping` succeeds while the server is up, fails in time while it is down, and succeeds again afterwards."""
    broker = kit.broker(timeout=kit.operation)
    await broker.ping()
    await kit.blocking(kit.server.kill)
    for _ in range(2):
        with kit.within(2 * kit.operation + 1, "a server that is down is noticed", measure="ping of a server that is down"):
            error = await fails(NarrowboatError, broker.ping())
        assert isinstance(error, Unavailable), f"the ping of a server that is down raised {error!r}"
    await kit.blocking(kit.server.start)
    await kit.eventually(lambda: kit.answers(broker), within=30, what="a ping succeeds once the server is back", every=0.1)


@scenario("B17", tier="R", faults={Fault.DELETE}, seconds=120)
async def a_queue_that_is_missing(kit: MessageKit) -> None:
    """With `?declare=never` a queue can be opened that is not there. Its first use raises NotFound, in time."""
    missing = kit.broker(url=kit.url_with("declare=never"), timeout=kit.operation).queue("missing")

    async def consumes() -> None:
        async with missing.consume() as messages:
            await messages.receive(1.0)

    with kit.within(30, "a queue that is missing"):
        await fails(NotFound, missing.publish(b"x"))
        await fails(NotFound, consumes())
    await kit.broker().queue("missing").publish(b"there now")
    await kit.contains(missing, [b"there now"])


@scenario("B18", tier="R", faults={Fault.DELETE}, seconds=120)
async def a_queue_deleted_under_its_users(kit: MessageKit) -> None:
    """Another program deletes a queue. It is declared again at its next use, or its users get NotFound; nobody hangs."""
    orders = kit.broker(timeout=kit.operation).queue("orders", max_deliveries=0)
    await orders.publish(b"first")
    async with orders.consume() as messages:
        await (await kit.one(messages)).ack()
        await kit.blocking(kit.harness.delete, "broker", kit.namespace, "orders")
        deadline = time.monotonic() + kit.upper(30)
        body: bytes | None = None
        while body is None:
            assert time.monotonic() < deadline, "neither a message nor an error came after the deletion"
            try:
                await orders.publish(b"again")
                message = await messages.receive(1.0)
                if message is not None:
                    body = message.body
                    await message.ack()
            except (NotFound, PublishFailed, PublishUnknown, Unavailable):
                await asyncio.sleep(0.1)
                break
    if body is None:  # its users were told: then a new consumer works
        await orders.publish(b"again")
        body = (await kit.drained(orders, idle=1.0))[0]
    assert body == b"again"


@scenario("B85", tier="R", faults={Fault.CREDENTIALS}, seconds=120)
async def rights_revoked_in_mid_run(kit: MessageKit) -> None:
    """Without rights a publish fails with a typed error, in time. With them again all goes on, and nothing is lost."""
    broker = kit.broker(timeout=kit.operation)
    orders = broker.queue("orders", max_deliveries=0, lease=lease_for_outages(kit))
    await orders.publish(b"before")
    await kit.blocking(kit.harness.revoke)
    try:
        with kit.within(3 * kit.operation + 1, "a publish without rights"):
            error = await fails(NarrowboatError, orders.publish(b"without rights"))
        assert isinstance(error, AccessDenied | PublishFailed | PublishUnknown | Unavailable), (
            f"a publish without rights raised {error!r}"
        )
        fresh = await fails(NarrowboatError, kit.broker(timeout=kit.operation).ping())
        assert isinstance(fresh, AccessDenied), f"a new connection without rights got {fresh!r}"
    finally:
        await kit.blocking(kit.harness.permit)
    await kit.eventually(lambda: kit.answers(broker), within=20, what="a ping with rights again", every=0.1)
    await orders.publish(b"after")
    bodies = await kit.drained(orders, idle=1.0)
    assert {b"before", b"after"} <= set(bodies) <= {b"before", b"without rights", b"after"}, (
        f"after the rights were back, {bodies} came"
    )


@scenario("B82", tier="R", faults={Fault.FULL}, seconds=180)
async def a_server_without_room(kit: MessageKit) -> None:
    """A full server refuses a publish with a typed error, in time. With room again all goes on, and nothing is lost."""
    orders = kit.broker(timeout=kit.operation).queue("orders", max_deliveries=0, lease=lease_for_outages(kit))
    await orders.publish(b"before", id="before")
    await kit.blocking(kit.harness.fill)
    try:
        with kit.within(3 * kit.operation + 1, "a publish without room"):
            error = await fails(NarrowboatError, orders.publish(b"too much", id="too much"))
        assert isinstance(error, PublishFailed | PublishUnknown | Unavailable), f"a publish without room raised {error!r}"
    finally:
        await kit.blocking(kit.harness.drain)
    await orders.publish(b"after", id="after")
    bodies = await kit.drained(orders, idle=1.0)
    assert {b"before", b"after"} <= set(bodies), f"confirmed and lost: { {b'before', b'after'} - set(bodies) }"
    if isinstance(error, PublishFailed):
        assert b"too much" not in bodies, "a publish that raised PublishFailed was delivered"
