"""The clocks: one that nobody moves, one that tests own."""

from __future__ import annotations

import gc
import math
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrowboat.clock import ManualClock, SystemClock
from narrowboat.errors import InvalidArgument


class Looker:
    def __init__(self, seen: list[float], clock: ManualClock) -> None:
        self.seen = seen
        self.clock = clock

    def look(self) -> None:
        self.seen.append(self.clock())


@given(st.lists(st.floats(0, 1e6), max_size=20))
def test_a_manual_clock_moves_by_what_it_is_told_and_no_other_way(steps: list[float]) -> None:
    """It stands still in between, and adds up."""
    clock = ManualClock(start=50.0)
    expected = 50.0
    for step in steps:
        clock.advance(step)
        expected += step
        assert clock() == clock() == expected


@pytest.mark.parametrize("seconds", [-1e-9, -1, math.nan, math.inf])
def test_no_clock_goes_back(seconds: float) -> None:
    """A step that is negative, or no number, is refused, and the clock stays where it was."""
    clock = ManualClock()

    with pytest.raises(InvalidArgument, match="never goes back"):
        clock.advance(seconds)

    assert clock() == 1000.0


def test_who_watches_is_called_after_each_step_with_the_new_time() -> None:
    """The callback sees the time after the step, also when it adds another watcher."""
    clock = ManualClock()
    seen: list[float] = []
    looker = Looker(seen, clock)
    clock.watch(looker.look)

    clock.advance(1)
    clock.advance(0)

    assert seen == [1001.0, 1001.0]


def test_a_watcher_that_is_gone_is_forgotten() -> None:
    """A bound method is held weakly, so that a clock does not keep every waiter there ever was."""
    clock = ManualClock()
    seen: list[float] = []
    looker = Looker(seen, clock)
    clock.watch(looker.look)

    del looker
    gc.collect()
    clock.advance(1)

    assert seen == [] and clock._watchers == []


def test_any_callable_may_watch() -> None:
    """A function that nothing else refers to, or a method of a built-in object, which cannot be referred to weakly."""
    clock, seen, calls = ManualClock(), [1], []
    clock.watch(seen.clear)
    clock.watch(lambda: calls.append(clock()))

    clock.advance(1)

    assert seen == [] and calls == [1001.0]


def test_threads_may_move_it_together() -> None:
    """No step is lost."""
    clock = ManualClock(start=0.0)

    def steps() -> None:
        for _ in range(200):
            clock.advance(1)

    threads = [threading.Thread(target=steps) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert clock() == 800.0


def test_how_long_to_really_wait() -> None:
    """The machine's clock: as long as asked. One that is moved by hand: until it is moved."""
    assert SystemClock().real(5.0) == 5.0
    assert ManualClock().real(5.0) is None


def test_the_system_clock_counts_real_seconds_and_never_goes_back() -> None:
    """It keeps step with the monotonic clock while the machine does not sleep; the wall clock has no part in it."""
    clock = SystemClock()
    before, offset = clock(), clock() - time.monotonic()

    readings = [clock() for _ in range(1000)]

    assert readings == sorted(readings) and readings[0] >= before
    assert abs((clock() - time.monotonic()) - offset) < 0.5
