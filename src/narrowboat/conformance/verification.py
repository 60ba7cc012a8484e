"""`narrowboat verify URL`: the whole kit against a live backend, as a function and as what the command calls."""

from __future__ import annotations

import difflib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from narrowboat.conformance import report as reports
from narrowboat.conformance.catalogue import CATALOGUE
from narrowboat.conformance.harness import Harness
from narrowboat.conformance.report import Report
from narrowboat.conformance.report.markup import page
from narrowboat.conformance.runner import Progress, Row, Selection, load, run
from narrowboat.conformance.scenario import FACES, TIERS
from narrowboat.errors import ConfigurationError


def verify(
    url: str | Harness,
    *,
    only: Iterable[str] = (),
    tiers: Iterable[str] = (),
    faces: Iterable[str] = FACES,
    size: float = 1.0,
    progress: Progress | None = None,
) -> Report:
    """Run the kit against the backend behind `url` (or a harness) and report.

    Args:
        url: any URL whose scheme is installed; it gets namespaces of its own, what is there already is not touched.
        only: ids such as "L12", or names of scenarios; everything unless given.
        tiers: letters out of C, T, S, P, N, R, H; all unless given.
        faces: "sync", "asyncio".
        size: of the stress scenarios; 1.0 is what a laptop does in a few minutes.
        progress: told after each scenario: done, of how many, its rows.

    Raises:
        ConfigurationError: the URL, an id, a tier or a face is unknown.
    """
    harness = url if isinstance(url, Harness) else Harness(url)
    selection = select(only, tiers, faces, size)
    begun = time.monotonic()
    rows = run(harness, selection, progress)
    return reports.make(harness, rows, seconds=time.monotonic() - begun)


def select(only: Iterable[str], tiers: Iterable[str], faces: Iterable[str], size: float = 1.0) -> Selection:
    """What to run, with every word checked."""
    known = {scenario.name for scenario in load()} | set(CATALOGUE)
    wanted = frozenset(only)
    letters = frozenset(letter.upper() for letter in tiers)
    sides = tuple(faces)
    for what, given, allowed in (
        ("id or scenario", wanted, known),
        ("tier", letters, set(TIERS)),
        ("face", frozenset(sides), set(FACES)),
    ):
        if unknown := sorted(given - allowed):
            shown = sorted(allowed)
            if len(shown) > 20:  # hundreds of names are no help
                shown = difflib.get_close_matches(unknown[0], shown, n=5, cutoff=0.5) or ["B01", "L01"]
            near = "known are" if len(shown) == len(allowed) else "near it are"
            raise ConfigurationError(f"unknown {what} {', '.join(unknown)}; {near}: {', '.join(shown)}")
    if not size > 0:
        raise ConfigurationError(f"size={size!r}: expected more than 0; 1 is the full size")
    return Selection(only=wanted, tiers=letters, faces=sides, size=size)


def verify_command(
    url: str,
    *,
    only: Iterable[str] = (),
    tier: Iterable[str] = (),
    face: str | None = None,
    size: float = 1.0,
    json_path: str | Path | None = None,
    html_path: str | Path | None = None,
    progress: Progress | None = None,
    out: Callable[[str], object] = sys.stdout.write,
) -> int:
    """What the command does: run, write the reports, print a summary. 0: nothing is broken; 1: something is."""
    report = verify(url, only=only, tiers=tier, faces=FACES if face is None else (face,), size=size, progress=progress)
    if json_path is not None:
        Path(json_path).write_text(json.dumps(report.as_json(), indent=1) + "\n", encoding="utf-8")
    if html_path is not None:
        Path(html_path).write_text(page([report]), encoding="utf-8")
    for row in report.broken:
        out(f"{_line(row)}\n")
    if report.broken and loaded():
        out(f"{loaded()}\n")
    counts = ", ".join(f"{number} {outcome}" for outcome, number in report.count().items() if number)
    out(f"{report.url}: {counts} in {report.seconds:g} s\n")
    return 0 if report.ok else 1


def loaded() -> str:
    """What to say of broken ids when the machine had more to do than it has cores; empty when it had not."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load <= cores:
        return ""
    return (
        f"the machine was loaded ({load:.1f} on {cores} cores), so a bound of time may have been missed for that: try "
        "again with NARROWBOAT_TIME_SCALE=3, which stretches the upper ones"
    )


def _line(row: Row) -> str:
    last = row.why.strip().splitlines()[-1] if row.why.strip() else ""
    return f"{row.id} {row.face} {row.outcome.value}: {CATALOGUE[row.id].text}\n    {row.scenario}: {last}"
