"""Whole histories of ten seconds on memory and on sqlite, by the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from narrowboat.cli.app import run
from narrowboat.cli.options import Duration
from narrowboat.cli.verify import LONGEST


def told(path: Path) -> dict[str, Any]:
    """The one entry of a report."""
    (entry,) = json.loads(path.read_text())["histories"]
    assert isinstance(entry, dict)
    return entry


@pytest.mark.parametrize("url", ["memory://histories", "sqlite:///{folder}/kit.db"])
def test_ten_seconds_break_no_rule(url: str, tmp_path: Path) -> None:
    """Both halves, under the faults that an embedded backend has."""
    command = ["verify", url.format(folder=tmp_path), "--history", "10s", "--seed", "4", "--folder", str(tmp_path / "left")]
    page = tmp_path / "page.html"

    code = run([*command, "--json", str(tmp_path / "report.json"), "--html", str(page)])

    entry = told(tmp_path / "report.json")
    assert (code, entry["broken"], entry["unknown"]) == (0, [], 0)
    assert entry["backend"] == url.partition(":")[0]
    assert entry["seed"] == 4
    assert min(entry["grants"], entry["messages"], sum(entry["faults"].values())) > 0
    assert "Storms and histories</h2>" in page.read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seed", "1"], "are for --history"),
        (["--history", "10", "--only", "L01"], "runs no scenarios"),
        (["--history", "0s"], "'0s' is no time"),
        (["--history", "ten"], "'ten' is no time"),
        (["--history", "2h"], "50 minutes at most"),
    ],
)
def test_what_is_no_history_is_refused(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With what to write instead, before anything is run."""
    assert run(["verify", "memory://", *options]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("0.5h", 1800)])
def test_a_time_may_have_a_unit(text: str, seconds: float) -> None:
    assert Duration(LONGEST).convert(text, None, None) == seconds
