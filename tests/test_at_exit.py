"""What is still held when the interpreter ends: a finaliser may release it then, and the program ends all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys, threading, time
import narrowboat

locks = narrowboat.locks(sys.argv[1])

def suspended():
    with locks.lock("a"), locks.all("b", "c"):
        yield

class Job:
    def __init__(self):
        self.held = locks.lock("d").acquire()
    def __del__(self):
        self.held.release()

def busy():
    while True:
        with locks.lock("e"):
            pass

generator = suspended()
next(generator)
job = Job()
for _ in range(3):
    threading.Thread(target=busy, daemon=True).start()
time.sleep(0.2)
"""


@pytest.mark.parametrize("url", ["memory://", "sqlite:///{}?durability=normal"])
@pytest.mark.parametrize("round", range(3))
def test_a_release_at_the_end_of_the_interpreter_never_hangs(url: str, round: int, tmp_path: Path) -> None:
    """Python has stopped all other threads by then, wherever they stood: with a mutex, or in the middle of a call."""
    url = url.format(tmp_path / "locks.db")
    done = subprocess.run([sys.executable, "-c", PROGRAM, url], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
