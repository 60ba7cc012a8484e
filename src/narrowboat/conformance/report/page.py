"""The page of one run or of several: a row for each guarantee, a column for each backend, every id with its scenarios below.

A cell says "proven n/n", "fails", "not claimed", "not exercised" or "not run". It leads to the ids, to the text of their
scenarios, and to the command that runs them again. The page loads nothing from elsewhere, and needs no script.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from narrowboat.conformance.catalogue import CATALOGUE, INSTEAD, NEEDS_FAULT, Entry
from narrowboat.conformance.report import Report, plots, the_worst
from narrowboat.conformance.report.brief import plain_url
from narrowboat.conformance.report.storms import storms
from narrowboat.conformance.report.tables import folded, table
from narrowboat.conformance.runner import Outcome, Row, load
from narrowboat.conformance.scenario import TIER_TEXTS, Scenario

_STYLE = Path(__file__).with_name("page.css")

HALVES = {"locks": "Locks", "broker": "Messages"}


class State(NamedTuple):
    """How an outcome is shown."""

    kind: str  #: the class of its colour
    word: str
    meaning: str


_STATES = {
    Outcome.HELD: State("held", "proven", "the promise was kept on both faces, sync and asyncio"),
    Outcome.BROKEN: State("broken", "fails", "the promise is owed, and was not kept or not executed"),
    Outcome.REFUSED: State(
        "refused", "not claimed", "the backend does not promise it, and refuses a call for it before anything is sent"
    ),
    Outcome.NOT_OFFERED: State("offered", "not offered", "there is no public call for it, or nothing there that could fail"),
    Outcome.NOT_EXERCISED: State("exercised", "not exercised", "this run could not bring the fault about"),
}
#: Of an id without a row: its tiers were not asked for.
_NOT_RUN = State("run-not", "not run", "this run was asked for other tiers only")

_escape = html.escape


class Chapter(NamedTuple):
    """A part of the page that comes from elsewhere than the runs."""

    anchor: str
    title: str
    markup: str


def page(
    reports: Sequence[Report],
    *,
    title: str = "Narrowboat conformance",
    about: str = "",
    others: Sequence[Report] = (),
    histories: Sequence[Mapping[str, Any]] = (),
    chapters: Sequence[Chapter] = (),
    breaks: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """One HTML page.

    Args:
        reports: a column each.
        title: its heading.
        about: markup of what stands below it.
        others: reports of other set-ups of the same backends. A line each, without columns.
        histories: entries beside those of the reports.
        chapters: further parts.
        breaks: by id, what the kit was shown to notice: in words, how a backend was broken on purpose.
    """
    found = [Column(report) for report in reports if report.rows]
    past = [*(entry for report in [*reports, *others] for entry in report.histories), *histories]
    commit = max((report.started, report.commit) for report in [*reports, *others])[1] if reports else ""
    columns = [column._replace(old=column.report.commit != commit) for column in found]
    parts = [
        Chapter("guarantees", "Guarantees", _matrices(columns)),
        Chapter("times", "Times", plots.plots([column.report for column in columns])),
        Chapter("histories", "Storms and histories", storms(past)),
        *chapters,
        Chapter("runs", "Runs", _runs([column.report for column in columns], others, commit)),
        Chapter("ids", "Every behaviour", _behaviours(columns, breaks) if columns or not past else ""),
        Chapter("claims", "Claims", _claims([column.report for column in columns])),
    ]
    parts = [part for part in parts if part.markup]
    links = "".join(f"<a href='#{part.anchor}'>{_escape(part.title)}</a>" for part in parts)
    body = "".join(f"<h2 id='{part.anchor}'>{_escape(part.title)}</h2>{part.markup}" for part in parts)
    nav = f"<nav aria-label='Parts of this page'>{links}</nav>"
    return (
        "<!doctype html>\n<html lang='en'>\n<meta charset='utf-8'>\n"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        f"<title>{_escape(title)}</title>\n<style>\n{_STYLE.read_text('utf-8')}</style>\n"
        f"<body><header><h1>{_escape(title)}</h1>{about}{_facts(columns, commit)}{nav}</header>\n"
        f"<main>{body}</main></body>\n</html>\n"
    )


class Column(NamedTuple):
    """What a report says, by id."""

    report: Report
    old: bool = False  #: not of the page's commit

    @property
    def name(self) -> str:
        """Its heading."""
        return self.report.name

    def has(self, half: str) -> bool:
        """Whether the backend has that half."""
        return half in self.report.claims or any(Entry(row.id, "", "").half == half for row in self.report.rows)


def _state(outcome: Outcome | None) -> State:
    return _NOT_RUN if outcome is None else _STATES[outcome]


def _outcomes(column: Column) -> dict[str, Outcome | None]:
    """Of each id of its halves: the worst outcome on its faces; None where nothing was asked."""
    by_id: dict[str, list[Outcome]] = {}
    for row in column.report.rows:
        by_id.setdefault(row.id, []).append(row.outcome)
    return {id: the_worst(by_id[id]) if id in by_id else None for id, entry in CATALOGUE.items() if column.has(entry.half)}


# -- the head ---------------------------------------------------------------------------------------------------------


def _facts(columns: Sequence[Column], commit: str) -> str:
    if not columns:
        return ""
    counts = Counter(outcome for column in columns for outcome in _outcomes(column).values())
    newest = max((column.report for column in columns), key=lambda report: report.started)
    machine = newest.machine
    facts = [
        ("proven", f"{counts[Outcome.HELD]:,}", "big"),
        ("fails", f"{counts[Outcome.BROKEN]:,}", "big"),
        ("backends" if len(columns) > 1 else "backend", f"{len(columns)}" if len(columns) > 1 else columns[0].name, "big"),
        ("date", newest.started[:10], ""),
        ("commit", commit or "of an installed package", ""),
        ("machine", ", ".join([machine.get("processor", "unknown"), f"{machine.get('cores', '?')} cores"]), ""),
        ("system", ", ".join(filter(None, [machine.get("system"), machine.get("python")])) or "unknown", ""),
    ]
    cells = "".join(f"<div><dt>{name}</dt><dd class='{kind}'>{_escape(value)}</dd></div>" for name, value, kind in facts)
    return (
        "<p>Each behaviour that Narrowboat promises has a stable id, and scenarios that prove it against the live backend, on "
        f"the sync and on the asyncio face.</p><dl class='facts'>{cells}</dl>"
    )


# -- backend by guarantee ---------------------------------------------------------------------------------------------


def _matrices(columns: Sequence[Column]) -> str:
    key = "".join(
        f"<li><span class='word {state.kind}'>{state.word}</span> {state.meaning}</li>"
        for state in [*_STATES.values(), _NOT_RUN]
    )
    tables = "".join(_matrix(half, [column for column in columns if column.has(half)]) for half in HALVES)
    text = "<p>Each cell leads to its behaviours, to their scenarios, and to the command that runs them again.</p>"
    return f"{text}{tables}<ul class='key' aria-label='The words'>{key}</ul>"


def _matrix(half: str, columns: Sequence[Column]) -> str:
    if not columns:
        return ""
    guarantees = dict.fromkeys(entry.guarantee for entry in CATALOGUE.values() if entry.half == half)
    outcomes = [_outcomes(column) for column in columns]
    old = "<small>another commit</small>"
    heads = "".join(
        f"<th scope='col' role='columnheader'>{_escape(column.name)}{old if column.old else ''}</th>" for column in columns
    )
    rows = []
    for guarantee in guarantees:
        ids = [entry.id for entry in CATALOGUE.values() if entry.guarantee == guarantee]
        cells = "".join(
            f"<td role='cell'>{_cell(guarantee, column, Counter(found[id] for id in ids))}</td>"
            for column, found in zip(columns, outcomes, strict=True)
        )
        rows.append(f"<tr role='row'><th scope='row' role='rowheader'>{_escape(_bare(guarantee))}</th>{cells}</tr>")
    return (
        f"<table class='matrix' role='table'><caption><b>{HALVES[half]}</b></caption>"
        f"<thead role='rowgroup'><tr role='row'><th role='columnheader' scope='col'>Guarantee</th>{heads}</tr></thead>"
        f"<tbody role='rowgroup'>{''.join(rows)}</tbody></table>"
    )


def _cell(guarantee: str, column: Column, number: Mapping[Outcome | None, int]) -> str:
    first, *rest = _told(number)
    old = f"at {column.report.commit or 'another commit'}"
    small = "".join(f"<small>{_escape(each)}</small>" for each in [*rest, *([old] if column.old else [])])
    return (
        f"<a class='cell {_colour(number)}' data-of='{_escape(column.name)}' href='#{_slug(guarantee)}.{_escape(column.name)}'>"
        f"<b>{first}</b>{small}</a>"
    )


def _told(number: Mapping[Outcome | None, int]) -> list[str]:
    """The counts in words, what counts most first."""
    held, broken = number[Outcome.HELD], number[Outcome.BROKEN]
    told = [f"fails {broken}/{held + broken}"] if broken else [f"proven {held}/{held}"] if held else []
    others = (Outcome.REFUSED, Outcome.NOT_EXERCISED, None, Outcome.NOT_OFFERED)
    return told + [f"{number[each]} {_state(each).word}" for each in others if number[each]]


def _colour(number: Mapping[Outcome | None, int]) -> str:
    if number[Outcome.BROKEN]:
        return "broken"
    if number[Outcome.HELD]:
        return "held"
    return "run-not" if number[None] or number[Outcome.NOT_EXERCISED] else "offered"


def _bare(guarantee: str) -> str:
    """Without its half."""
    text = guarantee.partition(": ")[2] or guarantee
    return text[:1].upper() + text[1:]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


# -- every id ---------------------------------------------------------------------------------------------------------


def _behaviours(columns: Sequence[Column], breaks: Mapping[str, Sequence[str]] | None) -> str:
    scenarios: dict[str, list[Scenario]] = {}
    for scenario in load():
        for id in scenario.ids:
            scenarios.setdefault(id, []).append(scenario)
    outcomes = {column.name: _outcomes(column) for column in columns}
    rows: dict[str, dict[str, list[Row]]] = {}
    for column in columns:
        for row in column.report.rows:
            rows.setdefault(row.id, {}).setdefault(column.name, []).append(row)
    parts: list[str] = []
    for guarantee in dict.fromkeys(entry.guarantee for entry in CATALOGUE.values()):
        entries = [entry for entry in CATALOGUE.values() if entry.guarantee == guarantee]
        having = [column for column in columns if column.has(entries[0].half)]
        parts.append(f"<section id='{_slug(guarantee)}'><h3>{_escape(guarantee)}</h3>")
        parts += [_again(guarantee, column, entries, outcomes[column.name]) for column in having]
        parts.append("<div class='ids'>")
        for entry in entries:
            shown = {column.name: outcomes[column.name][entry.id] for column in having}
            told = breaks.get(entry.id, ()) if breaks is not None else None
            parts.append(_behaviour(entry, shown, scenarios.get(entry.id, []), rows.get(entry.id, {}), told))
        parts.append("</div></section>\n")
    short = "".join(
        f"<li><span class='chip held'>{_short(column.name)}</span> {_escape(column.name)}</li>" for column in columns
    )
    return f"<p>Open one to read its scenarios.</p><ul class='key' aria-label='Backends'>{short}</ul>{''.join(parts)}"


def _again(guarantee: str, column: Column, entries: Sequence[Entry], found: Mapping[str, Outcome | None]) -> str:
    """What a cell leads to."""
    told = "; ".join(_told(Counter(found[entry.id] for entry in entries)))
    command = column.report.again.replace("{ids}", ",".join(entry.id for entry in entries))
    where = f"Run at commit {column.report.commit or 'of an installed package'} on {column.report.started[:10]}"
    where += ", which is not this page's." if column.old else "."
    return (
        f"<div class='run' id='{_slug(guarantee)}.{_escape(column.name)}'><p><b>{_escape(column.name)}</b>: {told}. "
        f"{_escape(where)} To run these again:</p><pre tabindex='0'>{_escape(command)}</pre></div>"
    )


def _behaviour(
    entry: Entry,
    shown: Mapping[str, Outcome | None],
    scenarios: Sequence[Scenario],
    rows: Mapping[str, Sequence[Row]],
    breaks: Sequence[str] | None,
) -> str:
    states = {name: _state(outcome) for name, outcome in shown.items()}
    words: dict[str, list[str]] = {}
    for name, state in states.items():
        words.setdefault(state.word, []).append(name)
    said = "; ".join(f"{word} on {', '.join(names)}" for word, names in words.items())
    chips = "".join(_chip(name, state, alone=len(states) == 1) for name, state in states.items())
    inside = "".join(_scenario(each) for each in scenarios) or "<dt>No scenario</dt>"
    reasons = _reasons(rows)
    broken = "".join(
        f"<pre>{_escape(name)}, {_escape(row.scenario)} ({row.face})\n{_escape(row.why)}</pre>"
        for name, found in rows.items()
        for row in found
        if row.outcome is Outcome.BROKEN
    )
    noticed = ""
    if breaks is not None:
        text = "; ".join(_escape(each) for each in breaks)
        noticed = f"<dt>Broken on purpose, and noticed</dt><dd>{text}</dd>" if text else ""
    return (
        f"<details class='id' id='{entry.id}'><summary><b>{entry.id}</b><span>{_escape(entry.text)}</span>"
        f"<span class='chips' aria-hidden='true'>{chips}</span><span class='hidden'>{_escape(said)}</span></summary>"
        f"<div class='inside'><dl>{inside}{reasons}{noticed}"
        f"<dt>To run it</dt><dd><code>narrowboat verify URL --only {entry.id}</code></dd></dl>{broken}</div></details>\n"
    )


def _chip(name: str, state: State, *, alone: bool) -> str:
    text = state.word if alone else _short(name)
    return f"<span class='chip {state.kind}' title='{_escape(name)}: {state.word}'>{text}</span>"


def _scenario(scenario: Scenario) -> str:
    tier = f"tier {scenario.tier}, {TIER_TEXTS[scenario.tier].partition(':')[0]}"
    needs = f", where {', '.join(scenario.needs)} is claimed" if scenario.needs else ""
    name, text = scenario.name.replace("_", " "), " ".join(scenario.text.split())
    return f"<dt>{_escape(name)} <small>({_escape(tier + needs)})</small></dt><dd>{_escape(text)}</dd>"


def _reasons(rows: Mapping[str, Sequence[Row]]) -> str:
    """Why it was neither held nor broken, with the backends of which that is so."""
    reasons: dict[str, list[str]] = {}
    for name, found in rows.items():
        for row in found:
            if row.why and row.outcome is not Outcome.BROKEN:
                instead = INSTEAD.get(NEEDS_FAULT[row.id], "") if row.id in NEEDS_FAULT else ""
                done = f". Done instead: {instead}" if instead and row.outcome is Outcome.NOT_EXERCISED else ""
                names = reasons.setdefault(f"{_STATES[row.outcome].word}: {row.why.removeprefix('not claimed: ')}{done}", [])
                if name not in names:
                    names.append(name)
    return "".join(f"<dt>{_escape(', '.join(names))}</dt><dd>{_escape(reason)}</dd>" for reason, names in reasons.items())


def _short(name: str) -> str:
    """The three letters by which a chip names a backend; the key above them has the whole names."""
    return _escape(name[:3])


# -- the runs and the claims ------------------------------------------------------------------------------------------


def _runs(reports: Sequence[Report], others: Sequence[Report], commit: str) -> str:
    """A line for each run: what it ran on, when, and how it ended."""
    caption = "Upper bounds of time are extended by the pauses of the machine, and by nothing else."
    rows = [_run(report, commit) for report in [*reports, *others]]
    return table(caption, ("Set-up", "Server", "Ids by outcome, over both faces", "When"), rows) if rows else ""


def _run(report: Report, commit: str) -> list[str]:
    tiers = "".join(sorted({row.tier for row in report.rows if row.tier}, key=list(TIER_TEXTS).index))
    server = report.versions.get("server") or f"narrowboat {report.versions.get('narrowboat', '')}"
    same = "this page's commit" if report.commit == commit else f"another commit, {report.commit or 'unknown'}"
    when = f"{report.started[:16].replace('T', ' ')} UTC, {report.seconds:.0f} s, {same}"
    stood = f" <small>{_escape(report.stood_still)}</small>" if report.stood_still else ""
    return [
        f"{_escape(report.name)}<br><code>{_escape(plain_url(report.url))}</code>",
        _escape(server),
        f"{_escape(report.counts)}; tiers {tiers or 'none'}{stood}",
        _escape(when),
    ]


def _claims(reports: Sequence[Report]) -> str:
    parts = []
    for half, title in HALVES.items():
        having = [report for report in reports if half in report.claims]
        names = dict.fromkeys(name for report in having for name in report.claims[half])
        rows = [
            [f"<code>{_escape(name)}</code>", *(_escape(report.claims[half].get(name, "")) for report in having)]
            for name in names
        ]
        if rows:
            caption = f"{title}. Times are in seconds, sizes in bytes."
            made = table(caption, ("Claim", *(_escape(report.name) for report in having)), rows)
            parts.append(folded(f"{title}: what each backend claims", made))
    return "".join(parts)
