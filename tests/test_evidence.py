"""The page of evidence: it is made from the runs in docs/evidence and agrees with the catalogue, and what is wrong is told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from narrowboat.conformance import Harness, Outcome, Row
from narrowboat.conformance import report as reports
from narrowboat.conformance.catalogue import CATALOGUE, INSTEAD, NEEDS_FAULT, SERVER_FAULTS
from narrowboat.conformance.report.plots import FAMILIES
from narrowboat.conformance.report.storms import storms
from tools import evidence, evidence_chapters

SCENARIOS = Path(reports.__file__).resolve().parents[1] / "scenarios"

#: What `narrowboat verify --history` writes.
HISTORY = {
    "backend": "redis",
    "url_scheme": "redis",
    "seed": 7,
    "seconds": 60.0,
    "grants": 1200,
    "messages": 9000,
    "faults": {"kill": 3, "reset": 11},
    "broken": [],
    "longest": {"unavailable": 2.5},
}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """docs/evidence and the page in a folder of their own, with no run."""
    monkeypatch.setattr(evidence, "ROOT", tmp_path)
    monkeypatch.setattr(evidence, "RUNS", tmp_path / "evidence")
    monkeypatch.setattr(evidence, "PAGE", tmp_path / "evidence.html")
    return tmp_path / "evidence"


def put(folder: Path, name: str, *rows: Row, file: str = "") -> None:
    folder.mkdir(exist_ok=True)
    made = dataclasses.replace(reports.make(Harness("memory://"), rows, seconds=1), set_up=name)
    (folder / f"{file or name}.json").write_text(json.dumps(made.as_json()))


def held(id: str, face: str = "sync") -> Row:
    return Row(id, face, Outcome.HELD, "", "takes_and_frees", "C", 0.1)


def chapter(anchor: str) -> str:
    """The markup of that chapter."""
    (found,) = [each.markup for each in evidence_chapters.all_chapters([]) if each.anchor == anchor]
    return found


def test_the_page_is_what_the_runs_and_the_catalogue_make() -> None:
    """If this fails after a change of a scenario or a mutant: python -m tools.evidence."""
    assert evidence.main(["--check"]) == 0


def test_a_page_that_was_changed_is_refused(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(runs, "memory", held("L01"))
    assert evidence.main([]) == 0
    assert evidence.main(["--check"]) == 0
    evidence.PAGE.write_text(evidence.PAGE.read_text().replace("proven 1/1", "proven 2/2"))

    assert evidence.main(["--check"]) == 1
    assert "it is not what the runs and the catalogue make" in capsys.readouterr().out


def test_an_id_that_is_not_of_the_catalogue_is_refused(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(runs, "memory", held("L01"), held("L99999"))

    assert evidence.main([]) == 1
    assert "L99999" in capsys.readouterr().out


def test_what_is_wrong_with_a_page_is_told() -> None:
    whole = "".join(f"<p id='{id}'>" for id in CATALOGUE)

    assert list(evidence.faults(whole)) == []
    assert list(evidence.faults(whole.replace("<p id='L01'>", ""))) == ["L01 is not on it"]
    assert list(evidence.faults(f"{whole}<p id='L999'>")) == ["L999 is on it, and not in the catalogue"]
    assert list(evidence.faults(f"{whole}<a href='#nowhere'>")) == ["#nowhere leads nowhere"]
    assert list(evidence.faults(f"{whole}<img src='x.png'>")) == ["it loads src='x.png'"]


def test_a_folder_of_runs_is_collected_by_set_up(runs: Path, tmp_path: Path) -> None:
    """The faces of a set-up and its tiers are parts of one; another set-up of the backend is a line of its own."""
    folder = tmp_path / "found"
    put(folder, "redis", held("L01"), file="redis-1")
    put(folder, "redis", held("L01", "asyncio"), file="redis-2")
    put(folder, "redis_faults", held("L32"))
    put(folder, "redis_tls", held("L02"))
    (folder / "seven.json").write_text(json.dumps({"histories": [HISTORY]}))

    assert evidence.main(["collect", str(folder)]) == 0
    assert sorted(path.name for path in runs.iterdir()) == ["histories.json", "redis.json", "redis_tls.json"]
    found, histories = evidence.loaded(runs)
    assert {(row.id, row.face) for row in found["redis"].rows} == {("L01", "sync"), ("L01", "asyncio"), ("L32", "sync")}
    assert histories == [HISTORY]
    text = evidence.PAGE.read_text()
    assert "<b>1,200</b> grants, <b>9,000</b> messages, <b>14</b> faults" in text
    assert "redis_tls" in text


def test_a_folder_without_a_run_is_an_error(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="has no JSON of a run"):
        evidence.main(["collect", str(tmp_path)])


def test_a_history_that_broke_a_rule_says_so() -> None:
    markup = storms([HISTORY, {**HISTORY, "seed": 8, "broken": ["one holder: two held <a>"]}])
    assert ">1 of 2<" in markup
    assert "of which <b>1</b> broke a rule" in markup
    assert "seed 8: one holder: two held &lt;a&gt;" in markup


def test_every_mutant_is_on_it_with_the_ids_that_notice() -> None:
    found = evidence_chapters.mutants()
    markup = chapter("mutants")
    by_id = evidence_chapters.breaks()

    assert len(found) > 80
    assert all(f"#{id}'" in markup for each in found for id in each.ids)
    assert all(by_id[id] for each in found for id in each.ids)


@pytest.mark.parametrize(
    "text",
    [
        "/*\nA lease.\n\nIt assumes\na `clock`.\n\nA line of the runner.\n*/\nmodule lease\nx // guard margin => y\n",
        "// A lease.\n//\n// It assumes\n// a `clock`.\n//\n// A line.\nmodule lease { }\nx // guard margin => y\n",
    ],
)
def test_a_model_is_told_by_the_comment_that_it_begins_with(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "lease.als").write_text(text)
    monkeypatch.setattr(evidence_chapters, "ROOT", tmp_path)
    monkeypatch.setattr(evidence_chapters, "MODELS", tmp_path / "models")

    told = chapter("models")
    assert "<dt>A lease. <small>(Alloy, <code>models/lease.als</code>)</small></dt>" in told
    assert "<dd>It assumes a <code>clock</code>. Each of its guards (1) is needed: without it the check must fail.</dd>" in told


def test_what_is_plotted_is_what_scenarios_measure() -> None:
    """A name that no scenario measures any more leaves an empty plot."""
    sources = "".join(path.read_text("utf-8") for path in SCENARIOS.rglob("*.py"))
    for before, after in (("server ", " to"), ("wait after a ", "")):
        names = " ".join(f"{before}{end}{after}" for end in ("kill", "stop"))
        sources = sources.replace(f"{before}{{end}}{after}", names)
    assert [name for family in FAMILIES for name in family.names if name not in sources] == []


def test_each_fault_that_a_harness_may_lack_says_what_is_done_instead() -> None:
    """Of those that the kit makes itself, or every harness can, nothing is left over."""
    own = {fault for fault in SERVER_FAULTS if fault.name in {"PROXY", "RESTART", "KILL", "PAUSE", "DELETE"}}
    assert set(INSTEAD) == {fault for fault in NEEDS_FAULT.values() if fault in SERVER_FAULTS} - own
