"""When a consumer polls: not without end because of wakes, whether its polls fail or bring nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

import narrowboat
from bounds import upper
from narrowboat._messages.polling import Polling
from narrowboat._messages.window import Window
from narrowboat.contract import Broker, Feed, Received
from narrowboat.errors import Unavailable
from narrowboat.layers.passing import PassingBroker, PassingFeed


class Dying(PassingFeed):
    """Each poll ends with its connection, whose end wakes the consumer; as an error, or with nothing."""

    def __init__(self, inner: Feed, wake: Callable[[], None], ends: str) -> None:
        super().__init__(inner)
        self.wake = wake
        self.ends = ends
        self.polls = 0

    def receive(self, limit: int) -> Received:
        self.polls += 1
        received = super().receive(limit)
        self.wake()
        if self.ends == "fails":
            raise Unavailable("the connection ended")
        return received


class DyingBroker(PassingBroker):
    ends = "fails"

    def feed(self, inner: Feed, wake: Callable[[], None]) -> Feed:
        self.made = Dying(inner, wake, self.ends)
        return self.made


class WakingBroker(DyingBroker):
    ends = "says nothing"


def keeping(layer: type[DyingBroker], layers: list[DyingBroker]) -> Callable[[Broker], Broker]:
    """`wrap=` that puts what it makes into `layers`."""

    def wrap(driver: Broker) -> Broker:
        layers.append(layer(driver))
        return layers[-1]

    return wrap


def consumed(layer: type[DyingBroker]) -> tuple[int, float, object]:
    """How many polls a `receive` of half a second makes, how long it takes, and how it ends."""
    layers: list[DyingBroker] = []
    with (
        narrowboat.broker("memory://dying", wrap=keeping(layer, layers)) as broker,
        broker.queue("q").consume() as messages,
    ):
        begun = time.monotonic()
        found: object
        try:
            found = messages.receive(0.5)
        except Unavailable as error:
            found = error
        return layers[0].made.polls, time.monotonic() - begun, found


def test_a_wake_that_comes_with_a_failure_does_not_take_its_pause_away() -> None:
    polls, took, error = consumed(DyingBroker)
    assert isinstance(error, Unavailable)
    assert polls < 10  # pauses from 0.025 s that double: 5 to 6 in half a second, and one at the end
    assert took < upper(5)


def test_a_receive_ends_at_its_deadline_although_each_poll_is_woken_again() -> None:
    _, took, nothing = consumed(WakingBroker)
    assert nothing is None
    assert took < upper(5)


@pytest.mark.parametrize("layer", [DyingBroker, WakingBroker])
def test_a_receive_without_a_wait_polls_once(layer: type[DyingBroker]) -> None:
    layers: list[DyingBroker] = []
    with (
        narrowboat.broker("memory://dying", wrap=keeping(layer, layers)) as broker,
        broker.queue("q").consume() as messages,
    ):
        try:
            messages.receive(0)
        except Unavailable:
            pass
        assert layers[0].made.polls == 1


class Slow(PassingFeed):
    """Each poll takes longer than its caller waits, and what is bad was delivered too often."""

    def receive(self, limit: int) -> Received:
        time.sleep(0.02)
        received = super().receive(limit)
        deliveries = [each._replace(attempt=99) if each.body == b"bad" else each for each in received.deliveries]
        return received._replace(deliveries=deliveries)


class SlowBroker(PassingBroker):
    def feed(self, inner: Feed, wake: Callable[[], None]) -> Feed:
        return Slow(inner)


def test_dead_letters_are_not_taken_for_an_empty_queue() -> None:
    """One more is behind them: a caller whose time is over gets it all the same."""
    with narrowboat.broker("memory://dead", wrap=SlowBroker) as broker:
        queue = broker.queue("q")
        queue.publish_many([b"bad", b"bad", b"bad", b"good"])
        with queue.consume(prefetch=1) as messages:
            assert messages.receive(0.01).body == b"good"


def test_a_backlog_of_dead_letters_does_not_keep_a_receive_beyond_its_operation_timeout() -> None:
    """What is behind them comes to a later call."""
    with narrowboat.broker("memory://backlog", wrap=SlowBroker, timeout=0.5) as broker:
        queue = broker.queue("q")
        queue.publish_many([b"bad"] * 400)
        with queue.consume(prefetch=1) as messages:
            begun = time.monotonic()
            assert messages.receive(0) is None
            assert time.monotonic() - begun < upper(4)
        assert queue.depth().ready > 0  # type: ignore[operator]  # a number


def test_no_poll_begins_long_after_the_deadline_but_the_first() -> None:
    """A fetch that took most of an operation timeout is followed by no other, though something stirred meanwhile."""
    for took, more in ((0.6, 1), (4.4, 0)):
        polling = Polling(Window(1, 10), 5.0)
        visit = polling.enter()
        assert polling.reserve(visit, 0.0, 0.2)[0] == 1
        polling.fetched(visit)
        polling.answered()
        polling.wake()
        assert polling.reserve(visit, took, 0.2)[0] == more
        late = polling.enter()
        polling.fetched(visit)
        assert polling.reserve(late, 9.0, 0.2)[0] == 1
