"""A driver's mutex that is waited for within a call's own time: one at a time, and free again whatever strikes."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any

import pytest

from bounds import upper
from narrowboat.conformance.faults.sweep import Strike, sweep
from narrowboat.driver.turn import turn
from narrowboat.errors import Unavailable

#: Also in the standard library's own code: an interrupt knows no borders.
WITHIN = ("narrowboat.driver", "contextlib", __name__)


def late() -> Unavailable:
    return Unavailable("another call is inside", sent=False)


def test_a_call_gives_up_at_its_own_deadline() -> None:
    """It was not inside, and the one that is stays so."""
    mutex = threading.Lock()
    with turn(mutex, 0.0, late):
        begun = time.monotonic()
        with pytest.raises(Unavailable, match="another call is inside"), turn(mutex, 0.05, late):
            pytest.fail("two were inside")
        assert 0.05 <= time.monotonic() - begun < upper(2.0)
        assert mutex.locked()
    assert not mutex.locked()


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 1e300], ids=["no time left", "none", "more than the system can wait"])
def test_a_mutex_that_is_free_is_had_with_any_time(seconds: float) -> None:
    mutex = threading.Lock()
    with turn(mutex, seconds, late):
        assert mutex.locked()
    assert not mutex.locked()


def test_who_waits_comes_in_when_the_one_before_leaves() -> None:
    mutex, inside = threading.Lock(), threading.Event()

    def wait() -> None:
        with turn(mutex, 60.0, late):
            inside.set()

    with turn(mutex, 60.0, late):
        other = threading.Thread(target=wait)
        other.start()
        assert not inside.wait(0.05)
    assert inside.wait(10)
    other.join(10)
    assert not mutex.locked()


def test_what_is_raised_inside_leaves_it_free() -> None:
    mutex = threading.Lock()
    with pytest.raises(ValueError, match="inside"), turn(mutex, 60.0, late):
        raise ValueError("inside")
    assert not mutex.locked()


class Contended:
    """A mutex that looks taken, and is given back before it is waited for."""

    def __init__(self) -> None:
        self.mutex = threading.Lock()
        self.acquire, self.release = self.mutex.acquire, self.mutex.release

    def locked(self) -> bool:
        return True


@pytest.mark.parametrize("free", [True, False], ids=["free", "waited for"])
def test_an_interrupt_anywhere_leaves_it_free(free: bool) -> None:
    """While it is taken, inside, and while it is given back."""

    def once(strike: Strike) -> None:
        contended = Contended()
        mutex: Any = contended.mutex if free else contended

        def call() -> None:
            with turn(mutex, 60.0, late):
                assert contended.mutex.locked()

        try:
            strike(call)
        except KeyboardInterrupt as error:
            error.__traceback__ = None  # its frames hold what was begun
        gc.collect()
        assert not contended.mutex.locked(), strike.where

    assert sweep(once, within=WITHIN) > 3
