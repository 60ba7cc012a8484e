"""What every driver that keeps messages itself delivers: what was sent, as it was, to whom it is for."""

from __future__ import annotations

import pytest

from broker_calls import AUDIT, DASHBOARD, ORDERS, PRICES, Drivers, consume, ids, message, send, settle, take
from narrowboat.clock import ManualClock
from narrowboat.contract import Address, Delivery, Kind, Properties, Receipt, Reject, Source


class DeliveryRules:
    """Publish, deliver, replay. Needs the fixtures that `BrokerSuite` needs."""

    def test_everything_arrives_equal(self, drivers: Drivers) -> None:
        """Body, headers, key, id, times and addresses are what was sent."""
        broker = drivers()
        inbox, _ = broker.inbox(lambda: None)
        sent = message(
            ORDERS,
            body=bytes(range(256)),
            headers={"ünï/ code": "\u2603\n", "": "empty"},
            key="k\0 é",
            priority=3,
            ttl=60.0,
            correlation_id="c",
            content_type="t/x",
            reply_to=inbox,
        )

        assert broker.send([sent]) == [Receipt(sent.id)]

        [got] = take(consume(broker, ORDERS))
        assert got._replace(tag=None) == Delivery(
            sent.id, sent.body, sent.headers, sent.key, 1, 12.5, 3, got.expires_in, "c", "t/x", inbox, None
        )
        assert got.expires_in == pytest.approx(60.0)

    def test_receive_takes_no_more_than_the_limit(self, drivers: Drivers) -> None:
        """The rest stays for others."""
        broker = drivers()
        send(broker, ORDERS, "one", "two", "three")

        assert ids(take(consume(broker, ORDERS), 2)) == ["one", "two"]
        assert ids(take(consume(broker, ORDERS))) == ["three"]

    def test_a_batch_for_several_addresses_keeps_its_order_in_each(self, drivers: Drivers) -> None:
        """One answer for each message, in order, whatever it is for."""
        broker = drivers()
        other = Address(Kind.QUEUE, "other")
        feed = consume(broker, DASHBOARD)
        batch = [message(ORDERS, "a"), message(other, "b"), message(PRICES, "c"), message(ORDERS, "d"), message(PRICES, "e")]

        assert broker.send(batch) == [Receipt(id) for id in "abcde"]

        assert ids(take(consume(broker, ORDERS))) == ["a", "d"]
        assert ids(take(consume(broker, other))) == ["b"]
        assert ids(take(feed)) == ["c", "e"]

    def test_a_subscription_address_reaches_one_group_only(self, drivers: Drivers) -> None:
        """A redrive goes back to the group that it came from."""
        broker = drivers()
        one, other = consume(broker, DASHBOARD), consume(broker, AUDIT)
        send(broker, DASHBOARD, "again")

        assert ids(take(one)) == ["again"]
        assert take(other) == []

    def test_an_inbox_goes_with_its_feed(self, drivers: Drivers) -> None:
        """Replies arrive while the feed is open; what is sent later is dropped without an error."""
        broker = drivers()
        inbox, feed = broker.inbox(lambda: None)
        send(broker, inbox, "reply")
        [reply] = take(feed)
        assert settle(feed, Reject("no dead letters here", 1), reply) == [None]
        feed.close()

        assert send(broker, inbox, "late") == [Receipt("late")]
        assert broker.inbox(lambda: None)[0] != inbox

    def test_earliest_begins_with_what_the_topic_keeps(self, drivers: Drivers, clock: ManualClock) -> None:
        """For the time of the retention, in order, expired ones not; "latest" does not (B14)."""
        broker = drivers("retention=60")
        send(broker, PRICES, "old")
        clock.advance(31)
        send(broker, PRICES, "delayed", delay=20.0)
        send(broker, PRICES, "one", "two", key="k")
        send(broker, PRICES, "expired", ttl=1.0)
        clock.advance(30)
        broker.declare(Source(DASHBOARD, Properties()), earliest=True)
        broker.declare(Source(AUDIT, Properties()), earliest=False)
        send(broker, PRICES, "three")

        assert ids(take(consume(broker, DASHBOARD))) == ["one", "two", "delayed", "three"]
        assert ids(take(consume(broker, AUDIT))) == ["three"]
        assert broker.capabilities.replay.value == "native"
