"""The consume loop: its window, its buffer, its leases, and what it does while the backend does not answer."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import narrowboat
from narrowboat import events
from narrowboat._messages.delivery import Dead, final, too_often
from narrowboat._messages.extension import due
from narrowboat._messages.window import room
from narrowboat.clock import ManualClock
from narrowboat.contract import Ack, Broker, Delivery, Depth, Feed, Nack, Outgoing, Reject
from narrowboat.errors import Closed, InvalidArgument, NarrowboatError, NotFound, SettleUnknown, StaleDelivery, Unavailable
from narrowboat.layers.faults import Faults
from narrowboat.messaging import Messaging


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def seen() -> list[events.Event]:
    return []


@pytest.fixture
def broker(url: str, clock: ManualClock, faults: Faults, seen: list[events.Event]) -> Iterator[Messaging]:
    with narrowboat.broker(url, clock=clock, wrap=faults.wrap, listeners=[seen.append]) as broker:
        yield broker


def bodies(messages: Iterable[narrowboat.Message[bytes]]) -> list[bytes]:
    return [message.body for message in messages]


def started(target: Callable[..., object], *args: Any) -> threading.Thread:
    thread = threading.Thread(target=target, args=args, daemon=True)
    thread.start()
    return thread


# -- decisions ------------------------------------------------------------------------------------------------------


@given(st.integers(1, 2000), st.integers(0, 3000), st.integers(0, 3000), st.integers(1, 1000))
def test_the_window_is_never_exceeded(prefetch: int, unsettled: int, requested: int, batch_max: int) -> None:
    """Buffered, handed out and being fetched together stay within prefetch; one call within the backend's batch."""
    free = room(prefetch, unsettled, requested, batch_max)

    assert 0 <= free <= batch_max
    assert free == 0 or unsettled + requested + free <= prefetch


@given(st.integers(1, 50), st.integers(0, 50))
def test_exactly_so_many_deliveries_reach_a_handler(attempt: int, limit: int) -> None:
    """A delivery is handed out or rejected; a nack comes back unless it was the last."""
    assert (too_often(attempt, limit) is not None) == (limit > 0 and attempt > limit)
    assert isinstance(final(Nack(1.0), attempt, limit), Reject) == (limit > 0 and attempt >= limit)
    assert final(Ack(), attempt, limit) == Ack()


@given(st.floats(0, 1000), st.floats(0.05, 100), st.floats(0, 4000))
def test_no_extension_goes_beyond_its_cap(now: float, lease: float, cap: float) -> None:
    """And none is made that is not needed yet."""
    if due(now + lease / 2, cap, now, lease):
        assert now + lease <= cap
    assert not due(now + lease, cap, now, lease)


# -- publishing many -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wrong", "says"), [("text", "a body is bytes"), (narrowboat.Outbound(b"x", ttl=-1), "ttl=-1")])
def test_a_wrong_one_among_many_is_named(broker: Messaging, wrong: Any, says: str) -> None:
    """Its place in the list is told, as text and as a number, and nothing is sent."""
    queue = broker.queue("orders")
    with pytest.raises(InvalidArgument, match=f"message 2 of publish_many: .*{says}") as refused:
        queue.publish_many([b"0", narrowboat.Outbound(b"1", key="k"), wrong, b"3"])

    assert refused.value.position == 2
    assert queue.depth() == Depth(0, 0, 0, 0)
    with pytest.raises(InvalidArgument) as alone:
        broker.queue("")
    assert alone.value.position is None


# -- the window ---------------------------------------------------------------------------------------------------------


def test_prefetch_bounds_what_is_unsettled(broker: Messaging) -> None:
    """Nothing more comes until something is settled."""
    queue = broker.queue("orders")
    queue.publish_many([b"x"] * 10)
    with queue.consume(prefetch=3) as messages:
        taken = [messages.receive(0) for _ in range(3)]

        assert messages.receive(0) is None
        assert queue.depth().in_flight == 3
        taken[0].ack()
        assert messages.receive(0) is not None


