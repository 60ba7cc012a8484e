"""The report of a run: its rows, the backend's claims, and what was measured. As JSON it serves programs and later pages.

`brief` keeps what a page shows and no more. `page` makes the page for people, of one report or of several.
"""

from __future__ import annotations

import dataclasses
import datetime
import statistics
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from narrowboat.capabilities import table
from narrowboat.conformance.harness import Harness
from narrowboat.conformance.measured import Measured
from narrowboat.conformance.report import origin
from narrowboat.conformance.runner import Outcome, Row
from narrowboat.dsn import Url

#: The version of the suite. It grows when a scenario is added or made stricter: reports of one version can be compared.
SUITE = "1"


@dataclasses.dataclass(frozen=True)
class Report:
    """One run against one backend."""

    url: str
    backend: str
    rows: tuple[Row, ...]
    claims: Mapping[str, Mapping[str, str]]
    versions: Mapping[str, str]
    started: str
    seconds: float
    histories: tuple[Mapping[str, Any], ...] = ()  #: entries as docs/conformance.md shows them
    machine: Mapping[str, str] = dataclasses.field(default_factory=dict)  #: see `origin`
    commit: str = ""
    still: float = 0.0  #: the share of the scenarios' time for which the machine stood still
    set_up: str = ""  #: the name of one of several set-ups of a backend, such as "redis_tls"
    again: str = ""  #: the command that runs ids of it again, with `{ids}` in it

    @property
    def name(self) -> str:
        """What a page calls it."""
        return self.set_up or self.backend

    @property
    def broken(self) -> list[Row]:
        """The rows that are owed, and were not kept or not executed."""
        return [row for row in self.rows if row.outcome is Outcome.BROKEN]

    @property
    def ok(self) -> bool:
        """Whether no row is broken, and no rule of a history."""
        return not self.broken and not any(each["broken"] for each in self.histories)

    @property
    def stood_still(self) -> str:
        """A sentence about a machine that let scenarios wait for more than a twentieth of their time. "" for another one."""
        if self.still <= 0.05:
            return ""
        return f"the machine stood still for {self.still:.0%} of the time: upper bounds were extended by that alone"

    def count(self) -> dict[str, int]:
        """How many ids, over all faces, had which outcome. An id with several scenarios counts once, as its worst."""
        counts = {outcome.value: 0 for outcome in Outcome}
        for outcome in worst(self.rows).values():
            counts[outcome.value] += 1
        return counts

    @property
    def counts(self) -> str:
        """The same in words, without the outcomes that no id had."""
        return ", ".join(f"{number} {outcome}" for outcome, number in self.count().items() if number)

    def as_json(self) -> dict[str, Any]:
        """The report as plain values, for `json.dumps`. `from_json` reads them."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            "suite": SUITE,
            **plain,
            "counts": self.count(),
            "measured": summary(self.rows),
            "rows": [{**dataclasses.asdict(row), "outcome": row.outcome.value} for row in self.rows],
            "histories": [dict(each) for each in self.histories],
        }


def make(
    harness: Harness,
    rows: Sequence[Row],
    *,
    seconds: float,
    histories: Sequence[Mapping[str, Any]] = (),
) -> Report:
    """The report of a run that took so many `seconds` and has just ended. Whoever runs several set-ups names them."""
    url = str(Url.parse(harness.url))
    return Report(
        url=url,
        backend=harness.scheme,
        rows=tuple(rows),
        claims={half: table(harness.claims(half)) for half in harness.halves},
        versions={"suite": SUITE, "narrowboat": metadata.version("narrowboat")},
        started=(datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds)).isoformat(timespec="seconds"),
        seconds=round(seconds, 1),
        histories=tuple(histories),
        machine=origin.machine(),
        commit=origin.commit(),
        still=_still(rows),
        again=f"narrowboat verify '{url}' --only {{ids}}",
    )


def _still(rows: Sequence[Row]) -> float:
    """The share of the time for which the machine stood still."""
    times = {(row.scenario, row.face): (row.stood_still, row.seconds) for row in rows}.values()
    lost, taken = sum(lost for lost, _ in times), sum(taken for _, taken in times)
    return round(lost / taken, 4) if taken else 0.0


def from_json(data: Mapping[str, Any]) -> Report:
    """A report that `as_json` wrote."""
    rows = tuple(
        Row(**{**row, "outcome": Outcome(row["outcome"]), "measured": tuple(Measured(*each) for each in row["measured"])})
        for row in data["rows"]
    )
    return with_rows(data, rows)


def with_rows(data: Mapping[str, Any], rows: Sequence[Row]) -> Report:
    """The report of these rows, with all else from its JSON values. What those do not have is as in a report without it."""
    names = {field.name for field in dataclasses.fields(Report)} & set(data)
    made = {name: data[name] for name in names}
    return Report(**{**made, "rows": tuple(rows), "histories": tuple(data.get("histories", ()))})


def summary(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """The measured numbers by name and face: how many (`n`), `median`, `max`, `unit`, and the least `bound` that was given."""
    found: dict[tuple[str, str], list[Measured]] = {}
    for row in rows:
        for one in row.measured:
            found.setdefault((f"{one.what} ({row.face})", one.unit), []).append(one)
    summed: dict[str, dict[str, Any]] = {}
    for (what, unit), all_of_it in sorted(found.items()):
        values = [one.value for one in all_of_it]
        bounds = [one.bound for one in all_of_it if one.bound is not None]
        numbers = {"n": len(values), "median": round(statistics.median(values), 6), "max": round(max(values), 6), "unit": unit}
        summed[what] = numbers | ({"bound": min(bounds)} if bounds else {})
    return summed


#: From the best to the worst: an id with several scenarios has the worst outcome of them. One that was held and in part refused
#: is held; one that was in part not exercised is not exercised.
_ORDER = (Outcome.NOT_OFFERED, Outcome.REFUSED, Outcome.HELD, Outcome.NOT_EXERCISED, Outcome.BROKEN)


def the_worst(outcomes: Sequence[Outcome]) -> Outcome:
    """The worst of them, of which there is one at least."""
    return max(outcomes, key=_ORDER.index)


def worst(rows: Sequence[Row]) -> dict[tuple[str, str], Outcome]:
    """The outcome of each id on each face: the worst of its scenarios."""
    found: dict[tuple[str, str], list[Outcome]] = {}
    for row in rows:
        found.setdefault((row.id, row.face), []).append(row.outcome)
    return {key: the_worst(outcomes) for key, outcomes in found.items()}
