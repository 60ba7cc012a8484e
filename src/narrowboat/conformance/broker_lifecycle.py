"""B88 to B113: closing, cancelling, shutting down, idling, asking, and what it costs."""

from __future__ import annotations

import asyncio
import os
import resource
import threading
import time
import traceback
from typing import Any

import narrowboat
from narrowboat import events
from narrowboat.capabilities import Support
from narrowboat.conformance.broker_common import (
    depth_is,
    drained,
    lease_of,
    nothing,
    one,
    raises,
    refuses,
    take,
    take_acked,
    until_in_flight,
)
from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.child import Link
from narrowboat.conformance.kit import Faults, Kit
from narrowboat.conformance.resources import our_threads
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.sweep import cut
from narrowboat.contract.messages import Receipt
from narrowboat.errors import Closed, ConfigurationError, RequestTimeout, Unsupported

HOST = demand("scope=host")


async def _asks_for_a_reply(kit: Kit) -> None:
    await kit.broker().queue("quote", max_deliveries=0).request(b"x", timeout=1)


async def _asks_for_a_topic(kit: Kit) -> None:
    kit.broker().topic("prices")


# -- close ------------------------------------------------------------------------------------------------------------


@scenario("B88")
async def used_after_close(kit: Kit) -> None:
    """Every use after close is Closed; closing twice, a consumer or a broker, is the same as once."""
    broker = kit.broker()
    orders = broker.queue("orders")
    await orders.publish(b"x")
    consumer = orders.consume()
    async with consumer as messages:
        await one(kit, messages)
        await messages.close()
        await messages.close()
        await raises(Closed, messages.receive(0))
    await broker.close()
    await broker.close()
    await raises(Closed, orders.publish(b"y"))
    await raises(Closed, orders.publish_many([b"y"]))
    await raises(Closed, orders.depth())
    await raises(Closed, broker.ping())
    refuses(Closed, lambda: broker.queue("other"))
    assert await drained(kit.broker().queue("orders")) == [b"x"]


@scenario("B89")
async def nothing_before_the_first_use(kit: Kit) -> None:
    """Making a broker, queues and topics connects to nothing; closing one that was never used, and stop() early, are fine."""
    broker = kit.broker()
    orders = broker.queue("orders")
    orders.stop()
    assert not kit.seen.calls
    await broker.close()
    assert not kit.seen.calls["open"]
    async with kit.broker().queue("orders").consume() as messages:
        messages.stop()
        assert await messages.receive(5) is None


@scenario("B90")
async def close_wakes_who_waits(kit: Kit) -> None:
    """A broker closed under a blocked receive wakes it with Closed, promptly, also with unread messages in its buffer."""
    broker = kit.broker()
    orders = broker.queue("orders")
    async with orders.consume() as messages:

        async def wait() -> float:
            await raises(Closed, messages.receive(60))
            return time.monotonic()

        waiting = [kit.spawn(wait()) for _ in range(3)]
        await kit.eventually(lambda: kit.seen.calls["receive"], what="a look")
        await kit.sleep(0.05)
        closed = time.monotonic()
        await broker.close()
        for task in waiting:
            assert await task - closed < kit.upper(2.0)
    again = kit.broker()
    await again.queue("orders").publish_many([b"0", b"1", b"2"])
    async with again.queue("orders").consume() as messages:
        await one(kit, messages)
        await until_in_flight(kit, again.queue("orders"), 3)
        begun = time.monotonic()
        await again.close()
        assert time.monotonic() - begun < kit.upper(5.0)
    assert sorted(await drained(kit.broker().queue("orders"))) == [b"0", b"1", b"2"]


