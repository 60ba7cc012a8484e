"""B56 to B61: order, for all messages of one producer and for those of one key."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.kit import Faults, Kit
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.scenarios.messages.common import lease_of, nothing, one, take
from narrowboat.messaging import Outbound


async def _asks_for_order(kit: Kit) -> None:
    kit.broker().queue("orders", max_deliveries=0, ordered=True)


@scenario("B56", needs="order", refused=_asks_for_order)
async def one_key_is_first_in_first_out(kit: Kit) -> None:
    """One producer, one consumer, one key: a thousand messages arrive in the order in which they were published."""
    orders = kit.broker().queue("orders", max_deliveries=0, ordered=True)
    count = 1000
    outcomes = await orders.publish_many([_keyed("k", n) for n in range(count - 100)])
    assert not any(isinstance(each, Exception) for each in outcomes)
    for n in range(count - 100, count):
        await orders.publish(str(n).encode(), key="k")
    async with orders.consume(prefetch=50) as messages:
        got = await take(kit, messages, count, within=45, ack=True)
    assert [int(m.body) for m in got] == list(range(count))


def _keyed(key: str, n: int) -> Any:
    return Outbound(str(n).encode(), key=key)


@scenario("B57", "B59", tier="S", needs="order", refused=_asks_for_order, seconds=120)
async def keys_keep_their_order_across_consumers(kit: Kit) -> None:
    """Sixteen keys, four consumers on two connections: each key in order, and never two of one key in hands at once."""
    each = max(5, int(60 * kit.size))
    first, second = kit.broker(), kit.broker()
    await first.queue("orders", max_deliveries=0, ordered=True).declare()
    order: dict[str, list[int]] = defaultdict(list)
    holding: dict[str, int] = defaultdict(int)
    most: dict[str, int] = defaultdict(int)
    total = 16 * each

    async def producer(keys: range) -> None:
        queue = first.queue("orders", max_deliveries=0, ordered=True)
        for n in range(each):
            await queue.publish_many([_keyed(f"k{key}", n) for key in keys])

    async def consumer(broker: Any) -> None:
        async with broker.queue("orders", max_deliveries=0, ordered=True).consume(prefetch=8) as messages:
            while sum(map(len, order.values())) < total:
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
        producer(range(8)), producer(range(8, 16)), *(consumer(broker) for broker in (first, second, first, second))
    )
    assert {key: seen for key, seen in order.items() if seen != list(range(each))} == {}
    assert len(order) == 16
    assert max(most.values()) == 1, f"two of one key at once: {dict(most)}"


@scenario("B58", needs="order", refused=_asks_for_order)
async def a_nacked_message_blocks_its_key(kit: Kit) -> None:
    """In an ordered source a nacked message comes again before the later ones of its key; other keys go on."""
    orders = kit.broker().queue("orders", max_deliveries=0, ordered=True)
    for n in range(3):
        await orders.publish(str(n).encode(), key="a")
    await orders.publish(b"other", key="b")
    async with orders.consume() as messages:
        got = {m.key: m for m in await take(kit, messages, 2)}
        assert (got["a"].body, got["b"].body) == (b"0", b"other")
        await got["b"].ack()
        await got["a"].nack()
        again = await one(kit, messages)
        assert (again.body, again.attempt) == (b"0", 2)
        await again.ack()
        assert [m.body for m in await take(kit, messages, 2, ack=True)] == [b"1", b"2"]


@scenario("B58", tier="T", needs=("order", "delay"), refused=demand)
async def a_nack_with_a_delay_blocks_its_key(kit: Kit) -> None:
    """While a nacked message waits for its delay the later ones of its key wait too, and other keys do not."""
    orders = kit.broker().queue("orders", max_deliveries=0, ordered=True)
    await orders.publish(b"0", key="a")
    await orders.publish(b"1", key="a")
    async with orders.consume() as messages:
        await (await one(kit, messages)).nack(delay=2.5)
        await nothing(messages, 0.3)
        await orders.publish(b"other", key="b")
        assert [m.body for m in await take(kit, messages, 3, ack=True)] == [b"other", b"0", b"1"]


@scenario("B51", "B58", tier="T", needs=("order", "delay", "ttl"), refused=demand)
async def a_retry_that_expires_frees_its_key(kit: Kit) -> None:
    """What expires while it is out, or while it waits for its retry, is dropped, and the next of its key goes on then."""
    life = kit.upper(1.0)
    for key, out in (("out", True), ("waiting", False)):
        orders = kit.broker().queue(f"orders {key}", max_deliveries=0, ordered=True)
        await orders.publish(b"short", key=key, ttl=life)
        await orders.publish(b"next", key=key)
        async with orders.consume() as messages:
            message = await one(kit, messages)
            assert message.body == b"short"
            if out:
                await kit.sleep(life + 0.1)
            await message.nack(delay=60.0)
            assert [m.body for m in await take(kit, messages, 1, ack=True)] == [b"next"], f"expired while it was {key}"


@scenario("B58", needs=("order", "dead_letters"), refused=demand)
async def a_dead_message_frees_its_key(kit: Kit) -> None:
    """A message that becomes a dead letter leaves the sequence, and the next of its key is delivered."""
    orders = kit.broker().queue("orders", max_deliveries=2, ordered=True)
    await orders.publish(b"poison", key="a")
    await orders.publish(b"next", key="a")
    async with orders.consume() as messages:
        for _ in range(2):
            message = await one(kit, messages)
            assert message.body == b"poison"
            await message.nack()
        assert [m.body for m in await take(kit, messages, 1, ack=True)] == [b"next"]


@scenario("B59", needs="order", refused=_asks_for_order)
async def one_of_a_key_at_a_time(kit: Kit) -> None:
    """While one message of a key is unsettled no other of that key is handed out, to this or to another consumer."""
    first, second = (kit.broker().queue("orders", max_deliveries=0, ordered=True) for _ in range(2))
    for n in range(3):
        await first.publish(str(n).encode(), key="a")
    async with first.consume() as messages, second.consume() as theirs:
        message = await one(kit, messages)
        await nothing(theirs)
        await nothing(messages)
        await message.ack()
        got = await theirs.receive(0.5) or await messages.receive(kit.upper(5))
        assert got is not None and got.body == b"1"


@scenario("B59", tier="T", needs=("order", "lease=message"), refused=demand)
async def an_abandoned_key_goes_on(kit: Kit) -> None:
    """A message whose lease ran out comes again before the later ones of its key."""
    lease = lease_of(kit)
    first, second = (kit.broker().queue("orders", max_deliveries=0, ordered=True, lease=lease) for _ in range(2))
    await first.publish(b"0", key="a")
    await first.publish(b"1", key="a")
    async with first.consume(auto_extend=False) as messages:
        await one(kit, messages)
        async with second.consume() as theirs:
            got = await take(kit, theirs, 2, within=lease + kit.broker_claims.lease_lag + 5, ack=True)
            assert [(m.body, m.attempt) for m in got] == [(b"0", 2), (b"1", 1)]


@scenario("B61", needs="order", refused=demand, faults={Fault.REPLY})
async def no_retry_reorders(kit: Kit) -> None:
    """A publish that fails is not sent again behind the caller's back: what follows it keeps its order, nothing is twice."""
    faults = Faults()
    orders = kit.broker(faults=faults).queue("orders", max_deliveries=0, ordered=True)
    confirmed = []
    for n in range(30):
        if n % 7 == 3:
            faults.drop_request("send")
        outcomes = await orders.publish_many([_keyed("k", n)])
        if not isinstance(outcomes[0], Exception):
            confirmed.append(n)
    assert len(confirmed) == 26
    async with orders.consume() as messages:
        got = await take(kit, messages, len(confirmed), ack=True)
        await nothing(messages)
    assert [int(m.body) for m in got] == confirmed
