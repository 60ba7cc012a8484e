"""The recipes for a timer in every process: three processes whose timers differ by 0, 1 and 3 seconds run the job once.

What is run is what the pages say, on a file. A timer that fires late finds the job of an earlier one done.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

HOW_TO = Path(__file__).resolve().parent.parent / "docs" / "how-to"
#: Seconds by which the timers differ.
LATE = (0.0, 1.0, 3.0)
#: Seconds until something hangs.
HANGS = 120.0


def fire(command: Sequence[str]) -> list[tuple[int, str]]:
    """What becomes of the three: exit code and output. Each ends before the next fires, as a short job does."""
    begun = time.monotonic()
    done = []
    for late in LATE:
        time.sleep(max(0.0, begun + late - time.monotonic()))
        ended = subprocess.run(command, capture_output=True, text=True, timeout=HANGS, check=False)
        done.append((ended.returncode, ended.stdout.strip() or ended.stderr.strip()))
    assert time.monotonic() - begun < 300, "the machine stood still for as long as the minimum hold"
    return done


def test_the_recipe_for_a_program_runs_the_job_once(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (HOW_TO / "workers.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if "def nightly()" in block]
    recipe, calls = block.split("\nprint(")
    assert "memory://workers" in recipe and calls.startswith("nightly()")
    program = "import narrowboat\n" + recipe.replace("memory://workers", f"sqlite:///{tmp_path}/locks.db")

    done = fire([sys.executable, "-c", f"{program}\nprint(nightly())\nlocks.close()"])

    assert done == [(0, "done"), (0, "another process does it"), (0, "another process does it")]


def test_the_recipe_for_cron_runs_the_job_once(tmp_path: Path) -> None:
    page = (HOW_TO / "command-line.md").read_text("utf-8")
    (line,) = re.findall(r"^\$ narrowboat (lock .* nightly-report -- )\./report\.sh$", page, re.MULTILINE)
    ours = [f"sqlite:///{tmp_path}/locks.db" if word.startswith("sqlite:") else word for word in shlex.split(line)]

    done = fire([sys.executable, "-m", "narrowboat", *ours, "echo", "ran"])

    assert [code for code, _ in done] == [0, 75, 75]
    assert done[0][1] == "ran"
    assert "still busy" in done[1][1]