def test_a_settlement_wakes_who_waits_for_room(broker: Messaging) -> None:
    """A full window opens when a message is settled, from any thread."""
    queue = broker.queue("orders")
    queue.publish_many([b"1", b"2"])
    with queue.consume(prefetch=1) as messages:
        first = messages.receive(0)
        got = []
        thread = started(lambda: got.append(messages.receive()))
        first.ack()
        thread.join(10)

        assert [message.body for message in got] == [b"2"]


def test_what_is_no_longer_ours_does_not_fill_the_window(broker: Messaging, clock: ManualClock) -> None:
    """A handler that forgets its message stops nobody for longer than the lease."""
    queue = broker.queue("orders", lease=10)
    queue.publish_many([b"1", b"2"])
    with queue.consume(prefetch=1, auto_extend=False) as messages:
        messages.receive(0)
        clock.advance(11)

        assert messages.receive(0) is not None


def test_batches_take_what_is_there(broker: Messaging) -> None:
    """No batch waits to be full, and none is larger than what prefetch leaves."""
    queue = broker.queue("orders")
    queue.publish_many([b"%d" % number for number in range(25)])
    with queue.consume(prefetch=10) as messages:
        sizes = []
        for batch in messages.batches(20, wait=0):
            sizes.append(len(batch))
            assert batch.ack() == [None] * len(batch)
            if sum(sizes) == 25:
                break

    assert sizes == [10, 10, 5]


def test_a_late_arrival_joins_a_batch(url: str) -> None:
    """While the wait lasts, what comes is added."""
    with narrowboat.broker(url) as broker:
        queue = broker.queue("orders")
        queue.publish(b"1")
        with queue.consume() as messages:
            got = []
            thread = started(lambda: got.append(next(messages.batches(2, wait=20))))
            while queue.depth().in_flight == 0:  # it has the first and waits for the second
                pass
            queue.publish(b"2")
            thread.join(10)

            assert [bodies(batch) for batch in got] == [[b"1", b"2"]]


def test_many_threads_share_one_consumer(url: str) -> None:
    """Each message goes to exactly one of them, and nobody is left waiting."""
    with narrowboat.broker(url) as broker:
        queue = broker.queue("orders")
        with queue.consume(prefetch=7) as messages:
            got = []

            def work() -> None:
                for message in messages:
                    got.append(message.body)
                    message.ack()
                    if len(got) == 300:
                        messages.stop()

            threads = [started(work) for _ in range(8)]
            for number in range(300):
                queue.publish(b"%d" % number)
            for thread in threads:
                thread.join(20)

            assert sorted(got, key=int) == [b"%d" % number for number in range(300)]


# -- what is handed out ---------------------------------------------------------------------------------------------------


def test_an_expired_message_is_not_handed_out_of_the_buffer(
    broker: Messaging, clock: ManualClock, seen: list[events.Event]
) -> None:
    """Its ttl may end while it is buffered: then it is settled silently, and told to listeners."""
    queue = broker.queue("orders")
    queue.publish_many([b"first", narrowboat.messaging.Outbound(b"short", ttl=5, id="short"), b"last"])
    with queue.consume() as messages:
        assert messages.receive(0).body == b"first"
        clock.advance(6)

        assert messages.receive(0).body == b"last"
        assert messages.receive(0) is None
    # It is settled beside the consumer, without keeping anybody waiting; closing it waits for that.
    assert [(event.source, event.id) for event in seen if isinstance(event, events.Expired)] == [("orders", "short")]
    assert not [event for event in seen if isinstance(event, events.Stale)]
    assert queue.depth() == Depth(2, 0, 0, 0)


def test_a_buffered_message_whose_lease_may_have_ended_is_dropped(broker: Messaging, clock: ManualClock) -> None:
    """Others may have it: it comes again as a new delivery, never twice to one."""
    queue = broker.queue("orders", lease=10)
    queue.publish_many([b"1", b"2"])
    with queue.consume(auto_extend=False) as messages:
        first = messages.receive(0)
        clock.advance(10.5)
        again = [messages.receive(0) for _ in range(2)]

        assert [message.attempt for message in again] == [2, 2]
        with pytest.raises(StaleDelivery):
            first.ack()


