"""When a schedule is due: generated cases, the two nights a year in which clocks change, and what is refused."""

from __future__ import annotations

import sys
import zoneinfo
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrowboat.errors import ConfigurationError, InvalidArgument
from narrowboat.working import plan
from narrowboat.working.plan import Cron, Interval, due, holds, make

instants = st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))
lengths = st.integers(10_000, 10**12).map(lambda microseconds: timedelta(microseconds=microseconds))
zones = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Apia"])
expressions = st.sampled_from(
    ["0 2 * * *", "30 2 * * *", "*/15 * * * *", "*/20 2 * * *", "0 0 1 * *", "59 23 L * *", "0 12 * * MON#1", "5 1,2,3 * * 0"]
)


@given(lengths, instants)
def test_an_interval_comes_after_and_at_multiples_of_itself(length: timedelta, instant: datetime) -> None:
    """All processes mean the same instants, whenever they began."""
    found = Interval(length).after(instant)
    assert instant < found <= instant + length
    assert (found - plan.EPOCH) % length == timedelta(0)


@given(expressions, zones, instants)
def test_a_cron_expression_comes_after_whenever_it_is_asked(expression: str, zone: str, instant: datetime) -> None:
    """Also within the hour that comes twice; what it gives holds, and nothing between holds."""
    cron = Cron(expression, zone)
    found = cron.after(instant)
    assert found > instant and found.tzinfo is UTC and holds(cron, found)
    assert cron.after(instant + (found - instant) / 2) == found or (found - instant) < timedelta(microseconds=2)
    assert found.astimezone(cron.zone).second == 0


@given(lengths, instants, st.floats(0, 10**6), st.floats(0.001, 300))
def test_what_is_due_is_never_late_by_more_than_allowed(length: timedelta, last: datetime, passed: float, late: float) -> None:
    """It is the next one where that is allowed, else the first that is."""
    every, now = Interval(length), last + timedelta(seconds=passed)
    found = due(every, last, now, late)
    assert found >= now - timedelta(seconds=late) and found > last
    before = found - length
    assert before <= last or before < now - timedelta(seconds=late)


def instants_of(cron: Cron, day: datetime) -> list[str]:
    """Those from noon before `day` to noon of it, as people read them."""
    found, at = [], day - timedelta(hours=12)
    while (at := cron.after(at)) < day + timedelta(hours=12):
        found.append(at.astimezone(cron.zone).strftime("%H:%M %z"))
    return found


SPRING, AUTUMN = datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "spring", "autumn"),
    [
        ("30 2 * * *", ["03:00 +0200"], ["02:30 +0200"]),  # skipped: after the gap; doubled: the first time
        ("0 2,3 * * *", ["03:00 +0200"], ["02:00 +0200", "03:00 +0100"]),
        ("0 3 * * *", ["03:00 +0200"], ["03:00 +0100"]),
        ("*/30 2 * * *", [], ["02:00 +0200", "02:30 +0200", "02:00 +0100", "02:30 +0100"]),
        ("0 1-3 * * *", ["01:00 +0100", "03:00 +0200"], ["01:00 +0200", "02:00 +0200", "03:00 +0100"]),
    ],
)
def test_the_nights_in_which_clocks_change(expression: str, spring: list[str], autumn: list[str]) -> None:
    """A time of day comes once, in the night that skips it and in the one that has it twice."""
    cron = Cron(expression, "Europe/Berlin")
    assert instants_of(cron, SPRING) == spring
    assert instants_of(cron, AUTUMN) == autumn


