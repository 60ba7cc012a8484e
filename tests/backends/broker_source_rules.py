"""What every driver that keeps messages itself says and does about queues, topics and subscriptions as such."""

from __future__ import annotations

import pytest

from broker_calls import DASHBOARD, ORDERS, PRICES, Drivers, consume, ids, message, send, settle, take
from narrowboat.clock import ManualClock
from narrowboat.contract import Ack, Address, Depth, Kind, Nack, Properties, Receipt, Reject, Return, Source
from narrowboat.errors import Conflict, NotFound, StaleDelivery


class SourceRules:
    """Declaring, deleting, counting, purging. Needs the fixtures that `BrokerSuite` needs."""

    def test_a_declare_that_differs_is_refused(self, drivers: Drivers) -> None:
        """The error names the property, what is stored and what was asked (B18). Lease and limit need not agree (B129)."""
        broker = drivers()
        broker.declare(Source(ORDERS, Properties(lease=5.0)), earliest=False)
        broker.declare(Source(ORDERS, Properties(lease=7.0, max_deliveries=9)), earliest=False)

        assert broker.stored(ORDERS) == Properties(lease=5.0)
        with pytest.raises(Conflict, match=r"ordered is False .* True, priorities is 0 .* 3"):
            consume(broker, ORDERS, lease=5.0, ordered=True, priorities=3)

    def test_a_publish_does_not_fix_the_properties(self, drivers: Drivers) -> None:
        """The first consumer does, and what was published before obeys them."""
        broker = drivers()
        send(broker, ORDERS, "a1", "a2", key="a")
        assert broker.stored(ORDERS) is None
        feed = consume(broker, ORDERS, ordered=True, lease=7.0)
        assert ids(take(feed)) == ["a1"]

        assert broker.stored(ORDERS) == Properties(lease=7.0, ordered=True)
        with pytest.raises(Conflict):
            consume(broker, ORDERS)

    def test_a_feed_claims_with_its_own_lease(self, drivers: Drivers, clock: ManualClock) -> None:
        """Whatever is stored (B129); and with another one from when it is told of it (B128)."""
        broker = drivers()
        broker.declare(Source(ORDERS, Properties(lease=60.0)), earliest=False)
        feed = consume(broker, ORDERS, lease=5.0)
        send(broker, ORDERS, "one")
        for lease in (5.0, 20.0):
            feed.use(Properties(lease=lease))
            assert ids(take(feed)) == ["one"]
            clock.advance(lease - 1)
            assert take(feed) == []
            clock.advance(1.5)
        assert ids(take(feed)) == ["one"]

    def test_an_alter_keeps_what_is_there(self, drivers: Drivers) -> None:
        """Messages in flight, ready and delayed, and the half of the properties that is not altered (B128)."""
        broker = drivers()
        feed = consume(broker, ORDERS, ordered=True)
        send(broker, ORDERS, "a1", "a2", key="a")
        send(broker, ORDERS, "later", delay=5.0)
        held = take(feed)

        assert broker.alter(ORDERS, lease=40.0, max_deliveries=None) == Properties(lease=40.0, ordered=True)
        assert isinstance(broker.alter(ORDERS, lease=40.0, max_deliveries=None).lease, float)
        assert broker.alter(ORDERS, lease=None, max_deliveries=0) == Properties(40.0, 0, ordered=True)
        assert broker.stored(ORDERS) == Properties(40.0, 0, ordered=True)
        assert broker.depth(ORDERS) == Depth(1, 1, 1, 0)
        assert settle(feed, Ack(), *held) == [None]
        assert ids(take(feed)) == ["a2"]

    def test_the_oldest_is_the_first_that_became_ready(self, drivers: Drivers, clock: ManualClock) -> None:
        """In whatever order they are handed out. One that comes back has kept its age, after a delay it begins anew (B132)."""
        broker = drivers()

        def oldest() -> float | None:
            found = broker.depth(ORDERS).oldest
            return None if found is None else round(found, 3)

        feed = consume(broker, ORDERS, priorities=2, lease=50.0)
        assert oldest() is None
        send(broker, ORDERS, "delayed", delay=4.0)
        clock.advance(1)
        send(broker, ORDERS, "low")
        clock.advance(1)
        send(broker, ORDERS, "high", priority=2)
        assert oldest() == 1
        high, low = take(feed)
        assert oldest() is None
        clock.advance(5)
        assert oldest() == 3
        settle(feed, Return(), high)
        assert oldest() == 5
        settle(feed, Nack(10.0), low)
        assert oldest() == 5
        clock.advance(12)
        settle(feed, Ack(), *take(feed, 2))
        assert oldest() == 2
        broker.purge(ORDERS)
        assert oldest() is None

    @pytest.mark.parametrize("address", [ORDERS, DASHBOARD, PRICES])
    def test_an_alter_of_what_nobody_declared(self, drivers: Drivers, address: Address) -> None:
        """It is `NotFound`, also where it was published to, and makes nothing (B130)."""
        broker = drivers()
        with pytest.raises(NotFound, match="Declare it"):
            broker.alter(address, lease=5.0, max_deliveries=None)
        assert broker.stored(address) is None
        assert broker.sources() == []
        if address is ORDERS:
            send(broker, address, "one")
            with pytest.raises(NotFound):
                broker.alter(address, lease=5.0, max_deliveries=None)

    def test_what_was_published_before_is_sorted_by_the_levels(self, drivers: Drivers) -> None:
        """A queue made by a publish does not know its levels yet."""
        broker = drivers()
        send(broker, ORDERS, "low", priority=1)
        send(broker, ORDERS, "high", priority=3)
        send(broker, ORDERS, "higher", priority=7)

        assert ids(take(consume(broker, ORDERS, priorities=3))) == ["high", "higher", "low"]

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            (ORDERS, Address(Kind.TOPIC, "orders")),
            (PRICES, Address(Kind.QUEUE, "prices")),
            (DASHBOARD, Address(Kind.QUEUE, "prices.dashboard")),
            (Address(Kind.QUEUE, "prices.dashboard"), DASHBOARD),
            (Address(Kind.QUEUE, "prices"), DASHBOARD),
            (Address(Kind.TOPIC, "prices.dashboard"), DASHBOARD),
        ],
    )
    def test_one_name_is_one_thing(self, drivers: Drivers, first: Address, second: Address) -> None:
        """Refused at declare, open, send, depth, purge and delete; the first is untouched."""
        broker = drivers()
        broker.declare(Source(first, Properties()), earliest=False)
        for call in (
            lambda: broker.declare(Source(second, Properties()), earliest=False),
            lambda: consume(broker, second),
            lambda: broker.depth(second),
            lambda: broker.purge(second),
            lambda: broker.delete(second),
        ):
            with pytest.raises(Conflict):
                call()

        [answer] = send(broker, second, "one")
        assert isinstance(answer, Conflict)
        assert broker.delete(first) is True

    def test_declare_never_makes_nothing(self, drivers: Drivers) -> None:
        """What is not there is `NotFound`, in its place of a batch; what is there works, dead letters included."""
        drivers().declare(Source(ORDERS, Properties()), earliest=False)
        broker = drivers("declare=never")
        missing = Address(Kind.QUEUE, "missing")
        for call in (
            lambda: broker.declare(Source(missing, Properties()), earliest=False),
            lambda: consume(broker, DASHBOARD),
            lambda: broker.depth(missing),
            lambda: broker.purge(missing),
        ):
            with pytest.raises(NotFound, match="declare=never"):
                call()
        answers = broker.send([message(missing), message(ORDERS, "one"), message(PRICES)])
        assert [type(answer) for answer in answers] == [NotFound, Receipt, NotFound]
        feed = consume(broker, ORDERS)

        assert settle(feed, Reject("no", 1), *take(feed)) == [None]
        assert broker.depth(ORDERS) == Depth(0, 0, 0, 1)

    def test_delete_takes_the_messages_along(self, drivers: Drivers) -> None:
        """What is out becomes stale, a feed that goes on makes it anew (B18)."""
        broker = drivers()
        feed = consume(broker, ORDERS)
        send(broker, ORDERS, "one", "two")
        [one] = take(feed, 1)
        assert broker.delete(ORDERS) is True
        assert broker.delete(ORDERS) is False
        assert take(feed) == []
        send(broker, ORDERS, "three")

        assert isinstance(settle(feed, Ack(), one)[0], StaleDelivery)
        assert ids(take(feed)) == ["three"]

    def test_delete_of_a_topic_takes_its_subscriptions_along(self, drivers: Drivers, clock: ManualClock) -> None:
        """And what was not due yet."""
        broker = drivers()
        broker.declare(Source(DASHBOARD, Properties(lease=5.0)), earliest=False)
        send(broker, PRICES, "one")
        send(broker, PRICES, "two", delay=5.0)
        assert broker.depth(PRICES) == Depth(0, 0, 1, 0)
        assert broker.delete(PRICES) is True
        clock.advance(5)

        assert take(consume(broker, DASHBOARD, lease=6.0)) == []

    def test_the_depth_of_what_is_not_there(self, drivers: Drivers) -> None:
        """Nothing is in it, and asking makes nothing. What died in a queue that is gone is still counted as its own."""
        broker = drivers()
        topic = Address(Kind.TOPIC, "orders")
        assert broker.depth(ORDERS) == broker.depth(topic) == Depth(0, 0, 0, 0)

        feed = consume(broker, ORDERS)
        send(broker, ORDERS, "one")
        settle(feed, Reject("why", 1), *take(feed))
        broker.delete(ORDERS)

        assert broker.depth(ORDERS) == Depth(0, 0, 0, 1)
        assert broker.depth(topic) == Depth(0, 0, 0, 0)
        with pytest.raises(NotFound):
            drivers("declare=never").depth(ORDERS)

    def test_purge_drops_what_is_ready_or_delayed(self, drivers: Drivers) -> None:
        """What is in flight stays, and is settled as ever."""
        broker = drivers()
        feed = consume(broker, ORDERS, ordered=True)
        send(broker, ORDERS, "a1", "a2", key="a")
        send(broker, ORDERS, "free")
        send(broker, ORDERS, "later", delay=5.0)
        [first] = take(feed, 1)

        assert broker.purge(ORDERS) == 3

        assert broker.depth(ORDERS) == Depth(0, 1, 0, 0)
        assert settle(feed, Ack(), first) == [None]
        send(broker, ORDERS, "a3", key="a")
        assert ids(take(feed)) == ["a3"]

    def test_counts_of_what_is_not_there(self, drivers: Drivers) -> None:
        """Nothing is made by asking."""
        broker = drivers()

        assert broker.depth(ORDERS) == Depth(0, 0, 0, 0)
        assert broker.purge(ORDERS) == 0
        assert broker.delete(ORDERS) is False
