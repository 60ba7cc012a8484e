"""B69: a loss of power, at any moment of a publisher's and a consumer's work."""

from __future__ import annotations

import contextlib

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.message_kit import MessageKit, publish_all
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.errors import StaleDelivery

#: Seconds. It has to end before the files are looked at; nothing else is waited for.
LEASE = 2.0


@scenario("B69", tier="S", alone=True, needs="survives=power", refused=demand, faults={Fault.POWER}, seconds=240)
async def power_is_lost_while_messages_pass(kit: MessageKit) -> None:
    """After a loss of power at any moment confirmed messages are there, no confirmed ack is undone, and no more is there."""
    lease, rounds = max(LEASE, kit.broker_claims.lease_min), max(8, int(24 * kit.size))
    recording = await kit.blocking(kit.harness.recorded, kit.broker_url)
    broker = kit.broker(url=recording.url)
    orders = broker.queue("orders", max_deliveries=0, lease=lease)
    tried: dict[bytes, int] = {}
    confirmed: dict[bytes, int] = {}
    acking: dict[bytes, int] = {}
    acked: dict[bytes, int] = {}
    async with orders.consume(prefetch=1) as messages:
        for turn in range(rounds):
            bodies = [f"{turn} {n}".encode() for n in range(1 + turn % 3)]
            tried |= dict.fromkeys(bodies, recording.now())
            await publish_all(orders, bodies)
            confirmed |= dict.fromkeys(bodies, recording.now())
            message = await kit.one(messages)
            acking.setdefault(message.body, recording.now())
            with contextlib.suppress(StaleDelivery):  # the machine stood still for a lease: it comes again
                await message.ack()
                acked[message.body] = recording.now()
    await broker.close()
    await kit.sleep(kit.lapse(lease))  # what was out at any moment is ready again
    cuts = 0
    told = sorted({*confirmed.values(), *acked.values()})
    for moment, url in recording.cuts(told[:: max(1, len(told) // 20)], max(10, int(20 * kit.size)), seed=69):
        after = kit.broker(url=url)
        found = await kit.drained(after.queue("orders", max_deliveries=0), idle=0.15)
        await after.close()
        when = f"after a loss of power at {moment}"
        owed = {body for body, at in confirmed.items() if at <= moment and not acking.get(body, moment + 1) <= moment}
        assert not (owed - set(found)), f"{when}: confirmed and lost: {sorted(owed - set(found))}"
        undone = {body for body in found if acked.get(body, moment + 1) <= moment}
        assert not undone, f"{when}: their acks were confirmed, and they are there again: {sorted(undone)}"
        nowhere = {body for body in found if tried.get(body, moment + 1) > moment}
        assert not nowhere, f"{when}: nobody had published them: {sorted(nowhere)}"
        assert len(found) == len(set(found)), f"{when}: some are there twice: {found}"
        cuts += 1
    kit.measure("moments at which power was lost", cuts, "cuts")
    assert cuts >= 10, f"only {cuts} moments could be tried"
