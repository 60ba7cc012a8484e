"""The clients whose connections can be joined: sqlite3, psycopg 3, SQLAlchemy 2, Django. None of them is imported.

What a connection is, is told by the module and name of its class or of a base: a subclass is what its base is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from narrowboat.errors import InvalidArgument, Unsupported
from narrowboat.transactions.transaction import DIALECTS, POSTGRESQL, SQLITE, Answer, Transaction, aborted, done

#: psycopg's word for a connection whose transaction has failed, and for one that is in none (libpq's numbers).
_INERROR, _IDLE = 3, 0


class Sqlite(Transaction):
    """A `sqlite3.Connection`."""

    dialect = SQLITE

    @property
    def commits_itself(self) -> bool:
        """Unless a transaction is open, or the first write opens one."""
        return commits_itself(self.connection)

    async def _execute(self, statement: str, parameters: Sequence[Any]) -> Answer:
        cursor = self.connection.cursor()
        cursor.row_factory = None  # the program's own factory may give anything
        cursor.execute(statement, parameters)
        return Answer(cursor.rowcount, cursor.fetchall())

    async def begin(self) -> None:
        """By a statement: which is the same in each of the modes that sqlite3 has."""
        if not self.connection.in_transaction:
            self.connection.execute("BEGIN")

    async def commit(self) -> None:
        """The same."""
        if self.connection.in_transaction:
            self.connection.execute("COMMIT")


class Psycopg(Transaction):
    """A `psycopg.Connection` or `AsyncConnection`."""

    dialect = POSTGRESQL

    @property
    def commits_itself(self) -> bool:
        """In autocommit, outside of a `transaction()`."""
        return bool(self.connection.autocommit) and self.connection.info.transaction_status == _IDLE

    @property
    def aborted(self) -> bool:
        """As libpq knows it."""
        return bool(self.connection.info.transaction_status == _INERROR)

    async def _execute(self, statement: str, parameters: Sequence[Any]) -> Answer:
        psycopg = sys.modules["psycopg"]  # the program's own cursors may want another form of parameters
        made = psycopg.AsyncCursor if isinstance(self.connection, psycopg.AsyncConnection) else psycopg.Cursor
        cursor = made(self.connection, row_factory=psycopg.rows.tuple_row)
        await done(cursor.execute(statement.replace("?", "%s"), parameters))
        if self.connection.info.pipeline_status:
            await self._synced()  # or the number of rows would be -1: as if nothing had been written
        return Answer(cursor.rowcount, await done(cursor.fetchall()) if cursor.description else ())

    async def _synced(self) -> None:
        """In psycopg's pipeline mode: have the answers to what was sent. One pipeline in another does that as it ends."""
        pipeline = self.connection.pipeline()
        if hasattr(pipeline, "__aexit__"):
            async with pipeline:
                return
        with pipeline:
            return

    async def begin(self) -> None:
        """Psycopg does it before the first statement, but in autocommit."""
        if self.commits_itself:
            await done(self.connection.execute("BEGIN"))


class Core(Transaction):
    """A `sqlalchemy.Connection` or `AsyncConnection`."""

    @property
    def dialect(self) -> str:
        """As SQLAlchemy calls it."""
        return str(self.connection.dialect.name)

    @property
    def driver(self) -> Any:
        """The DBAPI's connection; of an asynchronous client the one that SQLAlchemy puts before it."""
        return getattr(self.connection, "sync_connection", self.connection).connection.dbapi_connection

    @property
    def commits_itself(self) -> bool:
        """With the isolation level AUTOCOMMIT."""
        return commits_itself(self.driver)

    async def _execute(self, statement: str, parameters: Sequence[Any]) -> Answer:
        pieces = statement.split("?")
        named = "".join(f"{piece}:p{number} " for number, piece in enumerate(pieces[:-1])) + pieces[-1]
        values = {f"p{number}": value for number, value in enumerate(parameters)}
        result = await done(self.connection.execute(sys.modules["sqlalchemy"].text(named), values))
        return Answer(result.rowcount, [tuple(row) for row in result.fetchall()] if result.returns_rows else ())

    async def begin(self) -> None:
        """As SQLAlchemy does it before the first statement."""
        if not self.connection.in_transaction():
            await done(self.connection.begin())


