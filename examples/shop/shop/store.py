"""The shop's tables, in one SQLite file: the stock, what was sold, and what became of it.

Each method is one transaction and blocks: call it by `asyncio.to_thread`. The file stands for the database that a shop has
anyway; it has nothing to do with the backend that the shop's locks and messages are on.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator

from shop.orders import Order

TABLES = """
CREATE TABLE IF NOT EXISTS stock (item TEXT PRIMARY KEY, pieces INTEGER NOT NULL, fence INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS sold (
    id TEXT PRIMARY KEY, item TEXT NOT NULL, pieces INTEGER NOT NULL, published REAL NOT NULL, shipped INTEGER DEFAULT 0
);
CREATE TABLE IF NOT EXISTS done (task TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (task, id));
"""


class Overtaken(Exception):
    """Another holder of the item's lock has written since; nothing was changed."""


class Store:
    """The file at `path`; any number of processes may use it."""

    def __init__(self, path: str) -> None:
        self.path = path

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self.path, timeout=30, isolation_level=None)) as tables:
            tables.execute("BEGIN IMMEDIATE")
            try:
                yield tables
            except BaseException:
                tables.execute("ROLLBACK")
                raise
            tables.execute("COMMIT")

    def create(self, stock: dict[str, int]) -> None:
        """Make the tables, and fill the stock with what is not in it yet."""
        with contextlib.closing(sqlite3.connect(self.path, timeout=30)) as tables:
            tables.executescript(TABLES)
        with self._transaction() as tables:
            tables.executemany("INSERT OR IGNORE INTO stock (item, pieces) VALUES (?, ?)", stock.items())

    def pieces(self, item: str) -> int | None:
        """How many there are; None: we do not sell it."""
        with self._transaction() as tables:
            row = tables.execute("SELECT pieces FROM stock WHERE item = ?", (item,)).fetchone()
        return None if row is None else int(row[0])

    def sell(self, order: Order, left: int, fence: int) -> None:
        """Write down the order and what is left, unless a holder with a newer fencing token has written: `Overtaken`."""
        with self._transaction() as tables:
            changed = tables.execute(
                "UPDATE stock SET pieces = ?, fence = ? WHERE item = ? AND fence <= ?", (left, fence, order.item, fence)
            ).rowcount
            if not changed:
                raise Overtaken(order.item)
            query = "INSERT INTO sold (id, item, pieces, published) VALUES (?, ?, ?, ?)"  # it will be, in a moment
            tables.execute(query, (order.id, order.item, order.pieces, time.time()))

    def ship(self, order: Order) -> bool:
        """Write down that it was shipped; False: it was before."""
        with self._transaction() as tables:
            return tables.execute("UPDATE sold SET shipped = 1 WHERE id = ? AND NOT shipped", (order.id,)).rowcount > 0

    def first_time(self, task: str, ids: Iterable[str]) -> list[str]:
        """Those of `ids` for which `task` was not done yet; it is now."""
        with self._transaction() as tables:
            query = "INSERT OR IGNORE INTO done (task, id) VALUES (?, ?)"
            return [each for each in ids if tables.execute(query, (task, each)).rowcount]

    def unshipped(self) -> list[Order]:
        """Sold and not shipped, oldest first."""
        with self._transaction() as tables:
            rows = tables.execute("SELECT id, item, pieces FROM sold WHERE NOT shipped ORDER BY rowid").fetchall()
        return [Order(id=id, item=item, pieces=pieces) for id, item, pieces in rows]

    def overdue(self, older: float) -> list[Order]:
        """Not shipped, and not published for `older` seconds; the caller publishes them again."""
        now = time.time()
        with self._transaction() as tables:
            query = "UPDATE sold SET published = ? WHERE NOT shipped AND published <= ? RETURNING id, item, pieces"
            rows = tables.execute(query, (now, now - older)).fetchall()
        return [Order(id=id, item=item, pieces=pieces) for id, item, pieces in rows]

    def sales(self) -> dict[str, int]:
        """Pieces sold of each item."""
        with self._transaction() as tables:
            return dict(tables.execute("SELECT item, sum(pieces) FROM sold GROUP BY item").fetchall())


def store() -> Store:
    """The file that SHOP_DB names; shop.db unless it does."""
    return Store(os.environ.get("SHOP_DB", "shop.db"))