def test_delivered_too_often_goes_to_the_dead_letters_without_a_handler(broker: Messaging, clock: ManualClock) -> None:
    """A message that kills its consumers each time reaches the dead letters after exactly max_deliveries."""
    queue = broker.queue("orders", max_deliveries=2, lease=10)
    queue.publish(b"poison", key="k", headers={"v": "1"}, id="p")
    for _ in range(2):
        with queue.consume(auto_extend=False) as messages:
            assert messages.receive(0).body == b"poison"
            clock.advance(11)

    with queue.consume() as messages:
        assert messages.receive(0) is None
    with queue.dead_letters().consume() as messages:
        dead = messages.receive(0)
        assert (dead.id, dead.key, dead.headers["v"]) == ("p", "k", "1")
        assert dead.dead == Dead("delivered 2 times without being settled", 2, "orders")


def test_what_was_not_started_goes_back_uncounted(broker: Messaging) -> None:
    """Leaving the `with` returns the buffer at once; what was handed out comes back counted."""
    queue = broker.queue("orders")
    queue.publish_many([b"1", b"2", b"3"])
    with queue.consume() as messages:
        messages.receive(0)
    with queue.consume() as messages:
        assert sorted((m.body, m.attempt) for m in (messages.receive(0) for _ in range(3))) == [
            (b"1", 2),
            (b"2", 1),
            (b"3", 1),
        ]


# -- settling -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("second", ["ack", "nack", "reject", "extend"])
@pytest.mark.parametrize("first", ["ack", "nack", "reject"])
def test_the_first_settlement_wins(broker: Messaging, first: str, second: str) -> None:
    """One outcome everywhere: whatever is called second raises StaleDelivery and changes nothing."""
    arguments: dict[str, list[Any]] = {"reject": ["why"], "extend": [10]}
    queue = broker.queue("orders")
    queue.publish(b"x")
    with queue.consume(prefetch=1) as messages:
        message = messages.receive(0)
        getattr(message, first)(*arguments.get(first, []))
        before = queue.depth()

        with pytest.raises(StaleDelivery, match="the first settlement stands"):
            getattr(message, second)(*arguments.get(second, []))

        assert queue.depth() == before


def test_a_batch_reports_each_outcome(broker: Messaging) -> None:
    """One that was settled before is stale; the others are settled."""
    queue = broker.queue("orders")
    queue.publish_many([b"1", b"2", b"3"])
    with queue.consume() as messages:
        batch = next(messages.batches(3, wait=0))
        batch[1].nack()
        outcomes = batch.ack()

        assert [type(outcome) for outcome in outcomes] == [type(None), StaleDelivery, type(None)]
        assert messages.receive(0).body == b"2"


def test_a_lost_answer_is_unknown_and_may_be_repeated(broker: Messaging, faults: Faults) -> None:
    """Nobody knows whether it is settled, so the caller may settle it again."""
    queue = broker.queue("orders")
    queue.publish(b"x")
    with queue.consume() as messages:
        message = messages.receive(0)
        faults.drop_request("settle")
        with pytest.raises(SettleUnknown) as unknown:
            message.ack()

        assert unknown.value.retryable
        assert isinstance(unknown.value.__cause__, Unavailable)
        message.ack()
        assert queue.depth() == Depth(0, 0, 0, 0)


def test_unknown_settlements_do_not_fill_the_window(broker: Messaging, faults: Faults) -> None:
    """A consumer that met an outage goes on afterwards."""
    queue = broker.queue("orders")
    queue.publish_many([b"1", b"2"])
    with queue.consume(prefetch=1) as messages:
        faults.drop_request("settle")
        with pytest.raises(SettleUnknown):
            messages.receive(0).ack()

        assert messages.receive(0).body == b"2"


def test_an_ack_that_waits_for_nothing_reports_staleness_as_an_event(
    broker: Messaging, clock: ManualClock, seen: list[events.Event]
) -> None:
    """It returns at once; a listener hears that the delivery was not ours any more."""
    queue = broker.queue("orders", lease=10)
    queue.publish(b"x")
    with queue.consume(auto_extend=False) as messages:
        message = messages.receive(0)
        clock.advance(11)
        assert messages.receive(0).attempt == 2
        message.ack(wait=False)
        while not any(isinstance(event, events.Stale) for event in seen):
            pass

        assert queue.depth().in_flight == 1


