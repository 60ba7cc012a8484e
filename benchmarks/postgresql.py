"""Locks and messages on PostgreSQL: against the statements that a program would write by hand, on a server that syncs its disk.

The peer is psycopg with prepared statements that commit by themselves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg

import narrowboat
import narrowboat.aio
from benchmarks.measure import SHORT_ROUNDS, Row, best, versus
from integration.servers import PostgreSQLServer

FEW, TASKS = 20, 32
BODY = b"x" * 200
HUNDRED, MANY = 100, 5000
CHURN = 60.0  #: seconds

_CLAIM = (
    "UPDATE bare SET due = now() + interval '30 s', lease = nextval('bare_lease'), attempt = attempt + 1 WHERE id IN "
    "(SELECT id FROM bare WHERE due <= now() ORDER BY due, id LIMIT 50 FOR UPDATE SKIP LOCKED) RETURNING id, lease, body"
)
_SETTLE = "DELETE FROM bare b USING unnest(%s::bigint[], %s::bigint[]) AS a(id, lease) WHERE b.id = a.id AND b.lease = a.lease"
_INSERT = "INSERT INTO bare (body) SELECT unnest(%s::bytea[])"


def rows(folder: Path) -> Iterator[Row]:
    """Every line about PostgreSQL."""
    with PostgreSQLServer(config={"fsync": "on"}) as server, psycopg.connect(server.url, autocommit=True) as bare:
        bare.execute("CREATE TABLE lock_bare (id int PRIMARY KEY, a bigint) WITH (fillfactor = 50)")
        bare.execute("INSERT INTO lock_bare VALUES (1, 0)")
        bare.execute("CREATE SEQUENCE bare_lease")
        bare.execute(
            "CREATE TABLE bare (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, due timestamptz NOT NULL DEFAULT now(),"
            " lease bigint, attempt int NOT NULL DEFAULT 0, body bytea NOT NULL)"
        )
        bare.execute("CREATE INDEX ON bare (due, id)")
        yield one_caller(server.url, bare)
        yield many_tasks(server.url)
        yield publish(server.url, bare)
        yield consume(server.url, bare)
        yield old_snapshot(server)
        yield churn(server.url)


def one_caller(url: str, bare: Any) -> Row:
    with narrowboat.locks(url) as locks:
        lock = locks.lock("one")

        def ours() -> int:
            for _ in range(FEW):
                lock.acquire().release()
            return FEW

        def theirs() -> int:
            for _ in range(2 * FEW):
                bare.execute("UPDATE lock_bare SET a = a + 1 WHERE id = 1", prepare=True)
            return FEW

        return versus("postgresql: acquire+release against two bare updates", ours, theirs, 0.45, SHORT_ROUNDS)


def many_tasks(url: str) -> Row:
    """Each on a name of its own; their calls travel together."""

    async def cycles(tasks: int, each: int) -> int:
        async with narrowboat.aio.locks(url) as locks:

            async def work(name: str) -> None:
                for _ in range(each):
                    await (await locks.lock(name).acquire()).release()

            await work("warm")
            begun = time.perf_counter()
            await asyncio.gather(*(work(f"a{n}") for n in range(tasks)))
            rates.append(tasks * each / (time.perf_counter() - begun))
        return 1

    rates: list[float] = []
    one, many = 0.0, 0.0
    for _ in range(5):
        asyncio.run(cycles(1, 50))
        one = max(one, rates.pop())
        asyncio.run(cycles(TASKS, 20))
        many = max(many, rates.pop())
    what = f"postgresql: {TASKS} tasks at once against one"
    return Row(what, f"{many:,.0f}/s", f"{one:,.0f}/s", many / one, ">= 15x", many / one >= 15)


def publish(url: str, bare: Any) -> Row:
    with narrowboat.broker(url) as broker:
        queue = broker.queue("published")

        def ours() -> int:
            for _ in range(5):
                assert not any(isinstance(answer, Exception) for answer in queue.publish_many([BODY] * HUNDRED))
            return 5 * HUNDRED

        def theirs() -> int:
            for _ in range(5):
                bare.execute(_INSERT, ([BODY] * HUNDRED,), prepare=True, binary=True)
            return 5 * HUNDRED

        row = versus("postgresql: publish in hundreds against bare inserts", ours, theirs, 0.6, 30)
        queue.delete()
        bare.execute("TRUNCATE bare")
        return row


def drained(broker: Any, queue: Any) -> Callable[[], int]:
    """Consumes what is there, in fifties, and acknowledges it."""

    def run() -> int:
        done = 0
        with queue.consume(prefetch=50) as messages:
            for batch in messages.batches(50):
                assert all(outcome is None for outcome in batch.ack())
                done += len(batch)
                if done >= MANY:
                    return done
        return done

    return run


def consume(url: str, bare: Any) -> Row:
    """The aim is 25,000 a second where the bare loop does 34,000: as a ratio, 0.735."""
    mine, theirs = 0.0, 0.0
    with narrowboat.broker(url) as broker:
        queue = broker.queue("consumed")

        def claims() -> int:
            done = 0
            while done < MANY:
                got = bare.execute(_CLAIM, prepare=True, binary=True).fetchall()
                bare.execute(_SETTLE, ([row[0] for row in got], [row[1] for row in got]), prepare=True)
                done += len(got)
            return done

        for _ in range(5):
            for _ in range(MANY // 1000):
                queue.publish_many([BODY] * 1000)
            bare.execute(_INSERT, ([BODY] * MANY,))
            mine = max(mine, best(drained(broker, queue)))
            theirs = max(theirs, best(claims))
    what = "postgresql: claim 50 and acknowledge, against a bare claim and delete"
    return Row(what, f"{mine:,.0f}/s", f"{theirs:,.0f}/s", mine / theirs, ">= 0.735x", mine / theirs >= 25 / 34)


def old_snapshot(server: PostgreSQLServer) -> Row:
    """A transaction that stays open anywhere in the database keeps what is settled: each claim steps over it."""
    rates = {}
    with narrowboat.broker(server.url) as broker, psycopg.connect(server.url) as reader:
        queue = broker.queue("old")
        for name in ("without", "with"):
            if name == "with":
                reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                reader.execute("SELECT 1 FROM lock_bare")
            rates[name] = 0.0
            for _ in range(4):
                for _ in range(MANY // 1000):
                    queue.publish_many([BODY] * 1000)
                rates[name] = best(drained(broker, queue))  # the last: by then 15,000 are settled and not gone
        reader.rollback()
    ratio = rates["with"] / rates["without"]
    what = "postgresql: consuming while a transaction stays open, against without"
    return Row(what, f"{rates['with']:,.0f}/s", f"{rates['without']:,.0f}/s", ratio, "(told)", True)


def churn(url: str) -> Row:
    """Published and consumed for a while: what it does then, against what it did at first."""
    rates: list[float] = []
    with narrowboat.broker(url) as broker:
        queue = broker.queue("churned")
        ends = time.monotonic() + CHURN
        while time.monotonic() < ends or len(rates) < 10:
            for _ in range(MANY // 1000):
                queue.publish_many([BODY] * 1000)
            rates.append(best(drained(broker, queue)))
    first, last = max(rates[:5]), max(rates[-5:])
    what = f"postgresql: consuming after {CHURN:g} s of churn ({len(rates) * MANY:,} messages), against at first"
    return Row(what, f"{last:,.0f}/s", f"{first:,.0f}/s", last / first, ">= 0.9x", last / first >= 0.9)
