"""The shop's tables, in one SQLite file: the stock, what was sold, what waits to be published, and what was done.

Each method is one transaction and blocks: call it by `asyncio.to_thread`. The file stands for the database that a shop has
anyway; it has nothing to do with the backend that the shop's locks and messages are on.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence

from narrowboat import aio
from narrowboat.fencing import TableFence
from narrowboat.inbox import Inbox
from narrowboat.outbox import Outbox
from shop.orders import ORDER, Order

FENCE = TableFence()  # refuses who sells by a lock that is another's meanwhile
OUTBOX = Outbox(codec=ORDER)  # what was sold, until a worker's relay has published it
MAIL, STATISTICS = Inbox("mail"), Inbox("statistics")  # which messages either has dealt with

TABLES = (
    "CREATE TABLE stock (item TEXT PRIMARY KEY, pieces INTEGER NOT NULL)",
    "CREATE TABLE sold (id TEXT PRIMARY KEY, item TEXT NOT NULL, pieces INTEGER NOT NULL, at REAL NOT NULL,"
    " shipped INTEGER NOT NULL DEFAULT 0)",
    *(each.ddl("sqlite") for each in (FENCE, OUTBOX, MAIL)),
)


class Store:
    """The file at `path`; any number of processes may use it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def connect(self) -> sqlite3.Connection:
        """A connection of the caller's, who begins and ends its transactions."""
        return sqlite3.connect(self.path, timeout=30, isolation_level=None)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(self.connect()) as tables:
            tables.execute("BEGIN IMMEDIATE")
            try:
                yield tables
            except BaseException:
                tables.execute("ROLLBACK")
                raise
            tables.execute("COMMIT")

    def create(self, stock: dict[str, int]) -> None:
        """Make the tables, and fill the stock with what is not in it yet."""
        with self._transaction() as tables:
            if not tables.execute("SELECT 1 FROM sqlite_master WHERE name = 'stock'").fetchone():
                for each in TABLES:
                    tables.execute(each)
            tables.executemany("INSERT OR IGNORE INTO stock (item, pieces) VALUES (?, ?)", stock.items())

    def pieces(self, item: str) -> int | None:
        """How many there are; None: we do not sell it."""
        with self._transaction() as tables:
            row = tables.execute("SELECT pieces FROM stock WHERE item = ?", (item,)).fetchone()
        return None if row is None else int(row[0])

    def sell(self, order: Order, left: int, token: int) -> None:
        """Write down the order, what is left, and the message of it: all or nothing.

        `StaleWrite`: a holder of the item's lock with a newer fencing token has written.
        """
        with self._transaction() as tables:
            FENCE.guard(tables, f"item:{order.item}", token)
            tables.execute("UPDATE stock SET pieces = ? WHERE item = ?", (left, order.item))
            query = "INSERT INTO sold (id, item, pieces, at) VALUES (?, ?, ?, ?)"
            tables.execute(query, (order.id, order.item, order.pieces, time.time()))
            OUTBOX.publish(tables, "orders", order, id=order.id)

    def ship(self, order: Order) -> bool:
        """Write down that it was shipped; False: it was before."""
        with self._transaction() as tables:
            return tables.execute("UPDATE sold SET shipped = 1 WHERE id = ? AND NOT shipped", (order.id,)).rowcount > 0

    def first_time(self, inbox: Inbox, messages: Sequence[aio.Message[Order]]) -> list[Order]:
        """The orders of those that `inbox` has not seen; it has now."""
        with self._transaction() as tables:
            return [message.data for message in messages if inbox.first(tables, message)]

    def unshipped(self, older: float = 0.0) -> list[Order]:
        """Sold `older` seconds ago or before, and not shipped; oldest first."""
        with self._transaction() as tables:
            query = "SELECT id, item, pieces FROM sold WHERE NOT shipped AND at <= ? ORDER BY rowid"
            rows = tables.execute(query, (time.time() - older,)).fetchall()
        return [Order(id=id, item=item, pieces=pieces) for id, item, pieces in rows]

    def clean(self) -> int:
        """Delete the marks of messages that cannot come again; how many."""
        with self._transaction() as tables:
            return sum(each.clean(tables) for each in (MAIL, STATISTICS))

    def sales(self) -> dict[str, int]:
        """Pieces sold of each item."""
        with self._transaction() as tables:
            return dict(tables.execute("SELECT item, sum(pieces) FROM sold GROUP BY item").fetchall())


def store() -> Store:
    """The file that SHOP_DB names; shop.db unless it does."""
    return Store(os.environ.get("SHOP_DB", "shop.db"))
