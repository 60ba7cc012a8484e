"""What every driver that keeps messages itself does, call by call, on a clock that the test owns.

The two test files beside this one bring the `drivers` fixture and run `BrokerSuite` on their backend.
"""

import dis
import itertools
import sys
import threading
from collections.abc import Callable

import pytest

from narrowboat.clock import ManualClock
from narrowboat.contract import (
    Ack,
    Address,
    Broker,
    BrokerBackend,
    Context,
    Delivery,
    Depth,
    Feed,
    Kind,
    Nack,
    Outgoing,
    Properties,
    Receipt,
    Reject,
    Return,
    Source,
)
from narrowboat.dsn import Url, parse_options
from narrowboat.errors import Closed, ConfigurationError, Conflict, NotFound, StaleDelivery

ORDERS = Address(Kind.QUEUE, "orders")
PRICES = Address(Kind.TOPIC, "prices")
DASHBOARD = Address(Kind.SUBSCRIPTION, "prices", "dashboard")
AUDIT = Address(Kind.SUBSCRIPTION, "prices", "audit")

_serial = itertools.count(1)


def open_driver(backend: BrokerBackend, text: str, clock: ManualClock | None = None) -> Broker:
    """A broker of `backend`, on `clock` or on the machine's."""
    from narrowboat.clock import SystemClock

    url = Url.parse(text)
    used = clock or SystemClock()
    options = parse_options(url, backend.options, {})
    return backend.open(url, options, Context(clock=used, timeout=5.0, watch=used.watch))


def message(to: Address, id: str | None = None, body: bytes = b"x", **fields) -> Outgoing:
    """A message with nothing special but `fields`."""
    plain = {
        "headers": {},
        "key": None,
        "published_at": 12.5,
        "delay": 0.0,
        "priority": 0,
        "ttl": None,
        "correlation_id": None,
        "content_type": None,
        "reply_to": None,
        "dedup": False,
    }
    return Outgoing(to=to, id=id or f"m{next(_serial)}", body=body, **{**plain, **fields})


def send(broker: Broker, to: Address, *ids: str, **fields) -> list:
    return broker.send([message(to, id, **fields) for id in ids])


def consume(broker: Broker, address: Address, wake: Callable[[], None] = lambda: None, **properties) -> Feed:
    return broker.open(Source(address, Properties(**properties)), earliest=False, wake=wake)


def ids(deliveries: list[Delivery]) -> list[str]:
    return [delivery.id for delivery in deliveries]


def take(feed: Feed, limit: int = 100) -> list[Delivery]:
    return feed.receive(limit).deliveries


def settle(feed: Feed, outcome, *deliveries: Delivery) -> list:
    return feed.settle([(delivery, outcome) for delivery in deliveries])


class Strike:
    """Raises a KeyboardInterrupt at the n-th point of a backend's own code at which one can strike.

    CPython looks for signals when a function starts, after a call and on a jump backwards, and nowhere else.
    """

    _AFTER = frozenset({"CALL", "CALL_FUNCTION_EX", "CALL_KW", "RESUME", "JUMP_BACKWARD"})

    def __init__(self, at: int) -> None:
        self.left = at
        self._names: dict = {}
        self._last: dict = {}

    def __call__(self, call: Callable[[], object]) -> bool:
        """Run `call`; whether it was interrupted."""
        sys._getframe().f_trace_opcodes = True  # Python 3.12 traces opcodes only if a frame has asked for them before
        sys.settrace(self._enter)
        try:
            call()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
        return False

    def _enter(self, frame, event, argument):
        if "narrowboat_" not in frame.f_code.co_filename:
            return None
        frame.f_trace = self._step  # Python 3.13 traces opcodes only of a frame that has its function already
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._step

    def _step(self, frame, event, argument):
        if event == "return":
            self._last.pop(frame, None)
        if event != "opcode":
            return self._step
        code = frame.f_code
        if code not in self._names:
            self._names[code] = {step.offset: step.opname for step in dis.get_instructions(code)}
        before = self._names[code].get(self._last.get(frame))
        self._last[frame] = frame.f_lasti
        if before in self._AFTER:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self._step


