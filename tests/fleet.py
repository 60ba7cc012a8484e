"""A fleet of processes with one schedule, of which one after the other is killed; and what became of each tick.

    python tests/fleet.py sqlite:////tmp/fleet.db 1000 [once]

Each process writes down when it begins and ends a tick, and the audit compares that with the instants that were due. For
tests/test_schedule.py, and by hand for more ticks.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import narrowboat
from narrowboat import aio
from narrowboat.working.schedule import Missed

#: Seconds from tick to tick, of a handler at most, of a lease, and from kill to kill.
EVERY, WORK, LEASE, KILL = 0.1, 0.05, 1.0, 0.7
PROCESSES = 3
Runs = dict[float, list[tuple[int, int]]]


def work(face: str, url: str, record: str, missed: Missed) -> None:
    """One process of the fleet."""
    file = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def say(what: str, tick: narrowboat.Tick) -> None:
        os.write(file, f"{what} {tick.instant.timestamp():.6f} {tick.attempt} {os.getpid()}\n".encode())

    def ready() -> None:
        while not worker.health().ready:
            time.sleep(0.01)
        os.write(file, f"ready 0 0 {os.getpid()}\n".encode())

    worker: narrowboat.Worker | aio.Worker = narrowboat.Worker(url) if face == "sync" else aio.Worker(url)
    threading.Thread(target=ready, daemon=True).start()
    if isinstance(worker, narrowboat.Worker):

        @worker.every(EVERY, name="often", missed=missed, lease=LEASE, concurrency=2)
        def often(tick: narrowboat.Tick) -> None:
            say("begin", tick)
            time.sleep(random.random() * WORK)
            say("end", tick)

        worker.run()
    else:
        import asyncio

        @worker.every(EVERY, name="often", missed=missed, lease=LEASE, concurrency=2)
        async def aoften(tick: narrowboat.Tick) -> None:
            say("begin", tick)
            await asyncio.sleep(random.random() * WORK)
            say("end", tick)

        asyncio.run(worker.run())


@dataclass(frozen=True)
class Audit:
    """What became of the ticks."""

    due: int
    missed: list[float]
    doubled: list[float]
    again: int  #: begun again, with a greater attempt, after the process that had it was killed
    killed: int


def audit(lines: list[str], killed: set[int], first: float, last: float) -> Audit:
    """By the record of all processes: those due from `first` to `last`."""
    begun: Runs = defaultdict(list)
    ended: set[float] = set()
    for line in lines:
        what, at, attempt, process = line.split()
        instant = float(at)
        if what == "begin":
            begun[instant].append((int(attempt), int(process)))
        elif what == "end":
            ended.add(instant)
    due = [round(number * EVERY, 6) for number in range(round(first / EVERY), round(last / EVERY) + 1)]
    doubled = []
    for instant, runs in begun.items():
        attempts = Counter(number for number, _ in runs)
        survivors = [each for _, each in runs if each not in killed]
        if max(attempts.values()) > 1 or len(survivors) > 1 or (len(runs) > 1 and runs[-1][1] in killed and survivors):
            doubled.append(instant)
    again = sum(len(runs) - 1 for runs in begun.values())
    return Audit(len(due), [each for each in due if each not in ended], doubled, again, len(killed))


def rehearse(url: str, ticks: int, record: Path, missed: Missed = "skip") -> Audit:
    """Run the fleet for that many ticks, killing one process after the other."""
    fleet: list[subprocess.Popen[bytes]] = []
    killed: set[int] = set()

    def start() -> None:
        face = ("sync", "asyncio")[(len(killed) + len(fleet)) % 2]
        fleet.append(subprocess.Popen([sys.executable, __file__, "work", face, url, str(record), missed]))

    def lines() -> list[str]:
        return record.read_text().splitlines() if record.exists() else []

    def all_there() -> None:
        ends = time.monotonic() + 60
        while not {f"ready 0 0 {process.pid}" for process in fleet} <= set(lines()):
            assert time.monotonic() < ends, "a process did not start within a minute"
            time.sleep(0.05)

    try:
        while len(fleet) < PROCESSES:
            start()
        all_there()
        first = (time.time() // EVERY + 1) * EVERY
        last = first + (ticks - 1) * EVERY
        while time.time() < last:
            time.sleep(KILL * 2 * random.random())
            victim = fleet.pop(random.randrange(PROCESSES))
            killed.add(victim.pid)
            victim.kill()
            victim.wait()
            start()
            all_there()  # or the whole fleet would be killed sooner than it starts, and that is an outage
        ends = time.monotonic() + 60
        while audit(lines(), killed, first, last).missed and time.monotonic() < ends:
            time.sleep(0.2)  # what a killed process had comes again after its lease
        for process in fleet:
            process.terminate()
        assert [process.wait(60) for process in fleet] == [0] * PROCESSES
        return audit(lines(), killed, first, last)
    finally:
        for process in fleet:
            process.kill()
            process.wait()


if __name__ == "__main__":
    if sys.argv[1] == "work":
        work(sys.argv[2], sys.argv[3], sys.argv[4], "once" if sys.argv[5] == "once" else "skip")
    else:
        with tempfile.TemporaryDirectory() as folder:
            missed: Missed = "once" if sys.argv[3:] == ["once"] else "skip"
            print(rehearse(sys.argv[1], int(sys.argv[2]), Path(folder) / "record", missed))