@pytest.mark.parametrize("gather", [1, 10])
def test_what_was_acked_without_waiting_is_acked_before_the_consumer_closes(
    broker: Messaging, faults: Faults, gather: int
) -> None:
    """Leaving the `with` gives back what is not settled; an ack that is still on its way is a settlement."""
    queue = broker.queue("orders")
    queue.publish_many([b"x"] * gather)
    gate = faults.hold("settle", before=True)
    with queue.consume() as messages:
        for _ in range(gather):
            messages.receive(0).ack(wait=False)
        assert gate.reached.wait(10)
        closing = started(messages.close)
        closing.join(0.1)

        assert closing.is_alive()
        gate.open()
        closing.join(10)
        assert queue.depth() == Depth(0, 0, 0, 0)


def test_a_last_nack_goes_to_the_dead_letters(broker: Messaging) -> None:
    """Nacking a message at its last delivery rejects it."""
    queue = broker.queue("orders", max_deliveries=2)
    queue.publish(b"x")
    with queue.consume() as messages:
        messages.receive(0).nack()
        messages.receive(0).nack()

        assert messages.receive(0) is None
    assert queue.depth().dead == 1


# -- leases -------------------------------------------------------------------------------------------------------------------


def test_leases_are_kept_for_what_is_buffered_and_what_is_handed_out(url: str, clock: ManualClock) -> None:
    """Over many leases, nothing comes back."""
    extended = threading.Semaphore(0)

    class Counting(Faults):
        pass

    faults = Counting()
    with narrowboat.broker(url, clock=clock, wrap=lambda driver: _Watched(faults.wrap(driver), extended)) as broker:
        queue = broker.queue("orders", lease=30)
        queue.publish_many([b"1", b"2"])
        with queue.consume() as messages:
            first = messages.receive(0)
            for _ in range(12):
                clock.advance(11)
                assert extended.acquire(timeout=10)
            second = messages.receive(0)
            first.ack()
            second.ack()

            assert (first.attempt, second.attempt, second.body) == (1, 1, b"2")


def _Watched(driver: Broker, extended: threading.Semaphore) -> Broker:
    """`driver`, telling `extended` of each extension that was answered."""
    from narrowboat.layers.passing import PassingBroker, PassingFeed

    class WatchedFeed(PassingFeed):
        def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[NarrowboatError | None]:
            answers = super().extend(deliveries, seconds)
            extended.release()
            return answers

    class WatchedBroker(PassingBroker):
        def feed(self, inner: Feed, wake: Callable[[], None]) -> Feed:
            return WatchedFeed(inner)

    return WatchedBroker(driver)


def test_extension_ends_at_its_limit(url: str, clock: ManualClock) -> None:
    """A handler that hangs does not keep its message for ever."""
    with narrowboat.broker(url, clock=clock) as broker, narrowboat.broker(url, clock=clock) as others:
        queue = broker.queue("orders", lease=30)
        queue.publish(b"x")
        with queue.consume(max_extend=20) as messages, others.queue("orders", lease=30).consume() as peers:
            messages.receive(0)
            clock.advance(31)

            assert peers.receive(0).attempt == 2


def test_what_somebody_else_has_is_lost(broker: Messaging, clock: ManualClock, faults: Faults) -> None:
    """The extension finds out, and settling then says so without asking."""
    queue = broker.queue("orders", lease=30)
    queue.publish(b"x")
    with queue.consume() as messages:
        message = messages.receive(0)
        clock.advance(31)  # beyond the lease before anybody could extend it
        while not message.lost:
            pass

        with pytest.raises(StaleDelivery, match="its lease ended"):
            message.ack()


