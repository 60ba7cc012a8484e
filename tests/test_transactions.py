"""What is executed in somebody's transaction: over each client, on SQLite; those of PostgreSQL are under `integration`."""

from __future__ import annotations

import asyncio
import importlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

from narrowboat import InvalidArgument, NoTransaction, TableMissing, TransactionAborted, Unsupported
from narrowboat._engine.runtime import straight
from narrowboat.transactions import Answer, blocking, joined

#: What is executed: it writes a row, and gives what there is.
WRITE, LOOK = "INSERT INTO t VALUES (?, ?)", "SELECT a, b FROM t ORDER BY a"


def ddl(dialect: str) -> str:
    return f"CREATE TABLE t (a, b) -- {dialect}"


def execute(connection: Any, statement: str, *parameters: Any) -> Answer:
    async def work() -> Answer:
        transaction = await joined(connection, ddl)
        return await transaction.execute(statement, parameters)

    return straight(work())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
        connection.execute("CREATE TABLE t (a, b)")
        connection.commit()
    return tmp_path / "shop.db"


@pytest.fixture
def engine(file: Path) -> Iterator[sqlalchemy.Engine]:
    engine = sqlalchemy.create_engine(f"sqlite:///{file}")
    yield engine
    engine.dispose()


def count(file: Path) -> int:
    with closing(sqlite3.connect(file)) as connection:
        (found,) = connection.execute("SELECT count(*) FROM t").fetchone()
    return int(found)


def plain(file: Path) -> Any:
    return sqlite3.connect(file)


def explicit(file: Path) -> Any:
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("BEGIN")
    return connection


def with_rows(file: Path) -> Any:
    connection = sqlite3.connect(file)
    connection.row_factory = lambda cursor, row: {"row": row}
    return connection


def of_core(file: Path) -> Any:
    return sqlalchemy.create_engine(f"sqlite:///{file}", poolclass=sqlalchemy.NullPool).connect()


def with_events(file: Path) -> Any:
    """As SQLAlchemy's page advises: BEGIN by an event, which is all that begins."""
    engine = sqlalchemy.create_engine(f"sqlite:///{file}", poolclass=sqlalchemy.NullPool)

    @sqlalchemy.event.listens_for(engine, "connect")
    def connected(connection: Any, record: object) -> None:
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(engine, "begin")
    def begun(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine.connect()


def of_session(file: Path) -> Any:
    return Session(sqlalchemy.create_engine(f"sqlite:///{file}", poolclass=sqlalchemy.NullPool))


def scoped(file: Path) -> Any:
    return scoped_session(sessionmaker(sqlalchemy.create_engine(f"sqlite:///{file}", poolclass=sqlalchemy.NullPool)))


CONNECTIONS = [plain, explicit, with_rows, of_core, with_events, of_session, scoped]


@pytest.mark.parametrize("connect", CONNECTIONS)
def test_what_is_executed_belongs_to_the_callers_transaction(connect: Callable[[Path], Any], file: Path) -> None:
    """It is there after the caller's commit, and gone after a rollback; rows are plain ones whatever the caller's are."""
    connection = connect(file)

    assert execute(connection, WRITE, 1, b"x").changed == 1
    assert count(file) == 0
    connection.rollback()
    if connect is explicit:
        connection.execute("BEGIN")
    assert execute(connection, LOOK).rows == []
    execute(connection, WRITE, 2, "?:%s")
    assert execute(connection, LOOK).rows == [(2, "?:%s")]
    connection.commit()
    connection.close()

    assert count(file) == 1


def test_django_knows_its_atomic_blocks() -> None:
    """Inside of one it is joined, also through `django.db.connection`; outside it is refused; a broken one is aborted."""
    settings = importlib.import_module("django.conf").settings
    if not settings.configured:
        settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
        importlib.import_module("django").setup()
    database = importlib.import_module("django.db")
    connection, atomic = database.connection, importlib.import_module("django.db.transaction").atomic
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (a, b)")
    with closing(connection):
        with pytest.raises(NoTransaction):
            execute(connection, WRITE, 1, 1)
        with atomic():
            assert execute(connection, WRITE, 1, "%").changed == 1
            assert execute(database.connections["default"], LOOK).rows == [(1, "%")]
        with pytest.raises(TransactionAborted), atomic():
            connection.needs_rollback = True
            execute(connection, WRITE, 2, 2)


@pytest.mark.parametrize("how", ["connection", "session"])
def test_asyncio_connections_are_awaited(how: str, file: Path) -> None:
    """A connection and a session of SQLAlchemy's asyncio extension; the sync face refuses both before any I/O."""

    async def work() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{file}")
        async with engine.connect() if how == "connection" else AsyncSession(engine) as connection:
            with pytest.raises(InvalidArgument, match=r"narrowboat\.aio"):
                blocking(connection)
            transaction = await joined(connection, ddl)
            assert (await transaction.execute(WRITE, (1, 2))).changed == 1
            assert (await transaction.execute(LOOK)).rows == [(1, 2)]
            assert count(file) == 0
            await connection.commit()
        await engine.dispose()

    asyncio.run(work())
    assert count(file) == 1


def test_a_connection_that_commits_by_itself_is_refused(file: Path) -> None:
    """There is no transaction, and nothing is written."""
    engine = sqlalchemy.create_engine(f"sqlite:///{file}", isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
    for connection in (sqlite3.connect(file, isolation_level=None), engine.connect(), Session(engine)):
        with closing(connection), pytest.raises(NoTransaction, match="Begin one"):
            execute(connection, WRITE, 1, 1)

    assert count(file) == 0


def test_a_session_whose_flush_failed_is_aborted(engine: sqlalchemy.Engine) -> None:
    """It says to roll back; after that it goes on."""

    class Base(DeclarativeBase):
        """Of this test."""

    class Row(Base):
        """In a table that is not there."""

        __tablename__ = "absent"
        id: Mapped[int] = mapped_column(primary_key=True)

    with Session(engine) as session:
        session.add(Row(id=1))
        with pytest.raises(sqlalchemy.exc.OperationalError):
            session.flush()
        with pytest.raises(TransactionAborted, match="Roll it back"):
            execute(session, LOOK)
        session.rollback()
        assert execute(session, LOOK).rows == []


def test_a_missing_table_says_the_ddl(tmp_path: Path) -> None:
    """For the dialect of the connection, and with the client's own error as its cause."""
    for connect in CONNECTIONS:
        with closing(connect(tmp_path / "empty.db")) as connection:
            with pytest.raises(TableMissing, match=r"CREATE TABLE t \(a, b\) -- sqlite") as caught:
                execute(connection, WRITE, 1, 1)
            assert caught.value.__cause__ is not None


def test_an_error_of_the_callers_own_is_raised_as_it_is(file: Path) -> None:
    """The transaction is the caller's."""
    with closing(plain(file)) as connection, pytest.raises(sqlite3.OperationalError, match="syntax"):
        execute(connection, "SELEKT")


@pytest.mark.parametrize("connection", [None, "sqlite:///shop.db", object()])
def test_what_is_no_connection_is_refused(connection: object) -> None:
    """With the clients that are known."""
    with pytest.raises(Unsupported, match="SQLAlchemy 2"):
        execute(connection, LOOK)


def test_another_database_is_refused(engine: sqlalchemy.Engine) -> None:
    """By its name, before it is asked anything."""
    with engine.connect() as connection:
        engine.dialect.name = "oracle"
        with pytest.raises(Unsupported, match="oracle: known are sqlite and postgresql"):
            execute(connection, LOOK)
