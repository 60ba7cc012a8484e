"""SQLite at `durability=normal`: against honker (queues in Rust inside SQLite), bare transactions and a bare poll.

`python -m benchmarks sqlite`. honker is optional: `pip install --target FOLDER honker==0.2.4`, and FOLDER on PYTHONPATH. Both
sides run in short turns, and each counts its best one, by the clock and by the processor time of the process: on a busy
machine the second is the one to compare.
"""

from __future__ import annotations

import importlib
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import narrowboat
from benchmarks.measure import Row, at_most, median

CLAIM, MANY, TURNS = 50, 1000, 30
CYCLES = 300
BODY = os.urandom(128).hex()
#: What a process does that waits, and the least that it can do: ask for `data_version` every 5 ms.
WAITERS = {
    "a lock's waiter": "narrowboat.locks(url).lock('a').acquire()",
    "a consumer on an empty queue": "list(narrowboat.broker(url).queue('empty').consume())",
    "a bare poll every 5 ms": """
connection = sqlite3.connect(path, isolation_level=None)
while True:
    connection.execute("PRAGMA data_version").fetchone()
    time.sleep(0.005)
""",
}
WAITER = "import sqlite3, sys, time, narrowboat\nurl, path = sys.argv[1:]\nprint('ready', flush=True)\n"


def rows(folder: Path) -> Iterator[Row]:
    """Every line about SQLite that is not in `locks` and `messages`."""
    yield from claims(folder)
    yield from cycle(folder)
    yield from waiting(folder)


def claims(folder: Path) -> Iterator[Row]:
    """Claim 50, look at them, settle the 50."""
    what = f"sqlite normal: claim {CLAIM} with ack against honker"
    try:
        honker: Any = importlib.import_module("honker")
    except ImportError:
        yield Row(what, "", "", None, "skipped: pip install --target FOLDER honker==0.2.4, and FOLDER on PYTHONPATH", True)
        return
    database = honker.open(str(folder / "honker.db"))
    theirs = database.queue("orders")
    with narrowboat.broker(f"sqlite:///{folder / 'claims.db'}", durability="normal") as broker:
        queue = broker.queue("orders")

        def fill() -> None:
            queue.publish_many([BODY.encode()] * MANY)

        def ours() -> int:
            done = 0
            with queue.consume(prefetch=CLAIM) as messages:
                for batch in messages.batches(CLAIM):
                    assert all(message.body for message in batch)
                    assert not any(batch.ack())
                    done += len(batch)
                    if done == MANY:
                        break
            return done

        def fill_theirs() -> None:
            with database.transaction() as transaction:
                for _ in range(MANY):
                    theirs.enqueue(BODY, tx=transaction)

        def other() -> int:
            done = 0
            while jobs := theirs.claim_batch("worker", CLAIM):
                assert all(job.payload for job in jobs)
                assert theirs.ack_batch([job.id for job in jobs], "worker") == len(jobs)
                done += len(jobs)
            return done

        yield from turns(what, (fill, ours), (fill_theirs, other), 1.0)


def cycle(folder: Path) -> Iterator[Row]:
    """Acquire and release, against two transactions that insert and delete a row."""
    connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
    connection.executescript(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;CREATE TABLE lock (name TEXT PRIMARY KEY, owner TEXT) WITHOUT ROWID"
    )

    def bare() -> int:
        for number in range(CYCLES):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO lock VALUES (?, ?)", ("a", f"owner-{number}"))
            connection.execute("COMMIT")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("DELETE FROM lock WHERE name = ? AND owner = ?", ("a", f"owner-{number}"))
            connection.execute("COMMIT")
        return CYCLES

    with narrowboat.locks(f"sqlite:///{folder / 'cycle.db'}", durability="normal") as locks:
        lock = locks.lock("a")

        def ours() -> int:
            for _ in range(CYCLES):
                lock.acquire().release()
            return CYCLES

        what = "sqlite normal: acquire+release against two bare transactions"
        yield from turns(what, (_nothing, ours), (_nothing, bare), 0.5)
    connection.close()


def turns(
    what: str,
    ours: tuple[Callable[[], None], Callable[[], int]],
    other: tuple[Callable[[], None], Callable[[], int]],
    at_least: float,
) -> Iterator[Row]:
    """Two rows: by the clock and by processor time. Of a side, the first prepares what the second is measured with."""
    best = {side: [float("inf"), float("inf")] for side in (ours, other)}
    for _ in range(TURNS):
        for side, (prepare, work) in zip(best, (ours, other), strict=True):
            prepare()
            begun = time.perf_counter(), time.process_time()
            done = work()
            taken = (time.perf_counter() - begun[0]) / done, (time.process_time() - begun[1]) / done
            best[side] = [min(pair) for pair in zip(best[side], taken, strict=True)]
    for name, mine, theirs in zip((what, "  the same, by processor time"), best[ours], best[other], strict=True):
        yield Row(
            name, f"{1 / mine:,.0f}/s", f"{1 / theirs:,.0f}/s", theirs / mine, f">= {at_least:g}x", theirs / mine >= at_least
        )


def waiting(folder: Path, windows: int = 5, seconds: float = 2.0) -> Iterator[Row]:
    """The share of a core that a waiting process takes, all at the same time; the median of some windows.

    Not the best: a process that is kept from running polls less.
    """
    path = folder / "waiting.db"
    url = f"sqlite:///{path}?durability=normal"
    with narrowboat.locks(url) as locks, locks.lock("a"):
        children = {
            what: subprocess.Popen([sys.executable, "-c", WAITER + code, url, str(path)], stdout=subprocess.PIPE)
            for what, code in WAITERS.items()
        }
        seen: dict[str, list[float]] = {what: [] for what in WAITERS}
        try:
            for child in children.values():
                assert child.stdout is not None
                child.stdout.readline()
            time.sleep(seconds)  # the imports are done, and all of them wait
            for _ in range(windows):
                before = {what: _cpu(child.pid) for what, child in children.items()}
                begun = time.monotonic()
                time.sleep(seconds)
                passed = time.monotonic() - begun
                for what, child in children.items():
                    seen[what].append((_cpu(child.pid) - before[what]) / passed * 100)
        finally:
            for child in children.values():
                child.kill()
                child.communicate()
    shares = {what: median(found) for what, found in seen.items()}
    *ours, bare = shares
    for what in ours:
        row = at_most(f"sqlite: {what}, share of a core", shares[what], 1.5, "%")
        yield Row(row.what, row.ours, f"{shares[bare]:.3g} % bare", shares[bare] / shares[what], row.target, row.met)


def _nothing() -> None:
    pass


def _cpu(pid: int) -> float:
    """Seconds of processor time of all threads, to the nanosecond: `stat` counts in hundredths."""
    return sum(int(file.read_text().split()[0]) for file in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9
