"""What every driver that keeps messages itself bears: several brokers, a close, wrong options, threads, interrupts."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable

import pytest

from broker_calls import ORDERS, Drivers, consume, ids, send, settle, take
from narrowboat.clock import ManualClock
from narrowboat.conformance.faults.sweep import Strike, sweep
from narrowboat.contract import Ack, Address, Delivery, Depth, Kind, Nack, Outcome, Reject, Return
from narrowboat.errors import Closed, ConfigurationError


class UseRules:
    """Several brokers, the end, threads, interrupts. Needs the fixtures that `BrokerSuite` needs."""

    def test_close_gives_back_and_refuses(self, drivers: Drivers) -> None:
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
    def test_bad_options_are_refused(self, drivers: Drivers, option: str) -> None:
        """Before anything is opened (B109)."""
        with pytest.raises(ConfigurationError, match=option.partition("=")[0]):
            drivers(option)

    def test_calls_from_three_threads_lose_nothing(self, drivers: Drivers) -> None:
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
    def test_an_interrupt_at_any_point_loses_nothing(
        self, drivers: Drivers, clock: ManualClock, what: str, ordered: bool
    ) -> None:
        """The driver stays usable; each message is settled as asked or still there, at most once too often."""
        broker = drivers()
        outcomes: dict[str, Outcome] = {
            "ack": Ack(),
            "nack": Nack(),
            "delay": Nack(5),
            "reject": Reject("no", 1),
            "return": Return(),
        }
        numbers = itertools.count(1)

        def once(strike: Strike) -> None:
            point = next(numbers)
            queue = Address(Kind.QUEUE, f"{what}{point}")
            feed = consume(broker, queue, ordered=ordered)
            send(broker, queue, "one", "two", key="k")
            got = [] if what in {"send", "receive"} else take(feed, 1)

            def call() -> None:
                if what == "send":
                    send(broker, queue, "three", key="k")
                elif what == "receive":
                    take(feed)
                elif what == "close":
                    feed.close()
                else:
                    settle(feed, outcomes[what], *got)

            with contextlib.suppress(KeyboardInterrupt):
                strike(call)

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

        assert sweep(once, within="narrowboat_") > 5
