"""Where a run took place: the commit of the code, and the machine. No names of hosts, users or paths.

A report is compared with others by this. The commit is known where the package runs from a clone, or where `NARROWBOAT_COMMIT`
names it; elsewhere it is "".
"""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from pathlib import Path

import narrowboat

#: The folders whose changes make a run one of no commit.
_CODE = ("src", "backends", "integration")


@functools.cache
def commit() -> str:
    """The commit that runs, as its first ten digits, and a `+` behind them where the code has changes that are not in it.

    What it says first is said for ever: a run calls it when it begins, since the clone may be at another commit when it ends.
    """
    if told := os.environ.get("NARROWBOAT_COMMIT"):
        return told
    root = Path(narrowboat.__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        head = _git(root, "rev-parse", "--short=10", "HEAD")
        return f"{head}+" if _git(root, "status", "--porcelain", "--", *_CODE) else head
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)  # noqa: S603  # words of ours alone
    return done.stdout.strip()


def machine() -> dict[str, str]:
    """Its processor, how many cores this process may use, the operating system and the Python."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": str(cores),
        "system": _system(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _system() -> str:
    try:
        return f"{platform.system()}, {platform.freedesktop_os_release()['PRETTY_NAME']}"
    except (OSError, KeyError):
        return f"{platform.system()} {platform.release()}"
