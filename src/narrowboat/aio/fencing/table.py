# Made from narrowboat/fencing/table.py by tools/generate_aio.py: change that file, and run this script.
"""A fence in a table, in the transaction that writes, for asyncio."""

from __future__ import annotations

from typing import Any

from narrowboat.fencing.rows import Rows


class TableFence(Rows):
    """A fence whose tokens are rows of a table in the database that it protects: PostgreSQL or SQLite.

    The connection is the program's, of sqlite3, psycopg 3, SQLAlchemy 2 or Django. The fence holds none, and ends no
    transaction. `ddl` gives the statement that makes the table; run it once, in a migration. A row for each name stays until
    the program deletes it, which it may do when no holder of that name is at work.

    Args:
        table: its name, perhaps after a schema and a dot.
    """

    async def guard(self, connection: Any, name: str, token: int) -> None:
        """Refuse the transaction's writes if a newer token was here; else keep the token, and others of that name waiting.

        Call it before what it guards, reads included. What comes after it in the transaction is safe: the row stays locked
        until that ends, and the guard of a newer holder waits for it. A rollback takes the token back as well.

        Args:
            connection: one that is in a transaction, or begins one by itself: of sqlite3, psycopg, SQLAlchemy (also a session)
                or Django.
            name: the fence's; the lock's name is a good one.
            token: `held.token`.

        Raises:
            StaleWrite: a greater token was here. Nothing was written; roll the transaction back.
            NoTransaction: the connection commits each statement by itself. Nothing was done.
            TransactionAborted: an earlier statement in the transaction failed. Nothing was done.
            TableMissing: there is no such table. It says the DDL.
            Unavailable: another transaction is in the way. Roll back, and do it all again.
            InvalidArgument: what is no name or token, or an asynchronous connection. Nothing was done.
            Unsupported: no client or database that is known. Nothing was done.
            Exception: anything else is the client's own error, as it is.
        """
        await self._guard(connection, name, token)

    async def version(self, connection: Any, name: str) -> int:
        """How many writes a fence has let pass; 0 before the first. For `advance`, without a lock.

        Read it before the data: what is written between the two is noticed then.

        Args:
            connection: as for `guard`.
            name: the fence's.

        Raises:
            NarrowboatError: as `guard` does, but for `StaleWrite`.
        """
        return await self._version(connection, name)

    async def advance(self, connection: Any, name: str, version: int) -> int:
        """Refuse the transaction's writes if others have written since `version` was read; else count this one.

        Args:
            connection: as for `guard`.
            name: the fence's.
            version: what `version()` gave, before the data was read.

        Returns:
            The version that is now there, when the transaction is committed.

        Raises:
            StaleWrite: others have written, with `guard` or `advance`. Nothing was written; roll back and read again.
            NarrowboatError: anything else, as `guard` does.
        """
        return await self._advance(connection, name, version)
