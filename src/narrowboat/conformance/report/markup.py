"""The HTML page of one or several runs: backend by guarantee, with nothing from elsewhere.

Each cell says proven n of n, not claimed, fails or not exercised, and holds the ids with what was found; measured times
stand below.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

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
    took = "; ".join([f"{report.started}, {report.seconds:g} s", *([report.stood_still] if report.stood_still else [])])
    return (
        f"<li><b>{html.escape(report.backend)}</b> <code>{html.escape(report.url)}</code>: {report.counts} "
        f"<small>({html.escape(versions)}; {html.escape(took)})</small></li>"
    )


def _cell(report: Report, guarantee: str) -> str:
    found = {key: outcome for key, outcome in worst(report.rows).items() if CATALOGUE[key[0]].guarantee == guarantee}
    if not found:
        return "<span class='offered'>no such half</span>"
    number = {outcome: sum(each is outcome for each in found.values()) for outcome in Outcome}
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
    failing = [id for (id, _), outcome in found.items() if outcome is Outcome.BROKEN]
    items = "".join(_item(report, id) for id in dict.fromkeys([*failing, *(id for id, _ in found)]))
    return f"<details><summary>{', '.join(parts)}</summary><ul>{items}</ul></details>"


def _item(report: Report, id: str) -> str:
    """One id: what became of it on each face, by which scenarios, and why where there is something to say."""
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
