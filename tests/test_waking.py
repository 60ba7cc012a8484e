"""What wakes: the nudge that ends a driver thread's wait: no ring is lost, none blocks, and one after the end does nothing."""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator

import pytest

from narrowboat.driver.waking import Nudge


@pytest.fixture
def nudge() -> Iterator[Nudge]:
    made = Nudge()
    yield made
    made.close()


def rings(nudge: Nudge, milliseconds: float = 0) -> bool:
    poller = select.poll()
    poller.register(nudge, select.POLLIN)
    return bool(poller.poll(milliseconds))


def test_a_ring_ends_the_wait_under_way(nudge: Nudge) -> None:
    heard = threading.Event()
    waiting = threading.Thread(target=lambda: heard.set() if rings(nudge, 10_000) else None)
    waiting.start()
    nudge.ring()
    waiting.join(10)
    assert heard.is_set()


def test_a_ring_before_the_wait_ends_it_as_well(nudge: Nudge) -> None:
    nudge.ring()
    assert rings(nudge)


def test_after_a_hush_it_is_silent_until_the_next_ring(nudge: Nudge) -> None:
    assert not rings(nudge)
    for _ in range(10_000):  # more than any buffer holds twice over
        nudge.ring()
    nudge.hush()
    assert not rings(nudge)
    nudge.ring()
    assert rings(nudge)


def test_rings_that_nobody_hears_do_not_block(nudge: Nudge) -> None:
    def ring_often() -> None:
        for _ in range(100_000):
            nudge.ring()

    ringing = threading.Thread(target=ring_often, daemon=True)
    ringing.start()
    ringing.join(60)
    assert not ringing.is_alive()
    assert rings(nudge)


def test_a_ring_after_the_end_does_nothing(nudge: Nudge) -> None:
    nudge.close()
    nudge.ring()
    nudge.hush()
    nudge.close()
    assert nudge.fileno() == -1
