"""The program as a process: start it, wait for its end, and for what it does meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import time

PROGRAM = (sys.executable, "-m", "narrowboat")


def command(*arguments, env=None, **options):
    """Start `narrowboat ARGUMENTS`."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    return subprocess.Popen([*PROGRAM, *map(str, arguments)], env={**os.environ, **(env or {})}, **pipes)


def finish(process, timeout=20):
    """Wait for it: exit code, output, errors."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out, err


def call(*arguments, text="", **options):
    """Run `narrowboat ARGUMENTS` with `text` on its standard input: exit code, output, errors."""
    process = command(*arguments, stdin=subprocess.PIPE, **options)
    try:
        out, err = process.communicate(text, timeout=20)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out, err


def until(condition, timeout=15):
    """Wait for what no event tells: another process's file, another process's lock."""
    ends = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.005)
    return found
