"""B56 to B61: order, for all messages of one producer and for those of one key."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.message_kit import MessageKit, numbered, publish_all
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.messaging import Outbound


async def _asks_for_order(kit: MessageKit) -> None:
    _ordered(kit)


def _ordered(kit: MessageKit, **terms: Any) -> Any:
    return kit.queue(**{"max_deliveries": 0, "ordered": True, **terms})


async def _with_key(queue: Any, key: str, *bodies: bytes) -> None:
    """Publish `bodies` one after the other under `key`."""
    for body in bodies:
        await queue.publish(body, key=key)


@scenario("B56", needs="order", refused=_asks_for_order)
async def one_key_is_first_in_first_out(kit: MessageKit) -> None:
    """One producer, one consumer, one key: a thousand messages arrive in the order in which they were published."""
    orders = _ordered(kit)
    bodies = numbered(1000)
    await publish_all(orders, [Outbound(body, key="k") for body in bodies[:900]])
    await _with_key(orders, "k", *bodies[900:])
    async with orders.consume(prefetch=50) as messages:
        got = await kit.take(messages, len(bodies), within=45, ack=True)
    assert [m.body for m in got] == bodies


@scenario("B57", "B59", tier="S", needs="order", refused=_asks_for_order, seconds=120)
async def keys_keep_their_order_across_consumers(kit: MessageKit) -> None:
    """Sixteen keys and four consumers on two connections: each key keeps its order, and never has two in flight."""
    each = max(5, int(60 * kit.size))
    first, second = _ordered(kit), _ordered(kit)
    await first.declare()
    order: dict[str, list[int]] = defaultdict(list)
    holding: dict[str, int] = defaultdict(int)
    most: dict[str, int] = defaultdict(int)

    async def producer(keys: range) -> None:
        for n in range(each):
            await first.publish_many([Outbound(str(n).encode(), key=f"k{key}") for key in keys])

    async def consumer(queue: Any) -> None:
        async with queue.consume(prefetch=8) as messages:
            while sum(map(len, order.values())) < 16 * each:
                message = await messages.receive(0.2)
                if message is None:
                    continue
                holding[message.key] += 1
                most[message.key] = max(most[message.key], holding[message.key])
                order[message.key].append(int(message.body))
                await kit.sleep(0)
                holding[message.key] -= 1
                await message.ack()

    await kit.together(
        producer(range(8)), producer(range(8, 16)), *(consumer(queue) for queue in (first, second, first, second))
    )
    assert {key: seen for key, seen in order.items() if seen != list(range(each))} == {}
    assert len(order) == 16
    assert max(most.values()) == 1, f"two of one key were in flight at once: {dict(most)}"


@scenario("B58", needs="order", refused=_asks_for_order)
async def a_nacked_message_blocks_its_key(kit: MessageKit) -> None:
    """In an ordered source a nacked message comes again before the later ones of its key. Other keys go on."""
    orders = _ordered(kit)
    await _with_key(orders, "a", *numbered(3))
    await _with_key(orders, "b", b"other")
    async with orders.consume() as messages:
        got = {m.body: m for m in await kit.take(messages, 2)}
        assert set(got) == {b"0", b"other"}, f"{set(got)} came first, and the first message of each key was owed"
        await got[b"other"].ack()
        await got[b"0"].nack()
        await kit.comes(messages, b"0", attempt=2)
        await kit.comes(messages, b"1")
        await kit.comes(messages, b"2")


@scenario("B58", tier="T", needs=("order", "delay"), refused=demand)
async def a_nack_with_a_delay_blocks_its_key(kit: MessageKit) -> None:
    """While a nacked message waits for its delay the later ones of its key wait too. Other keys do not."""
    orders = _ordered(kit)
    await _with_key(orders, "a", *numbered(2))
    async with orders.consume() as messages:
        await (await kit.one(messages)).nack(delay=2.5)
        await kit.nothing(messages, 0.3)
        await _with_key(orders, "b", b"other")
        assert [m.body for m in await kit.take(messages, 3, ack=True)] == [b"other", b"0", b"1"]


@scenario("B51", "B58", tier="T", needs=("order", "delay", "ttl"), refused=demand)
async def a_retry_that_expires_frees_its_key(kit: MessageKit) -> None:
    """A message that expires in flight, or before its retry is due, is dropped. The next one of its key comes then."""
    life = kit.upper(1.0)
    for key, out in (("out", True), ("waiting", False)):
        orders = kit.broker().queue(f"orders {key}", max_deliveries=0, ordered=True)
        await orders.publish(b"short", key=key, ttl=life)
        await orders.publish(b"next", key=key)
        async with orders.consume() as messages:
            message = await kit.one(messages)
            assert message.body == b"short"
            if out:
                await kit.sleep(life + 0.1)
            await message.nack(delay=60.0)
            await kit.comes(messages, b"next", within=10)


@scenario("B58", needs=("order", "dead_letters"), refused=demand)
async def a_dead_message_frees_its_key(kit: MessageKit) -> None:
    """A message that becomes a dead letter leaves the sequence, and the next one of its key is delivered."""
    orders = _ordered(kit, max_deliveries=2)
    await _with_key(orders, "a", b"poison", b"next")
    async with orders.consume() as messages:
        for _ in range(2):
            message = await kit.one(messages)
            assert message.body == b"poison"
            await message.nack()
        await kit.comes(messages, b"next", within=10)


@scenario("B59", needs="order", refused=_asks_for_order)
async def one_of_a_key_at_a_time(kit: MessageKit) -> None:
    """While one message of a key is unsettled, no consumer gets another one of that key."""
    first, second = _ordered(kit), _ordered(kit)
    await _with_key(first, "a", *numbered(3))
    async with first.consume() as messages, second.consume() as theirs:
        message = await kit.one(messages)
        await kit.nothing(theirs)
        await kit.nothing(messages)
        await message.ack()
        got = await theirs.receive(0.5) or await messages.receive(kit.upper(5))
        assert got is not None and got.body == b"1", f"{got!r} came after the first one was acked"


@scenario("B59", tier="T", needs=("order", "lease=message"), refused=demand)
async def an_abandoned_key_goes_on(kit: MessageKit) -> None:
    """A message whose lease has ended comes again before the later ones of its key."""
    lease = kit.short_lease
    first, second = _ordered(kit, lease=lease), _ordered(kit, lease=lease)
    await _with_key(first, "a", *numbered(2))
    async with first.consume(auto_extend=False) as messages:
        await kit.one(messages)
        async with second.consume() as theirs:
            await kit.comes(theirs, b"0", attempt=2, within=kit.lapse(lease) + 5)
            await kit.comes(theirs, b"1", attempt=1)


@scenario("B61", needs="order", refused=demand, faults={Fault.REPLY})
async def no_retry_reorders(kit: MessageKit) -> None:
    """A publish that fails is not sent again by itself. The messages after it keep their order, and none comes twice."""
    faults, orders = kit.faulty(max_deliveries=0, ordered=True)
    confirmed = []
    for n in range(30):
        if n % 7 == 3:
            faults.drop_request("send")
        outcomes = await orders.publish_many([Outbound(str(n).encode(), key="k")])
        if not isinstance(outcomes[0], Exception):
            confirmed.append(n)
    assert len(confirmed) == 26
    async with orders.consume() as messages:
        got = await kit.take(messages, len(confirmed), ack=True)
        await kit.nothing(messages)
    assert [int(m.body) for m in got] == confirmed
