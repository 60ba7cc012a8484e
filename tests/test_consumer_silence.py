"""A consumer that is closed while its backend says nothing waits for one operation timeout and not for one at each step."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

import pytest

import narrowboat
from narrowboat.contract import Broker, Delivery, Feed, Outcome
from narrowboat.errors import NarrowboatError, Unavailable
from narrowboat.layers.passing import PassingBroker, PassingFeed

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
