"""What this process uses at a moment: threads, open files, tasks and memory. A scenario compares before and after."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import resource
import sys
import threading
from collections.abc import Collection


@dataclasses.dataclass(frozen=True)
class Resources:
    """A snapshot. The kit's own threads are not counted."""

    threads: frozenset[threading.Thread]
    files: int
    tasks: int
    memory: int  #: resident bytes

    @classmethod
    def now(cls) -> Resources:
        """After a garbage collection."""
        gc.collect()
        threads = frozenset(thread for thread in threading.enumerate() if not thread.name.startswith("conformance-"))
        try:
            tasks = len(asyncio.all_tasks())
        except RuntimeError:
            tasks = 0
        return cls(threads=threads, files=_files(), tasks=tasks, memory=resident())

    def left(self) -> list[str]:
        """The names of the threads that are there now and were not there then: one that ended does not make up for another."""
        return sorted(thread.name for thread in Resources.now().threads - self.threads)


def our_threads(besides: Collection[threading.Thread] = ()) -> list[threading.Thread]:
    """The library's threads, without those of others in this process, which were there before (`besides`)."""
    return [t for t in threading.enumerate() if t.name.startswith("narrowboat-") and t not in besides]


def thread_count() -> int:
    """The threads of this process, those of its libraries too; on systems that do not tell, Python's alone."""
    return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else threading.active_count()


def _files() -> int:
    for folder in ("/proc/self/fd", "/dev/fd"):
        if os.path.isdir(folder):
            return len(os.listdir(folder))
    return 0


def resident() -> int:
    """The bytes of memory that this process has now; on systems that do not tell, the most that it ever had."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
