"""A KeyboardInterrupt at every interruptible point of consume, run and both their ends: no consumer is left that nobody has.

What is left behind would hold its messages, and a membership, for as long as the broker lives. How the points are found is said
in `narrowboat.conformance.faults.sweep`.
"""

from __future__ import annotations

import gc
import signal
import threading
import time
import uuid
from collections.abc import Iterator

import pytest

import narrowboat
from narrowboat._engine.signals import REGISTRY
from narrowboat.conformance.faults.sweep import Strike, sweep
from narrowboat.contract import Broker
from narrowboat.messaging import Messaging
from narrowboat_memory.broker import MemoryBroker

# A coroutine that is interrupted before its first step is dropped unstarted; that is what an interrupt means.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


@pytest.fixture
def drivers() -> list[MemoryBroker]:
    return []


@pytest.fixture
def broker(drivers: list[MemoryBroker]) -> Iterator[Messaging]:
    url = f"memory://{uuid.uuid4().hex}"

    def wrap(driver: Broker) -> Broker:
        assert isinstance(driver, MemoryBroker)
        drivers.append(driver)
        return driver

    with narrowboat.broker(url, wrap=wrap) as broker:
        broker.ping()
        yield broker


def nobody_consumes(broker: Messaging, drivers: list[MemoryBroker], strike: Strike) -> None:
    """Soon: what an interrupted caller left to the lane's thread takes a moment."""
    where = strike.where
    strike._before.clear()  # it keeps the frame that it struck, and with it what the driver opened there for nobody
    deadline = time.monotonic() + 10
    while (broker._core.consumers or drivers[0]._feeds) and time.monotonic() < deadline:
        time.sleep(0.001)
        gc.collect()  # so may the interrupt's traceback
    assert not broker._core.consumers and not drivers[0]._feeds, where
    assert broker.queue("q").depth().in_flight == 0, where


def test_consume_leaves_no_consumer_behind(broker: Messaging, drivers: list[MemoryBroker]) -> None:
    """Interrupted at any point of consume: the caller has it, or nobody consumes."""
    queue = broker.queue("q")
    queue.publish(b"x")

    def once(strike: Strike) -> None:
        try:
            messages = strike(queue.consume)
        except KeyboardInterrupt:
            pass
        else:
            messages.close()
        nobody_consumes(broker, drivers, strike)

    assert sweep(once) > 40


def test_the_end_of_consuming_ends_it(broker: Messaging, drivers: list[MemoryBroker]) -> None:
    """Interrupted at any point of leaving a `with`: nobody consumes; at its very first step it can be left once more."""
    queue = broker.queue("q")
    queue.publish_many([b"1", b"2"])

    def once(strike: Strike) -> None:
        messages = queue.consume()
        assert messages.receive(5) is not None
        try:
            strike(messages.__exit__, None, None, None)
        except KeyboardInterrupt:
            if strike.where.startswith("Messages."):
                messages.close()
        nobody_consumes(broker, drivers, strike)
        with queue.consume() as others:  # what came back is there for others
            assert {others.receive(5).body, others.receive(5).body} == {b"1", b"2"}, strike.where

    queue = broker.queue("q", max_deliveries=0)
    assert sweep(once) > 40


def test_run_leaves_nothing_behind(broker: Messaging, drivers: list[MemoryBroker]) -> None:
    """Interrupted at any point of run: no consumer, no thread of its own, and the signals' handlers are as they were."""
    queue = broker.queue("q", max_deliveries=0)
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    def handle(message: narrowboat.Message[bytes]) -> None:
        queue.stop()

    def once(strike: Strike) -> None:
        queue.publish(b"x")
        try:
            strike(queue.run, handle, grace=5)
        except KeyboardInterrupt:
            pass
        nobody_consumes(broker, drivers, strike)
        threads = [each for each in threading.enumerate() if each.name.startswith("narrowboat-run")]
        for each in threads:
            each.join(10)
        assert not any(each.is_alive() for each in threads), strike.where
        assert not REGISTRY._runs and not REGISTRY._main and not queue._core.runs, strike.where
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before, strike.where
        queue.purge()

    assert sweep(once) > 100
