"""`narrowboat verify URL`: the whole kit against a live backend, or a history; as functions and as what the command calls."""

from __future__ import annotations

import difflib
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from narrowboat.conformance import report as reports
from narrowboat.conformance.catalogue import CATALOGUE
from narrowboat.conformance.harness import Harness
from narrowboat.conformance.histories import history
from narrowboat.conformance.report import Report, brief, origin
from narrowboat.conformance.report.page import page
from narrowboat.conformance.runner import Progress, Row, Selection, load, run
from narrowboat.conformance.scenario import FACES, TIER_TEXTS
from narrowboat.errors import ConfigurationError


def verify(
    url: str | Harness,
    *,
    only: Iterable[str] = (),
    tiers: Iterable[str] = (),
    faces: Iterable[str] = FACES,
    size: float = 1.0,
    half: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Run the kit against the backend behind `url`, or behind a harness.

    Args:
        url: any URL whose scheme is installed. The kit uses namespaces of its own; what is there already is not touched.
        only: ids such as "L12", or names of scenarios; everything unless given.
        tiers: letters out of C (core), T (timing), S (stress), P (processes), N (network), R (server), H (histories); all
            unless given.
        faces: "sync", "asyncio".
        size: scales the rounds of stress scenarios; 1.0 is what a laptop does in a few minutes.
        half: "locks" or "messages"; both, as far as the scheme has them, unless given.
        progress: called after each scenario with how many are done, of how many, and its rows.

    Returns:
        The report: what became of each id on each face, and what was measured.

    Raises:
        ConfigurationError: the URL, an id, a tier, a face or a half is unknown. Nothing was run.
    """
    harness = url if isinstance(url, Harness) else Harness(url)
    selection = select(only, tiers, faces, size, half)
    begun = time.monotonic()
    origin.commit()
    rows = run(harness, selection, progress)
    return reports.make(harness, rows, seconds=time.monotonic() - begun)


#: The word of callers for a half, and that of the contract.
HALVES = {"locks": "locks", "messages": "broker"}


def select(
    only: Iterable[str], tiers: Iterable[str], faces: Iterable[str], size: float = 1.0, half: str | None = None
) -> Selection:
    """What to run, with every word checked."""
    wanted = frozenset(only)
    letters = frozenset(letter.upper() for letter in tiers)
    sides = tuple(faces)
    known = {scenario.name for scenario in load()} | set(CATALOGUE)
    if strange := sorted(wanted - known):
        near = difflib.get_close_matches(strange[0], sorted(known), n=5, cutoff=0.5) or ["B01", "L01"]  # all are hundreds
        raise ConfigurationError(f"unknown id or scenario {', '.join(strange)}; near it are: {', '.join(near)}")
    _check("tier", letters, {letter: f"{letter} ({text})" for letter, text in TIER_TEXTS.items()})
    _check("face", sides, {face: face for face in FACES})
    _check("half", [half] if half else [], {half: half for half in HALVES})
    if not size > 0:
        raise ConfigurationError(f"size={size!r}: expected more than 0; 1 is the full size")
    halves = frozenset([HALVES[half]] if half else [])
    return Selection(only=wanted, tiers=letters, faces=sides, size=size, halves=halves)


def _check(what: str, given: Iterable[str], known: Mapping[str, str]) -> None:
    """Raise `ConfigurationError` for a word that is no key of `known`. The error shows the values."""
    if unknown := sorted(set(given) - set(known)):
        raise ConfigurationError(f"unknown {what} {', '.join(unknown)}; known are: {', '.join(known.values())}")


def verify_command(
    url: str,
    *,
    only: Iterable[str] = (),
    tier: Iterable[str] = (),
    face: str | None = None,
    size: float = 1.0,
    half: str | None = None,
    json_path: str | Path | None = None,
    html_path: str | Path | None = None,
    progress: Progress | None = None,
    out: Callable[[str], object] = sys.stdout.write,
) -> int:
    """What the command does: run, write the reports, print a summary. 0: nothing is broken; 1: something is."""
    faces = FACES if face is None else (face,)
    report = verify(url, only=only, tiers=tier, faces=faces, size=size, half=half, progress=progress)
    write(report, json_path, html_path)
    for row in report.broken:
        out(f"{_line(row)}\n")
    if report.stood_still:
        out(f"{report.stood_still}\n")
    out(f"{report.url}: {report.counts} in {report.seconds:g} s\n")
    return 0 if report.ok else 1


def history_command(
    url: str | Harness,
    *,
    seconds: float,
    seed: int | None = None,
    half: str | None = None,
    folder: str | Path | None = None,
    json_path: str | Path | None = None,
    html_path: str | Path | None = None,
    out: Callable[[str], object] = sys.stdout.write,
) -> int:
    """What the command does with `--history`: make one history, write the reports, print what it shows. 0: no rule is broken.

    Args:
        url: as for `verify`.
        seconds: of clients and faults.
        seed: of the plan; a new one unless given. It is printed.
        half: "locks" or "messages"; both, as far as the scheme has them, unless given.
        folder: for a history that breaks a rule; a temporary one unless given.
        json_path: where to write the report as JSON.
        html_path: where to write it as a page.
        out: what prints.
    """
    harness = url if isinstance(url, Harness) else Harness(url)
    _check("half", [half] if half else [], {half: half for half in HALVES})
    origin.commit()
    result = history(
        harness,
        seconds=seconds,
        seed=random.randrange(1_000_000) if seed is None else seed,
        folder=Path(folder or tempfile.mkdtemp(prefix="narrowboat-histories-")),
        halves=[HALVES[half]] if half else (),
    )
    write(reports.make(harness, [], seconds=result.seconds, histories=[result.as_json()]), json_path, html_path)
    out(f"{result.text()}\n")
    return 0 if result.verdict.ok else 1


def write(report: Report, json_path: str | Path | None, html_path: str | Path | None) -> None:
    """Write the report to each path that is given."""
    if json_path is not None:
        Path(json_path).write_text(json.dumps(report.as_json(), indent=1) + "\n", encoding="utf-8")
    if html_path is not None:
        Path(html_path).write_text(page([report]), encoding="utf-8")


def _line(row: Row) -> str:
    """One broken row: the id, the rule in words, what was seen, and where."""
    lines = [f"{row.id} {row.face} {row.outcome.value}: {CATALOGUE[row.id].text}"]
    rules = {scenario.name: scenario.text for scenario in load()}
    if row.scenario in rules:
        lines.append(f"  owed: {rules[row.scenario]}")
    first, *more = brief.said(row.why)[:6]
    lines += [f"  seen: {first.removeprefix('AssertionError: ')}", *(f"        {line}" for line in more)]
    if row.scenario:
        places = re.findall(r'File ".*?conformance.(scenarios.*?)", line (\d+)', row.why)
        where = f", {places[-1][0]}:{places[-1][1]}" if places else ""
        lines.append(f"  in {row.scenario}{where}; tier {row.tier}, after {row.seconds:.1f} s")
    return "\n".join(lines)