class Django(Transaction):
    """One of Django's connections, or `django.db.connection`, which stands for one."""

    @property
    def dialect(self) -> str:
        """As Django calls it."""
        return str(self.connection.vendor)

    @property
    def driver(self) -> Any:
        """The DBAPI's connection."""
        return self.connection.connection

    @property
    def commits_itself(self) -> bool:
        """Outside of `transaction.atomic`, unless autocommit is off."""
        return not self.connection.in_atomic_block and bool(self.connection.get_autocommit())

    @property
    def aborted(self) -> bool:
        """As Django has marked it."""
        return bool(self.connection.needs_rollback)

    async def _execute(self, statement: str, parameters: Sequence[Any]) -> Answer:
        with self.connection.cursor() as cursor:
            cursor.execute(statement.replace("?", "%s"), parameters)
            return Answer(cursor.rowcount, cursor.fetchall() if cursor.description else ())

    async def begin(self) -> None:
        """It is begun before the first statement."""
        if self.connection.get_autocommit():
            self.connection.set_autocommit(False)


def commits_itself(driver: Any) -> bool:
    """Whether a DBAPI connection of either database commits each statement by itself."""
    if getattr(driver, "in_transaction", False):
        return False
    autocommit = getattr(driver, "autocommit", None)
    if isinstance(autocommit, bool):
        return autocommit
    return getattr(driver, "isolation_level", "") is None  # sqlite3, in the mode that it calls legacy


_CLIENTS: dict[tuple[str, str], type[Transaction]] = {
    ("sqlite3", "Connection"): Sqlite,
    ("psycopg", "Connection"): Psycopg,
    ("psycopg", "AsyncConnection"): Psycopg,
    ("sqlalchemy", "Connection"): Core,
    ("sqlalchemy", "AsyncConnection"): Core,
    ("django", "BaseDatabaseWrapper"): Django,
    ("django", "ConnectionProxy"): Django,
}
#: What has a connection of SQLAlchemy's, and gives it.
_SESSIONS = {"Session", "scoped_session", "AsyncSession", "async_scoped_session"}


class _Client(NamedTuple):
    """What a class of connections is."""

    made: type[Transaction] | None  #: None: of no client that is known
    session: bool
    asynchronous: bool


#: What each class was found to be, as a publish is too short to look each time.
_found: dict[type, _Client] = {}


def _client(connection: Any) -> _Client:
    """Told by package and name of its class and of each base."""
    kind = type(connection)
    if kind not in _found:
        names = [(each.__module__.partition(".")[0], each.__name__) for each in kind.__mro__]
        _found[kind] = _Client(
            next((_CLIENTS[name] for name in names if name in _CLIENTS), None),
            any(package == "sqlalchemy" and name in _SESSIONS for package, name in names),
            any(package in ("psycopg", "sqlalchemy") and "sync" in name for package, name in names),
        )
    return _found[kind]


def blocking(connection: Any) -> Any:
    """`connection`, for the sync face: an asynchronous one is refused."""
    if _client(connection).asynchronous:
        raise InvalidArgument(
            f"{type(connection).__name__} is asynchronous: use its twin in narrowboat.aio, and await it. Nothing was done"
        )
    return connection


async def opened(connection: Any, ddl: Callable[[str], str]) -> Transaction:
    """What executes over a connection, whichever state that is in. For one's own connection; see `joined`."""
    made = _client(connection).made
    if made is None:
        raise Unsupported(
            f"a connection of {type(connection).__module__}.{type(connection).__qualname__}: known are those of sqlite3, "
            "psycopg 3, SQLAlchemy 2 (Connection, Session, and their asyncio twins) and Django. Nothing was done"
        )
    transaction = made(connection, ddl)
    if transaction.dialect not in DIALECTS:
        raise Unsupported(f"a connection to {transaction.dialect}: known are {' and '.join(DIALECTS)}. Nothing was done")
    return transaction


async def joined(connection: Any, ddl: Callable[[str], str]) -> Transaction:
    """The transaction that `connection`, or a session, is in. `ddl`: see `Transaction`.

    Raises:
        NoTransaction: the connection commits each statement by itself.
        TransactionAborted: an earlier statement in it failed.
        Unsupported: no client or no database that is known.
    """
    try:
        if _client(connection).session:
            connection = await done(connection.connection())
        transaction = await opened(connection, ddl)
        if isinstance(transaction, Core):
            await transaction.begin()  # a program may begin by an event of its own, which shows only then
        transaction.check()
    except Exception as error:
        if type(error).__name__ == "PendingRollbackError":  # SQLAlchemy's: a flush failed, or the connection was lost
            raise aborted() from error
        raise
    return transaction