@scenario("B90", "B95", faults={Fault.REPLY})
async def close_during_a_publish(kit: Kit) -> None:
    """A broker closed under publishes: each ends, promptly, with a receipt or an error, and every receipt is delivered."""
    faults = Faults()
    broker = kit.broker(faults=faults)
    orders = broker.queue("orders")
    gate = faults.hold("send")

    async def publish(n: int) -> str:
        try:
            return (await orders.publish(str(n).encode())).id
        except narrowboat.NarrowboatError:
            return ""

    tasks = [kit.spawn(publish(n)) for n in range(10)]
    assert await kit.blocking(gate.reached.wait, 5)

    async def close() -> None:
        await broker.close()

    closing = kit.spawn(close())
    await kit.sleep(0.05)
    gate.open()
    await closing
    done, pending = await asyncio.wait(tasks, timeout=kit.upper(5))
    assert not pending, "a publish did not end when its broker was closed"
    confirmed = {task.result() for task in done} - {""}
    found = set()
    async with kit.broker().queue("orders").consume() as messages:
        while (message := await messages.receive(0.3)) is not None:
            found.add(message.id)
            await message.ack()
    assert confirmed and confirmed <= found


@scenario("B91")
async def consumers_close_alone(kit: Kit) -> None:
    """Closing one consumer leaves the others and the connection alone."""
    broker = kit.broker()
    orders, other = broker.queue("orders"), broker.queue("other")
    async with orders.consume() as staying, other.consume() as beside:
        async with orders.consume():
            pass
        await orders.publish(b"x")
        await other.publish(b"y")
        assert (await one(kit, staying)).body == b"x"
        assert (await one(kit, beside)).body == b"y"
    assert kit.seen.calls["open"] == 1


@scenario("B92")
async def many_closes_at_once(kit: Kit) -> None:
    """Ten closes at once end, and a new broker works."""
    broker = kit.broker()
    await broker.queue("orders").publish(b"x")

    async def close() -> None:
        await broker.close()

    await kit.together(*(close() for _ in range(10)))
    assert await drained(kit.broker().queue("orders")) == [b"x"]


# -- shutting down ------------------------------------------------------------------------------------------------------


async def _at_work(kit: Kit, orders: Any, leave: asyncio.Event) -> tuple[asyncio.Task[Any], list[bytes]]:
    """A run whose first handler is at work, and stays so until `leave` is set; and the bodies that were handled."""
    entered = asyncio.Event()
    handled: list[bytes] = []

    async def handle(message: Any) -> None:
        entered.set()
        while not leave.is_set():  # noqa: ASYNC110  # an asyncio.Event cannot be waited for by the sync face's worker thread
            await asyncio.sleep(0.005)
        handled.append(message.body)

    task = kit.spawn(orders.run(handle, signals=False))
    await kit.eventually(entered.is_set, what="a handler runs")
    return task, handled


@scenario("B93")
async def stop_ends_a_run_in_order(kit: Kit) -> None:
    """stop() ends run(): what is in a handler is finished and acked, what was only fetched goes back, nothing new begins."""
    orders = kit.broker().queue("orders")
    await orders.publish_many([str(n).encode() for n in range(10)])
    leave = asyncio.Event()
    task, handled = await _at_work(kit, orders, leave)
    orders.stop()
    await depth_is(kit, orders, ready=9, in_flight=1)
    assert not task.done(), "run() did not wait for its handler"
    leave.set()
    await task
    assert len(handled) == 1
    await depth_is(kit, orders, ready=9, in_flight=0)
    if kit.broker_claims.uncounted_release is not Support.ABSENT:
        async with orders.consume() as messages:
            assert {m.attempt for m in await take(kit, messages, 9)} == {1}


