"""Redis, side by side with its peers, on a server of our own without persistence: `python -m benchmarks redis`.

It needs hiredis, which redis-py then uses as well: the peers are at their best.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks import redis_locks, redis_messages
from benchmarks.measure import Row
from integration.servers import RedisServer


def rows(folder: Path) -> Iterator[Row]:
    """Every line about Redis."""
    with RedisServer(config={"appendonly": "no"}) as server:
        yield from redis_locks.rows(server.url)
        yield from redis_messages.rows(server.url)
