"""Messages in memory: the suite of all drivers, and memory that stays flat."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator

import pytest

from broker_calls import ORDERS, Drivers, consume, ids, message, open_driver, send, settle, take
from broker_suite import BrokerSuite
from narrowboat.clock import ManualClock
from narrowboat.contract import Ack, Broker, Nack
from narrowboat_memory import broker as backend

_names = itertools.count(1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def drivers(clock: ManualClock) -> Iterator[Drivers]:
    name = f"test{next(_names)}"
    opened: list[Broker] = []

    def open_one(options: str = "") -> Broker:
        opened.append(open_driver(backend, f"memory://{name}?{options}", clock))
        return opened[-1]

    yield open_one
    for broker in opened:
        broker.close()


class TestMemoryBroker(BrokerSuite):
    """The reference."""


def test_what_was_extended_and_given_up_is_in_line_once(drivers: Drivers, clock: ManualClock) -> None:
    """A consumer that leaves gives it back; after a delay it then comes behind what was there all along (B48)."""
    broker = drivers()
    leaving = consume(broker, ORDERS)
    send(broker, ORDERS, "retried", "waiting")
    leaving.extend(take(leaving, 1), 5.0)
    leaving.close()
    feed = consume(broker, ORDERS)
    settle(feed, Nack(2.0), *take(feed, 1))
    clock.advance(2)

    assert ids(take(feed)) == ["waiting", "retried"]


def _objects() -> int:
    from narrowboat_memory.source import Entry

    gc.collect()
    return sum(type(thing) is Entry for thing in gc.get_objects())  # a weak proxy of somebody else may be dead


def test_memory_is_flat_under_endless_traffic(drivers: Drivers, clock: ManualClock) -> None:
    """Settled messages leave nothing behind, though their leases, lives and windows end much later (B104)."""
    broker = drivers()
    feed = consume(broker, ORDERS, ordered=True)
    most, before = 0, _objects()
    for round_ in range(100):
        broker.send([message(ORDERS, f"{round_}-{n}", ttl=3600.0, key=str(n)) for n in range(50)])
        settle(feed, Ack(), *take(feed))
        most = max(most, _objects()) if round_ % 10 == 9 else most
    for round_ in range(1000):
        send(broker, ORDERS, f"once-{round_}", dedup=True, ttl=1.0)
        clock.advance(1)
    assert take(feed) == []

    assert most < before + 400
    assert _objects() < before + 400
