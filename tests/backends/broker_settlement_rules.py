"""What becomes of a delivery in every driver that keeps messages itself: one outcome, a lease, or a dead letter."""

from __future__ import annotations

import pytest

from broker_calls import DASHBOARD, ORDERS, PRICES, Drivers, consume, ids, send, settle, take
from narrowboat.clock import ManualClock
from narrowboat.contract import Ack, Depth, Nack, Reject, Return
from narrowboat.errors import Closed, StaleDelivery


class SettlementRules:
    """Settlement, leases, dead letters. Needs the fixtures that `BrokerSuite` needs."""

    def test_the_lease_ends_by_the_clock(self, drivers: Drivers, clock: ManualClock) -> None:
        """Not before, and then for anybody, counted (B22)."""
        broker = drivers()
        one, two = consume(broker, ORDERS), consume(broker, ORDERS)
        send(broker, ORDERS, "one")
        assert take(one)[0].attempt == 1
        clock.advance(29.9)
        waiting = two.receive(10)
        assert waiting.deliveries == []
        assert waiting.retry_after == pytest.approx(0.1)
        clock.advance(0.2)

        assert [(d.id, d.attempt) for d in take(two)] == [("one", 2)]

    def test_an_old_token_settles_nothing(self, drivers: Drivers, clock: ManualClock) -> None:
        """The copy that somebody else holds is untouched, by any outcome (B26)."""
        broker = drivers()
        one, two = consume(broker, ORDERS), consume(broker, ORDERS)
        send(broker, ORDERS, "one")
        old = take(one)
        clock.advance(31)
        new = take(two)
        for outcome in (Ack(), Nack(), Nack(5.0), Reject("no", 1), Return()):
            [answer] = settle(one, outcome, *old)
            assert isinstance(answer, StaleDelivery)
            assert answer.id == "one"
        assert isinstance(one.extend(old, 60)[0], StaleDelivery)

        assert broker.depth(ORDERS) == Depth(0, 1, 0, 0)
        assert settle(two, Ack(), *new) == [None]

    def test_an_ended_lease_is_stale_also_when_nobody_took_it(self, drivers: Drivers, clock: ManualClock) -> None:
        """It is neither settled nor revived (B30)."""
        broker = drivers()
        feed = consume(broker, ORDERS)
        send(broker, ORDERS, "one")
        got = take(feed)
        clock.advance(30)

        assert isinstance(settle(feed, Ack(), *got)[0], StaleDelivery)
        assert isinstance(feed.extend(got, 60)[0], StaleDelivery)
        assert [d.attempt for d in take(feed)] == [2]

    def test_one_outcome_only(self, drivers: Drivers) -> None:
        """The second settlement of a delivery is stale, in one batch and in two (B25)."""
        broker = drivers()
        feed = consume(broker, ORDERS)
        send(broker, ORDERS, "one", "two", "three")
        one, two, three = take(feed)

        answers = feed.settle([(one, Nack(50)), (one, Ack()), (two, Ack()), (two, Nack()), (three, Ack())])

        assert [type(answer) for answer in answers] == [type(None), StaleDelivery, type(None), StaleDelivery, type(None)]
        assert isinstance(settle(feed, Ack(), three)[0], StaleDelivery)
        assert broker.depth(ORDERS) == Depth(0, 0, 1, 0)

    def test_nack_comes_back_at_its_place(self, drivers: Drivers) -> None:
        """Promptly, before those behind it, counted (B23)."""
        broker = drivers()
        feed = consume(broker, ORDERS)
        send(broker, ORDERS, "one", "two")
        settle(feed, Nack(), *take(feed, 1))

        assert [(d.id, d.attempt) for d in take(feed)] == [("one", 2), ("two", 1)]

    def test_return_is_not_counted(self, drivers: Drivers) -> None:
        """What was not started goes back as if it had not been claimed."""
        broker = drivers()
        feed = consume(broker, ORDERS)
        send(broker, ORDERS, "one", "two")
        settle(feed, Return(), *take(feed, 1))

        assert [(d.id, d.attempt) for d in take(feed)] == [("one", 1), ("two", 1)]

    def test_close_of_a_feed_gives_back_what_it_has_out(self, drivers: Drivers) -> None:
        """At once, counted, its own only; a second close does nothing (B38)."""
        broker = drivers()
        one, two = consume(broker, ORDERS), consume(broker, ORDERS)
        send(broker, ORDERS, "one", "two")
        take(one, 1)
        kept = take(two)
        one.close()
        one.close()

        assert [(d.id, d.attempt) for d in take(two)] == [("one", 2)]
        assert settle(two, Ack(), *kept) == [None]
        with pytest.raises(Closed):
            one.receive(1)

    def test_reject_moves_to_the_dead_letters(self, drivers: Drivers) -> None:
        """With body, headers, key and id, and why, how often and from where (B41)."""
        broker = drivers()
        feed = consume(broker, DASHBOARD)
        send(broker, PRICES, "one", body=b"poison", headers={"h": "v"}, key="k", correlation_id="c", ttl=60.0, priority=2)
        assert settle(feed, Reject("cannot parse", 3), *take(feed)) == [None]
        assert broker.depth(DASHBOARD) == Depth(0, 0, 0, 1)

        [dead] = take(consume(broker, DASHBOARD.dead, max_deliveries=0))

        assert (dead.id, dead.body, dead.key, dead.attempt, dead.correlation_id) == ("one", b"poison", "k", 1, "c")
        assert dict(dead.headers) == {
            "h": "v",
            "narrowboat-dead-reason": "cannot parse",
            "narrowboat-dead-attempts": "3",
            "narrowboat-dead-origin": "prices.dashboard",
        }
        assert dead.expires_in is None
        assert broker.depth(DASHBOARD) == Depth(0, 0, 0, 1)

    def test_dead_letters_lie_in_the_order_of_death(self, drivers: Drivers) -> None:
        """Whatever their priority was (B43)."""
        broker = drivers()
        feed = consume(broker, ORDERS, priorities=9)
        send(broker, ORDERS, "low", priority=0)
        send(broker, ORDERS, "high", priority=9)
        high, low = take(feed)
        settle(feed, Reject("first", 1), low)
        settle(feed, Reject("second", 1), high)

        assert ids(take(consume(broker, ORDERS.dead, max_deliveries=0))) == ["low", "high"]
