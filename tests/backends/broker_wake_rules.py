"""Whom every driver that keeps messages itself wakes, and that waiting costs it nothing."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from broker_calls import DASHBOARD, ORDERS, PRICES, Drivers, consume, ids, send, settle, take
from narrowboat.clock import ManualClock
from narrowboat.contract import Ack, Depth, Nack, Return


class WakeRules:
    """Waking. Needs the fixtures that `BrokerSuite` needs."""

    def test_a_send_wakes_as_many_idle_feeds_as_there_are_messages(self, drivers: Drivers) -> None:
        """Two at least, as a wake may be spurious; a feed that found something is not woken."""
        broker = drivers()
        woken: list[int] = []
        feeds = [consume(broker, ORDERS, partial(woken.append, n)) for n in range(5)]
        for feed in feeds:
            assert take(feed) == []
        send(broker, ORDERS, "one", "two")
        assert len(set(woken)) >= 2
        busy = consume(broker, DASHBOARD, lambda: woken.append(99))
        send(broker, PRICES, "price")
        assert ids(take(busy)) == ["price"]
        before = woken.count(99)
        send(broker, PRICES, "price")

        assert woken.count(99) == before

    @pytest.mark.parametrize("outcome", [Nack(), Return(), Nack(0.3)])
    def test_what_comes_back_wakes(self, drivers: Drivers, outcome: Nack | Return) -> None:
        """Whoever waits has to look again, at once or to learn when it is due."""
        broker = drivers()
        woken = threading.Event()
        holder = consume(broker, ORDERS)
        send(broker, ORDERS, "one")
        got = take(holder)
        idle = consume(broker, ORDERS, woken.set)
        assert take(idle) == []
        settle(holder, outcome, *got)

        assert woken.wait(5)

    def test_the_next_of_a_key_wakes(self, drivers: Drivers) -> None:
        """A settlement makes the next message of its key available."""
        broker = drivers()
        woken = threading.Event()
        holder, idle = consume(broker, ORDERS, ordered=True), consume(broker, ORDERS, woken.set, ordered=True)
        send(broker, ORDERS, "a1", "a2", key="a")
        got = take(holder)
        assert take(idle) == []
        settle(holder, Ack(), *got)

        assert woken.wait(5)

    def test_close_of_a_feed_wakes_the_others(self, drivers: Drivers) -> None:
        """For what it gives back, and for a wake that came to it too late."""
        broker = drivers()
        woken = threading.Event()
        holder, idle = consume(broker, ORDERS), consume(broker, ORDERS, woken.set)
        send(broker, ORDERS, "one")
        take(holder)
        assert take(idle) == []
        holder.close()

        assert woken.wait(5)

    def test_a_clock_moved_by_hand_wakes(self, drivers: Drivers, clock: ManualClock) -> None:
        """Everything that waits looks again."""
        broker = drivers()
        woken = threading.Event()
        feed = consume(broker, ORDERS, woken.set)
        send(broker, ORDERS, "later", delay=10.0)
        take(feed)
        clock.advance(10)

        assert woken.wait(5)
        assert ids(take(feed)) == ["later"]

    def test_wake_may_come_back_into_the_driver(self, drivers: Drivers) -> None:
        """Nothing is held while it is called."""
        broker = drivers()
        depths = []
        feed = consume(broker, ORDERS, lambda: depths.append(broker.depth(ORDERS)))
        take(feed)
        send(broker, ORDERS, "one")

        assert depths[0] == Depth(1, 0, 0, 0)

    def test_idle_feeds_park_no_thread(self, drivers: Drivers) -> None:
        """Two hundred of them need at most the watcher's one."""
        broker = drivers()
        before = threading.active_count()
        for _ in range(200):
            assert take(consume(broker, ORDERS)) == []

        assert threading.active_count() <= before + 1
