"""A consumer that is closed while its backend says nothing waits for one operation timeout and not for one at each step."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

import pytest

import narrowboat
from narrowboat.contract import Broker, Delivery, Feed, Outcome, Received
from narrowboat.contract.locks import Grant, Released
from narrowboat.errors import Closed, NarrowboatError, Unavailable
from narrowboat.layers.passing import PassingBroker, PassingFeed, PassingLocks

TIMEOUT = 1.0


class Silent(PassingFeed):
    """Answers until `silent` is set; from then on each call takes the whole operation timeout, and fails."""

    def __init__(self, inner: Feed, silent: threading.Event) -> None:
        super().__init__(inner)
        self.silent = silent

    def _waits(self) -> None:
        if self.silent.is_set():
            time.sleep(TIMEOUT)  # what a driver does that waits for a server
            raise Unavailable("no answer")

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        self._waits()
        return super().settle(settlements)

    def leave(self) -> None:
        self._waits()
        super().leave()

    def close(self) -> None:
        self._waits()
        super().close()


class Silence(PassingBroker):
    """Its feeds fall silent together."""

    def __init__(self, inner: Broker) -> None:
        super().__init__(inner)
        self.silent = threading.Event()

    def feed(self, inner: Feed, wake: Callable[[], None]) -> Feed:
        return Silent(inner, self.silent)


@pytest.fixture
def layers() -> list[Silence]:
    return []


@pytest.fixture
def wrap(layers: list[Silence]) -> Callable[[Broker], Broker]:
    def make(driver: Broker) -> Broker:
        layers.append(Silence(driver))
        return layers[-1]

    return make


def ends_in_time(begun: float) -> bool:
    """One time-out, and half of one for a busy machine: three steps would take three."""
    return time.monotonic() - begun < 1.9 * TIMEOUT


def test_a_close_waits_for_one_silence(wrap: Callable[[Broker], Broker], layers: list[Silence]) -> None:
    broker = narrowboat.broker("memory://silence", timeout=TIMEOUT, wrap=wrap)
    queue = broker.queue("q")
    queue.publish_many([b"1", b"2", b"3"])
    messages = queue.consume(prefetch=3)
    messages.__enter__()
    assert messages.receive(5).body == b"1"
    layers[0].silent.set()

    begun = time.monotonic()
    with pytest.raises(Unavailable, match="does not answer"):
        messages.close()
    assert ends_in_time(begun)

    layers[0].silent.clear()
    messages.close()  # once more is nothing
    broker.close()


class Stuck(PassingFeed):
    """Its fetch answers nothing until it is let go. Notes what is settled."""

    def __init__(self, inner: Feed, asked: threading.Event, let_go: threading.Event, settled: list[object]) -> None:
        super().__init__(inner)
        self.asked, self.let_go, self.settled = asked, let_go, settled

    def receive(self, limit: int) -> Received:
        if limit > 3:
            self.asked.set()
            self.let_go.wait(60)
        return super().receive(limit)

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        self.settled += settlements
        return super().settle(settlements)


def test_a_broker_that_closes_beside_a_silent_fetch_asks_for_nothing_more() -> None:
    """Nor does it wait for its driver, which knows nothing of the time that is over. That ends by itself."""
    asked, let_go, ended = threading.Event(), threading.Event(), threading.Event()
    settled: list[object] = []

    class Wrap(PassingBroker):
        def feed(self, inner: Feed, wake: Callable[[], None]) -> Feed:
            return Stuck(inner, asked, let_go, settled)

        def close(self) -> None:
            let_go.wait(60)
            super().close()
            ended.set()

    broker = narrowboat.broker("memory://silence", timeout=TIMEOUT, wrap=Wrap)
    queue = broker.queue("q")
    queue.publish_many([b"1", b"2", b"3"])
    assert queue.consume(prefetch=3).receive(5).body == b"1"  # the other two are to go back
    messages = broker.queue("empty").consume(prefetch=9)

    def fetch() -> None:
        with pytest.raises(Closed):
            messages.receive(60)

    fetching = threading.Thread(target=fetch)
    fetching.start()
    assert asked.wait(60)
    broker.close()
    assert not ended.is_set()
    let_go.set()
    fetching.join()
    assert not settled
    assert ended.wait(60)


def test_locks_that_close_over_a_silent_release_do_not_wait_for_their_driver() -> None:
    let_go, ended = threading.Event(), threading.Event()

    class Wrap(PassingLocks):
        def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
            let_go.wait(60)
            return super().release(grants)

        def close(self) -> None:
            let_go.wait(60)
            super().close()
            ended.set()

    locks = narrowboat.locks("memory://silence", timeout=TIMEOUT, wrap=Wrap)
    held = locks.lock("a").acquire()
    locks.close()
    assert held.lost
    assert not ended.is_set()
    let_go.set()
    assert ended.wait(60)


def test_a_batch_that_met_a_silence_is_not_asked_again_one_by_one(
    wrap: Callable[[Broker], Broker], layers: list[Silence]
) -> None:
    broker = narrowboat.broker("memory://silence", timeout=TIMEOUT, wrap=wrap)
    queue = broker.queue("q")
    queue.publish_many([b"1", b"2", b"3"])
    with queue.consume(prefetch=3) as messages:
        batch = next(iter(messages.batches(3)))
        layers[0].silent.set()
        begun = time.monotonic()
        assert [type(outcome).__name__ for outcome in batch.ack()] == ["SettleUnknown"] * 3
        assert ends_in_time(begun)
        layers[0].silent.clear()
    broker.close()


def test_a_close_of_the_asyncio_face_waits_for_one_silence(wrap: Callable[[Broker], Broker], layers: list[Silence]) -> None:
    async def main() -> None:
        async with narrowboat.aio.broker("memory://silence", timeout=TIMEOUT, wrap=wrap) as broker:
            queue = broker.queue("q")
            await queue.publish_many([b"1", b"2", b"3"])
            messages = await queue.consume(prefetch=3).__aenter__()
            assert (await messages.receive(5)).body == b"1"
            layers[0].silent.set()
            begun = time.monotonic()
            with pytest.raises(Unavailable, match="does not answer"):
                await messages.close()
            assert ends_in_time(begun)
            layers[0].silent.clear()

    asyncio.run(main())
