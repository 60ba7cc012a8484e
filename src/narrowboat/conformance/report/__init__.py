"""The report of a run: its rows, the backend's claims, and what was measured. As JSON it serves programs and later pages.

`markup` makes the page for people, from a report alone.
"""

from __future__ import annotations

import dataclasses
import datetime
import platform
import statistics
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from narrowboat.capabilities import table
from narrowboat.conformance.harness import Harness
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
        times = {(row.scenario, row.face): (row.stood_still, row.seconds) for row in self.rows}.values()
        lost, taken = sum(lost for lost, _ in times), sum(taken for _, taken in times)
        if lost <= 0.05 * taken:
            return ""
        return f"the machine stood still for {lost / taken:.0%} of the time: upper bounds were extended by that alone"

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
        return {
            "suite": SUITE,
            "url": self.url,
            "backend": self.backend,
            "started": self.started,
            "seconds": self.seconds,
            "versions": dict(self.versions),
            "claims": {half: dict(claims) for half, claims in self.claims.items()},
            "counts": self.count(),
            "measured": summary(self.rows),
            "rows": [{**dataclasses.asdict(row), "outcome": row.outcome.value} for row in self.rows],
            "histories": [dict(each) for each in self.histories],
        }


def make(harness: Harness, rows: Sequence[Row], *, seconds: float, histories: Sequence[Mapping[str, Any]] = ()) -> Report:
    """The report of a run that took so many `seconds` and has just ended."""
    return Report(
        url=str(Url.parse(harness.url)),
        backend=harness.scheme,
        rows=tuple(rows),
        claims={half: table(harness.claims(half)) for half in harness.halves},
        versions={
            "suite": SUITE,
            "narrowboat": metadata.version("narrowboat"),
            "python": platform.python_version(),
            "platform": platform.platform(),
        },
        started=(datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds)).isoformat(timespec="seconds"),
        seconds=round(seconds, 1),
        histories=tuple(histories),
    )


def from_json(data: Mapping[str, Any]) -> Report:
    """A report that `as_json` wrote."""
    rows = tuple(
        Row(
            **{
                **row,
                "outcome": Outcome(row["outcome"]),
                "measured": tuple((what, float(value), unit) for what, value, unit in row["measured"]),
            }
        )
        for row in data["rows"]
    )
    plain = ("url", "backend", "claims", "versions", "started", "seconds")
    return Report(rows=rows, histories=tuple(data.get("histories", ())), **{name: data[name] for name in plain})


def summary(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """The measured numbers by name and face: how many (`n`), `median`, `max`, `unit`."""
    values: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        for what, value, unit in row.measured:
            values.setdefault((f"{what} ({row.face})", unit), []).append(value)
    return {
        what: {"n": len(found), "median": round(statistics.median(found), 6), "max": round(max(found), 6), "unit": unit}
        for (what, unit), found in sorted(values.items())
    }


#: From the best to the worst: an id with several scenarios has the worst outcome of them. One that was held and in part refused
#: is held; one that was in part not exercised is not exercised.
_ORDER = (Outcome.NOT_OFFERED, Outcome.REFUSED, Outcome.HELD, Outcome.NOT_EXERCISED, Outcome.BROKEN)


def worst(rows: Sequence[Row]) -> dict[tuple[str, str], Outcome]:
    """The outcome of each id on each face: the worst of its scenarios."""
    found: dict[tuple[str, str], Outcome] = {}
    for row in rows:
        key = (row.id, row.face)
        if key not in found or _ORDER.index(row.outcome) > _ORDER.index(found[key]):
            found[key] = row.outcome
    return found
