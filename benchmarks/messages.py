"""Messages on SQLite: against bare statements on the same rows, litequeue, and huey's SqliteHuey."""

from __future__ import annotations

import itertools
import os
import resource
import sqlite3
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

from huey import SqliteHuey
from litequeue import LiteQueue

import narrowboat
from benchmarks.measure import Row, at_most, best, versus

BODY = os.urandom(256)
MANY = 10_000
FEW = 3000
SCHEMA = """
PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;
CREATE TABLE message (
    id INTEGER PRIMARY KEY, uuid TEXT, body BLOB, headers TEXT, key TEXT, at REAL, due REAL DEFAULT 0, lease REAL DEFAULT 0
);
"""


def rows(folder: Path) -> Iterator[Row]:
    """Every line about messages."""
    yield publish_many(folder)
    yield consume(folder)
    yield from peers(folder)
    yield from flat(folder)


def _bare(folder: Path, name: str) -> sqlite3.Connection:
    connection = sqlite3.connect(folder / name, isolation_level=None)
    connection.executescript(SCHEMA)
    return connection


def _fill(connection: sqlite3.Connection) -> int:
    counter = itertools.count()
    for _ in range(MANY // 1000):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "INSERT INTO message (uuid, body, headers, key, at) VALUES (?, ?, ?, ?, ?)",
            [(f"{next(counter):032x}", BODY, None, None, 0.0) for _ in range(1000)],
        )
        connection.execute("COMMIT")
    return MANY


def publish_many(folder: Path) -> Row:
    bare = _bare(folder, "bare-publish.db")
    with narrowboat.broker(f"sqlite:///{folder / 'publish.db'}", durability="normal") as broker:
        queue = broker.queue("orders")

        def ours() -> int:
            for _ in range(MANY // 1000):
                assert not any(isinstance(answer, Exception) for answer in queue.publish_many([BODY] * 1000))
            return MANY

        return versus("sqlite normal: publish_many against bare executemany", ours, lambda: _fill(bare), 1 / 3)


def consume(folder: Path) -> Row:
    """The aim is 60,000 a second where the bare loop does 170,000: as a ratio, 0.353."""
    bare = _bare(folder, "bare-consume.db")
    rates: list[float] = []
    with narrowboat.broker(f"sqlite:///{folder / 'consume.db'}", durability="normal") as broker:
        queue = broker.queue("orders")

        def ours() -> int:
            done = 0
            with queue.consume(prefetch=1000) as messages:
                for batch in messages.batches(500):
                    assert all(outcome is None for outcome in batch.ack())
                    done += len(batch)
                    if done == MANY:
                        break
            return done

        def claims() -> int:
            done = 0
            while done < MANY:
                bare.execute("BEGIN IMMEDIATE")
                got = bare.execute(
                    "UPDATE message SET lease = 1 WHERE id IN "
                    "(SELECT id FROM message WHERE due <= 0 AND lease = 0 ORDER BY id LIMIT 50) RETURNING id, body"
                ).fetchall()
                bare.execute("COMMIT")
                bare.execute("BEGIN IMMEDIATE")
                bare.executemany("DELETE FROM message WHERE id = ?", [(row[0],) for row in got])
                bare.execute("COMMIT")
                done += len(got)
            return done

        theirs = 0.0
        for _ in range(5):
            queue.publish_many([BODY] * MANY)
            rates.append(best(ours))
            _fill(bare)
            theirs = max(theirs, best(claims))
    ratio = max(rates) / theirs
    what = "sqlite normal: consume in batches with ack against a bare claim-50 loop"
    return Row(what, f"{max(rates):,.0f}/s", f"{theirs:,.0f}/s", ratio, ">= 0.353x", ratio >= 60 / 170)


def peers(folder: Path) -> Iterator[Row]:
    """A message through the queue and settled, our fast way against the peers' only way."""
    lite = LiteQueue(str(folder / "litequeue.db"))
    huey = SqliteHuey(filename=str(folder / "huey.db"))
    payload = "x" * 256

    def litequeue() -> int:
        for _ in range(FEW):
            lite.put(payload)
        for _ in range(FEW):
            message = lite.pop()
            lite.done(message.message_id)
        return FEW

    def sqlite_huey() -> int:
        for _ in range(FEW):
            huey.storage.enqueue(BODY)
        for _ in range(FEW):
            assert huey.storage.dequeue() is not None
        return FEW

    with narrowboat.broker(f"sqlite:///{folder / 'peers.db'}", durability="normal") as broker:
        queue = broker.queue("orders")

        def ours() -> int:
            queue.publish_many([BODY] * MANY)
            done = 0
            with queue.consume(prefetch=1000) as messages:
                for batch in messages.batches(500):
                    done += len(batch.ack())
                    if done == MANY:
                        return done
            return done

        yield versus("sqlite normal: publish, consume, ack in batches against litequeue", ours, litequeue, 10.0)
        yield versus("sqlite normal: publish, consume, ack in batches against SqliteHuey (no ack)", ours, sqlite_huey, 10.0)


def flat(folder: Path) -> Iterator[Row]:
    """100,000 messages through a queue: memory, rows and file as before."""
    path = folder / "flat.db"
    for url in ("memory://flat", f"sqlite:///{path}?durability=normal"):
        with narrowboat.broker(url) as broker:
            queue = broker.queue("orders")

            def churn(count: int, queue: narrowboat.Queue[bytes] = queue) -> None:
                for _ in range(count // 1000):
                    queue.publish_many([BODY] * 1000)
                    with queue.consume(prefetch=1000) as messages:
                        for batch in messages.batches(1000):
                            batch.ack()
                            if queue.depth().ready == 0:
                                break

            churn(10_000)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            churn(100_000)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            assert astuple(queue.depth()) == (0, 0, 0, 0)
        yield at_most(f"{url.partition(':')[0]}: 100,000 messages, peak memory grows by", grown / 1024, 4.0, "MiB")
    size = sum(file.stat().st_size for file in folder.glob("flat.db*"))
    yield at_most("sqlite: the file afterwards", size / 1024 / 1024, 4.0, "MiB")
