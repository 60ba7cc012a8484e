"""B34, B40, B46 and B55: retries: how often a message is tried, how attempts are counted, and how soon it comes again."""

from __future__ import annotations

import itertools
import time
from typing import Any

from narrowboat._engine.backoff import after_failure
from narrowboat.conformance.message_kit import MessageKit, asks_for_dead_letters, asks_for_delay
from narrowboat.conformance.scenario import demand, scenario


@scenario("B34")
async def attempts_count_across_consumers(kit: MessageKit) -> None:
    """`attempt` starts at 1 and counts each claim, across consumers and connections. `redelivered` agrees with it."""
    await kit.filled(b"x", max_deliveries=0)
    for attempt in range(1, 5):
        broker = kit.broker()
        async with broker.queue("orders", max_deliveries=0).consume() as messages:
            message = await kit.one(messages)
            assert (message.attempt, message.redelivered) == (attempt, attempt > 1)
            if attempt % 2:
                await message.nack()
        await broker.close()


@scenario("B40", "B41", needs="dead_letters", refused=asks_for_dead_letters)
async def delivered_exactly_so_often(kit: MessageKit) -> None:
    """A message that is always nacked is delivered exactly max_deliveries times. Then it is a dead letter."""
    for limit in (1, 3):
        orders = kit.broker().queue(f"orders{limit}", max_deliveries=limit)
        receipt = await orders.publish(b"poison", headers={"v": "1"}, key="k", correlation_id="c")
        async with orders.consume() as messages:
            for attempt in range(1, limit + 1):
                message = await kit.one(messages)
                assert message.attempt == attempt
                await message.nack()
            await kit.nothing(messages)
        await kit.depth_is(orders, ready=0, in_flight=0, delayed=0, dead=1)
        letter = await kit.dead_letter(orders)
        assert (letter.id, letter.body, letter.key, letter.correlation_id) == (receipt.id, b"poison", "k", "c")
        assert letter.headers["v"] == "1"
        assert (letter.dead.attempts, letter.dead.origin) == (limit, f"orders{limit}")
        await kit.depth_is(orders, dead=0)


@scenario("B40", tier="T", needs=("dead_letters", "lease=message"), refused=demand)
async def crashes_count_as_deliveries(kit: MessageKit) -> None:
    """A message whose lease always ends is dead after max_deliveries claims. No handler gets it once more."""
    lease, limit = kit.short_lease, 2
    orders = await kit.filled(b"crash loop", lease=lease, max_deliveries=limit)
    async with orders.consume(auto_extend=False) as messages:
        for attempt in range(1, limit + 1):
            message = await kit.one(messages, kit.lapse(lease) + 5)
            assert message.attempt == attempt
        await kit.nothing(messages, kit.lapse(lease) + 0.5)
    await kit.depth_is(orders, ready=0, in_flight=0, dead=1)
    assert (await kit.dead_letter(orders)).dead.attempts == limit


@scenario("B46")
async def retries_back_off(kit: MessageKit) -> None:
    """The delay after a failure grows with the attempts and has jitter. It stays under its cap and the longest delay."""
    for draw in (0.0, 0.5, 0.999):
        delays = [after_failure(attempt, itertools.repeat(draw).__next__, 3600.0) for attempt in range(1, 40)]
        assert all(later >= sooner for sooner, later in itertools.pairwise(delays)), delays
        assert delays[-1] == delays[-2], "the delay has no cap"
        assert delays[5] > delays[0] > 0
    assert after_failure(3, lambda: 0.1, 3600.0) != after_failure(3, lambda: 0.9, 3600.0), "the delay has no jitter"
    assert max(after_failure(30, lambda: 0.999, 2.0), after_failure(30, lambda: 0.0, 2.0)) <= 2.0


@scenario("B46", tier="T", needs="delay", refused=asks_for_delay)
async def a_failed_handler_waits_before_its_retry(kit: MessageKit) -> None:
    """run() tries a message again only after the backoff that follows a failure."""
    orders = kit.broker(random=lambda: 0.5).queue("orders")
    await orders.publish(b"x")
    at: list[float] = []

    async def handle(message: Any) -> None:
        at.append(time.monotonic())
        if message.attempt < 2:
            raise ValueError("not yet")

    async with kit.at_work(orders, handle):
        await kit.eventually(lambda: len(at) == 2, within=20, what="the message is tried again")
    least = after_failure(1, lambda: 0.5, kit.broker_claims.delay_max)
    assert at[1] - at[0] >= least, f"tried again after {at[1] - at[0]:g} s, and {least:g} s was owed"


@scenario("B55", tier="T", alone=True, needs="delay", refused=asks_for_delay)
async def a_nack_loop_does_not_spin(kit: MessageKit) -> None:
    """A handler that always fails is called at the pace of the backoff. No loop is busy between the tries."""
    orders = kit.broker(random=lambda: 0.5).queue("orders", max_deliveries=0)
    await orders.publish(b"poison")
    tries: list[float] = []

    async def handle(message: Any) -> None:
        tries.append(time.monotonic())
        raise ValueError("always")

    async with kit.at_work(orders, handle):
        await kit.eventually(lambda: tries, what="the message is tried")
        before, spent = kit.seen.calls.total(), time.process_time()
        await kit.sleep(1.5)
        spent = time.process_time() - spent
        calls = kit.seen.calls.total() - before
    assert len(tries) <= 12, f"{len(tries)} tries in 1.5 s"
    assert calls <= 150, f"{calls} calls of the driver in 1.5 s"
    kit.measure("processor time of a nack loop, a second", spent / 1.5)
