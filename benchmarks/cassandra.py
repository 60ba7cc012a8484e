"""Locks on Cassandra: against two bare lightweight transactions a cycle, on a node that this run starts.

The commit log is `periodic` here, so that the disk does not hide what the driver costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.policies import FallthroughRetryPolicy

import narrowboat
import narrowboat.aio
from benchmarks.measure import Row, versus
from integration.servers import CassandraServer

#: Short rounds in turns, and many of them: what else the machine does spoils some of them for one side only.
CYCLES, TASKS, EACH, ROUNDS = 40, 32, 5, 15


def rows(folder: Path) -> Iterator[Row]:
    """Every line about Cassandra."""
    with CassandraServer(sync="periodic") as server:
        yield from against(server.url, server.port)


def against(url: str, port: int) -> Iterator[Row]:
    """The lines on a node that runs."""
    with narrowboat.locks(url) as locks:
        locks.lock("first").acquire(timeout=60).release()  # makes the table
        cluster = Cluster(
            ["127.0.0.1"],
            port=port,
            protocol_version=4,
            execution_profiles={
                EXEC_PROFILE_DEFAULT: ExecutionProfile(retry_policy=FallthroughRetryPolicy(), request_timeout=60)
            },
        )
        try:
            bare = Bare(cluster.connect())
            yield versus(
                "cassandra: acquire+release, one caller, against two bare transactions",
                lambda: ours(locks, CYCLES),
                lambda: bare.cycles(CYCLES),
                0.9,
                ROUNDS,
            )
            yield versus(
                "cassandra: 32 tasks on 32 names, against one caller of ours",
                lambda: asyncio.run(tasks(url)),
                lambda: ours(locks, CYCLES),
                2.0,
                ROUNDS,
            )
        finally:
            cluster.shutdown()


class Bare:
    """What the natural program does: an owner and a time to live, taken and given back under a condition."""

    def __init__(self, session: Any) -> None:
        session.execute("CREATE TABLE IF NOT EXISTS narrowboat.bare (name text PRIMARY KEY, owner text)")
        self._session = session
        self._take = session.prepare("UPDATE narrowboat.bare USING TTL 30 SET owner=? WHERE name=? IF owner=null")
        self._free = session.prepare("UPDATE narrowboat.bare SET owner=null WHERE name=? IF owner=?")

    def cycles(self, count: int) -> int:
        """Take and free one name."""
        for _ in range(count):
            if not self._session.execute(self._take, ("me", "bare")).was_applied:
                raise RuntimeError("the peer did not get its own lock")
            self._session.execute(self._free, ("bare", "me"))
        return count


def ours(locks: narrowboat.Locks, cycles: int) -> int:
    """The same through the face."""
    lock = locks.lock("one")
    for _ in range(cycles):
        lock.acquire().release()
    return cycles


async def tasks(url: str) -> int:
    """As many tasks as there are names."""
    async with narrowboat.aio.locks(url) as locks:
        await locks.ping()

        async def work(name: str) -> None:
            for _ in range(EACH):
                await (await locks.lock(name).acquire()).release()

        await asyncio.gather(*(work(f"a{number}") for number in range(TASKS)))
    return TASKS * EACH
