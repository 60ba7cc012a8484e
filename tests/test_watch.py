"""The watch of the kit: what counts as a machine that stood still, what a bound is extended by, and what a pause excuses."""

from __future__ import annotations

import array
import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest

from narrowboat.conformance.harness import Harness
from narrowboat.conformance.kit import Kit
from narrowboat.conformance.report import make
from narrowboat.conformance.runner import Outcome, Row, run_one
from narrowboat.conformance.scenario import TABLE, Run, Scenario, scenario
from narrowboat.conformance.watch import Clocks, Watch, ticking
from narrowboat.conformance.watch.ticking import BIN, BINS, LAST, LOST, SIZE, note


@pytest.fixture
def row() -> array.array[float]:
    return array.array("d", bytes(8 * SIZE))


@pytest.fixture
def clocks() -> Iterator[Clocks]:
    made = Clocks()
    yield made
    made.close()


def pause(clocks: Clocks, seconds: float) -> None:
    """For that clock the machine stands still."""
    os.kill(clocks.child.pid, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(clocks.child.pid, signal.SIGCONT)
    resumed = time.monotonic()
    while clocks._rows[1][LAST] < resumed:
        time.sleep(0.001)


def test_what_is_lost_is_lost_where_it_was(row: array.array[float]) -> None:
    note(row, 100.0, 100.4, 0.2)
    row[LAST] = 200.0

    assert Watch(row).lost(100.0, 100.39) == pytest.approx(0.2)
    assert Watch(row).lost(100.0, 100.19) == pytest.approx(0.1)
    assert Watch(row).lost(100.5, 200.0) == 0


def test_an_hour_later_its_place_is_used_again(row: array.array[float]) -> None:
    note(row, 100.0, 100.4, 0.2)
    note(row, 99.99 + BIN * BINS, 100.5 + BIN * BINS, 0.0)
    row[LAST] = 200.0 + BIN * BINS

    assert Watch(row).lost(100.0 + BIN * BINS, 100.5 + BIN * BINS) == 0


def test_what_is_lost_around_the_end_of_an_hours_bins_is_seen_whole(row: array.array[float]) -> None:
    hour = BIN * BINS
    note(row, hour - 0.2, hour + 0.2, 0.2)
    row[LAST] = hour + 10

    assert Watch(row).lost(hour - 1, hour + 1) == pytest.approx(0.2)
    assert Watch(row).stood(hour - 1, hour + 1, 0.2) == pytest.approx(0.1)
    assert Watch(row).lost(hour - 1, hour - 0.001) == pytest.approx(0.1)
    assert Watch(row).lost(hour + 1, hour - 1) == 0, "nothing lies between them"


def test_it_is_lost_once_by_the_clock_that_lost_more(row: array.array[float]) -> None:
    row[LAST] = 200.0
    other = array.array("d", row)
    note(row, 100.0, 100.4, 0.2)
    note(other, 100.0, 100.4, 0.3)

    assert Watch(row, other).lost(100.0, 100.39) == pytest.approx(0.3)


def test_only_pauses_end_leases_and_the_worst_window_counts(row: array.array[float]) -> None:
    row[LAST] = 200.0
    for begun in (100.0, 100.1, 100.2):
        note(row, begun, begun + 0.1, 0.04)  # slow, and never still
    assert Watch(row).stood(99, 101, 0.5) == 0

    for begun in (102.0, 102.3, 103.0):
        note(row, begun, begun + 0.1, 0.1)
    assert Watch(row).stood(99, 110, 0.5) == pytest.approx(0.2)
    assert Watch(row).stood(99, 110, 2.0) == pytest.approx(0.3)


def test_a_bound_is_extended_by_what_was_lost_meanwhile_and_by_nothing_else(row: array.array[float]) -> None:
    now = time.monotonic()
    note(row, now - 20.0, now - 19.5, 0.5)  # long before
    note(row, now - 4.0, now - 3.0, 1.0)
    row[LAST] = now + 3600

    assert Watch(row).extended(1.0) == pytest.approx(1.0)  # nothing was lost in the last three seconds
    assert Watch(row).extended(5.0) == pytest.approx(6.0, abs=2 * BIN)
    begun = now - 3.5
    assert Watch(row).spent(begun) == pytest.approx(time.monotonic() - begun - 0.5, abs=0.2)


def test_a_clock_that_stands_still_now_is_counted(row: array.array[float]) -> None:
    row[LAST] = 100.0

    assert Watch(row).lost(90.0, 103.0) == pytest.approx(3.0)
    assert Watch(row).lost(101.0, 103.0) == pytest.approx(2.0)
    assert Watch(row).lost(90.0, 100.1) == 0


def test_what_we_worked_ourselves_is_not_lost(row: array.array[float]) -> None:
    """A thread that keeps the interpreter for itself makes the clock late, and extends no bound."""
    looks = iter([False, True])
    worked = iter([0.0, 30.0])
    ticking.tick(row, lambda: next(looks), lambda: next(worked))

    assert sum(row[LOST : LOST + BINS]) == 0
    assert row[LAST] > 0


def test_a_machine_that_stands_still_is_seen(clocks: Clocks) -> None:
    begun = time.monotonic()
    pause(clocks, 0.4)
    ended = time.monotonic()

    assert clocks.lost(begun, ended) >= 0.3
    assert clocks.stood(begun, ended, 1.0) >= 0.3
    assert clocks.extended(0.1) >= 0.3


def test_a_time_out_does_not_count_it(clocks: Clocks) -> None:
    async def waits() -> float:
        os.kill(clocks.child.pid, signal.SIGSTOP)
        asyncio.get_running_loop().call_later(0.6, os.kill, clocks.child.pid, signal.SIGCONT)
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            async with clocks.timeout(0.2):
                await asyncio.Event().wait()
        return time.monotonic() - begun

    assert asyncio.run(waits()) >= 0.6


def test_what_ends_in_time_is_left_alone(clocks: Clocks) -> None:
    async def ends() -> bool:
        async with clocks.timeout(0.05) as limit:
            pass
        await asyncio.sleep(0.1)
        return bool(limit.expired())

    assert not asyncio.run(ends())


# -- what a pause excuses -------------------------------------------------------------------------------------------


@pytest.fixture
def table() -> Iterator[list[Scenario]]:
    kept = list(TABLE)
    yield TABLE
    TABLE[:] = kept


def outcome(table: list[Scenario], clocks: Clocks, monkeypatch: pytest.MonkeyPatch, run: Run) -> Row:
    monkeypatch.setattr("narrowboat.conformance.kit.watch", lambda: clocks)
    scenario("L49", tier="T")(run)
    (row,) = run_one(Harness("memory://"), table[-1], "asyncio")
    return row


def test_a_lease_that_a_pause_ended_proves_nothing(
    table: list[Scenario], clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def loses(kit: Kit) -> None:
        """It keeps a short lease."""
        assert kit.ttl >= 0.5
        await asyncio.to_thread(pause, clocks, kit.ttl)
        raise AssertionError("somebody else got in")

    row = outcome(table, clocks, monkeypatch, loses)
    assert row.outcome is Outcome.NOT_EXERCISED
    assert "the machine stood still for" in row.why
    assert row.why.endswith("AssertionError: somebody else got in")
    assert row.stood_still > 0.3


def test_without_a_pause_it_is_broken(table: list[Scenario], clocks: Clocks, monkeypatch: pytest.MonkeyPatch) -> None:
    async def loses(kit: Kit) -> None:
        """It keeps a lease."""
        kit.lease(600.0)
        raise AssertionError("somebody else got in")

    assert outcome(table, clocks, monkeypatch, loses).outcome is Outcome.BROKEN


def test_a_pause_excuses_nothing_that_has_no_short_lease(
    table: list[Scenario], clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(kit: Kit) -> None:
        """It needs no lease."""
        await asyncio.to_thread(pause, clocks, 0.5)
        raise AssertionError("one is not two")

    assert outcome(table, clocks, monkeypatch, fails).outcome is Outcome.BROKEN


def test_what_held_in_spite_of_a_pause_has_held(table: list[Scenario], clocks: Clocks, monkeypatch: pytest.MonkeyPatch) -> None:
    async def holds(kit: Kit) -> None:
        """It keeps a short lease."""
        await asyncio.to_thread(pause, clocks, kit.ttl)

    assert outcome(table, clocks, monkeypatch, holds).outcome is Outcome.HELD


def test_short_leases_outlast_the_pauses_of_lately(clocks: Clocks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("narrowboat.conformance.kit.watch", lambda: clocks)
    before = Kit(Harness("memory://"), "sync", "locks")
    pause(clocks, 0.4)
    after = Kit(Harness("memory://"), "sync", "locks")

    assert after.stretch >= max(4, before.stretch)
    assert after.ttl == 0.5 * after.stretch
    assert after.lease(7.0) == 7.0


def test_the_report_says_when_it_was_worth_a_word() -> None:
    row = Row("L01", "sync", Outcome.HELD, "", "takes_and_frees", "C", 2.0)
    assert make(Harness("memory://"), [row], seconds=2).stood_still == ""
    slow = Row("L02", "sync", Outcome.HELD, "", "a_try", "C", 2.0, (), 1.0)
    assert "stood still for 25% of the time" in make(Harness("memory://"), [row, slow], seconds=2).stood_still


async def _never_comes(kit: Kit) -> None:
    await kit.eventually(lambda: False, within=0.05, what="it comes")


async def _takes_long(kit: Kit) -> None:
    with kit.within(0.05, "the wait"):
        await asyncio.sleep(1.0)


@pytest.mark.parametrize("late", [_never_comes, _takes_long])
def test_a_pause_does_not_excuse_what_took_too_long(
    table: list[Scenario], clocks: Clocks, monkeypatch: pytest.MonkeyPatch, late: Callable[[Kit], Awaitable[None]]
) -> None:
    """Its bound was extended by the pause already."""

    async def waits(kit: Kit) -> None:
        """It has a short lease, and waits for something else."""
        await asyncio.to_thread(pause, clocks, kit.ttl)
        await late(kit)

    assert outcome(table, clocks, monkeypatch, waits).outcome is Outcome.BROKEN
