"""Three processes of gunicorn, forked from one that has used its locks and its broker, and a worker."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import json
import re
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PIECES, BUYERS = 40, 60

#: What gunicorn preloads: both faces have connections and threads when it forks.
PRELOADED = f"""
import kiosk
kiosk.create({PIECES})
kiosk.orders.declare()
with kiosk.locks.lock("stock"):
    pass
application = kiosk.application
"""


@contextlib.contextmanager
def running(folder: Path, *command: str) -> Iterator[Iterator[str]]:
    """The lines that a process says, which is told to end afterwards and does."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    with process.stdout as lines:
        try:
            yield lines
        finally:
            process.terminate()
            rest = lines.read()
    assert process.wait(timeout=60) == 0, rest


def address(lines: Iterator[str]) -> str:
    said = []
    for line in lines:
        said.append(line)
        if found := re.search(r"Listening at: (http://\S+)", line):
            return found[1]
    raise AssertionError("".join(said))


def buy(url: str) -> tuple[int, dict[str, str]]:
    try:
        with urllib.request.urlopen(f"{url}/sell", timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_forked_processes_sell_what_there_is_and_a_worker_ships_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks and broker of the parent go on in each child, on connections of its own."""
    url = f"sqlite:///{tmp_path}/narrowboat.db"
    for name, value in (
        ("NARROWBOAT_LOCKS_URL", url),
        ("NARROWBOAT_BROKER_URL", url),
        ("KIOSK_DB", str(tmp_path / "kiosk.db")),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=":")
    (tmp_path / "preloaded.py").write_text(PRELOADED)

    with (
        running(tmp_path, "gunicorn", "--preload", "-w", "3", "-b", "127.0.0.1:0", "preloaded:application") as lines,
        concurrent.futures.ThreadPoolExecutor(12) as buyers,
    ):
        answers = list(buyers.map(buy, [address(lines)] * BUYERS))

    sold = {answer["id"] for status, answer in answers if status == 201}
    assert len(sold) == PIECES and {status for status, _ in answers} == {201, 409}
    assert len({answer["process"] for _, answer in answers}) > 1
    with running(tmp_path, "narrowboat", "run", "kiosk:worker") as lines:
        told = (line.split()[1] for line in lines if line.startswith("shipped "))
        shipped = set(itertools.islice(told, PIECES))
    assert shipped == sold
    with contextlib.closing(sqlite3.connect(tmp_path / "kiosk.db")) as tables:
        assert {id for (id,) in tables.execute("SELECT id FROM shipped")} == sold
