"""When and in which order a driver that keeps messages itself hands them out, if it does."""

from __future__ import annotations

import pytest

from broker_calls import AUDIT, DASHBOARD, ORDERS, PRICES, Drivers, consume, ids, send, settle, take
from narrowboat.clock import ManualClock
from narrowboat.contract import Ack, Address, Depth, Kind, Nack, Properties, Receipt, Source


class OrderRules:
    """Delay, priority, time to live, deduplication, order by key. Needs the fixtures that `BrokerSuite` needs."""

    def test_delayed_messages_become_ready_when_due(self, drivers: Drivers, clock: ManualClock) -> None:
        """Never early, each by itself, in the order in which they become available (B47, B48)."""
        broker = drivers()
        feed = consume(broker, ORDERS)
        send(broker, ORDERS, "late", delay=20.0)
        send(broker, ORDERS, "soon", delay=10.0)
        send(broker, ORDERS, "now")
        assert broker.depth(ORDERS) == Depth(1, 0, 2, 0)
        assert ids(take(feed)) == ["now"]
        clock.advance(9.5)
        waiting = feed.receive(10)
        assert waiting.deliveries == []
        assert waiting.retry_after == pytest.approx(0.5)
        clock.advance(1)
        send(broker, ORDERS, "after")
        clock.advance(10)

        assert ids(take(feed)) == ["soon", "after", "late"]

    def test_a_delayed_publish_goes_to_the_groups_of_then(self, drivers: Drivers, clock: ManualClock) -> None:
        """Not to those of now; a group that begins when it was due already does not get it."""
        broker = drivers()
        gone = consume(broker, AUDIT)
        send(broker, PRICES, "one", delay=10.0)
        assert take(gone) == []
        broker.delete(AUDIT)
        broker.declare(Source(DASHBOARD, Properties()), earliest=False)
        clock.advance(10)
        broker.declare(Source(AUDIT, Properties()), earliest=False)

        assert ids(take(consume(broker, DASHBOARD))) == ["one"]
        assert take(consume(broker, AUDIT)) == []

    def test_priority_goes_first_also_after_it_came_back(self, drivers: Drivers) -> None:
        """Within a level in order (B53)."""
        broker = drivers()
        feed = consume(broker, ORDERS, priorities=5)
        for id, priority in (("a0", 0), ("b5", 5), ("c5", 5), ("d2", 2), ("e9", 9)):
            send(broker, ORDERS, id, priority=priority)
        got = take(feed, 2)
        assert ids(got) == ["b5", "c5"]
        settle(feed, Nack(), *reversed(got))

        assert ids(take(feed)) == ["b5", "c5", "e9", "d2", "a0"]

    def test_expired_messages_are_dropped_and_swept(self, drivers: Drivers, clock: ManualClock) -> None:
        """Unexpired ones are delivered; a retry does not prolong a life (B51)."""
        broker = drivers()
        feed = consume(broker, ORDERS)
        send(broker, ORDERS, "short", "retried", ttl=10.0)
        send(broker, ORDERS, "long", ttl=100.0)
        retried = take(feed, 2)[1]
        clock.advance(6)
        settle(feed, Nack(), retried)
        [again] = take(feed, 1)
        assert again.expires_in == pytest.approx(4.0)
        settle(feed, Nack(3), again)
        clock.advance(5)
        assert broker.depth(ORDERS) == Depth(1, 1, 0, 0)
        clock.advance(20)

        assert ids(take(feed)) == ["long"]
        assert broker.depth(ORDERS) == Depth(0, 1, 0, 0)

    @pytest.mark.parametrize("expires", [5.0, 15.0], ids=["while it was out", "before its retry"])
    def test_a_retry_that_expires_does_not_hold_up_its_key(self, drivers: Drivers, clock: ManualClock, expires: float) -> None:
        """It is dropped at its expiry, and whoever waits looks then (B51)."""
        broker = drivers()
        feed = consume(broker, ORDERS, ordered=True, lease=100.0)
        send(broker, ORDERS, "short", key="a", ttl=expires)
        send(broker, ORDERS, "next", key="a")
        out = take(feed)
        clock.advance(10)
        assert take(feed) == []
        settle(feed, Nack(60.0), *out)
        if expires > 10:
            waiting = feed.receive(10)
            assert waiting.deliveries == []
            assert waiting.retry_after <= 5
            clock.advance(5)

        assert ids(out) == ["short"]
        assert ids(take(feed)) == ["next"]
        assert broker.depth(ORDERS) == Depth(0, 1, 0, 0)

    def test_one_id_once_within_the_window(self, drivers: Drivers, clock: ManualClock) -> None:
        """For each address; afterwards it is new; ids that the caller did not give are never compared (B54)."""
        broker = drivers("dedup=60")
        other = Address(Kind.QUEUE, "other")
        assert send(broker, ORDERS, "a", "b", "a", dedup=True) == [Receipt("a"), Receipt("b"), Receipt("a", True)]
        assert send(broker, other, "a", dedup=True) == [Receipt("a")]
        assert send(broker, ORDERS, "a") == [Receipt("a")]
        clock.advance(59)
        assert send(broker, ORDERS, "a", dedup=True) == [Receipt("a", True)]
        clock.advance(1)
        assert send(broker, ORDERS, "a", dedup=True) == [Receipt("a")]

        assert ids(take(consume(broker, ORDERS))) == ["a", "b", "a", "a"]

    def test_dedup_can_be_turned_off(self, drivers: Drivers) -> None:
        """With `?dedup=0` nothing is compared, and nothing is claimed."""
        broker = drivers("dedup=0")

        assert send(broker, ORDERS, "a", "a", dedup=True) == [Receipt("a"), Receipt("a")]
        assert broker.capabilities.dedup.value == "absent"

    def test_an_expired_message_leaves_the_sequence(self, drivers: Drivers, clock: ManualClock) -> None:
        """At its head or behind it."""
        broker = drivers()
        feed = consume(broker, ORDERS, ordered=True)
        send(broker, ORDERS, "a1", key="a", ttl=5.0)
        send(broker, ORDERS, "a2", key="a", ttl=5.0)
        send(broker, ORDERS, "a3", key="a")
        clock.advance(5)

        assert ids(take(feed)) == ["a3"]

    def test_order_is_that_of_availability(self, drivers: Drivers, clock: ManualClock) -> None:
        """A delayed message stands where it becomes due, and blocks nobody before."""
        broker = drivers()
        feed = consume(broker, ORDERS, ordered=True)
        send(broker, ORDERS, "due at 10", key="a", delay=10.0)
        send(broker, ORDERS, "at 0", key="a")
        clock.advance(11)
        send(broker, ORDERS, "at 11", key="a")
        seen = []
        while got := take(feed):
            seen += ids(got)
            settle(feed, Ack(), *got)

        assert seen == ["at 0", "due at 10", "at 11"]

    @pytest.mark.parametrize("to", [PRICES, DASHBOARD])
    def test_a_delayed_message_of_a_topic_keeps_its_place(self, drivers: Drivers, clock: ManualClock, to: Address) -> None:
        """What is due already goes before what is published now, although nobody has looked since."""
        broker = drivers()
        feed = consume(broker, DASHBOARD, ordered=True)
        send(broker, PRICES, "due", key="k", delay=1.0)
        clock.advance(2)
        send(broker, to, "later", key="k")

        first = take(feed)
        assert ids(first) == ["due"]
        settle(feed, Ack(), *first)
        assert ids(take(feed)) == ["later"]

    @pytest.mark.parametrize("to", [PRICES, DASHBOARD])
    def test_the_first_consumer_finds_what_is_due_in_its_place(self, drivers: Drivers, clock: ManualClock, to: Address) -> None:
        """Nobody knew of the order when it was published."""
        broker = drivers()
        send(broker, DASHBOARD, "first")
        send(broker, PRICES, "due", key="k", delay=1.0)
        clock.advance(2)
        send(broker, to, "later", key="k")

        assert ids(take(consume(broker, DASHBOARD, ordered=True))) == ["first", "due"]

    def test_order_over_a_topic(self, drivers: Drivers, clock: ManualClock) -> None:
        """Each group has its own sequence; delayed messages enter it when due."""
        broker = drivers()
        ordered, free = consume(broker, DASHBOARD, ordered=True), consume(broker, AUDIT)
        send(broker, PRICES, "late", key="a", delay=5.0)
        send(broker, PRICES, "one", "two", key="a")
        clock.advance(5)
        send(broker, PRICES, "three", key="a")
        assert ids(take(free)) == ["one", "two", "late", "three"]
        seen = []
        while got := take(ordered):
            assert len(got) == 1
            seen += ids(got)
            settle(ordered, Ack(), *got)

        assert seen == ["one", "two", "late", "three"]
