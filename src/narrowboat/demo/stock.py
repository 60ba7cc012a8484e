"""The stock record: how many of each item are left, and which order bought one.

It is a plain record and does not protect itself: `look` and `sell` are two steps, and whoever sells writes down what is
left from what he saw. Two workers that do this at the same time sell one thing twice. It has one defence only, the one
that every record behind a lock should have: it refuses a write whose fencing token is older than the newest it has seen.
"""

from __future__ import annotations

import enum
import sqlite3
from pathlib import Path
from typing import NamedTuple

_SCHEMA = """
CREATE TABLE stock (item INTEGER PRIMARY KEY, left INTEGER NOT NULL, token INTEGER NOT NULL) STRICT;
CREATE TABLE sales (buyer_order TEXT PRIMARY KEY, item INTEGER NOT NULL) STRICT;
"""


class View(NamedTuple):
    """What a worker sees: how many are left, and whether this order has bought one before."""

    left: int
    sold: bool


class Sale(enum.Enum):
    """What became of a write."""

    SOLD = "sold"
    ALREADY = "already"  #: this order bought one before; nothing was written
    STALE = "stale"  #: a newer token was here; nothing was written


class Stock:
    """One process's connection to the record."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, timeout=30, isolation_level=None)
        # It must survive killed workers, not the loss of power: the file is deleted after the sale.
        self._db.execute("PRAGMA synchronous=OFF")

    @classmethod
    def create(cls, path: Path, *, items: int, stock: int) -> Stock:
        """A new record with `stock` of each item."""
        record = cls(path)
        record._db.execute("PRAGMA journal_mode=WAL")
        record._db.executescript(_SCHEMA)
        record._db.executemany("INSERT INTO stock VALUES (?, ?, 0)", [(item, stock) for item in range(items)])
        return record

    def look(self, item: int, order: str) -> View:
        """Read."""
        (left,) = self._db.execute("SELECT left FROM stock WHERE item = ?", (item,)).fetchone()
        sold = self._db.execute("SELECT 1 FROM sales WHERE buyer_order = ?", (order,)).fetchone()
        return View(left, sold is not None)

    def sell(self, item: int, order: str, *, left: int, token: int | None) -> Sale:
        """Write that `order` bought one and `left` are left now. Without a token any write is accepted."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            sale = self._write(item, order, left, token)
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT" if sale is Sale.SOLD else "ROLLBACK")
        return sale

    def _write(self, item: int, order: str, left: int, token: int | None) -> Sale:
        changed = self._db.execute(
            "UPDATE stock SET left = ?1, token = coalesce(?2, token) WHERE item = ?3 AND (?2 IS NULL OR token <= ?2)",
            (left, token, item),
        )
        if changed.rowcount == 0:
            return Sale.STALE
        bought = self._db.execute("INSERT OR IGNORE INTO sales VALUES (?, ?)", (order, item))
        return Sale.SOLD if bought.rowcount else Sale.ALREADY

    def left(self) -> dict[int, int]:
        """What is left of each item."""
        return dict(self._db.execute("SELECT item, left FROM stock"))

    def sales(self) -> dict[str, int]:
        """Which order bought which item."""
        return dict(self._db.execute("SELECT buyer_order, item FROM sales"))

    def close(self) -> None:
        """Close the connection."""
        self._db.close()
