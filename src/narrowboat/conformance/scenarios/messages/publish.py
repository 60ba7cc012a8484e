"""B01, B05, B06 and B19: a published message is there, once, as soon as publish returned, also after its publisher's end."""

from __future__ import annotations

import time

from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.message_kit import MessageKit, are_same
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.users.child import Link
from narrowboat.conformance.users.opening import opened


@scenario("B01", seconds=20)
async def one_message_comes_and_goes(kit: MessageKit) -> None:
    """A message is published, received and acknowledged, and does not come again."""
    orders = kit.broker(timeout=5).queue("orders")
    await orders.publish(b"hello")
    async with orders.consume() as messages:
        await kit.comes(messages, b"hello")
        await kit.nothing(messages)


@scenario("B01", "B20")
async def a_hundred_arrive_as_published(kit: MessageKit) -> None:
    """Bodies, headers, keys and ids arrive equal. A hundred messages are the same set, and no other message comes."""
    orders = kit.queue()
    sent = {}
    for n in range(100):
        receipt = await orders.publish(f"body {n}".encode(), headers={"n": str(n)}, key=f"k{n % 7}")
        sent[receipt.id] = (f"body {n}".encode(), {"n": str(n)}, f"k{n % 7}")
    assert len(sent) == 100, "generated ids are not unique"
    async with orders.consume() as messages:
        got = await kit.take(messages, 100, ack=True)
        await kit.nothing(messages)
    assert {m.id: (m.body, dict(m.headers), m.key) for m in got} == sent


@scenario("B05")
async def ids_and_properties_are_kept(kit: MessageKit) -> None:
    """A given id, correlation id and content type arrive. Generated ids are unique. The time of publishing is kept."""
    orders = kit.queue()
    before = time.time()
    receipt = await orders.publish(b"x", id="order/42 ü", correlation_id="c-1", content_type="text/x-test")
    assert receipt.id == "order/42 ü"
    generated = {(await orders.publish(b"y")).id for _ in range(50)}
    after = time.time()
    assert len(generated) == 50
    async with orders.consume() as messages:
        by_id = {m.id: m for m in await kit.take(messages, 51, ack=True)}
    assert set(by_id) == {"order/42 ü", *generated}
    mine = by_id["order/42 ü"]
    assert (mine.correlation_id, mine.content_type) == ("c-1", "text/x-test")
    assert mine.published_at is not None and before - 1 <= mine.published_at <= after + 1


@scenario("B06", faults={Fault.REPLY})
async def publish_waits_for_the_confirm(kit: MessageKit) -> None:
    """A publish does not return before the backend has confirmed it. Then another connection finds the message."""
    faults, orders = kit.faulty()
    gate = faults.hold("send", before=True)
    task = kit.spawn(orders.publish(b"x"))
    assert await kit.blocking(gate.reached.wait, 5)
    await kit.sleep(0.05)
    assert not task.done(), "publish returned although the backend has not been asked yet"
    gate.open()
    await task
    async with kit.queue().consume() as messages:
        await kit.comes(messages, b"x")


def publishes_and_waits(link: Link, url: str) -> None:
    """A child: publish one message, tell, and wait to be killed."""
    receipt = opened(url).queue("orders").publish(b"durable")
    link.tell("published", id=receipt.id)
    link.wait("never")


@scenario("B06", tier="P", needs="scope=host", refused=demand, faults={Fault.PROCESS})
async def published_survives_its_publisher(kit: MessageKit) -> None:
    """A publisher is killed right after its publish returned. The message is delivered."""
    child = await kit.child(publishes_and_waits, url=kit.broker_url)
    told = await child.event("published")
    child.kill()
    async with kit.queue().consume() as messages:
        message = await kit.one(messages)
        assert (message.id, message.body) == (told["id"], b"durable")
        await message.ack()


@scenario("B19", tier="S", seconds=180)
async def many_publishers_and_consumers(kit: MessageKit) -> None:
    """Fifty publishers and fifty consumers on one connection: every message comes exactly once."""
    each = max(4, int(100 * kit.size))
    orders = kit.queue()
    done: list[bytes] = []

    async def publisher(number: int) -> None:
        for n in range(each):
            await orders.publish(f"{number}:{n}".encode())

    async def consumer() -> None:
        async with orders.consume(prefetch=20) as messages:
            while len(done) < 50 * each:
                message = await messages.receive(0.2)
                if message is not None:
                    done.append(message.body)
                    await message.ack()

    await kit.together(*(publisher(n) for n in range(50)), *(consumer() for _ in range(50)))
    are_same((f"{number}:{n}".encode() for number in range(50) for n in range(each)), done)
    await kit.depth_is(orders, ready=0, in_flight=0)
