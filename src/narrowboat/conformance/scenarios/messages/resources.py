"""B103 to B105, B111 and B113: resources: processor, memory, threads and files, while idle, under load and after the end."""

from __future__ import annotations

import time
from typing import Any

from narrowboat.capabilities import Threads
from narrowboat.conformance.checks.expect import fails
from narrowboat.conformance.checks.resources import Resources, our_threads, resident, thread_count
from narrowboat.conformance.message_kit import MessageKit, publish_all
from narrowboat.conformance.scenario import scenario
from narrowboat.errors import Unsupported


@scenario("B103", tier="S")
async def an_idle_consumer_is_idle(kit: MessageKit) -> None:
    """An idle consumer costs hardly any processor time and few calls. It has a new message within `wake_bound`."""
    orders, publisher = kit.queue(), kit.queue()
    async with orders.consume() as messages:
        waiting = kit.spawn(_stamped(messages))
        await publisher.publish(b"x")  # it connects, which is not what a consumer waits for
        await waiting
        latencies = []
        for _ in range(10):
            waiting = kit.spawn(_stamped(messages))
            await kit.sleep(0.05)
            begun = time.monotonic()
            await publisher.publish(b"x")
            latencies.append(await waiting - begun)
            assert latencies[-1] <= kit.upper(kit.broker_claims.wake_bound), f"woken after {latencies[-1]:.3f} s"
        for latency in latencies:
            kit.measure("wake-up of an idle consumer", latency, bound=kit.broker_claims.wake_bound)

        waiting = kit.spawn(_stamped(messages))
        await kit.sleep(0.1)
        before, spent = kit.seen.calls["receive"], time.process_time()
        await kit.sleep(1.5)
        spent, looks = (time.process_time() - spent) / 1.5, kit.seen.calls["receive"] - before
        kit.measure("processor time of an idle consumer, a second", spent)
        assert looks <= 15, f"{looks} looks in 1.5 idle seconds"
        assert spent <= kit.upper(0.25), f"{spent:.0%} of a processor while idle"
        await publisher.publish(b"x")
        await waiting


async def _stamped(messages: Any) -> float:
    """When the next message came. It is acknowledged."""
    message = await messages.receive(20)
    assert message is not None, "no message came within 20 s"
    now = time.monotonic()
    await message.ack()
    return now


@scenario("B104", tier="S", seconds=180)
async def a_slow_consumer_keeps_its_memory_flat(kit: MessageKit) -> None:
    """A slow consumer of a large backlog fetches no more than its prefetch, and its memory does not grow."""
    count = max(2000, int(100_000 * min(kit.size, 1.0)))
    orders = kit.queue()
    for start in range(0, count, 1000):
        await publish_all(orders, [bytes(200)] * min(1000, count - start))
    before = most = resident()  # as of now: the most that the process ever had may be a neighbour's
    async with kit.queue().consume(prefetch=20) as messages:
        for n in range(200):
            await (await kit.one(messages)).ack()
            most = max(most, resident())
            if n % 50 == 0 and kit.can("depth"):
                depth = await orders.depth()
                assert depth.in_flight is None or depth.in_flight <= 20, f"a consumer with prefetch=20 has {depth}"
    grown = (most - before) / 2**20
    kit.measure("memory of a slow consumer of a large backlog", grown, "MiB")
    assert grown < 30, f"the process grew by {grown:g} MiB"
    assert kit.seen.members["delivered"] <= 200 + 20
    await orders.delete()


@scenario("B105", tier="S", seconds=600)  # there are servers that take a tenth of a second to make a queue
async def many_queues_and_consumers(kit: MessageKit) -> None:
    """Hundreds of queues and consumers share one connection and a handful of threads. Each consumer gets its message.

    Where `threads=shared` is not claimed, twenty consumers get theirs, and who demands the claim is refused.
    """
    shared = kit.broker_claims.threads is Threads.SHARED
    queues, consumers = max(50, int(1000 * min(kit.size, 1.0))), max(20, int(200 * min(kit.size, 1.0))) if shared else 20
    if not shared:
        await fails(Unsupported, lambda: kit.broker(require="threads=shared"))
    broker = kit.broker(require="threads=shared" if shared else None)
    for n in range(queues):
        await broker.queue(f"q{n}").publish(str(n).encode())
    threads = thread_count()
    entered = [await broker.queue(f"q{n}").consume(prefetch=1).__aenter__() for n in range(consumers)]
    for n, messages in enumerate(entered):
        await kit.comes(messages, str(n).encode())
    kit.measure("threads of a further consumer", (thread_count() - threads) / consumers, "threads")
    assert not shared or thread_count() - threads <= 5, "a thread for each consumer"
    assert kit.seen.calls["open"] == 1
    for messages in entered:
        await messages.close()
    for n in range(queues):  # so many are a burden for a server that others use as well
        await broker.queue(f"q{n}").delete()


@scenario("B111", alone=True)
async def nothing_is_left_after_close(kit: MessageKit) -> None:
    """After close no thread, task or file of ours is left, also after consumers were used."""

    async def use() -> None:
        broker = kit.broker()
        orders = broker.queue("orders")
        await orders.publish(b"x")
        async with orders.consume() as messages:
            await (await kit.one(messages)).ack()
            await messages.receive(0.01)
        await broker.close()

    others = our_threads()
    await kit.spawn(use())
    await kit.eventually(lambda: not our_threads(others), what="our threads end")
    before = Resources.now()
    for _ in range(5):
        await kit.spawn(use())
    await kit.eventually(lambda: not our_threads(others), what="our threads end")
    # Also those of the driver's library, which may end a moment after it was closed.
    await kit.eventually(lambda: not before.left(), what=lambda: f"threads end: {before.left()}")
    await kit.eventually(lambda: Resources.now().files <= before.files, what=f"files are closed, {before.files} before")
    assert Resources.now().tasks <= before.tasks


@scenario("B113", tier="S")
async def what_it_takes(kit: MessageKit) -> None:
    """The rates of publish, delivery and ack, one by one and in batches, are in the report. They decide nothing."""
    orders = kit.queue()
    count = max(100, int(1000 * kit.size))
    begun = time.perf_counter()
    async with orders.consume(prefetch=1) as messages:
        for _ in range(count):
            await orders.publish(b"x")
            await (await kit.one(messages)).ack()
    kit.measure("publish, receive, ack of one message", (time.perf_counter() - begun) / count)
    begun = time.perf_counter()
    await publish_all(orders, [b"x"] * count)
    async with orders.consume(prefetch=1000) as messages:
        got = await kit.batches(messages, 500, count, wait=0.0)
    kit.measure("the same in batches, a message", (time.perf_counter() - begun) / count)
    assert sum(map(len, got)) == count
