"""The outbox: a publish in a transaction against a bare insert there, and a relay from PostgreSQL to Redis.

Both sides of a publish store an order as well, and commit each by itself, as a program does.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg

import narrowboat
from benchmarks.measure import SHORT_ROUNDS, Row, versus
from integration.servers import PostgreSQLServer, RedisServer
from narrowboat.outbox import Outbox

BODY = b"x" * 200
FEW, MANY = 50, 20_000
OUTBOX: Outbox[bytes] = Outbox()


def rows(folder: Path) -> Iterator[Row]:
    """Every line about the outbox."""
    connection = sqlite3.connect(folder / "shop.db")
    connection.execute("PRAGMA journal_mode = wal")
    yield publish("SQLite", connection, "sqlite", "?")
    connection.close()
    with PostgreSQLServer(config={"fsync": "on"}) as server, psycopg.connect(server.url) as shop:
        yield publish("PostgreSQL", shop, "postgresql", "%s")
        with RedisServer() as redis:
            yield relayed(server.url, shop, redis.url)


def publish(name: str, connection: Any, dialect: str, mark: str) -> Row:
    connection.execute("CREATE TABLE orders (n integer)")
    connection.execute(OUTBOX.ddl(dialect))
    connection.commit()
    order = f"INSERT INTO orders VALUES ({mark})"
    bare = f"INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload) VALUES ({mark}, {mark}, {mark}, {mark}, {mark})"
    number = iter(range(10**9))

    def transactions(store: Callable[[], object]) -> int:
        for n in range(FEW):
            connection.execute(order, (n,))
            store()
            connection.commit()
        return FEW

    row = versus(
        f"{name}: an order and its message, a transaction each; the peer: a bare insert",
        lambda: transactions(lambda: OUTBOX.publish(connection, "orders", BODY, key="42")),
        lambda: transactions(lambda: connection.execute(bare, (str(next(number)), "orders", "42", "", BODY))),
        0.7,
        SHORT_ROUNDS,
    )
    connection.execute("DELETE FROM outbox")
    connection.commit()
    return row


def relayed(url: str, shop: Any, redis: str) -> Row:
    """From a full table until it is empty."""
    for n in range(MANY):
        OUTBOX.publish(shop, "orders", BODY, key=str(n % 100))
    shop.commit()
    worker = narrowboat.Worker(redis)
    worker.relay(OUTBOX, lambda: psycopg.connect(url))
    begun = time.perf_counter()
    with worker:
        while worker.health().sources[0].handled < MANY:
            time.sleep(0.01)
    rate = MANY / (time.perf_counter() - begun)
    return Row("relay from PostgreSQL to Redis", f"{rate:,.0f}/s", "", None, ">= 5,000/s", rate >= 5000)