@scenario("B93")
async def stop_gives_back_what_came_behind_the_handler(kit: Kit) -> None:
    """What a backend pushed while the handler was at work goes back at stop() too, not only when that handler is done."""
    orders = kit.broker().queue("orders")
    await orders.publish(b"first")
    leave = asyncio.Event()
    task, _ = await _at_work(kit, orders, leave)
    await kit.broker().queue("orders").publish_many([str(n).encode() for n in range(9)])
    ends = time.monotonic() + 0.3  # a backend that does not push leaves them where they are: nothing to wait for
    while (await orders.depth()).ready and time.monotonic() < ends:  # noqa: ASYNC110  # nobody tells what was pushed
        await asyncio.sleep(0.01)
    orders.stop()
    await depth_is(kit, orders, ready=9, in_flight=1)
    assert not task.done(), "run() did not wait for its handler"
    leave.set()
    await task
    await depth_is(kit, orders, ready=9, in_flight=0)


@scenario("B94")
async def grace_ends(kit: Kit) -> None:
    """When the grace time is over run() returns, and what its handlers did not finish goes to peers at once."""
    orders = kit.broker().queue("orders", lease=max(30.0, kit.broker_claims.lease_min))
    peer = kit.broker().queue("orders", lease=max(30.0, kit.broker_claims.lease_min))
    await orders.publish(b"x")
    entered, leave = asyncio.Event(), asyncio.Event()

    async def handle(message: Any) -> None:
        entered.set()
        while not leave.is_set():  # noqa: ASYNC110  # see above
            await asyncio.sleep(0.005)

    task = kit.spawn(orders.run(handle, signals=False, grace=0.2))
    await kit.eventually(entered.is_set, what="the handler runs")
    stopped = time.monotonic()
    orders.stop()
    async with peer.consume() as messages:
        message = await one(kit, messages, 5)
        assert time.monotonic() - stopped >= 0.2, "it was taken away within the grace time"
        assert (message.body, message.attempt) == (b"x", 2)
        await message.ack()
    await asyncio.wait([task], timeout=kit.upper(5))
    assert task.done(), "run() did not return after its grace time"
    leave.set()


def runs_until_terminated(link: Link, url: str) -> None:
    """A child: run a handler that stands until it is told to go on; tell when run() has returned."""
    broker = narrowboat.broker(url)

    def handle(message: Any) -> None:
        link.tell("handling", body=message.body.decode())
        link.wait("go")

    broker.queue("orders").run(handle, grace=20)
    broker.close()
    link.tell("returned")


@scenario("B93", tier="P", needs="scope=host", refused=HOST, faults={Fault.PROCESS})
async def sigterm_ends_a_run_in_order(kit: Kit) -> None:
    """SIGTERM: the handler finishes and its message is acked, what was fetched goes back at once, the exit code is 0."""
    orders = kit.broker().queue("orders")
    await orders.publish_many([str(n).encode() for n in range(5)])
    child = await kit.child(runs_until_terminated, url=kit.broker_url)
    first = await child.event("handling")
    child.terminate()
    await depth_is(kit, orders, ready=4, in_flight=1)
    child.tell("go")
    await child.event("returned")
    assert await child.exit() == 0
    assert sorted(await drained(orders)) == sorted(str(n).encode() for n in range(5) if str(n) != first["body"])


@scenario("B95")
async def what_was_published_before_close_is_there(kit: Kit) -> None:
    """Everything that was published before the publisher's close is there for a reader that comes afterwards."""
    broker = kit.broker()
    orders = broker.queue("orders")

    async def publish(n: int) -> None:
        await orders.publish(str(n).encode())

    await kit.together(*(publish(n) for n in range(40)))
    await broker.close()
    assert sorted(map(int, await drained(kit.broker().queue("orders")))) == list(range(40))


# -- cancelling ---------------------------------------------------------------------------------------------------------


