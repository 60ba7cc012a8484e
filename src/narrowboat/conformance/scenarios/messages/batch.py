"""B07, B08 and B29: batches: each message has an outcome of its own, and no batch waits longer than it was told."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.kit import Faults
from narrowboat.conformance.message_kit import MessageKit, are_same, asks_for_a_topic, numbered, publish_all
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.contract.messages import Outgoing, Receipt
from narrowboat.errors import InvalidArgument, NarrowboatError, PublishFailed, StaleDelivery
from narrowboat.layers.passing import PassingBroker


@scenario("B07")
async def a_batch_larger_than_the_backend_takes(kit: MessageKit) -> None:
    """publish_many splits a batch that is larger than one exchange may be. Each message has its receipt, in order."""
    bodies = numbered(min(kit.broker_claims.batch_max, 2000) + 5)
    orders = kit.queue()
    receipts = await publish_all(orders, bodies)
    assert kit.seen.calls["send"] == -(-len(bodies) // kit.broker_claims.batch_max)
    async with orders.consume(prefetch=500) as messages:
        got = {m.id: m.body for batch in await kit.batches(messages, 500, len(bodies), wait=0.01) for m in batch}
    assert [got.get(receipt.id) for receipt in receipts] == bodies, "the receipts are not those of the messages, in their order"


class _RefusesOdd(PassingBroker):
    """A backend that has no room for every other message of a batch."""

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        taken = iter(self.inner.send([m for m in messages if not m.body.startswith(b"odd")]))
        return [PublishFailed("no room", id=m.id) if m.body.startswith(b"odd") else next(taken) for m in messages]


@scenario("B07")
async def a_batch_that_fails_in_part(kit: MessageKit) -> None:
    """publish_many raises nothing when a part fails. It names the failed messages, and the others are delivered."""
    orders = kit.broker(wrap=_RefusesOdd).queue("orders")
    bodies = [f"{'odd' if n % 2 else 'even'} {n}".encode() for n in range(10)]
    outcomes = await orders.publish_many(bodies)
    assert [isinstance(each, Receipt) for each in outcomes] == [n % 2 == 0 for n in range(10)]
    assert all(isinstance(each, PublishFailed) for each in outcomes[1::2])
    await kit.contains(orders, bodies[0::2])


@scenario("B07", needs="topics", refused=asks_for_a_topic, faults={Fault.REPLY})
async def one_refusal_spoils_no_other(kit: MessageKit) -> None:
    """Of several publishers whose messages go out together, one names what is no queue: the others have their receipts."""
    await kit.broker().topic("prices").subscription("g").declare()
    faults = Faults()
    broker = kit.broker(faults=faults)
    orders = broker.queue("orders")
    await orders.publish(b"0")
    gate = faults.hold("send", before=True)
    sending = [kit.spawn(orders.publish(b"1"))]
    assert await kit.blocking(gate.reached.wait, 10)
    sending += [kit.spawn(orders.publish(body)) for body in (b"2", b"3")]
    wrong = kit.spawn(broker.queue("prices").publish(b"x"))
    sending += [kit.spawn(orders.publish(body)) for body in (b"4", b"5")]
    await kit.sleep(0.2)  # until all of them wait for the one exchange that is under way
    gate.open()
    with contextlib.suppress(NarrowboatError):  # where it is found out, it is a Conflict
        await kit.soon(wrong)
    receipts = [await kit.soon(task) for task in sending]
    assert all(isinstance(each, Receipt) for each in receipts)
    await kit.contains(orders, numbered(6))


@scenario("B07", "B09")
async def a_batch_with_one_wrong_item_sends_nothing(kit: MessageKit) -> None:
    """An item that cannot be sent is an InvalidArgument that names its place. None of the batch is sent."""
    orders = kit.queue()
    wrong: list[Any] = [b"0", b"1", None, b"3"]
    error = await fails(InvalidArgument, orders.publish_many(wrong))
    assert "2" in str(error), f"the error does not name place 2: {error}"
    assert not kit.seen.calls["send"]
    assert await orders.publish_many([]) == []


@scenario("B08")
async def a_batch_does_not_wait_to_be_full(kit: MessageKit) -> None:
    """batches() gives what is there after `wait`, full or not, and never more than a batch may have."""
    orders = await kit.filled(*numbered(3))
    async with orders.consume(prefetch=100) as messages:
        with kit.within(3.0, "a part of a batch was kept back"):
            got = await kit.batches(messages, 100, 3, wait=0.05)
        assert sum(map(len, got)) == 3
        await publish_all(orders, numbered(10))
        sizes = [len(batch) for batch in await kit.batches(messages, 4, 10, wait=0.05)]
        assert sum(sizes) == 10 and max(sizes) <= 4, f"batches of {sizes} came, and 10 messages by 4 at the most were owed"


@scenario("B08")
async def late_arrivals_join_a_batch(kit: MessageKit) -> None:
    """A message that arrives while a batch gathers is in it, and the batch ends as soon as it is full."""
    orders = await kit.filled(b"early")
    async with orders.consume(prefetch=2) as messages:
        with kit.within(10, "a full batch waited for its time to be up"):
            task = kit.spawn(kit.batches(messages, 2, 1, wait=20.0))
            await kit.eventually(lambda: kit.seen.calls["delivered"], what="the first message is fetched")
            await orders.publish(b"late")
            assert [m.body for batch in await task for m in batch] == [b"early", b"late"]


@scenario("B08")
async def receive_keeps_its_deadline(kit: MessageKit) -> None:
    """receive(timeout) gives None when the time is up and not before. receive(0) looks once."""
    orders = kit.queue()
    async with orders.consume() as messages:
        with kit.within(2.0, "receive(0.3)", least=0.3):
            assert await messages.receive(0.3) is None
        assert await messages.receive(0) is None
        await orders.publish(b"x")
        message = await messages.receive(0)
        assert message is not None and message.body == b"x", f"receive(0) gave {message!r}, and a message is there"


@scenario("B29")
async def a_batch_that_is_stale_in_part(kit: MessageKit) -> None:
    """Batch settlement has an outcome for each message. Those already settled are stale, the others are settled."""
    orders = await kit.filled(*numbered(6), max_deliveries=0)
    async with orders.consume() as messages:
        seen = 0
        async for batch in messages.batches(6, wait=2.0):
            seen += len(batch)
            early = [m for m in batch if int(m.body) % 2]
            for message in early:
                await message.nack()
            await _settles_all_but(batch, early)
            if seen >= 6:
                break
        got = await kit.take(messages, 3, ack=True)
        are_same([b"1", b"3", b"5"], [m.body for m in got])
        await kit.nothing(messages)


async def _settles_all_but(batch: Any, stale: list[Any]) -> None:
    """An ack of `batch` is stale for each message of `stale`, and succeeds for each of the others."""
    outcomes = await batch.ack()
    for message, outcome in zip(batch, outcomes, strict=True):
        assert isinstance(outcome, StaleDelivery) if message in stale else outcome is None, (
            f"the ack of {message.body!r} gave {outcome!r}"
        )


@scenario("B29", tier="T", needs=("lease=message", "extension"), refused=demand)
async def a_batch_of_which_a_part_is_somebody_elses(kit: MessageKit) -> None:
    """The leases of half a batch end, and a peer gets those messages. They are stale, the others are settled."""
    lease = kit.short_lease
    first, second = kit.queue(lease=lease, max_deliveries=0), kit.queue(lease=lease, max_deliveries=0)
    await publish_all(first, numbered(6))
    async with first.consume(auto_extend=False) as messages, second.consume(prefetch=3) as theirs:
        batch = await anext(aiter(messages.batches(6, wait=2.0)))
        assert len(batch) == 6
        for message in batch:
            if int(message.body) % 2 == 0:
                await message.extend(lease * 10)
        copies = await kit.take(theirs, 3, kit.lapse(lease) + 5)
        are_same([b"1", b"3", b"5"], [copy.body for copy in copies])
        await _settles_all_but(batch, [message for message in batch if int(message.body) % 2])
        for copy in copies:
            await copy.ack()
    await kit.contains(first, [])