def test_an_hourly_expression_goes_by_the_time_that_passes() -> None:
    """Whatever the clocks do, an hour lies between two."""
    cron, at = Cron("0 * * * *", "Europe/Berlin"), AUTUMN - timedelta(hours=3)
    for _ in range(8):
        following = cron.after(at)
        assert following - at == timedelta(hours=1)
        at = following


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("61 * * * *", "'61', the minute at character 0"),
        ("0 2 * * MON-", "'MON-', the day-of-week at character 8"),
        ("0  2 \t 32 * *", "'32', the day-of-month at character 7"),
        ("* * * *", "4 fields; expected five"),
        ("*/5 * * * * *", "6 fields; expected five"),
        ("@daily", "1 fields"),
        ("", "0 fields"),
        ("0 0 30 2 *", "it would never run"),
        ("0 0 31 4,6 *", "it would never run"),
        ("* * */20 * 1L", "it would never run"),
        ("9" * 5000 + " * * * *", "200 characters"),
    ],
)
def test_an_expression_that_is_none_is_refused_with_its_place(expression: str, says: str) -> None:
    with pytest.raises(InvalidArgument) as met:
        make(expression, None)
    assert says in str(met.value)


@given(
    st.text(max_size=40) | st.lists(st.text("0123456789*/,-#LWMONSUNJAN ", max_size=6), min_size=5, max_size=5).map(" ".join)
)
def test_any_text_is_a_plan_or_is_refused(expression: str) -> None:
    """With one type of error, whatever the library raises."""
    try:
        made = make(expression, "Europe/Berlin")
    except InvalidArgument:
        return
    assert made.after(plan.EPOCH) > plan.EPOCH


@pytest.mark.parametrize("zone", ["Europe/Berln", "../etc/passwd", "Europe", "", "\0", 3, b"UTC"])
def test_an_unknown_time_zone_is_refused(zone: Any) -> None:
    with pytest.raises(InvalidArgument, match="no such time zone"):
        make("0 2 * * *", zone)


def test_a_time_zone_may_be_given_as_it_is() -> None:
    assert make("0 2 * * *", zoneinfo.ZoneInfo("Europe/Berlin")).zone.utcoffset(SPRING - timedelta(days=9)) == timedelta(
        hours=1
    )


@pytest.mark.parametrize("length", [0, -1, 0.001, float("nan"), float("inf"), True, None, b"1", timedelta(0), 10**12])
def test_an_interval_that_is_none_is_refused(length: Any) -> None:
    with pytest.raises(InvalidArgument):
        make(length, None)


@given(
    st.sampled_from([2, 3, 9, 23]),
    st.sampled_from(["Europe/Berlin", "Australia/Lord_Howe", "Asia/Kolkata"]),
    st.sampled_from([datetime(2026, 4, 4, 9, tzinfo=UTC), datetime(2026, 10, 3, 9, tzinfo=UTC), SPRING, AUTUMN]),
    st.integers(0, 12 * 60),
)
def test_where_the_minute_begins_with_a_star_each_minute_is_looked_at(
    hour: int, zone: str, day: datetime, minutes: int
) -> None:
    """Also after clocks were changed by half an hour."""
    cron, instant = Cron(f"*/15 {hour} * * *", zone), day.astimezone(UTC) + timedelta(minutes=minutes)
    later = (instant.replace(second=0, microsecond=0) + timedelta(minutes=minute) for minute in range(1, 3 * 24 * 60))
    there = ((each, each.astimezone(zoneinfo.ZoneInfo(zone))) for each in later)

    assert cron.after(instant) == next(at for at, local in there if local.hour == hour and local.minute % 15 == 0)


def test_an_interval_has_no_time_zone() -> None:
    with pytest.raises(InvalidArgument, match="has no time zone"):
        make(30, "Europe/Berlin")


def test_without_the_library_one_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals go without it."""
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(ConfigurationError, match=r"pip install --upgrade '\.\[schedule\]' in a clone"):
        make("0 2 * * *", None)
    assert make(30, None).after(plan.EPOCH) == plan.EPOCH + timedelta(seconds=30)


def test_a_machine_without_time_zones_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoneinfo, "available_timezones", set)
    with pytest.raises(ConfigurationError, match="tzdata"):
        make("0 2 * * *", "Mars/Olympus")
