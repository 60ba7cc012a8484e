"""The server's looks for consumers that found nothing, on the SQLite driver and a clock that the test owns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker_calls import ORDERS, consume, ids, open_driver, send, take
from narrowboat.clock import ManualClock
from narrowboat.contract import Broker, Feed
from narrowboat_sqlite.broker import broker as sqlite
from narrowboat_zeromq.server.idle import LOOK, Idle
from narrowboat_zeromq.server.session import Session

PATH = ORDERS.path


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def driver(tmp_path: Path, clock: ManualClock) -> Iterator[Broker]:
    made = open_driver(sqlite, f"sqlite:///{tmp_path / 'x.db'}", clock)
    yield made
    made.close()


class Waiters:
    """Three consumers of one queue, as the server has them: what each was told is in `told`."""

    def __init__(self, driver: Broker) -> None:
        self.idle = Idle()
        self.told: list[str] = []
        self.sessions = {name: Session[Any](name, None, self._rang) for name in ("a", "b", "c")}
        self.feeds: dict[str, Feed] = {}
        for name, session in self.sessions.items():
            self.feeds[name] = consume(driver, ORDERS, session.wake(1))
            self.wait(name, 0.0)

    def wait(self, name: str, now: float) -> None:
        """It asks, finds nothing, and waits."""
        assert not take(self.feeds[name])
        self.idle.add(PATH, self.sessions[name], 1, self.feeds[name], now + LOOK)

    def push(self, now: float) -> list[str]:
        """Whom the server tells."""
        told, self.told = self.told, []
        for name in told:
            self.idle.remove(PATH, self.sessions[name], 1, now)
        return told

    def _rang(self, session: Session[Any]) -> None:
        if session.take_wakes() and session.token not in self.told:
            self.told.append(session.token)


@pytest.fixture
def waiters(driver: Broker) -> Waiters:
    return Waiters(driver)


def test_nobody_is_told_while_there_is_nothing(waiters: Waiters) -> None:
    for turn in range(1, 10):
        waiters.idle.look(turn * LOOK)
        assert not waiters.push(turn * LOOK)
    assert waiters.idle.next == pytest.approx(10 * LOOK)


def test_a_delay_that_ends_wakes_a_consumer_and_counts_nothing(driver: Broker, clock: ManualClock, waiters: Waiters) -> None:
    send(driver, ORDERS, "m", delay=100.0)
    for name in waiters.push(0.0):  # the driver lets one ask for how long it takes
        waiters.wait(name, 0.0)
    waiters.idle.look(LOOK)
    assert not waiters.push(LOOK)
    clock.advance(101.0)
    waiters.idle.look(2 * LOOK)
    told = waiters.push(2 * LOOK)
    assert "a" in told  # it has waited longest
    (delivery,) = take(waiters.feeds["a"])
    assert (delivery.id, delivery.attempt) == ("m", 1)


def test_what_a_busy_consumer_was_woken_for_is_for_the_next_one(driver: Broker, clock: ManualClock, waiters: Waiters) -> None:
    send(driver, ORDERS, "m")
    woken = waiters.push(0.1)
    assert woken
    left = [name for name in "abc" if name not in woken]
    waiters.idle.look(2 * LOOK)
    assert left[0] in waiters.push(2 * LOOK)
    assert ids(take(waiters.feeds[left[0]])) == ["m"]


def test_as_many_are_woken_as_there_are_messages(driver: Broker, clock: ManualClock, waiters: Waiters) -> None:
    send(driver, ORDERS, "m1", "m2", "m3", delay=100.0)
    for name in waiters.push(0.0):
        waiters.wait(name, 0.0)
    clock.advance(101.0)
    waiters.idle.look(LOOK)
    assert sorted(waiters.push(LOOK)) == ["a", "b", "c"]
    assert [ids(take(waiters.feeds[name], 1)) for name in "abc"] == [["m1"], ["m2"], ["m3"]]


def test_who_has_left_is_not_looked_for(waiters: Waiters) -> None:
    for name in "abc":
        waiters.idle.remove(PATH, waiters.sessions[name], 1, 0.0)
    waiters.idle.look(LOOK)
    assert not waiters.told and waiters.idle.next == float("inf")


def test_a_look_that_fails_lets_the_consumer_meet_it(driver: Broker, waiters: Waiters) -> None:
    waiters.feeds["a"].close()
    waiters.idle.look(LOOK)
    assert waiters.push(LOOK) == ["a"]
    send(driver, ORDERS, "m")  # and the others go on
    waiters.idle.look(3 * LOOK)
    assert set(waiters.push(3 * LOOK)) <= {"b", "c"}
