"""A report with no more than a page shows, small enough for a repository: one line of JSON for each scenario.

`write` gives the text and `read` the report again, without the time that each scenario took. What failed is told by its last
lines. Paths and the addresses of servers are left out.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from narrowboat.conformance.measured import Measured
from narrowboat.conformance.report import SUITE, Report, from_json, with_rows
from narrowboat.conformance.runner import Outcome, Row
from narrowboat.conformance.scenario import FACES

#: What is kept of a failure, in characters.
_WHY = 400
_PATH = re.compile(r"(?<![\w:])/(?:[\w.+-]+/)+")
_ADDRESS = re.compile(r"\b(?:127\.0\.0\.1|localhost)(?::\d+)?|\[::1\](?::\d+)?")


def plain_url(url: str) -> str:
    """A URL, or several with "and" between them, without address and path, and without options that name a file.

    >>> plain_url("redis://127.0.0.1:6379/0?durability=aof&ca=/tmp/ca.pem and redis://127.0.0.1:6379/0?wait=1")
    'redis://?durability=aof and redis://?wait=1'
    """
    return " and ".join(_ADDRESS.sub("server", _plain(each)) for each in url.split(" and "))


def _plain(url: str) -> str:
    head, _, query = url.partition("?")
    options = [option for option in query.split("&") if option and "/" not in option and "%2F" not in option]
    return head.partition("://")[0] + "://" + (f"?{'&'.join(options)}" if options else "")


def write(report: Report) -> str:
    """As JSON text. Rows that say the same of several faces or ids are one."""
    head = {
        "suite": SUITE,
        **{field.name: getattr(report, field.name) for field in dataclasses.fields(report) if field.name != "rows"},
        "url": plain_url(report.url),
        "again": re.sub(r"'[^']*://[^']*'", lambda found: _example(found[0]), report.again),
    }
    lines = [json.dumps(row) for row in _rows(report.rows)]
    fields = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
    return "{\n" + ",\n".join([*fields, ' "rows": [\n  ' + ",\n  ".join(lines) + "\n ]"]) + "\n}\n"


def _example(quoted: str) -> str:
    """A URL for whoever repeats a run: their own, where it has an address or a path."""
    url = quoted.strip("'")
    return url if plain_url(url) == url else "URL"


def _rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """What is the same on both faces, or of all ids of a scenario, once."""
    ids: dict[tuple[Any, ...], list[str]] = {}
    measured: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        key = (row.face, row.outcome, _why(row), row.scenario, row.tier)
        if row.id not in ids.setdefault(key, []):
            ids[key].append(row.id)
        found = [[one.what, _short(one.value), one.unit, one.bound and _short(one.bound)] for one in row.measured]
        measured.setdefault(key, []).extend(found)
    faces: dict[tuple[Any, ...], set[str]] = {}
    numbers: dict[tuple[Any, ...], dict[str, list[Any]]] = {}
    for key, of in ids.items():
        face, *rest = key
        whole = (*rest, tuple(of))
        faces.setdefault(whole, set()).add(face)
        if measured[key]:
            numbers.setdefault(whole, {})[face] = measured[key]
    return [
        {"ids": list(names), "outcome": outcome.value}
        | ({} if sides == {*FACES} else {"faces": sorted(sides)})
        | {name: value for name, value in (("why", why), ("scenario", scenario), ("tier", tier)) if value}
        | ({"measured": numbers[key]} if key in numbers else {})
        for key, sides in faces.items()
        for outcome, why, scenario, tier, names in [key]
    ]


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _why(row: Row) -> str:
    """The reason; of a failure its last lines, which say what was seen."""
    text = row.why.strip()
    if row.outcome is Outcome.BROKEN:
        text = "\n".join(said(text))[:_WHY]
    return _ADDRESS.sub("server", _PATH.sub("", text))


def said(why: str) -> list[str]:
    """What is said of an error, without how it came about: the lines of its last traceback that are not indented."""
    lines = why.strip().splitlines()
    begun = max((number for number, line in enumerate(lines) if line.startswith("Traceback ")), default=-1)
    return [line for line in lines[begun + 1 :] if line and not line.startswith(" ")] or lines[-1:]


def read(data: Mapping[str, Any]) -> Report:
    """A report that `write` or `Report.as_json` wrote, from its JSON values."""
    if any("id" in row for row in data["rows"]):
        return from_json(data)
    rows = [
        Row(
            id=id,
            face=face,
            outcome=Outcome(row["outcome"]),
            why=row.get("why", ""),
            scenario=row.get("scenario", ""),
            tier=row.get("tier", ""),
            measured=tuple(Measured(*each) for each in row.get("measured", {}).get(face, ())) if id == row["ids"][0] else (),
        )
        for row in data["rows"]
        for face in row.get("faces", FACES)
        for id in row["ids"]
    ]
    return with_rows(data, rows)


def merged(reports: Sequence[Report]) -> Report:
    """Parts of one run, such as its faces or its tiers, as one report. Of several commits the newest one's parts are taken."""
    newest = max(reports, key=lambda report: report.started)
    parts = [report for report in reports if report.commit == newest.commit]
    rows = tuple(dict.fromkeys(row for report in parts for row in report.rows))
    tried = {(row.id, row.face) for row in rows if row.scenario}
    seconds = sum(report.seconds for report in parts)
    return dataclasses.replace(
        newest,
        rows=tuple(row for row in rows if row.scenario or (row.id, row.face) not in tried),
        histories=tuple(entry for report in parts for entry in report.histories),
        url=" and ".join(dict.fromkeys(report.url for report in parts)),
        started=min(report.started for report in parts),
        seconds=round(seconds, 1),
        still=round(sum(report.still * report.seconds for report in parts) / seconds, 4) if seconds else 0.0,
    )
