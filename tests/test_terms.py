"""Whose lease and limit a consumer goes by while it runs: its program's own, or what is stored and may be altered."""

from __future__ import annotations

import dataclasses
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest

import narrowboat
from narrowboat._messages.terms import Terms
from narrowboat.capabilities import Support
from narrowboat.clock import ManualClock
from narrowboat.contract import Address, Delivery, Feed, Kind, Properties, Source
from narrowboat.errors import InvalidArgument, NarrowboatError, Unsupported
from narrowboat.layers.passing import PassingBroker, PassingFeed
from narrowboat.messaging import Messaging


class Watching(PassingBroker):
    """Counts the looks at what is stored, and tells of extensions."""

    looks = 0
    extended = threading.Event()

    def stored(self, address: Address) -> Properties | None:
        type(self).looks += 1
        return super().stored(address)

    def feed(self, inner: Feed, wake: Callable[[], None]) -> Feed:
        return WatchingFeed(inner)


class WatchingFeed(PassingFeed):
    def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[NarrowboatError | None]:
        answers = super().extend(deliveries, seconds)
        if any(delivery.body == b"second" for delivery in deliveries):
            Watching.extended.set()
        return answers


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def broker(clock: ManualClock) -> Iterator[Messaging]:
    Watching.looks = 0
    Watching.extended.clear()
    with narrowboat.broker(f"memory://{uuid.uuid4().hex}", clock=clock, wrap=Watching) as broker:
        yield broker


def test_an_altered_lease_and_limit_count_after_the_lag(broker: Messaging, clock: ManualClock) -> None:
    """For what is fetched then. What was fetched before keeps its lease."""
    orders = broker.queue("orders")
    broker.queue("orders", lease=60, max_deliveries=2).declare()
    with orders.consume(auto_extend=False) as messages:
        orders.publish(b"first")
        first = messages.receive(0)
        orders.alter(lease=10, max_deliveries=3)
        clock.advance(broker.capabilities.alter_lag)
        orders.publish(b"second")
        second = messages.receive(0)
        assert first is not None and second is not None
        assert (first.max_deliveries, second.max_deliveries) == (3, 3)
        clock.advance(11)
        again = messages.receive(0)
        assert again is not None and (again.body, again.attempt) == (b"second", 2)
        first.ack()


@pytest.mark.parametrize(("own", "looks"), [({}, 3), ({"lease": 7}, 3), ({"lease": 7, "max_deliveries": 0}, 0)])
def test_a_consumer_looks_only_for_what_it_did_not_ask_for(
    broker: Messaging, clock: ManualClock, own: dict[str, Any], looks: int
) -> None:
    """When it opens, and once each half lag while it fetches."""
    with broker.queue("orders", **own).consume() as messages:
        for _ in range(2):
            clock.advance(broker.capabilities.alter_lag / 2)
            for _ in range(3):
                assert messages.receive(0) is None
    assert Watching.looks == looks


def test_a_shorter_lease_is_extended_in_its_own_time(broker: Messaging, clock: ManualClock) -> None:
    """Although the next look of the timer was planned for the longer one."""
    orders = broker.queue("orders")
    broker.queue("orders", lease=600).declare()
    with orders.consume() as messages:
        orders.publish(b"first")
        assert messages.receive(0) is not None
        orders.alter(lease=30)
        clock.advance(broker.capabilities.alter_lag)
        orders.publish(b"second")
        assert messages.receive(0) is not None
        clock.advance(11)
        assert Watching.extended.wait(60), "the timer slept until a third of the old lease was over"


def test_what_cannot_be_altered_is_refused_before_any_call(broker: Messaging) -> None:
    """Each refusal says the way out."""
    orders = broker.queue("orders")
    with pytest.raises(Unsupported, match="Nothing was sent. Declare another queue"):
        orders.alter(ordered=True)
    with pytest.raises(InvalidArgument, match="say what: max_deliveries=, lease= or both"):
        orders.alter()
    with pytest.raises(InvalidArgument, match="lease"):
        orders.alter(lease=-1)
    assert Watching.looks == 0


def test_a_driver_that_knows_nothing_of_it_is_never_asked(broker: Messaging) -> None:
    """Without the claim its consumers have the defaults, as they always had."""
    source = Source(Address(Kind.QUEUE, "orders"), Properties())
    terms = Terms(source, frozenset(), dataclasses.replace(broker.capabilities, alter=Support.ABSENT))
    assert terms.begin(cast(Any, None), 0.0) == source
    assert not terms.due(1e9)
