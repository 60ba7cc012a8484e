"""The statements of a fence in a table, and what their answers mean; for both faces. `table.py` is what users hold.

Each write is one statement. The row that it locks stays locked until the caller's transaction ends, so the check and what the
caller writes are one step: a second transaction waits there, and compares with what the first has committed.
"""

from __future__ import annotations

from typing import Any

from narrowboat.errors import Unavailable
from narrowboat.fencing import decision
from narrowboat.transactions import Transaction, check_dialect, check_table, joined
from narrowboat.transactions.contention import contended


class Rows:
    """A table of fences: its name, which is checked because it becomes a part of statements (S608), and its DDL."""

    def __init__(self, table: str = "narrowboat_fence") -> None:
        self._table = check_table(table)

    def ddl(self, dialect: str) -> str:
        """The statement that makes the table on "sqlite" or "postgresql", for a migration."""
        check_dialect(dialect)  # each column's type is one on both
        return (
            f"CREATE TABLE {self._table} (\n    name text NOT NULL PRIMARY KEY,\n    token bigint NOT NULL,\n"
            "    version bigint NOT NULL\n)"
        )

    async def _guard(self, connection: Any, name: str, token: int) -> None:
        name, token = decision.asked(name, token)
        statement = (
            f"INSERT INTO {self._table} AS f (name, token, version) VALUES (?, ?, 1) ON CONFLICT (name) DO UPDATE "  # noqa: S608
            "SET token = excluded.token, version = f.version + 1 WHERE f.token <= excluded.token"
        )
        transaction = await joined(connection, self.ddl)
        if not await self._wrote(transaction, name, statement, name, token):
            raise decision.stale(name, token, await self._found(transaction, "token", name))

    async def _version(self, connection: Any, name: str) -> int:
        name, _ = decision.asked(name, 0)
        return await self._found(await joined(connection, self.ddl), "version", name) or 0

    async def _advance(self, connection: Any, name: str, version: int) -> int:
        name, version = decision.asked(name, version, "version")
        statement = f"UPDATE {self._table} AS f SET version = f.version + 1 WHERE f.name = ? AND f.version = ?"  # noqa: S608
        parameters: tuple[object, ...] = (name, version)
        if version == 0:  # it alone may make the row: one that was deleted since it was read is no row to write beside
            statement = (
                f"INSERT INTO {self._table} AS f (name, token, version) VALUES (?, 0, 1) ON CONFLICT (name) DO UPDATE "  # noqa: S608
                "SET version = 1 WHERE f.version = 0"
            )
            parameters = (name,)
        transaction = await joined(connection, self.ddl)
        if not await self._wrote(transaction, name, statement, *parameters):
            raise decision.stale(name, version, await self._found(transaction, "version", name) or 0, "version")
        return version + 1

    async def _wrote(self, transaction: Transaction, name: str, statement: str, *parameters: object) -> bool:
        transaction.check_key("the name of a fence", name)
        try:
            return (await transaction.execute(statement, parameters)).changed > 0
        except Exception as error:
            if not contended(error):
                raise
            raise Unavailable(
                f"fence {name!r}: another transaction is in the way ({error}); nothing was written. Roll back, and do it all "
                "again. Guard before anything is read; an embedded database may need BEGIN IMMEDIATE",
                sent=False,
            ) from error

    async def _found(self, transaction: Transaction, column: str, name: str) -> int | None:
        rows = (await transaction.execute(f"SELECT {column} FROM {self._table} WHERE name = ?", (name,))).rows  # noqa: S608
        return int(rows[0][0]) if rows else None