@scenario("B96")
async def a_cancelled_scope_does_nothing(kit: Kit) -> None:
    """A publish or receive that is cut off at its first step has no side effect."""
    orders = kit.broker().queue("orders")
    await orders.publish(b"kept")

    async def publish() -> Any:
        return await cut(orders, "publish", 0, b"cut off")

    async with orders.consume(prefetch=1) as messages:

        async def receive() -> Any:
            return await cut(messages, "receive", 0, 5)

        result = await kit.spawn(receive())
        if result.result is not None:
            await result.result.nack()
        message = await one(kit, messages)
        assert message.body == b"kept"
        await message.ack()
        if kit.face == "sync":
            result = await kit.spawn(publish())
            assert result.struck and result.result is None
            await nothing(messages)
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
        got = await one(kit, messages)
        assert got.body in (b"cut off", b"control")
        await got.ack()
        if got.body == b"cut off":
            assert (await one(kit, messages)).body == b"control"
            raise AssertionError("a publish in a cancelled scope was delivered")


#: More points than a call can have: a sweep that reaches it does not end by itself, and that is an error.
_POINTS = 4000


@scenario("B97", tier="S", seconds=240)
async def a_receive_cut_off_swallows_nothing(kit: Kit) -> None:
    """A receive cut off at any point swallows no message: the next receive has it, at the latest when its lease ends."""
    # An interrupt inside the driver may come after the claim and before anybody knows of it: then only the lease helps.
    orders = kit.broker().queue("orders", max_deliveries=0, lease=lease_of(kit))
    longest = lease_of(kit) + kit.broker_claims.lease_lag + 5
    stride = 1 if kit.face == "asyncio" else max(1, round(2 / max(kit.size, 0.05)))
    points = 0
    async with orders.consume(prefetch=10) as messages:
        for delay in (0, 1, 3) if kit.face == "asyncio" else (0,):
            for point in range(0, _POINTS, stride):
                receipt = await orders.publish(b"x")
                result = await kit.spawn(cut(messages, "receive", point, 5, delay=delay))
                message = result.result if result.result is not None else await messages.receive(kit.upper(longest))
                assert message is not None, f"cut off at point {point} ({result.error}): the message was swallowed"
                assert message.id == receipt.id, f"cut off at point {point}: an older message came back"
                await message.ack()
                points += 1
                if not result.struck:
                    break
            else:
                raise AssertionError("the sweep did not end")
        await nothing(messages)
    kit.measure("points at which a receive was cut off", float(points), "points")
    await depth_is(kit, orders, ready=0, in_flight=0)


@scenario("B98", faults={Fault.REPLY})
async def a_publish_cut_off_is_all_or_nothing(kit: Kit) -> None:
    """A publish cancelled while it is under way is there once or not at all; the connection works on."""
    faults = Faults()
    orders = kit.broker(faults=faults).queue("orders", max_deliveries=0)
    for before in (True, False):
        gate = faults.hold("send", before=before)

        async def publish() -> None:
            await orders.publish(b"cut off")

        task = kit.spawn(publish())
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
        bodies = await drained(orders)
        assert bodies.count(b"next") == 1 and bodies.count(b"cut off") <= 1, bodies


@scenario("B99")
async def one_failing_handler_stops_no_other(kit: Kit) -> None:
    """A handler that always fails, beside others on the same connection, stops none of them."""
    broker = kit.broker()
    bad, good = broker.queue("bad", max_deliveries=0), broker.queue("good")
    seen: list[bytes] = []
    failed = asyncio.Event()

    async def fails(message: Any) -> None:
        failed.set()
        raise ValueError("always")

    async def works(message: Any) -> None:
        seen.append(message.body)

    tasks = [kit.spawn(bad.run(fails, signals=False)), kit.spawn(good.run(works, signals=False, concurrency=2))]
    await bad.publish(b"poison")
    await kit.eventually(failed.is_set, what="the bad handler failed")
    for n in range(20):
        await good.publish(str(n).encode())
    await kit.eventually(lambda: len(seen) == 20, what="all good messages")
    good.stop()
    bad.stop()
    for task in tasks:
        await task
    assert sorted(map(int, seen)) == list(range(20))