class BrokerSuite:
    """Needs the fixtures `clock` and `drivers`: a function that opens one more broker on the same namespace."""

    # --- publish and deliver

    def test_everything_arrives_equal(self, drivers):
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
        assert (
            got[:-1]
            == Delivery(sent.id, sent.body, sent.headers, sent.key, 1, 12.5, 3, got.expires_in, "c", "t/x", inbox, None)[:-1]
        )
        assert got.expires_in == pytest.approx(60.0)

    def test_headers_of_a_delivery_are_not_shared(self, drivers):
        """What one consumer does to the headers is not seen by the next one (B10)."""
        broker = drivers()
        feed = consume(broker, ORDERS)
        headers = {"a": "1"}
        send(broker, ORDERS, "one", headers=headers)
        headers["a"] = "changed by the publisher"
        [first] = take(feed)
        try:
            first.headers["a"] = "changed by a consumer"  # type: ignore[index]  # must have no effect, or be refused
        except TypeError:
            pass
        settle(feed, Nack(), first)

        assert dict(take(feed)[0].headers) == {"a": "1"}

    def test_a_queue_keeps_what_nobody_consumes_yet(self, drivers):
        """A queue is there from its first message on, in order, for whoever comes."""
        broker = drivers()
        send(broker, ORDERS, "one", "two", "three")

        assert ids(take(consume(broker, ORDERS))) == ["one", "two", "three"]

    def test_receive_takes_no_more_than_the_limit(self, drivers):
        """The rest stays for others."""
        broker = drivers()
        send(broker, ORDERS, "one", "two", "three")

        assert ids(take(consume(broker, ORDERS), 2)) == ["one", "two"]
        assert ids(take(consume(broker, ORDERS))) == ["three"]

    def test_a_batch_for_several_addresses_keeps_its_order_in_each(self, drivers):
        """One answer for each message, in order, whatever it is for."""
        broker = drivers()
        other = Address(Kind.QUEUE, "other")
        feed = consume(broker, DASHBOARD)
        batch = [message(ORDERS, "a"), message(other, "b"), message(PRICES, "c"), message(ORDERS, "d"), message(PRICES, "e")]

        assert broker.send(batch) == [Receipt(id) for id in "abcde"]

        assert ids(take(consume(broker, ORDERS))) == ["a", "d"]
        assert ids(take(consume(broker, other))) == ["b"]
        assert ids(take(feed)) == ["c", "e"]

    def test_every_group_of_a_topic_gets_its_own_copy(self, drivers):
        """Groups each get everything, members of a group share, settlements of one do not touch the other."""
        broker = drivers()
        one, two, other = consume(broker, DASHBOARD), consume(broker, DASHBOARD), consume(broker, AUDIT)
        send(broker, PRICES, "a", "b")

        first, second = take(one, 1), take(two, 1)
        assert settle(one, Ack(), *first) == [None]
        assert settle(two, Ack(), *second) == [None]
        assert sorted(ids(first) + ids(second)) == ["a", "b"]
        assert ids(take(other)) == ["a", "b"]
        assert take(one) == take(two) == []

    def test_a_topic_without_groups_accepts_and_drops(self, drivers):
        """A group begins with what is published after it was made."""
        broker = drivers()
        assert send(broker, PRICES, "early") == [Receipt("early")]
        broker.declare(Source(DASHBOARD, Properties()), earliest=False)
        send(broker, PRICES, "late")

        assert ids(take(consume(broker, DASHBOARD))) == ["late"]

    def test_a_subscription_address_reaches_one_group_only(self, drivers):
        """A redrive goes back to the group that it came from."""
        broker = drivers()
        one, other = consume(broker, DASHBOARD), consume(broker, AUDIT)
        send(broker, DASHBOARD, "again")

        assert ids(take(one)) == ["again"]
        assert take(other) == []

    def test_an_inbox_goes_with_its_feed(self, drivers):
        """Replies arrive while the feed is open; what is sent later is dropped without an error."""
        broker = drivers()
        inbox, feed = broker.inbox(lambda: None)
        send(broker, inbox, "reply")
        [reply] = take(feed)
        assert settle(feed, Reject("no dead letters here", 1), reply) == [None]
        feed.close()

        assert send(broker, inbox, "late") == [Receipt("late")]
        assert broker.inbox(lambda: None)[0] != inbox

    # --- settlement

    def test_acknowledged_is_gone(self, drivers, clock):
        """It comes back neither at once nor after the lease (B21)."""
        broker = drivers()
        feed = consume(broker, ORDERS)
        send(broker, ORDERS, "one")
        assert settle(feed, Ack(), *take(feed)) == [None]
        clock.advance(100)

        assert take(feed) == []
        assert broker.depth(ORDERS) == Depth(0, 0, 0, 0)

    def test_the_lease_ends_by_the_clock(self, drivers, clock):
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

    def test_an_old_token_settles_nothing(self, drivers, clock):
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

    def test_an_ended_lease_is_stale_also_when_nobody_took_it(self, drivers, clock):
        """It is neither settled nor revived (B30)."""
        broker = drivers()
        feed = consume(broker, ORDERS)
        send(broker, ORDERS, "one")
        got = take(feed)
        clock.advance(30)

        assert isinstance(settle(feed, Ack(), *got)[0], StaleDelivery)
        assert isinstance(feed.extend(got, 60)[0], StaleDelivery)
        assert [d.attempt for d in take(feed)] == [2]

    def test_one_outcome_only(self, drivers):
        """The second settlement of a delivery is stale, in one batch and in two (B25)."""
        broker = drivers()
        feed = consume(broker, ORDERS)
        send(broker, ORDERS, "one", "two", "three")
        one, two, three = take(feed)

        answers = feed.settle([(one, Nack(50)), (one, Ack()), (two, Ack()), (two, Nack()), (three, Ack())])

        assert [type(answer) for answer in answers] == [type(None), StaleDelivery, type(None), StaleDelivery, type(None)]
        assert isinstance(settle(feed, Ack(), three)[0], StaleDelivery)
        assert broker.depth(ORDERS) == Depth(0, 0, 1, 0)

    def test_one_stale_member_spoils_no_other(self, drivers, clock):
        """A batch with a stale delivery settles the rest (B29)."""
        broker = drivers()
        feed = consume(broker, ORDERS)
        send(broker, ORDERS, "one", "two", "three")
        got = take(feed)
        settle(feed, Ack(), got[1])

        answers = settle(feed, Ack(), *got)

        assert [type(answer) for answer in answers] == [type(None), StaleDelivery, type(None)]
        assert broker.depth(ORDERS) == Depth(0, 0, 0, 0)

    def test_nack_comes_back_at_its_place(self, drivers):
        """Promptly, before those behind it, counted (B23)."""
        broker = drivers()
        feed = consume(broker, ORDERS)
        send(broker, ORDERS, "one", "two")
        settle(feed, Nack(), *take(feed, 1))

        assert [(d.id, d.attempt) for d in take(feed)] == [("one", 2), ("two", 1)]

    def test_nack_with_a_delay_comes_back_not_before(self, drivers, clock):
        """And holds nobody up meanwhile."""
        broker = drivers()
        feed = consume(broker, ORDERS)
        send(broker, ORDERS, "one", "two")
        settle(feed, Nack(10), *take(feed, 1))
        assert ids(take(feed)) == ["two"]
        assert broker.depth(ORDERS) == Depth(0, 1, 1, 0)
        clock.advance(9.9)
        assert take(feed) == []
        clock.advance(0.1)

        assert [(d.id, d.attempt) for d in take(feed)] == [("one", 2)]

    def test_return_is_not_counted(self, drivers):
        """What was not started goes back as if it had not been claimed."""
        broker = drivers()
        feed = consume(broker, ORDERS)
        send(broker, ORDERS, "one", "two")
        settle(feed, Return(), *take(feed, 1))

        assert [(d.id, d.attempt) for d in take(feed)] == [("one", 1), ("two", 1)]

    def test_extend_moves_the_end_of_the_lease(self, drivers, clock):
        """Past the first end, to the second and no further (B30)."""
        broker = drivers()
        feed = consume(broker, ORDERS)
        send(broker, ORDERS, "one")
        got = take(feed)
        clock.advance(20)
        assert feed.extend(got, 30) == [None]
        clock.advance(29)
        assert take(feed) == []
        assert feed.extend(got, 2) == [None]
        clock.advance(2)

        assert [d.attempt for d in take(feed)] == [2]

    def test_close_of_a_feed_gives_back_what_it_has_out(self, drivers):
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

    # --- dead letters

    def test_reject_moves_to_the_dead_letters(self, drivers):
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

    def test_dead_letters_lie_in_the_order_of_death(self, drivers):
        """Whatever their priority was (B43)."""
        broker = drivers()
        feed = consume(broker, ORDERS, priorities=9)
        send(broker, ORDERS, "low", priority=0)
        send(broker, ORDERS, "high", priority=9)
        high, low = take(feed)
        settle(feed, Reject("first", 1), low)
        settle(feed, Reject("second", 1), high)

        assert ids(take(consume(broker, ORDERS.dead, max_deliveries=0))) == ["low", "high"]

    def test_a_dead_letter_that_is_rejected_is_dropped(self, drivers):
        """There is no second level."""
        broker = drivers()
        feed = consume(broker, ORDERS)
        send(broker, ORDERS, "one")
        settle(feed, Reject("no", 1), *take(feed))
        dead = consume(broker, ORDERS.dead, max_deliveries=0)

        assert settle(dead, Reject("again", 1), *take(dead)) == [None]
        assert broker.depth(ORDERS.dead) == Depth(0, 0, 0, 0)
        assert broker.depth(ORDERS.dead.dead) == Depth(0, 0, 0, 0)

    # --- delay, priority, ttl, dedup

    def test_delayed_messages_become_ready_when_due(self, drivers, clock):
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

    def test_a_delayed_publish_goes_to_the_groups_of_then(self, drivers, clock):
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

    def test_priority_goes_first_also_after_it_came_back(self, drivers):
        """Within a level in order (B53)."""
        broker = drivers()
        feed = consume(broker, ORDERS, priorities=5)
        for id, priority in (("a0", 0), ("b5", 5), ("c5", 5), ("d2", 2), ("e9", 9)):
            send(broker, ORDERS, id, priority=priority)
        got = take(feed, 2)
        assert ids(got) == ["b5", "c5"]
        settle(feed, Nack(), *reversed(got))

        assert ids(take(feed)) == ["b5", "c5", "e9", "d2", "a0"]

    def test_expired_messages_are_dropped_and_swept(self, drivers, clock):
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

    def test_one_id_once_within_the_window(self, drivers, clock):
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

    def test_dedup_can_be_turned_off(self, drivers):
        """With `?dedup=0` nothing is compared, and nothing is claimed."""
        broker = drivers("dedup=0")

        assert send(broker, ORDERS, "a", "a", dedup=True) == [Receipt("a"), Receipt("a")]
        assert broker.capabilities.dedup.value == "absent"

    # --- order by key

    def test_messages_of_one_key_go_one_at_a_time(self, drivers):
        """Over all consumers, in order; other keys and messages without a key are not held up (B57, B59)."""
        broker = drivers()
        one, two = consume(broker, ORDERS, ordered=True), consume(broker, ORDERS, ordered=True)
        for id, key in (("a1", "a"), ("a2", "a"), ("b1", "b"), ("-1", None), ("a3", "a"), ("-2", None)):
            send(broker, ORDERS, id, key=key)
        got = take(one)
        assert ids(got) == ["a1", "b1", "-1", "-2"]
        assert take(two) == []
        settle(one, Ack(), got[0])
        [second] = take(two)
        assert second.id == "a2"
        settle(two, Reject("dead letters leave the sequence", 1), second)

        assert ids(take(one)) == ["a3"]

    def test_a_nacked_message_blocks_its_key(self, drivers, clock):
        """Also while it is delayed, and it keeps its place (B58)."""
        broker = drivers()
        feed = consume(broker, ORDERS, ordered=True)
        send(broker, ORDERS, "a1", "a2", key="a")
        settle(feed, Nack(10), *take(feed))
        assert take(feed) == []
        assert broker.depth(ORDERS) == Depth(1, 0, 1, 0)
        clock.advance(10)
        [again] = take(feed)
        assert (again.id, again.attempt) == ("a1", 2)
        settle(feed, Nack(), again)

        assert ids(take(feed)) == ["a1"]

    def test_an_expired_message_leaves_the_sequence(self, drivers, clock):
        """At its head or behind it."""
        broker = drivers()
        feed = consume(broker, ORDERS, ordered=True)
        send(broker, ORDERS, "a1", key="a", ttl=5.0)
        send(broker, ORDERS, "a2", key="a", ttl=5.0)
        send(broker, ORDERS, "a3", key="a")
        clock.advance(5)

        assert ids(take(feed)) == ["a3"]

    def test_order_is_that_of_availability(self, drivers, clock):
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
    def test_a_delayed_message_of_a_topic_keeps_its_place(self, drivers, clock, to):
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
    def test_the_first_consumer_finds_what_is_due_in_its_place(self, drivers, clock, to):
        """Nobody knew of the order when it was published."""
        broker = drivers()
        send(broker, DASHBOARD, "first")
        send(broker, PRICES, "due", key="k", delay=1.0)
        clock.advance(2)
        send(broker, to, "later", key="k")

        assert ids(take(consume(broker, DASHBOARD, ordered=True))) == ["first", "due"]

    def test_order_over_a_topic(self, drivers, clock):
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

    # --- declaring

    def test_a_declare_that_differs_is_refused(self, drivers):
        """The error names the property, what is stored and what was asked (B18)."""
        broker = drivers()
        broker.declare(Source(ORDERS, Properties(lease=5.0)), earliest=False)
        broker.declare(Source(ORDERS, Properties(lease=5.0)), earliest=False)

        with pytest.raises(Conflict, match=r"'orders'.*lease is 5\.0 and was asked as 30\.0"):
            broker.declare(Source(ORDERS, Properties()), earliest=False)
        with pytest.raises(Conflict, match=r"ordered is False .* True, priorities is 0 .* 3"):
            consume(broker, ORDERS, lease=5.0, ordered=True, priorities=3)

    def test_a_publish_does_not_fix_the_properties(self, drivers):
        """The first consumer does, and what was published before obeys them."""
        broker = drivers()
        send(broker, ORDERS, "a1", "a2", key="a")
        feed = consume(broker, ORDERS, ordered=True, lease=7.0)
        assert ids(take(feed)) == ["a1"]

        with pytest.raises(Conflict):
            consume(broker, ORDERS)

    def test_what_was_published_before_is_sorted_by_the_levels(self, drivers):
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
    def test_one_name_is_one_thing(self, drivers, first, second):
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

    def test_declare_never_makes_nothing(self, drivers):
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

    def test_delete_takes_the_messages_along(self, drivers):
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

    def test_delete_of_a_topic_takes_its_subscriptions_along(self, drivers, clock):
        """And what was not due yet."""
        broker = drivers()
        broker.declare(Source(DASHBOARD, Properties(lease=5.0)), earliest=False)
        send(broker, PRICES, "one")
        send(broker, PRICES, "two", delay=5.0)
        assert broker.depth(PRICES) == Depth(0, 0, 1, 0)
        assert broker.delete(PRICES) is True
        clock.advance(5)

        assert take(consume(broker, DASHBOARD, lease=6.0)) == []

    def test_the_depth_of_what_is_not_there(self, drivers):
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

    def test_purge_drops_what_is_ready_or_delayed(self, drivers):
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

    def test_counts_of_what_is_not_there(self, drivers):
        """Nothing is made by asking."""
        broker = drivers()

        assert broker.depth(ORDERS) == Depth(0, 0, 0, 0)
        assert broker.purge(ORDERS) == 0
        assert broker.delete(ORDERS) is False

    # --- replay

    def test_earliest_begins_with_what_the_topic_keeps(self, drivers, clock):
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

    # --- waking

    def test_a_send_wakes_as_many_idle_feeds_as_there_are_messages(self, drivers):
        """Two at least, as a wake may be spurious; a feed that found something is not woken."""
        broker = drivers()
        woken: list[int] = []
        feeds = [consume(broker, ORDERS, lambda n=n: woken.append(n)) for n in range(5)]
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
    def test_what_comes_back_wakes(self, drivers, outcome):
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

    def test_the_next_of_a_key_wakes(self, drivers):
        """A settlement makes the next message of its key available."""
        broker = drivers()
        woken = threading.Event()
        holder, idle = consume(broker, ORDERS, ordered=True), consume(broker, ORDERS, woken.set, ordered=True)
        send(broker, ORDERS, "a1", "a2", key="a")
        got = take(holder)
        assert take(idle) == []
        settle(holder, Ack(), *got)

        assert woken.wait(5)

    def test_close_of_a_feed_wakes_the_others(self, drivers):
        """For what it gives back, and for a wake that came to it too late."""
        broker = drivers()
        woken = threading.Event()
        holder, idle = consume(broker, ORDERS), consume(broker, ORDERS, woken.set)
        send(broker, ORDERS, "one")
        take(holder)
        assert take(idle) == []
        holder.close()

        assert woken.wait(5)

    def test_a_clock_moved_by_hand_wakes(self, drivers, clock):
        """Everything that waits looks again."""
        broker = drivers()
        woken = threading.Event()
        feed = consume(broker, ORDERS, woken.set)
        send(broker, ORDERS, "later", delay=10.0)
        take(feed)
        clock.advance(10)

        assert woken.wait(5)
        assert ids(take(feed)) == ["later"]

    def test_wake_may_come_back_into_the_driver(self, drivers):
        """Nothing is held while it is called."""
        broker = drivers()
        depths = []
        feed = consume(broker, ORDERS, lambda: depths.append(broker.depth(ORDERS)))
        take(feed)
        send(broker, ORDERS, "one")

        assert depths[0] == Depth(1, 0, 0, 0)

    def test_idle_feeds_park_no_thread(self, drivers):
        """Two hundred of them need at most the watcher's one."""
        broker = drivers()
        before = threading.active_count()
        for _ in range(200):
            assert take(consume(broker, ORDERS)) == []

        assert threading.active_count() <= before + 1

    # --- lifecycle

    def test_two_brokers_share_a_namespace_and_prefixes_do_not(self, drivers):
        """The same URL meets, another prefix does not (B106)."""
        one, two, other = drivers(), drivers(), drivers("prefix=other")
        other.declare(Source(ORDERS, Properties(lease=9.0)), earliest=False)
        send(one, ORDERS, "one")

        assert take(consume(other, ORDERS, lease=9.0)) == []
        assert ids(take(consume(two, ORDERS))) == ["one"]

    def test_close_gives_back_and_refuses(self, drivers):
        """What its feeds had out is there for others; every call is `Closed` (B88)."""
        one, two = drivers(), drivers()
        feed = consume(one, ORDERS)
        send(one, ORDERS, "one")
        got = take(feed)
        one.close()
        one.close()
        feed.close()
        for call in (
            lambda: send(one, ORDERS, "two"),
            lambda: consume(one, ORDERS),
            lambda: one.depth(ORDERS),
            lambda: one.inbox(lambda: None),
            one.ping,
            lambda: feed.receive(1),
            lambda: settle(feed, Ack(), *got),
        ):
            with pytest.raises(Closed):
                call()

        two.ping()
        assert [(d.id, d.attempt) for d in take(consume(two, ORDERS))] == [("one", 2)]

    @pytest.mark.parametrize("option", ["dedup=-1", "retention=-0.5", "declare=sometimes", "dedup=often", "deadup=1"])
    def test_bad_options_are_refused(self, drivers, option):
        """Before anything is opened (B109)."""
        with pytest.raises(ConfigurationError, match=option.partition("=")[0]):
            drivers(option)

    def test_calls_from_three_threads_lose_nothing(self, drivers):
        """Send, receive and settle run beside each other; each message is delivered exactly once (B62)."""
        broker = drivers()
        feed = consume(broker, ORDERS)
        total, batch = 3000, 50
        delivered: list[str] = []
        pending: list[Delivery] = []
        done = threading.Event()
        failed: list[BaseException] = []

        def guard(work: Callable[[], None]) -> None:
            try:
                work()
            except BaseException as error:
                failed.append(error)
                done.set()

        def publish() -> None:
            for start in range(0, total, batch):
                send(broker, ORDERS, *(f"n{n}" for n in range(start, start + batch)))

        def receive() -> None:
            while len(delivered) < total and not done.is_set():
                got = take(feed, 70)
                delivered.extend(ids(got))
                pending.extend(got)

        def acknowledge() -> None:
            settled = 0
            while settled < total and not done.is_set():
                now = pending[settled:]
                assert settle(feed, Ack(), *now) == [None] * len(now)
                settled += len(now)

        threads = [threading.Thread(target=guard, args=(work,)) for work in (publish, receive, acknowledge)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

        assert failed == []
        assert delivered == [f"n{n}" for n in range(total)]
        assert broker.depth(ORDERS) == Depth(0, 0, 0, 0)

    @pytest.mark.parametrize("ordered", [False, True])
    @pytest.mark.parametrize("what", ["send", "receive", "ack", "nack", "delay", "reject", "return", "close"])
    def test_an_interrupt_at_any_point_loses_nothing(self, drivers, clock, what, ordered):
        """The driver stays usable; each message is settled as asked or still there, at most once too often."""
        broker = drivers()
        outcomes = {"ack": Ack(), "nack": Nack(), "delay": Nack(5), "reject": Reject("no", 1), "return": Return()}
        for point in itertools.count(1):
            queue = Address(Kind.QUEUE, f"{what}{point}")
            feed = consume(broker, queue, ordered=ordered)
            send(broker, queue, "one", "two", key="k")
            got = [] if what in {"send", "receive"} else take(feed, 1)

            def call(queue=queue, feed=feed, got=got):
                if what == "send":
                    send(broker, queue, "three", key="k")
                elif what == "receive":
                    take(feed)
                elif what == "close":
                    feed.close()
                else:
                    settle(feed, outcomes[what], *got)

            struck = Strike(point)(call)

            clock.advance(60)
            other = consume(broker, queue, ordered=ordered)
            seen: list[str] = []
            while now := take(other):
                seen += ids(now)
                assert settle(other, Ack(), *now) == [None] * len(now)
            dead = ids(take(consume(broker, queue.dead, max_deliveries=0)))
            possible = {
                "send": [["one", "two"], ["one", "two", "three"]],
                "ack": [["one", "two"], ["two"]],
                "reject": [["one", "two"], ["two"]],
                "delay": [["one", "two"], ["two", "one"]],
            }
            assert seen in possible.get(what, [["one", "two"]]), point
            if what == "reject":
                assert "one" in seen + dead, point
                assert len(dead) <= 1
            feed.close()
            other.close()
            assert broker.delete(queue) is True
            if not struck:
                break
        assert point > 5
