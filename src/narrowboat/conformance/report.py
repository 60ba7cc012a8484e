"""The report of a run: JSON for programs, one self-contained HTML page for people, made from nothing but the JSON.

The page shows backend by guarantee. Each cell says proven n of n, not claimed, fails or not exercised, and holds the ids
with what was found; measured times stand below. Several runs (backends, machines) are merged into one page:

    python -m narrowboat.conformance.report sqlite.json redis.json > report.html
"""

from __future__ import annotations

import dataclasses
import datetime
import html
import json
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from narrowboat.capabilities import table
from narrowboat.conformance.catalogue import CATALOGUE
from narrowboat.conformance.harness import Harness
from narrowboat.conformance.runner import Outcome, Row
from narrowboat.conformance.scenario import FACES
from narrowboat.dsn import Url

#: Of the suite itself: it grows when a scenario is added or made stricter, so that reports can be compared.
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

    @property
    def broken(self) -> list[Row]:
        """What is owed and was not kept or not executed."""
        return [row for row in self.rows if row.outcome is Outcome.BROKEN]

    @property
    def ok(self) -> bool:
        """Whether nothing is broken."""
        return not self.broken

    def count(self) -> dict[str, int]:
        """How many ids, over all faces, had which outcome; an id with several scenarios counts once, as its worst."""
        counts = {outcome.value: 0 for outcome in Outcome}
        for outcome in _worst(self.rows).values():
            counts[outcome.value] += 1
        return counts

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
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
        }


def make(harness: Harness, rows: Sequence[Row], *, seconds: float) -> Report:
    """The report of a run that has just ended."""
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
    return Report(
        url=data["url"],
        backend=data["backend"],
        rows=rows,
        claims=data["claims"],
        versions=data["versions"],
        started=data["started"],
        seconds=data["seconds"],
    )


