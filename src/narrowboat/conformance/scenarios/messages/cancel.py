"""B96 to B98: calls that are cut off: at the first step they do nothing, later all or nothing. No message is lost."""

from __future__ import annotations

import asyncio

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.faults.sweep import cut
from narrowboat.conformance.message_kit import MessageKit
from narrowboat.conformance.scenario import scenario


@scenario("B96")
async def a_cancelled_scope_does_nothing(kit: MessageKit) -> None:
    """A publish or receive that is cut off at its first step has no side effect."""
    orders = await kit.filled(b"kept")
    async with orders.consume(prefetch=1) as messages:
        receive = await kit.spawn(cut(messages, "receive", 0, 5))
        if receive.result is not None:
            await receive.result.nack()
        await kit.comes(messages, b"kept")
        if kit.face == "sync":
            publish = await kit.spawn(cut(orders, "publish", 0, b"cut off"))
            assert publish.struck and publish.result is None
            await kit.nothing(messages)
        else:

            async def cancelled_already() -> None:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await orders.publish(b"cut off")

            task = kit.spawn(cancelled_already())
            await asyncio.wait([task])
            assert task.cancelled()
        await orders.publish(b"control")
        await kit.comes(messages, b"control")
        await kit.nothing(messages)


#: More points than a call can have: a sweep that reaches it does not end by itself, and that is an error.
_POINTS = 4000


@scenario("B97", tier="S", seconds=240)
async def a_receive_cut_off_swallows_nothing(kit: MessageKit) -> None:
    """A receive that is cut off at any point loses no message. The next receive has it, at the latest after its lease."""
    # An interrupt inside the driver may come after the claim and before the core knows of it: then only the lease helps.
    lease = kit.short_lease
    longest = kit.lapse(lease) + 5
    orders = kit.queue(max_deliveries=0, lease=lease)
    stride = 1 if kit.face == "asyncio" else max(1, round(2 / max(kit.size, 0.05)))
    points = 0
    async with orders.consume(prefetch=10) as messages:
        for delay in (0, 1, 3) if kit.face == "asyncio" else (0,):
            for point in range(0, _POINTS, stride):
                receipt = await orders.publish(b"x")
                result = await kit.spawn(cut(messages, "receive", point, 5, delay=delay))
                message = result.result if result.result is not None else await messages.receive(kit.upper(longest))
                assert message is not None, f"cut off at point {point} ({result.error}): the message was lost"
                assert message.id == receipt.id, f"cut off at point {point}: an older message came back"
                await message.ack()
                points += 1
                if not result.struck:
                    break
            else:
                raise AssertionError("the sweep did not end")
        await kit.nothing(messages)
    kit.measure("points at which a receive was cut off", float(points), "points")
    await kit.depth_is(orders, ready=0, in_flight=0)


@scenario("B98", faults={Fault.REPLY})
async def a_publish_cut_off_is_all_or_nothing(kit: MessageKit) -> None:
    """A publish is cancelled while it is under way. The message is there once or not at all, and the connection works on."""
    faults, orders = kit.faulty(max_deliveries=0)
    for before in (True, False):
        gate = faults.hold("send", before=before)
        task = kit.spawn(orders.publish(b"cut off"))
        assert await kit.blocking(gate.reached.wait, 5)
        if kit.face == "asyncio":
            await kit.cancel(task)
            gate.open()
        else:  # an interrupt reaches a thread only once it is out of what it waits in
            cancelling = asyncio.create_task(kit.cancel(task))
            await kit.sleep(0.02)
            gate.open()
            await cancelling
        await orders.publish(b"next")
        bodies = await kit.drained(orders)
        assert bodies.count(b"next") == 1 and bodies.count(b"cut off") <= 1, (
            f"{bodies} came, and b'next' once and b'cut off' at most once were owed"
        )
