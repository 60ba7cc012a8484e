"""The HTML page of one or several runs: a row for each guarantee, a column for each backend.

A cell says "proven n of n", "fails", "not claimed" or "not exercised", and unfolds to its ids. Measured times and claims stand
below. The page loads nothing from elsewhere.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from narrowboat.conformance.catalogue import CATALOGUE
from narrowboat.conformance.report import Report, summary, worst
from narrowboat.conformance.runner import Outcome
from narrowboat.conformance.scenario import FACES

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


#: The outcomes that say neither "proven" nor "fails": how they are shown, and in which words.
_OTHERS = {
    Outcome.REFUSED: ("refused", "not claimed"),
    Outcome.NOT_EXERCISED: ("exercised", "not exercised"),
    Outcome.NOT_OFFERED: ("offered", "not offered"),
}


def page(reports: Sequence[Report]) -> str:
    """One HTML page about all `reports`. It loads nothing from elsewhere."""
    names = ", ".join(report.backend for report in reports)
    guarantees = dict.fromkeys(entry.guarantee for entry in CATALOGUE.values())
    rows = {
        f"{html.escape(each)} <small>{_span(each)}</small>": [_cell(report, each) for report in reports] for each in guarantees
    }
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>Narrowboat conformance: {html.escape(names)}</title><style>{_STYLE}</style>"
        "<h1>Narrowboat conformance</h1>"
        "<p>Every behaviour has a stable id and is proven on both faces, sync and asyncio, by a scenario that runs against "
        "the live backend. <i>Not claimed</i> means that asking for it is refused before anything is sent. "
        "<i>Not exercised</i> means that this run had no means to bring the fault about.</p>"
        f"<ul>{''.join(_run_line(report) for report in reports)}</ul>"
        f"<h2>Guarantees</h2>{_table('Guarantee', reports, rows)}"
        f"<h2>Measured</h2>{_measured(reports)}{_histories(reports)}<h2>Claims</h2>{_claims(reports)}</html>\n"
    )


def _table(first: str, reports: Sequence[Report], rows: Mapping[str, Sequence[str]]) -> str:
    """A table with a column for each report. `rows` has the cells of each line, by the markup of its first cell."""
    head = "".join(f"<th>{html.escape(report.backend)}</th>" for report in reports)
    body = "".join(f"<tr><td>{name}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>" for name, cells in rows.items())
    return f"<table><tr><th>{first}</th>{head}</tr>{body}</table>"


def _span(guarantee: str) -> str:
    """The first and the last of its ids."""
    ids = [entry.id for entry in CATALOGUE.values() if entry.guarantee == guarantee]
    return f"{ids[0]} to {ids[-1]}"


def _run_line(report: Report) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in report.versions.items())
    took = "; ".join([f"{report.started}, {report.seconds:g} s", *([report.stood_still] if report.stood_still else [])])
    return (
        f"<li><b>{html.escape(report.backend)}</b> <code>{html.escape(report.url)}</code>: {report.counts} "
        f"<small>({html.escape(versions)}; {html.escape(took)})</small></li>"
    )


def _cell(report: Report, guarantee: str) -> str:
    found = {key: outcome for key, outcome in worst(report.rows).items() if CATALOGUE[key[0]].guarantee == guarantee}
    if not found:
        return "<span class='offered'>no such half</span>"
    number = Counter(found.values())
    owed = number[Outcome.HELD] + number[Outcome.BROKEN]
    parts = []
    if number[Outcome.BROKEN]:
        parts.append(f"<span class='broken'>fails {number[Outcome.BROKEN]} of {owed}</span>")
    elif owed:
        parts.append(f"<span class='held'>proven {owed} of {owed}</span>")
    parts += [f"<span class='{kind}'>{words} {number[each]}</span>" for each, (kind, words) in _OTHERS.items() if number[each]]
    failing = [id for (id, _), outcome in found.items() if outcome is Outcome.BROKEN]
    items = "".join(_item(report, id) for id in dict.fromkeys([*failing, *(id for id, _ in found)]))
    return f"<details><summary>{', '.join(parts)}</summary><ul>{items}</ul></details>"


def _item(report: Report, id: str) -> str:
    """One id: its outcome on each face, its scenarios, and the reasons where there are any."""
    rows = [row for row in report.rows if row.id == id]
    faces = {face: outcome for (each, face), outcome in worst(report.rows).items() if each == id}
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
            faces = {face: found.get(f"{what} ({face})") for face in FACES}
            having = [face for face, one in faces.items() if one is not None]
            label = what if len(having) > 1 else f"{what} ({having[0]})"
            values = (value for one in faces.values() for value in _values(one))
            cells = "".join(f"<td class='num'>{html.escape(value)}</td>" for value in values)
            lines.append(f"<tr><td>{html.escape(report.backend)}</td><td>{html.escape(label)}</td>{cells}</tr>")
    heads = "".join(f"<th class='num'>{face}, n</th><th class='num'>median</th><th class='num'>largest</th>" for face in FACES)
    return f"<table><tr><th>Backend</th><th>What</th>{heads}</tr>{''.join(lines)}</table>"


def _values(one: Mapping[str, Any] | None) -> tuple[str, str, str]:
    """How many, the median and the largest. Three empty cells where a face measured nothing."""
    if one is None:
        return ("", "", "")
    return (f"{one['n']:g}", _number(one["median"], one["unit"]), _number(one["max"], one["unit"]))


def _number(value: float, unit: str) -> str:
    return f"{value * 1000:.3g} ms" if unit == "s" and value < 1 else f"{value:.4g} {unit}"


def _histories(reports: Sequence[Report]) -> str:
    """One line for each history with faults, or nothing where none was run."""
    lines = []
    for entry in (entry for report in reports for entry in report.histories):
        counts = "".join(f"<td class='num'>{entry[name]:g}</td>" for name in ("seed", "seconds", "grants", "messages"))
        faults = ", ".join(f"{number} {kind}" for kind, number in entry["faults"].items())
        kind, words = ("broken", "; ".join(entry["broken"])) if entry["broken"] else ("held", "nothing")
        broken = f"<td class='{kind}'>{html.escape(words)}</td>"
        lines.append(f"<tr><td>{html.escape(entry['backend'])}</td>{counts}<td>{html.escape(faults)}</td>{broken}</tr>")
    heads = "".join(f"<th class='num'>{head}</th>" for head in ("Seed", "Seconds", "Grants", "Messages"))
    table = f"<table><tr><th>Backend</th>{heads}<th>Faults</th><th>Broken</th></tr>{''.join(lines)}</table>"
    return f"<h2>Histories</h2>{table}" if lines else ""


def _claims(reports: Sequence[Report]) -> str:
    parts = []
    for half in ("locks", "broker"):
        having = [report for report in reports if half in report.claims]
        names = dict.fromkeys(name for report in having for name in report.claims[half])
        rows = {html.escape(name): [html.escape(report.claims[half].get(name, "")) for report in having] for name in names}
        parts.append(_table(half, having, rows) if having else "")
    return "".join(parts)