@scenario("B99")
async def a_run_ends_when_its_broker_closes(kit: Kit) -> None:
    """run() ends when its broker is closed, and the handler under way is not left running behind it on asyncio."""
    broker = kit.broker()
    orders = broker.queue("orders")
    handled = asyncio.Event()

    async def handle(message: Any) -> None:
        handled.set()

    task = kit.spawn(orders.run(handle, signals=False))
    await orders.publish(b"x")
    await kit.eventually(handled.is_set, what="handled")
    await broker.close()
    await asyncio.wait([task], timeout=kit.upper(5))
    assert task.done(), "run() outlived its broker"
    assert task.cancelled() or isinstance(task.exception(), Closed | None)


@scenario("B100", needs="topics", refused=_asks_for_a_topic)
async def leave_and_come_back(kit: Kit) -> None:
    """A member that leaves and comes back finds what was published meanwhile; a group that is deleted gets nothing more."""
    topic = kit.broker().topic("prices")
    g = topic.subscription("g")
    async with g.consume() as messages:
        await topic.publish(b"0")
        await (await one(kit, messages)).ack()
    await topic.publish(b"1")
    async with g.consume() as messages:
        await topic.publish(b"2")
        assert sorted(m.body for m in await take_acked(kit, messages, 2)) == [b"1", b"2"]
    assert await g.delete()
    await topic.publish(b"3")
    async with g.consume() as messages:
        await nothing(messages)
        await topic.publish(b"4")
        assert (await one(kit, messages)).body == b"4"


# -- looking ------------------------------------------------------------------------------------------------------------


@scenario("B102")
async def events_tell_the_truth(kit: Kit) -> None:
    """Listeners are told of each publish, delivery, settlement and dead letter, once; trace headers pass through."""
    told: list[Any] = []
    orders = kit.broker(listeners=[told.append]).queue("orders")
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    for body in (b"ack", b"nack", b"reject"):
        await orders.publish(body, headers=trace)
    async with orders.consume() as messages:
        for message in await take(kit, messages, 3):
            assert dict(message.headers) == trace
            if message.body == b"reject":
                await message.reject("bad")
            elif message.body == b"nack":
                await message.nack()
            else:
                await message.ack()
        await (await one(kit, messages)).ack()
    count = {kind: sum(isinstance(each, kind) for each in told) for kind in (events.Published, events.Delivered)}
    assert count == {events.Published: 3, events.Delivered: 4}
    assert sorted(each.outcome for each in told if isinstance(each, events.Settled)) == ["ack", "ack", "nack"]
    (dead,) = [each for each in told if isinstance(each, events.DeadLettered)]
    assert (dead.reason, dead.attempts, dead.source) == ("bad", 1, "orders")


@scenario("B102", needs="depth=native", refused=demand("depth=native"))
async def depth_counts_right(kit: Kit) -> None:
    """depth() counts what is ready, in flight, delayed and dead, as it is; purge() drops what is not in flight."""
    orders = kit.broker().queue("orders")
    await orders.publish_many([str(n).encode() for n in range(6)])
    async with orders.consume(prefetch=3) as messages:
        got = await take(kit, messages, 3)
        await got[0].reject("bad")
        await got[1].nack(delay=60)
    depth = await orders.depth()
    assert (depth.ready, depth.in_flight, depth.delayed, depth.dead) == (4, 0, 1, 1), depth
    assert await orders.purge() == 5
    depth = await orders.depth()
    assert (depth.ready, depth.in_flight, depth.delayed, depth.dead) == (0, 0, 0, 1), depth


@scenario("B103", tier="S")
async def an_idle_consumer_is_idle(kit: Kit) -> None:
    """An idle consumer costs hardly any time and calls; it has a new message within the declared bound."""
    orders, publisher = kit.broker().queue("orders"), kit.broker().queue("orders")
    async with orders.consume() as messages:
        latencies = []
        for _ in range(10):
            waiting = kit.spawn(_stamped(messages))
            await kit.sleep(0.05)
            begun = time.monotonic()
            await publisher.publish(b"x")
            latencies.append(await waiting - begun)
        assert max(latencies) <= kit.upper(kit.broker_claims.wake_bound), latencies
        kit.measure("wake-up of an idle consumer", sorted(latencies)[5])

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
    message = await messages.receive(20)
    assert message is not None
    now = time.monotonic()
    await message.ack()
    return now


