"""The program as a process: start it, wait for its end, and for what it does meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

PROGRAM = (sys.executable, "-m", "narrowboat")
#: Seconds after which something hangs. On a busy machine an interpreter alone takes ten to start.
HANGS = 120.0


def command(*arguments: Path | float | str, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    """Start `narrowboat ARGUMENTS`."""
    pipes: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        **options,
    }
    return subprocess.Popen([*PROGRAM, *map(str, arguments)], env={**os.environ, **(env or {})}, **pipes)


def finish(process: subprocess.Popen[str], timeout: float = HANGS) -> tuple[int, str, str]:
    """Wait for it: exit code, output, errors."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out, err


def call(*arguments: Path | float | str, text: str = "", **options: Any) -> tuple[int, str, str]:
    """Run `narrowboat ARGUMENTS` with `text` on its standard input: exit code, output, errors."""
    process = command(*arguments, stdin=subprocess.PIPE, **options)
    try:
        out, err = process.communicate(text, timeout=HANGS)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out, err


def until(condition: Callable[[], T], timeout: float = HANGS) -> T:
    """Wait for what no event tells: another process's file, another process's lock."""
    ends = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.005)
    return found
