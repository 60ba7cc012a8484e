"""When a schedule is due: a fixed interval, or a cron expression in a time zone. Without I/O and without a clock.

A plan answers one question: which instant comes after this one. All else is made of that. Instants are aware datetimes in
UTC; the time zone decides only which they are. A plan does not know what was run.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any, Protocol

from narrowboat._engine.checks import seconds
from narrowboat.dsn import told
from narrowboat.errors import ConfigurationError, InvalidArgument
from narrowboat.registry import how_to_install

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
#: Seconds of the shortest and the longest interval.
SHORTEST, LONGEST = 0.01, 366 * 86400.0
#: The fields of an expression, as the library that reads it names them.
FIELDS = ("minute", "hour", "day-of-month", "month", "day-of-week")
#: Characters of the longest expression.
EXPRESSION_MAX = 200


class Plan(Protocol):
    """When a schedule is due."""

    @property
    def zone(self) -> tzinfo:
        """The time zone in which people read its instants."""
        ...

    def after(self, instant: datetime) -> datetime:
        """The first instant after `instant`, in UTC."""
        ...


class Interval:
    """Every so many seconds, counted from the epoch, so that all processes mean the same instants.

    >>> Interval(30).after(datetime(2026, 11, 30, 12, 0, 1, tzinfo=UTC)).time().isoformat()
    '12:00:30'
    """

    zone: tzinfo = UTC

    def __init__(self, length: object) -> None:
        allowed = f"{SHORTEST:g} to {LONGEST:g} seconds, as a number or a timedelta"
        self._length = timedelta(seconds=seconds("every", length, low=SHORTEST, high=LONGEST, allowed=allowed))

    def after(self, instant: datetime) -> datetime:
        """See `Plan`."""
        return EPOCH + ((instant - EPOCH) // self._length + 1) * self._length

    def __repr__(self) -> str:
        return f"every {self._length.total_seconds():g} s"


class Cron:
    """A cron expression of five fields, read by the library cronsim, which keeps to Debian's cron.

    When clocks go forward, a time of day that is skipped comes at the first moment after the gap. When they go back, one that
    comes twice is taken the first time. That holds for expressions that name hours and minutes. Where the hour or the minute
    begins with a star, what is skipped does not come, and what is doubled comes twice.
    """

    def __init__(self, expression: str, zone: str | tzinfo = "UTC") -> None:
        self.zone = find_zone(zone)
        self._expression = expression
        self._library = _library()
        _check(self._library, expression)
        self._starred = any(field.startswith("*") for field in expression.split()[:2])
        try:
            self.after(datetime(2000, 1, 1, tzinfo=UTC))
        except StopIteration:
            raise _never(expression) from None

    def after(self, instant: datetime) -> datetime:
        """See `Plan`."""
        if not self._starred:
            return self._next(instant, self.zone)
        # The library goes on by whole hours: behind a change of half an hour it would pass over the first half of one. So it is
        # asked for one offset after the other.
        at = instant
        while True:
            found = self._next(at, timezone(_offset(self.zone, at + MICROSECOND)))
            change = _change(self.zone, at + MICROSECOND, found)
            if change is None:
                return found
            at = change - MICROSECOND

    def _next(self, instant: datetime, zone: tzinfo) -> datetime:
        # In a doubled hour the library begins with the first pass, and may name instants that are over.
        for found in self._library.CronSim(self._expression, instant.astimezone(zone)):
            there: datetime = found.astimezone(UTC)
            if there > instant:
                return there
        raise StopIteration

    def __repr__(self) -> str:
        return f"{self._expression!r} in {self.zone}"


def _change(zone: tzinfo, begun: datetime, ended: datetime) -> datetime | None:
    """The first moment after `begun`, and not after `ended`, at which the clocks of `zone` have another offset than then."""
    offset, before = _offset(zone, begun), begun
    while before < ended:
        after = min(before + timedelta(days=7), ended)
        if _offset(zone, after) != offset:
            while after - before > MICROSECOND:
                middle = before + (after - before) / 2
                before, after = (middle, after) if _offset(zone, middle) == offset else (before, middle)
            return after
        before = after
    return None


def _offset(zone: tzinfo, instant: datetime) -> timedelta:
    return instant.astimezone(zone).utcoffset() or timedelta()


def make(every: object, tz: str | tzinfo | None) -> Plan:
    """The plan of `@worker.every(every, tz=tz)`; `InvalidArgument` for what is none."""
    if isinstance(every, str):
        return Cron(every, "UTC" if tz is None else tz)
    if tz is not None:
        raise InvalidArgument(f"every({every!r}, tz={tz!r}): an interval is counted from the epoch and has no time zone")
    return Interval(every)


def due(plan: Plan, last: datetime, now: datetime, late: float) -> datetime:
    """The next instant to care for after `last`: what is over for longer than `late` seconds is passed over.

    >>> plan, noon = Interval(60), datetime(2026, 11, 30, 12, tzinfo=UTC)
    >>> [due(plan, noon, noon + timedelta(seconds=passed), 90).minute for passed in (0, 60, 150, 151, 3600)]
    [1, 1, 1, 2, 59]
    """
    return plan.after(max(last, now - timedelta(seconds=late) - MICROSECOND))


def holds(plan: Plan, instant: datetime) -> bool:
    """Whether `instant` is one of the plan's.

    >>> holds(Interval(60), EPOCH), holds(Interval(60), EPOCH + MICROSECOND)
    (True, False)
    """
    return plan.after(instant - MICROSECOND) == instant


def find_zone(zone: str | tzinfo) -> tzinfo:
    """The time zone of that name, or the one that was given."""
    if isinstance(zone, tzinfo):
        return zone
    if zone == "UTC":
        return UTC
    import zoneinfo  # for schedules that name one

    try:
        return zoneinfo.ZoneInfo(zone)
    except (KeyError, ValueError, OSError, TypeError):
        known = sorted(zoneinfo.available_timezones())
    if not known:
        raise ConfigurationError(
            f"tz={zone!r}: this machine has no time zones; install the system's package tzdata, or pip install tzdata"
        )
    shown = told(zone, known) if isinstance(zone, str) else repr(zone)
    raise InvalidArgument(
        f"tz={repr(zone) if shown == '***' else shown}: no such time zone; expected a name such as 'Europe/Berlin'"
    )


def _library() -> Any:
    try:
        import cronsim  # slow to import, and needed by programs that have cron expressions
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"a cron expression needs cronsim, which is not installed: {how_to_install('narrowboat', 'schedule')}. "
            "An interval, such as every(3600), needs nothing"
        ) from error
    return cronsim


def _check(library: Any, expression: str) -> None:
    parts = expression.split()
    if len(expression) > EXPRESSION_MAX:
        raise InvalidArgument(f"every({expression[:20]!r}...): allowed are {EXPRESSION_MAX} characters")
    if len(parts) != len(FIELDS):
        raise InvalidArgument(
            f"every({expression!r}): {len(parts)} fields; expected five, minute hour day-of-month month "
            "day-of-week, such as '0 2 * * *'. Seconds are for every(30)"
        )
    for place, part in enumerate(parts):  # one by one, so that the error names the field that is wrong
        alone = ["*"] * len(FIELDS)
        alone[place] = part
        if not _reads(library, " ".join(alone)):
            at = expression.split(None, place)[-1]
            raise InvalidArgument(
                f"every({expression!r}): {part!r}, the {FIELDS[place]} at character {len(expression) - len(at)}, is none"
            )
    if not _reads(library, expression):
        raise _never(expression)


def _reads(library: Any, expression: str) -> bool:
    try:
        library.CronSim(expression, datetime(2000, 1, 1))  # it is only read
    except (library.CronSimError, ValueError, AssertionError):
        return False
    return True


def _never(expression: str) -> InvalidArgument:
    return InvalidArgument(f"every({expression!r}): there is no such day in the next 50 years, so it would never run")