@scenario("B104", tier="S", seconds=180)
async def a_slow_consumer_keeps_its_memory_flat(kit: Kit) -> None:
    """A large backlog and a slow consumer: it fetches no more than its prefetch, and memory does not grow with the backlog."""
    count = max(2000, int(100_000 * min(kit.size, 1.0)))
    orders = kit.broker().queue("orders")
    for start in range(0, count, 1000):
        outcomes = await orders.publish_many([bytes(200)] * min(1000, count - start))
        assert all(isinstance(each, Receipt) for each in outcomes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with kit.broker().queue("orders").consume(prefetch=20) as messages:
        for n in range(200):
            await (await one(kit, messages)).ack()
            if n % 50 == 0:
                depth = await orders.depth()
                assert depth.in_flight is None or depth.in_flight <= 20, depth
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    kit.measure("memory of a slow consumer of a large backlog", grown, "MiB")
    assert grown < 30, f"{grown:g} MiB more"
    assert kit.seen.members["delivered"] <= 200 + 20
    await orders.delete()


@scenario("B105", tier="S", seconds=180)
async def many_queues_and_consumers(kit: Kit) -> None:
    """Hundreds of queues and consumers share one connection and a handful of threads; each gets its message."""
    queues, consumers = max(50, int(1000 * min(kit.size, 1.0))), max(20, int(200 * min(kit.size, 1.0)))
    broker = kit.broker()
    for n in range(queues):
        await broker.queue(f"q{n}").publish(str(n).encode())
    threads = threading.active_count()
    opened = [broker.queue(f"q{n}").consume(prefetch=1) for n in range(consumers)]
    entered = [await each.__aenter__() for each in opened]
    for n, messages in enumerate(entered):
        message = await one(kit, messages)
        assert message.body == str(n).encode()
        await message.ack()
    assert threading.active_count() - threads <= 5, "a thread for each consumer"
    assert kit.seen.calls["open"] == 1
    for messages in entered:
        await messages.close()
    for n in range(queues):  # so many are a burden for a server that others use as well
        await broker.queue(f"q{n}").delete()


@scenario("B106")
async def two_brokers_do_not_mix(kit: Kit) -> None:
    """Two brokers of two namespaces in one process, same queue names: nothing of one reaches the other."""
    here = kit.broker()
    separator = "&" if "?" in kit.harness.url else "?"
    other_url = f"{kit.harness.url}{separator}prefix={kit.namespace}-other" if "prefix=" not in kit.harness.url else ""
    there = kit.broker(url=other_url or kit.harness.broker_url(kit.namespace + "-other"))
    await here.queue("orders").publish(b"here")
    await there.queue("orders").publish(b"there")
    assert await drained(here.queue("orders")) == [b"here"]
    assert await drained(there.queue("orders")) == [b"there"]


# -- asking -------------------------------------------------------------------------------------------------------------


@scenario("B107", needs="request_reply", refused=_asks_for_a_reply)
async def many_requests_at_once(kit: Kit) -> None:
    """Each of many concurrent requests gets its own reply."""
    asking, answering = kit.broker(), kit.broker().queue("quote", max_deliveries=0)

    async def answer(message: Any) -> None:
        await message.reply(b"re " + message.body)

    task = kit.spawn(answering.run(answer, signals=False, concurrency=2))

    async def ask(n: int) -> bytes:
        reply = await asking.queue("quote", max_deliveries=0).request(str(n).encode(), timeout=kit.upper(20))
        return bytes(reply.body)

    assert await kit.together(*(ask(n) for n in range(20))) == [f"re {n}".encode() for n in range(20)]
    answering.stop()
    await task


@scenario("B107", needs="request_reply", refused=_asks_for_a_reply)
async def a_late_reply_is_dropped(kit: Kit) -> None:
    """A request without a reply in time is RequestTimeout, a TimeoutError, not early; the late reply reaches nobody."""
    quote = kit.broker().queue("quote", max_deliveries=0)
    begun = time.monotonic()
    error = await raises(RequestTimeout, quote.request(b"first", timeout=0.3))
    assert isinstance(error, TimeoutError)
    assert 0.3 <= time.monotonic() - begun < kit.upper(3.0)
    async with kit.broker().queue("quote", max_deliveries=0).consume() as messages:
        late = await one(kit, messages)

        async def ask() -> bytes:
            return bytes((await quote.request(b"second", timeout=kit.upper(10))).body)

        asking = kit.spawn(ask())
        second = await one(kit, messages)
        await late.reply(b"late")
        await second.reply(b"in time")
        assert await asking == b"in time"
        await late.ack()
        await second.ack()


# -- refusals -----------------------------------------------------------------------------------------------------------


@scenario("B109")
async def bad_urls_are_refused(kit: Kit) -> None:
    """An unknown scheme, option or value is one ConfigurationError that names it and tells no secret; nothing is opened."""
    separator = "&" if "?" in kit.broker_url else "?"
    scheme = kit.harness.scheme
    for url in (
        f"{scheme}x://user:hunter2@host/",
        "no url at all",
        f"{kit.broker_url}{separator}no_such_option=1",
        f"{kit.broker_url}{separator}timeout=hunter2",
        "",
    ):
        error = refuses(ConfigurationError, lambda url=url: kit.broker(url=url))  # type: ignore[misc]  # bound now
        text = "".join(traceback.format_exception(error))
        assert "user:hunter2" not in str(error) and ":hunter2@" not in str(error), text
    near = refuses(ConfigurationError, lambda: kit.broker(url=f"{kit.broker_url}{separator}timeuot=1"))
    assert "timeout" in str(near), near
    assert not kit.seen.calls


@scenario("B110")
async def what_is_not_claimed_is_refused(kit: Kit) -> None:
    """require= for what is not claimed is Unsupported before any I/O; what is claimed is accepted; unknown claims are named."""
    claims = kit.broker_claims
    for name in ("order", "delay", "priority", "ttl", "dedup", "replay", "topics", "dead_letters", "request_reply", "depth"):
        if getattr(claims, name) is Support.ABSENT:
            refuses(Unsupported, lambda name=name: kit.broker(require=name))  # type: ignore[misc]  # bound now
        else:
            kit.broker(require=name)
    refuses(Unsupported, lambda: kit.broker(require=f"body_max={claims.body_max + 1}"))
    refuses(ConfigurationError, lambda: kit.broker(require="no_such_claim"))
    assert not kit.seen.calls


@scenario("B111", alone=True)
async def nothing_is_left_after_close(kit: Kit) -> None:
    """After close no thread, task or file of ours is left, also after consumers, requests, leases and run()."""

    async def use() -> None:
        broker = kit.broker()
        orders = broker.queue("orders")
        await orders.publish(b"x")
        async with orders.consume() as messages:
            await (await one(kit, messages)).ack()
            await messages.receive(0.01)
        await broker.close()

    others = our_threads()
    await kit.spawn(use())
    await kit.eventually(lambda: not our_threads(others), what="our threads end")
    files, tasks = _files(), len(asyncio.all_tasks())
    for _ in range(5):
        await kit.spawn(use())
    await kit.eventually(lambda: not our_threads(others), what="our threads end")
    await kit.eventually(lambda: _files() <= files, what=f"files are closed: {files} before, {_files()} now")
    assert len(asyncio.all_tasks()) <= tasks


def _files() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


@scenario("B111")
async def two_event_loops_share_a_broker(kit: Kit) -> None:
    """One broker used from two event loops, and on the sync face from two threads: both publish and consume."""
    broker = kit.broker()
    orders = broker.queue("orders")
    await orders.publish(b"first")
    if kit.face == "asyncio":

        async def elsewhere() -> list[bytes]:
            await orders.publish(b"second")
            return await drained(orders)

        assert sorted(await kit.blocking(asyncio.run, elsewhere())) == [b"first", b"second"]
    else:

        async def other_thread() -> list[bytes]:
            await orders.publish(b"second")
            return await drained(orders)

        assert sorted(await kit.spawn(other_thread())) == [b"first", b"second"]
    await orders.publish(b"third")
    assert await drained(orders) == [b"third"]


def forks(link: Link, url: str) -> None:
    """A child: open a broker, take a message, fork; the forked child publishes and consumes; then the parent goes on."""
    broker = narrowboat.broker(url)
    orders = broker.queue("orders")
    orders.publish(b"parent's")
    with orders.consume(prefetch=1) as messages:
        message = messages.receive(10)
        assert message is not None
        pid = os.fork()
        if pid == 0:
            link.forked()
            try:
                try:
                    message.ack()
                except narrowboat.NarrowboatError as error:
                    link.tell("refused", error=type(error).__name__)
                else:
                    link.tell("acked by the fork")
                other = broker.queue("other")
                other.publish(b"child's")
                with other.consume() as theirs:
                    mine = theirs.receive(10)
                    assert mine is not None
                    mine.ack()
                link.tell("worked", body=mine.body.decode())
                broker.close()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        message.ack()
        link.tell("parent acked")
    broker.close()


@scenario("B111", tier="P", needs="scope=host", refused=HOST, faults={Fault.PROCESS})
async def a_forked_child_starts_afresh(kit: Kit) -> None:
    """After a fork the child cannot settle the parent's delivery and works on a connection of its own; the parent goes on."""
    child = await kit.child(forks, url=kit.broker_url)
    await child.event("refused")
    assert (await child.event("worked"))["body"] == "child's"
    await child.event("parent acked")
    assert await child.exit() == 0
    await depth_is(kit, kit.broker().queue("orders"), ready=0, in_flight=0)


@scenario("B112")
async def foreign_headers_are_ignored(kit: Kit) -> None:
    """Headers that a later version or another program adds are handed on and disturb nothing."""
    orders = kit.broker().queue("orders")
    headers = {"x-future-field": "1", "nb2-version": "9", "content-type": "odd", "id": "not the id", "attempt": "99"}
    receipt = await orders.publish(b"x", headers=headers)
    async with orders.consume() as messages:
        message = await one(kit, messages)
        assert (message.id, message.attempt, dict(message.headers)) == (receipt.id, 1, headers)
        await message.ack()


@scenario("B113", tier="S")
async def what_it_takes(kit: Kit) -> None:
    """Publish, deliver and acknowledge, one by one and in batches: the rates, in the report; they decide nothing."""
    orders = kit.broker().queue("orders")
    count = max(100, int(1000 * kit.size))
    begun = time.perf_counter()
    async with orders.consume(prefetch=1) as messages:
        for _ in range(count):
            await orders.publish(b"x")
            await (await one(kit, messages)).ack()
    kit.measure("publish, receive, ack of one message", (time.perf_counter() - begun) / count)
    done = 0
    begun = time.perf_counter()
    outcomes = await orders.publish_many([b"x"] * count)
    assert all(isinstance(each, Receipt) for each in outcomes)
    async with orders.consume(prefetch=1000) as messages:
        async for batch in messages.batches(500, wait=0.0):
            assert not any(await batch.ack())
            done += len(batch)
            if done >= count:
                break
    kit.measure("the same in batches, a message", (time.perf_counter() - begun) / count)
    assert done == count
