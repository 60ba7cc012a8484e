"""Claims that end with something else than a lease of their own, and messages that no driver can take apart."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from typing import Never

import pytest

import narrowboat
from narrowboat import events
from narrowboat.conformance.faults.layers import Ending, Unreadable
from narrowboat.contract.messages import Broker, Feed, Source
from narrowboat.layers.passing import PassingBroker, PassingFeed


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}"


class Layered:
    """`wrap=` that remembers what it made."""

    def __init__(self, kind: Callable[[Broker], Ending]) -> None:
        self._kind = kind
        self.made: Ending | None = None

    def __call__(self, driver: Broker) -> Ending:
        self.made = self._kind(driver)
        return self.made


def test_a_batch_that_was_gathered_before_the_end_is_not_handed_out_after_it(url: str) -> None:
    """What waits in a batch for more is as much of the past as what is buffered."""
    ending = Layered(Ending)
    with narrowboat.broker(url, wrap=ending) as broker, narrowboat.broker(url) as other:
        queue = broker.queue("q")
        queue.publish_many([b"1", b"2", b"3"])
        with queue.consume(prefetch=10) as messages:
            found = []
            thread = threading.Thread(target=lambda: found.append(next(messages.batches(10, wait=3.0))), daemon=True)
            thread.start()
            while not messages._consumer.polling.waiting:
                pass  # it has three, and waits for more
            ending.made.end()
            with other.queue("q").consume() as theirs:
                acked = [theirs.receive(1).body for _ in range(3)]
                broker.queue("q").publish(b"4")
                thread.join(10)
                (batch,) = found
                assert acked == [b"1", b"2", b"3"]
                assert [message.body for message in batch] in ([b"4"], [])


def test_what_has_ended_does_not_fill_the_window(url: str) -> None:
    """A handler that forgot its messages has none of them after the end: others may come."""
    ending = Layered(Ending)
    with narrowboat.broker(url, wrap=ending) as broker:
        queue = broker.queue("q")
        queue.publish_many([b"1", b"2"])
        with queue.consume(prefetch=2) as messages:
            forgotten = [messages.receive(1), messages.receive(1)]
            ending.made.end()
            assert all(message.lost for message in forgotten)
            assert {messages.receive(5).body, messages.receive(5).body} == {b"1", b"2"}


def test_a_feed_that_says_nothing_is_not_asked(url: str) -> None:
    """The look costs nothing where no driver has anything to say."""
    with narrowboat.broker(url) as broker, broker.queue("q").consume() as messages:
        assert type(messages._consumer.life.feed).current is Feed.current
        assert messages._consumer.window.current is None


def test_a_driver_tells_what_it_could_not_keep(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """`Context.tell` reaches listeners and the log."""
    from narrowboat_memory.broker import MemoryBroker

    told: list[events.Event] = []
    drivers: list[Broker] = []

    def wrap(driver: Broker) -> Broker:
        drivers.append(driver)
        return driver

    with narrowboat.broker(url, listeners=[told.append], wrap=wrap) as broker:
        broker.ping()
        assert isinstance(drivers[0], MemoryBroker)
        with caplog.at_level(logging.WARNING, "narrowboat"):
            broker._core.driver._target.context.tell("orders", "7", "its body is too large for the dead letters")
    assert told[-1] == events.Malformed("memory", "orders", "7", "its body is too large for the dead letters")
    assert "too large for the dead letters" in caplog.text


def test_a_listener_that_raises_costs_no_message(url: str) -> None:
    """Whatever is told, the message is handed out."""

    def listener(event: events.Event) -> Never:
        raise ValueError(event)

    with narrowboat.broker(url, listeners=[listener], wrap=Unreadable) as broker:
        broker.queue("q").publish(Unreadable.MARK)
        with broker.queue("q").consume() as messages:
            assert messages.receive(5).body == Unreadable.MARK


def test_a_passing_layer_hands_the_question_on(url: str) -> None:
    """A layer in between hides nothing of what the driver has heard."""
    ending = Layered(Ending)

    class Between(PassingBroker):
        def feed(self, inner: Feed, wake: Callable[[], None]) -> Feed:
            return PassingFeed(inner)

        def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
            return PassingFeed(self.inner.open(source, earliest=earliest, wake=wake))

    with narrowboat.broker(url, wrap=lambda driver: Between(ending(driver))) as broker:
        broker.queue("q").publish(b"1")
        with broker.queue("q").consume() as messages:
            message = messages.receive(1)
            ending.made.end()
            assert message.lost