def test_a_lease_can_be_extended_by_hand(broker: Messaging, clock: ManualClock) -> None:
    """For as long as it is told, and automatic extension never shortens it."""
    queue = broker.queue("orders", lease=10)
    queue.publish(b"x")
    with queue.consume(auto_extend=False) as messages:
        message = messages.receive(0)
        message.extend(100)
        clock.advance(90)

        message.ack()
        with pytest.raises(InvalidArgument, match="seconds="):
            message.extend(0)


# -- waiting, errors, ends ---------------------------------------------------------------------------------------------------


def test_who_waits_keeps_waiting_while_the_backend_is_away(url: str, faults: Faults) -> None:
    """An outage ends no consumer: it looks again until somebody answers."""
    with narrowboat.broker(url, wrap=faults.wrap, random=lambda: 0.0) as broker:
        queue = broker.queue("orders")
        with queue.consume() as messages:
            faults.drop_request("receive", times=2)
            queue.publish(b"x")

            assert messages.receive(20).body == b"x"


def test_a_timeout_during_an_outage_raises_what_it_met(broker: Messaging, faults: Faults) -> None:
    """None would say that there is no message, and nobody knows that."""
    with broker.queue("orders").consume() as messages:
        faults.drop_request("receive")
        with pytest.raises(Unavailable):
            messages.receive(0)

        assert messages.receive(0) is None


def test_what_cannot_be_helped_by_waiting_is_raised_at_once(broker: Messaging, faults: Faults) -> None:
    """A queue that is gone for good, for example."""
    with broker.queue("orders").consume() as messages:
        faults.fail("receive", NotFound("gone"))
        with pytest.raises(NotFound):
            messages.receive()


def test_stop_ends_the_iteration_and_wakes_who_waits(url: str) -> None:
    """From any thread; what was handed out can still be settled."""
    with narrowboat.broker(url) as broker:
        queue = broker.queue("orders")
        queue.publish(b"x")
        with queue.consume() as messages:
            got: list[narrowboat.Message[bytes]] = []
            thread = started(lambda: got.extend(messages))
            while not got:
                pass
            messages.stop()
            thread.join(10)

            assert not thread.is_alive()
            assert messages.receive() is None
            got[0].ack()
            assert queue.depth() == Depth(0, 0, 0, 0)


@pytest.mark.parametrize("way", [lambda messages: messages.receive(), list, lambda messages: list(messages.batches())])
def test_closing_the_broker_wakes_who_waits_with_closed(url: str, way: Callable[[narrowboat.Messages[bytes]], object]) -> None:
    """A loop must not end as if it had been done."""
    broker = narrowboat.broker(url)
    messages = broker.queue("orders").consume()
    caught = []

    def wait() -> None:
        try:
            way(messages)
        except Closed as error:
            caught.append(error)

    thread = started(wait)
    while not messages._consumer.polling.waiting:
        pass
    broker.close()
    thread.join(10)

    assert len(caught) == 1


def test_closing_the_consumer_ends_the_iteration(url: str) -> None:
    """That is what was asked for; a receive that waits gets Closed."""
    with narrowboat.broker(url) as broker:
        messages = broker.queue("orders").consume()
        ended = threading.Event()

        def consume() -> None:
            list(messages)
            ended.set()

        thread = started(consume)
        while not messages._consumer.polling.waiting:
            pass
        messages.close()
        thread.join(10)

        assert ended.is_set()
        with pytest.raises(Closed):
            messages.receive()
        messages.close()


def test_idle_ends_the_iteration(broker: Messaging, clock: ManualClock) -> None:
    """After so long without a message."""
    queue = broker.queue("orders")
    queue.publish_many([b"1", b"2"])
    with queue.consume(idle=0) as messages:
        assert bodies(messages) == [b"1", b"2"]


def test_no_thread_is_left_after_close(url: str, clock: ManualClock) -> None:
    """Lanes, extension and workers are gone."""
    before = threading.active_count()
    broker = narrowboat.broker(url, clock=clock)
    queue = broker.queue("orders", lease=1)
    queue.publish_many([b"1", b"2"])
    with queue.consume() as messages:
        messages.receive(0).ack(wait=False)
    broker.close()
    broker.close()

    assert threading.active_count() == before
    with pytest.raises(Closed):
        queue.publish(b"x")
    with pytest.raises(Closed):
        broker.queue("other")