def summary(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """The measured numbers by name: how many, the median, the largest, the unit."""
    values: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        for what, value, unit in row.measured:
            values.setdefault((f"{what} ({row.face})", unit), []).append(value)
    return {
        what: {"n": len(found), "median": round(statistics.median(found), 6), "max": round(max(found), 6), "unit": unit}
        for (what, unit), found in sorted(values.items())
    }


#: For ids with several scenarios: the last of these counts. What is held of what is claimed is held; what is partly not
#: exercised is not exercised.
_ORDER = (Outcome.NOT_OFFERED, Outcome.REFUSED, Outcome.HELD, Outcome.NOT_EXERCISED, Outcome.BROKEN)


def _worst(rows: Sequence[Row]) -> dict[tuple[str, str], Outcome]:
    worst: dict[tuple[str, str], Outcome] = {}
    for row in rows:
        key = (row.id, row.face)
        if key not in worst or _ORDER.index(row.outcome) > _ORDER.index(worst[key]):
            worst[key] = row.outcome
    return worst


# -- the page -----------------------------------------------------------------------------------------------------

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #1c2430; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; }
th { border-bottom: 2px solid #9aa7b8; } td { border-bottom: 1px solid #dde3ea; }
details summary { cursor: pointer; } li { margin: .15rem 0; } ul { padding-left: 1.1rem; margin: .4rem 0; }
pre { white-space: pre-wrap; font-size: 12px; background: #f6f2f2; padding: .5rem; }
.held { color: #17683a; } .broken { color: #a51d24; font-weight: 600; } .refused, .offered { color: #5b6675; }
.exercised { color: #8a5a00; } .num { font-variant-numeric: tabular-nums; text-align: right; } small { color: #5b6675; }
"""


def page(reports: Sequence[Report]) -> str:
    """One HTML page about all `reports`, without anything from elsewhere."""
    names = [report.backend for report in reports]
    guarantees = list(dict.fromkeys(entry.guarantee for entry in CATALOGUE.values()))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join(
        f"<tr><td>{html.escape(guarantee)} <small>{_span(guarantee)}</small></td>"
        + "".join(f"<td>{_cell(report, guarantee)}</td>" for report in reports)
        + "</tr>"
        for guarantee in guarantees
    )
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>Narrowboat conformance: {html.escape(', '.join(names))}</title><style>{_STYLE}</style>"
        "<h1>Narrowboat conformance</h1>"
        "<p>Every behaviour has a stable id and is proven on both faces, sync and asyncio, by a scenario that runs against "
        "the live backend. <i>Not claimed</i> means that asking for it is refused before anything is sent. "
        "<i>Not exercised</i> means that this run had no means to bring the fault about.</p>"
        f"<ul>{''.join(_run_line(report) for report in reports)}</ul>"
        f"<h2>Guarantees</h2><table><tr><th>Guarantee</th>{head}</tr>{body}</table>"
        f"<h2>Measured</h2>{_measured(reports)}<h2>Claims</h2>{_claims(reports)}</html>\n"
    )


def _span(guarantee: str) -> str:
    """The first and the last of its ids."""
    ids = [entry.id for entry in CATALOGUE.values() if entry.guarantee == guarantee]
    return f"{ids[0]} to {ids[-1]}"


def _run_line(report: Report) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in report.versions.items())
    counts = ", ".join(f"{number} {outcome}" for outcome, number in report.count().items() if number)
    return (
        f"<li><b>{html.escape(report.backend)}</b> <code>{html.escape(report.url)}</code>: {counts} "
        f"<small>({html.escape(versions)}; {html.escape(report.started)}, {report.seconds:g} s)</small></li>"
    )


def _cell(report: Report, guarantee: str) -> str:
    worst = {key: outcome for key, outcome in _worst(report.rows).items() if CATALOGUE[key[0]].guarantee == guarantee}
    if not worst:
        return "<span class='offered'>no such half</span>"
    number = {outcome: sum(found is outcome for found in worst.values()) for outcome in Outcome}
    owed = number[Outcome.HELD] + number[Outcome.BROKEN]
    parts = []
    if number[Outcome.BROKEN]:
        parts.append(f"<span class='broken'>fails {number[Outcome.BROKEN]} of {owed}</span>")
    elif owed:
        parts.append(f"<span class='held'>proven {owed} of {owed}</span>")
    if number[Outcome.REFUSED]:
        parts.append(f"<span class='refused'>not claimed {number[Outcome.REFUSED]}</span>")
    if number[Outcome.NOT_EXERCISED]:
        parts.append(f"<span class='exercised'>not exercised {number[Outcome.NOT_EXERCISED]}</span>")
    if number[Outcome.NOT_OFFERED]:
        parts.append(f"<span class='offered'>not offered {number[Outcome.NOT_OFFERED]}</span>")
    failing = [id for (id, _), outcome in worst.items() if outcome is Outcome.BROKEN]
    items = "".join(_item(report, id) for id in dict.fromkeys([*failing, *(id for id, _ in worst)]))
    return f"<details><summary>{', '.join(parts)}</summary><ul>{items}</ul></details>"


def _item(report: Report, id: str) -> str:
    """One id: what became of it on each face, by which scenarios, and why where there is something to say."""
    rows = [row for row in report.rows if row.id == id]
    faces = {face: outcome for (each, face), outcome in _worst(report.rows).items() if each == id}
    same = len(set(faces.values())) == 1
    told = ", ".join(
        f"<span class='{outcome.value.split()[-1]}'>{outcome.value}{'' if same else f' ({html.escape(face)})'}</span>"
        for face, outcome in (list(faces.items())[:1] if same else faces.items())
    )
    scenarios = ", ".join(dict.fromkeys(row.scenario.replace("_", " ") for row in rows if row.scenario))
    reasons = dict.fromkeys(row.why for row in rows if row.why and row.outcome is not Outcome.BROKEN)
    notes = "; ".join([*([scenarios] if scenarios else []), *reasons])
    broken = "".join(
        f"<pre>{html.escape(f'{row.scenario} ({row.face})')}\n{html.escape(row.why)}</pre>"
        for row in rows
        if row.outcome is Outcome.BROKEN
    )
    text = html.escape(CATALOGUE[id].text)
    return f"<li><b>{id}</b> {told}: {text}{f' <small>({html.escape(notes)})</small>' if notes else ''}{broken}</li>"


def _measured(reports: Sequence[Report]) -> str:
    """One line for each thing measured, the faces side by side."""
    lines = []
    for report in reports:
        found = summary(report.rows)
        for what in dict.fromkeys(name.rpartition(" (")[0] for name in found):
            cells = ""
            having = [face for face in FACES if f"{what} ({face})" in found]
            label = what if len(having) > 1 else f"{what} ({having[0]})"
            for face in FACES:
                one = found.get(f"{what} ({face})")
                values = (
                    ("", "", "")
                    if one is None
                    else (f"{one['n']:g}", *(_number(one[k], one["unit"]) for k in ("median", "max")))
                )
                cells += "".join(f"<td class='num'>{html.escape(value)}</td>" for value in values)
            lines.append(f"<tr><td>{html.escape(report.backend)}</td><td>{html.escape(label)}</td>{cells}</tr>")
    heads = "".join(f"<th class='num'>{face}, n</th><th class='num'>median</th><th class='num'>largest</th>" for face in FACES)
    return f"<table><tr><th>Backend</th><th>What</th>{heads}</tr>{''.join(lines)}</table>"


def _number(value: float, unit: str) -> str:
    return f"{value * 1000:.3g} ms" if unit == "s" and value < 1 else f"{value:.4g} {unit}"


def _claims(reports: Sequence[Report]) -> str:
    parts = []
    for half in ("locks", "broker"):
        having = [report for report in reports if half in report.claims]
        names = list(dict.fromkeys(name for report in having for name in report.claims[half]))
        head = "".join(f"<th>{html.escape(report.backend)}</th>" for report in having)
        body = "".join(
            f"<tr><td>{html.escape(name)}</td>"
            + "".join(f"<td>{html.escape(report.claims[half].get(name, ''))}</td>" for report in having)
            + "</tr>"
            for name in names
        )
        parts.append(f"<table><tr><th>{half}</th>{head}</tr>{body}</table>" if having else "")
    return "".join(parts)


def main(argv: Sequence[str]) -> int:
    """Merge the JSON reports named in `argv` into one page on standard output."""
    if not argv:
        sys.stderr.write("usage: python -m narrowboat.conformance.report RUN.json... > report.html\n")
        return 2
    reports = []
    for path in argv:
        with open(path, encoding="utf-8") as file:
            reports.append(from_json(json.load(file)))
    sys.stdout.write(page(reports))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
