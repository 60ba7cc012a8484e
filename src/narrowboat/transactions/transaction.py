"""A transaction over somebody's connection: what is executed in it, and what its refusals mean.

Statements are written once, with `?` for parameters and no other `?` or `%`; a client turns them into its own form.
"""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from narrowboat.dsn import unknown
from narrowboat.errors import InvalidArgument, NoTransaction, TableMissing, TransactionAborted

#: The databases whose SQL is spoken.
SQLITE, POSTGRESQL = DIALECTS = ("sqlite", "postgresql")

#: Bytes of what PostgreSQL keeps in an index: a third of a page, less what it adds.
_KEY_MAX = 2600
#: PostgreSQL's codes: the transaction is aborted; no such table, column or schema.
_ABORTED, _MISSING = "25P02", ("42P01", "42703", "3F000")
#: What SQLite says instead of a code.
_MISSING_TEXT = re.compile(r"no such (?:table|column)|has no column named")

_TABLE = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_]{0,62}\.)?[A-Za-z_][A-Za-z0-9_]{0,54}")


def check_dialect(dialect: object) -> str:
    """`dialect` if its SQL is spoken."""
    if dialect not in DIALECTS:
        raise InvalidArgument(unknown("dialect", str(dialect), list(DIALECTS)))
    return str(dialect)


def check_table(name: object) -> str:
    """`name` if it is one of a table that needs no quotes, perhaps with its schema: it becomes a part of statements."""
    if not isinstance(name, str) or not _TABLE.fullmatch(name):
        raise InvalidArgument(
            f"table={name!r}: expected letters, digits and underscores, at most 55, perhaps after a schema and a dot"
        )
    return name


async def done(found: Any) -> Any:
    """What a client gave, awaited where it is asynchronous."""
    return await found if inspect.isawaitable(found) else found


class Answer(NamedTuple):
    """What a statement did: how many rows it wrote, and those that it gave."""

    changed: int
    rows: Sequence[tuple[Any, ...]]


class Transaction(ABC):
    """One connection of the caller's. It owns nothing: who opened the connection commits, rolls back and closes it.

    `ddl` gives for a dialect the statements that make the table, which the error about a missing one shows.
    """

    def __init__(self, connection: Any, ddl: Callable[[str], str]) -> None:
        self.connection = connection
        self._ddl = ddl

    @property
    @abstractmethod
    def dialect(self) -> str:
        """One of `DIALECTS`, or the name of another database."""

    @property
    @abstractmethod
    def commits_itself(self) -> bool:
        """Whether what is executed now is committed at once."""

    @property
    def aborted(self) -> bool:
        """Whether the transaction can only be rolled back, as far as the client tells without asking."""
        return False

    @abstractmethod
    async def _execute(self, statement: str, parameters: Sequence[Any]) -> Answer:
        """Run it; raises what the client raises."""

    async def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Answer:
        """Run one statement.

        Raises:
            TableMissing: it says how to make the table.
            TransactionAborted: an earlier statement had failed; nothing was done.
            Exception: anything else is the client's own error, as it is: the transaction is the caller's.
        """
        try:
            return await self._execute(statement, parameters)
        except Exception as error:
            refused = self._meaning(error)
            if refused is None:
                raise
            raise refused from error

    def check(self) -> None:
        """Raise unless what is executed now is committed, or rolled back, together with the caller's work."""
        if self.aborted:
            raise aborted()
        if self.commits_itself:
            raise NoTransaction(
                f"{type(self.connection).__name__}: it commits each statement by itself, so there is no transaction to join, "
                "and nothing was done. Begin one (BEGIN, connection.transaction(), engine.begin(), transaction.atomic)"
            )

    def check_key(self, what: str, *values: str) -> None:
        """Raise `InvalidArgument` for what would be too long for the table's index, before it aborts the transaction."""
        if self.dialect == POSTGRESQL and sum(map(len, values)) > _KEY_MAX // 4:
            size = sum(len(value.encode()) for value in values)
            if size > _KEY_MAX:
                raise InvalidArgument(f"{what} of {size} bytes: PostgreSQL indexes up to {_KEY_MAX}. Nothing was done")

    async def begin(self) -> None:
        """For the owner of the connection: begin a transaction, where none is open."""
        return  # most clients do it before the first statement

    async def commit(self) -> None:
        """For the owner of the connection."""
        await done(self.connection.commit())

    async def rollback(self) -> None:
        """For the owner of the connection."""
        await done(self.connection.rollback())

    async def close(self) -> None:
        """For the owner of the connection."""
        await done(self.connection.close())

    @property
    def driver(self) -> Any:
        """The connection of the database's own client, where another one stands before it."""
        return self.connection

    def _meaning(self, error: Exception) -> Exception | None:
        for each in _chain(error):
            code = getattr(each, "sqlstate", None) or getattr(each, "pgcode", None)
            if code == _ABORTED:
                return aborted()
            if code in _MISSING or (type(each).__module__ == "sqlite3" and _MISSING_TEXT.search(str(each))):
                return table_missing(self._ddl(self.dialect), each)
        return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """It and what it was made of."""
    while error is not None:
        yield error
        error = error.__cause__


def aborted() -> TransactionAborted:
    """The error about a transaction that can only be rolled back."""
    return TransactionAborted(
        "the transaction is aborted, because an earlier statement in it failed; nothing was done. Roll it back, and begin again"
    )


def table_missing(ddl: str, error: BaseException | None = None) -> TableMissing:
    """The error about a table that is not there, or is another one."""
    met = "" if error is None else f" ({str(error).splitlines()[0]})"
    return TableMissing(f"a table or column is missing{met}; nothing was done. Make it once, in a migration:\n\n{ddl}")