# -- asyncio -----------------------------------------------------------------------------------------------------------------


def test_a_receive_cancelled_at_any_await_swallows_nothing(url: str) -> None:
    """Whatever the point at which it is cancelled, the next receive has the message."""

    async def main() -> None:
        async with narrowboat.aio.broker(url) as broker:
            queue = broker.queue("orders")
            async with queue.consume() as messages:
                for turns in range(12):
                    task = asyncio.create_task(messages.receive())
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    await queue.publish(b"%d" % turns)
                    task.cancel()
                    try:
                        message = await task
                    except asyncio.CancelledError:
                        message = await messages.receive(10)
                    assert message.body == b"%d" % turns
                    await message.ack()
            assert await queue.depth() == Depth(0, 0, 0, 0)

    asyncio.run(main())


def test_an_ack_that_was_cancelled_before_it_was_sent_can_be_repeated(url: str) -> None:
    """A cancelled settlement is no settlement, unless it was under way."""

    async def main() -> None:
        async with narrowboat.aio.broker(url) as broker:
            queue = broker.queue("orders")
            await queue.publish(b"x")
            async with queue.consume() as messages:
                message = await messages.receive(10)
                task = asyncio.create_task(message.ack())
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

                assert not message.settled
                await message.ack()
            assert await queue.depth() == Depth(0, 0, 0, 0)

    asyncio.run(main())


def test_a_hundred_tasks_share_one_consumer(url: str) -> None:
    """Each message goes to exactly one of them."""

    async def main() -> None:
        got = []
        async with narrowboat.aio.broker(url) as broker:
            queue = broker.queue("orders")
            async with queue.consume(prefetch=50) as messages:

                async def work() -> None:
                    async for message in messages:
                        got.append(message.body)
                        await message.ack()
                        if len(got) == 1000:
                            messages.stop()

                tasks = [asyncio.create_task(work()) for _ in range(100)]
                await queue.publish_many([b"%d" % number for number in range(1000)])
                await asyncio.wait_for(asyncio.gather(*tasks), 30)
        assert sorted(got, key=int) == [b"%d" % number for number in range(1000)]

    asyncio.run(main())


def test_cancelling_the_opening_leaves_no_consumer_behind(url: str) -> None:
    """A consume that was cancelled holds no message back."""

    async def main() -> None:
        async with narrowboat.aio.broker(url) as broker:
            queue = broker.queue("orders")
            await queue.publish(b"x")
            for turns in range(4):
                task = asyncio.ensure_future(_open(queue))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                if not task.cancelled():
                    await task.result().close()
            async with queue.consume() as messages:
                assert (await messages.receive(10)).attempt == 1
                assert len(broker._core.consumers) == 1

    asyncio.run(main())


async def _open(queue: narrowboat.aio.Queue[bytes]) -> narrowboat.aio.Messages[bytes]:
    return await queue.consume()


def test_nothing_is_handed_out_after_stop(broker: Messaging) -> None:
    """Also of what is buffered: who waits in `receive` gets nothing more."""
    queue = broker.queue("orders")
    queue.publish_many([b"1", b"2"])
    with queue.consume() as messages:
        assert messages.receive(0).body == b"1"
        messages.stop()

        assert messages.receive(0) is None
        assert list(messages) == []


def test_each_message_of_many_has_an_id_of_its_own(broker: Messaging) -> None:
    """Two batches as well, though a batch draws its ids together."""
    queue = broker.queue("orders")
    ids = [receipt.id for _ in range(2) for receipt in queue.publish_many([b"x"] * 1000)]
    assert len(set(ids)) == 2000
    assert all(len(id) == 32 and set(id) <= set("0123456789abcdef") for id in ids)


def test_a_message_without_options_has_every_field_of_the_contract(broker: Messaging) -> None:
    """It is made past the named tuple's own constructor, which would refuse a field too many, and fill in one too few."""
    plain = broker.queue("orders")._core.envelope.plain(b"x")
    assert len(plain) == len(Outgoing._fields)
