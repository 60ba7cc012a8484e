"""B07, B08 and B29: many messages in one call: each has an outcome of its own, and nobody waits longer than was said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.message_kit import MessageKit
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.contract.messages import Outgoing, Receipt
from narrowboat.errors import InvalidArgument, NarrowboatError, PublishFailed, StaleDelivery
from narrowboat.layers.passing import PassingBroker


@scenario("B07")
async def a_batch_larger_than_the_backend_takes(kit: MessageKit) -> None:
    """publish_many delivers all of a batch that is larger than one exchange may be: one receipt for each, in order."""
    count = min(kit.broker_claims.batch_max, 2000) + 5
    orders = kit.queue()
    receipts = await orders.publish_many([str(n).encode() for n in range(count)])
    assert len(receipts) == count
    bad = [each for each in receipts if not isinstance(each, Receipt)]
    assert not bad, bad[:3]
    assert kit.seen.calls["send"] == -(-count // kit.broker_claims.batch_max)
    got: dict[str, bytes] = {}
    async with orders.consume(prefetch=500) as messages:
        async for batch in messages.batches(500, wait=0.01):
            got.update((m.id, m.body) for m in batch)
            assert not any(await batch.ack())
            if len(got) >= count:
                break
    assert [got[receipt.id] for receipt in receipts if isinstance(receipt, Receipt)] == [str(n).encode() for n in range(count)]


class _RefusesOdd(PassingBroker):
    """A backend that has no room for every other message of a batch."""

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        taken = iter(self.inner.send([m for m in messages if not m.body.startswith(b"odd")]))
        return [PublishFailed("no room", id=m.id) if m.body.startswith(b"odd") else next(taken) for m in messages]


@scenario("B07")
async def a_batch_that_fails_in_part(kit: MessageKit) -> None:
    """publish_many gives one outcome for each: the failed ones are named, the others are delivered, nothing is raised."""
    orders = kit.broker(wrap=_RefusesOdd).queue("orders")
    bodies = [f"{'odd' if n % 2 else 'even'} {n}".encode() for n in range(10)]
    outcomes = await orders.publish_many(bodies)
    assert [isinstance(each, Receipt) for each in outcomes] == [n % 2 == 0 for n in range(10)]
    assert all(isinstance(each, PublishFailed) for each in outcomes[1::2])
    assert sorted(await kit.drained(orders)) == sorted(bodies[0::2])


@scenario("B07", "B09")
async def a_batch_with_one_wrong_item_sends_nothing(kit: MessageKit) -> None:
    """An item that cannot be sent is an InvalidArgument that names its place, and none of the batch is sent."""
    orders = kit.queue()
    wrong: list[Any] = [b"0", b"1", None, b"3"]
    error = await fails(InvalidArgument, orders.publish_many(wrong))
    assert "2" in str(error), error
    assert not kit.seen.calls["send"]
    assert await orders.publish_many([]) == []


@scenario("B08")
async def a_batch_does_not_wait_to_be_full(kit: MessageKit) -> None:
    """batches() gives what is there after `wait`, not only full batches; what comes late enough to be too many is next."""
    orders = kit.queue()
    await orders.publish_many([b"0", b"1", b"2"])
    async with orders.consume(prefetch=100) as messages:
        with kit.within(3.0, "a part of a batch was kept back"):
            sizes: list[int] = []
            async for batch in messages.batches(100, wait=0.05):
                sizes.append(len(batch))
                assert not any(await batch.ack())
                if sum(sizes) == 3:
                    break
        await orders.publish_many([str(n).encode() for n in range(10)])
        sizes.clear()
        async for batch in messages.batches(4, wait=0.05):
            sizes.append(len(batch))
            assert not any(await batch.ack())
            if sum(sizes) == 10:
                break
        assert max(sizes) <= 4, sizes


@scenario("B08")
async def late_arrivals_join_a_batch(kit: MessageKit) -> None:
    """What arrives while a batch gathers is in it, and the batch ends as soon as it is full."""
    orders = kit.queue()
    await orders.publish(b"early")
    async with orders.consume(prefetch=2) as messages:

        async def first() -> list[bytes]:
            async for batch in messages.batches(2, wait=20.0):
                bodies = [m.body for m in batch]
                assert not any(await batch.ack())
                return bodies
            raise AssertionError("the iteration ended")

        with kit.within(10, "a full batch waited for its time to be up"):
            task = kit.spawn(first())
            await kit.eventually(lambda: kit.seen.calls["delivered"], what="the first message is fetched")
            await orders.publish(b"late")
            assert await task == [b"early", b"late"]


@scenario("B08")
async def receive_keeps_its_deadline(kit: MessageKit) -> None:
    """receive(timeout) gives None when the time is up, not before, and receive(0) looks once."""
    orders = kit.queue()
    async with orders.consume() as messages:
        with kit.within(2.0, "receive(0.3)", least=0.3):
            assert await messages.receive(0.3) is None
        assert await messages.receive(0) is None
        await orders.publish(b"x")
        message = await messages.receive(0)
        assert message is not None and message.body == b"x"


@scenario("B29")
async def a_batch_that_is_stale_in_part(kit: MessageKit) -> None:
    """Batch settlement gives one outcome for each: those already settled are stale, the others are settled."""
    orders = kit.queue(max_deliveries=0)
    await orders.publish_many([str(n).encode() for n in range(6)])
    async with orders.consume() as messages:
        seen = 0
        async for batch in messages.batches(6, wait=2.0):
            seen += len(batch)
            early = [m for m in batch if int(m.body) % 2]
            for message in early:
                await message.nack()
            outcomes = await batch.ack()
            for message, outcome in zip(batch, outcomes, strict=True):
                assert isinstance(outcome, StaleDelivery) if int(message.body) % 2 else outcome is None, (message, outcome)
            if seen >= 6:
                break
        got = await kit.take(messages, 3, ack=True)
        assert sorted(m.body for m in got) == [b"1", b"3", b"5"]
        await kit.nothing(messages)


@scenario("B29", tier="T", needs="lease=message", refused=demand)
async def a_batch_of_which_a_part_is_somebody_elses(kit: MessageKit) -> None:
    """A batch of which a part has gone to another consumer with its lease: those are stale, the others are settled."""
    lease = kit.short_lease
    first, second = (kit.queue(lease=lease, max_deliveries=0) for _ in range(2))
    await first.publish_many([str(n).encode() for n in range(6)])
    async with first.consume(auto_extend=False) as messages, second.consume(prefetch=3) as theirs:
        batch = await anext(aiter(messages.batches(6, wait=2.0)))
        assert len(batch) == 6
        kept = [message for message in batch if int(message.body) % 2 == 0]
        for message in kept:
            await message.extend(lease * 10)
        copies = await kit.take(theirs, 3, kit.lapse(lease) + 5)
        assert sorted(copy.body for copy in copies) == [b"1", b"3", b"5"]
        outcomes = await batch.ack()
        for message, outcome in zip(batch, outcomes, strict=True):
            assert outcome is None if message in kept else isinstance(outcome, StaleDelivery), (message, outcome)
        for copy in copies:
            await copy.ack()
    assert await kit.drained(first) == []
