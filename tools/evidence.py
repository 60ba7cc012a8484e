"""The page of evidence, `docs/evidence.html`, made from the runs of the kit in `docs/evidence`; nobody writes it by hand.

    tox -e evidence                             run everything on what this machine has, collect it, and make the page
    python -m tools.evidence                    make the page anew
    python -m tools.evidence --check            exit 1 where the page is not what the runs and the catalogue make
    python -m tools.evidence collect FOLDER     take the JSON files of a folder into docs/evidence, and make the page
    python -m tools.evidence run sqlite [ID...] [--to FOLDER]    run the kit on memory or sqlite, with all that a harness can do

A file of `docs/evidence` is one run on one set-up, in the form of `narrowboat.conformance.report.brief`. A file with
`histories` has runs of `narrowboat verify --history`. `tools.evidence_chapters` makes the parts of the page about versions
of servers, models and mutants.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from narrowboat.conformance import Harness, Report, page, verify
from narrowboat.conformance.catalogue import CATALOGUE
from narrowboat.conformance.report import brief
from tools import evidence_chapters as chapters

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "docs" / "evidence"
PAGE = ROOT / "docs" / "evidence.html"

#: The columns of the page, in this order. Every other set-up is one line of it.
BACKENDS = (
    *("memory", "sqlite", "zeromq", "redis", "postgresql", "zookeeper", "consul", "cassandra"),
    *("rabbitmq", "kafka", "rocketmq"),
)
_ABOUT = (
    "<p>What the conformance kit found on each backend when it was last run. <a href='./'>Narrowboat</a> is locks and message "
    "queues behind one URL. To run all of it again, on the servers that a machine has: <code>tox -e evidence</code>.</p>"
)

#: Set-ups whose name ends so are a part of the one without it.
_PARTS = ("_faults", "_asyncio")


def render() -> str:
    """The page, from what `docs/evidence` has now."""
    reports, histories = loaded(RUNS)
    versions = [report for report in reports.values() if report.name.startswith("version_")]
    return page(
        [reports[name] for name in BACKENDS if name in reports],
        title="Narrowboat: the evidence",
        about=_ABOUT,
        others=[report for name, report in reports.items() if name not in BACKENDS and report not in versions],
        histories=histories,
        chapters=chapters.all_chapters(versions),
        breaks=chapters.breaks(),
    )


def loaded(folder: Path) -> tuple[dict[str, Report], list[dict[str, Any]]]:
    """The reports of a folder by set-up, parts put together; and its histories."""
    parts: dict[str, list[Report]] = {}
    histories: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.json")):
        data = json.loads(path.read_text("utf-8"))
        told = {"commit": data["commit"], "date": data["started"][:10]} if "commit" in data else {}
        histories += [{**each, **told} for each in data.get("histories", ())]
        if data.get("rows"):
            report = dataclasses.replace(brief.read(data), histories=())
            parts.setdefault(_whole(report.name), []).append(report)
    found = {name: _named(brief.merged(reports), name) for name, reports in sorted(parts.items())}
    return found, histories


def _named(report: Report, name: str) -> Report:
    return dataclasses.replace(report, set_up=name)


def _whole(name: str) -> str:
    """The set-up of which this one is a part."""
    for suffix in _PARTS:
        name = name.removesuffix(suffix)
    return {"amqp": "rabbitmq", "zmq": "zeromq"}.get(name, name)


def collect(folder: Path) -> None:
    """Write what a folder has into `docs/evidence`, a file for each set-up, in place of what was there of it."""
    reports, histories = loaded(folder)
    if not reports and not histories:
        raise SystemExit(f"{folder} has no JSON of a run; did it run with NARROWBOAT_EVIDENCE={folder}?")
    RUNS.mkdir(exist_ok=True)
    for name, report in reports.items():
        (RUNS / f"{name}.json").write_text(brief.write(report), encoding="utf-8")
        print(f"{name}: {report.counts}")
    if histories:
        text = ",\n ".join(json.dumps(history) for history in histories)
        (RUNS / "histories.json").write_text(f'{{"histories": [\n {text}\n]}}\n', encoding="utf-8")
        print(f"{len(histories)} histories")


def run(backend: str, only: Iterable[str], tiers: str, to: Path) -> bool:
    """Run the kit on a backend without a server, and write the report. Whether nothing is broken."""
    with tempfile.TemporaryDirectory(prefix="evidence-") as folder:
        if backend == "memory":
            harness = Harness("memory://")
        else:
            sys.path.insert(0, str(ROOT / "tests" / "backends"))
            from sqlite_harness import SqliteHarness

            harness = SqliteHarness(f"sqlite:///{folder}/kit.db")
        report = verify(harness, only=only, tiers=tiers)
    again = "python -m tools.evidence run sqlite {ids}" if backend == "sqlite" else "narrowboat verify memory:// --only {ids}"
    to.mkdir(parents=True, exist_ok=True)
    told = dataclasses.replace(report, set_up=backend, again=again)
    (to / f"{backend}.json").write_text(json.dumps(told.as_json(), indent=1) + "\n", encoding="utf-8")
    for row in report.broken:
        print(f"{row.id} {row.scenario} {row.face}: {row.why}")
    print(f"{backend}: {report.counts}")
    return report.ok


def strangers() -> Iterator[str]:
    """A line for each run with ids that the catalogue has not: nothing of them is on the page."""
    for name, report in loaded(RUNS)[0].items():
        if unknown := sorted({row.id for row in report.rows} - set(CATALOGUE)):
            yield f"the run of {name} has {', '.join(unknown)}, which the catalogue has not: run it again"


def faults(text: str) -> Iterator[str]:
    """What is wrong with a page: an id that is missing, one that is unknown, a link that leads nowhere, something loaded."""
    anchors = set(re.findall(r"\bid='([^']+)'", text))
    shown = {anchor for anchor in anchors if re.fullmatch(r"[LB]\d+", anchor)}
    yield from (f"{id} is not on it" for id in CATALOGUE if id not in shown)
    yield from (f"{id} is on it, and not in the catalogue" for id in sorted(shown - set(CATALOGUE)))
    for link in sorted(set(re.findall(r"href='([^']+)'", text))):
        if link.startswith("#") and link[1:] not in anchors:
            yield f"{link} leads nowhere"
    yield from (f"it loads {found}" for found in re.findall(r"(?:src=|url\(|@import)[^>]{0,60}", text))


def main(arguments: Sequence[str]) -> int:
    """Do what is asked; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.evidence", description="Make docs/evidence.html.")
    parser.add_argument("--check", action="store_true", help="exit 1 where the page is not what the runs make")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("collect").add_argument("folder", type=Path)
    running = commands.add_parser("run")
    running.add_argument("backend", choices=("memory", "sqlite"))
    running.add_argument("only", nargs="*", metavar="ID", help="ids, or several with commas; all unless given")
    running.add_argument("--tier", default="", help="letters of tiers; all unless given")
    running.add_argument("--to", type=Path, default=Path(tempfile.gettempdir()), help="the folder of the report")
    asked = parser.parse_args(arguments)
    if asked.command == "run":
        return 0 if run(asked.backend, [id for word in asked.only for id in word.split(",")], asked.tier, asked.to) else 1
    if asked.command == "collect":
        collect(asked.folder)
    text = render()
    wrong = [*strangers(), *faults(text)]
    if asked.check and text != (PAGE.read_text("utf-8") if PAGE.exists() else ""):
        wrong.append("it is not what the runs and the catalogue make: python -m tools.evidence")
    for each in wrong:
        print(f"{PAGE.relative_to(ROOT)}: {each}")
    if not asked.check:
        PAGE.write_text(text, encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
