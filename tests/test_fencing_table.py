"""Fences in a table, over each client on SQLite; those of PostgreSQL are under `integration`."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import fenced
from narrowboat import (
    InvalidArgument,
    NarrowboatError,
    NoTransaction,
    StaleWrite,
    TableMissing,
    Unavailable,
    Unsupported,
)
from narrowboat.aio import fencing as aio_fencing
from narrowboat.fencing import TableFence

FENCE = TableFence()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    make(path)
    return path


def make(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(FENCE.ddl("sqlite"))
        connection.execute("CREATE TABLE report (value TEXT)")
        connection.execute("INSERT INTO report VALUES ('')")


def report(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("SELECT value FROM report").fetchone()[0])


# -- a holder that is too late ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("writer", "target"),
    [
        ("in_sqlite3", "{}"),
        ("in_sqlalchemy", "sqlite:///{}"),
        ("in_sqlalchemy_aio", "sqlite+aiosqlite:///{}"),
        ("in_django", "{}"),
    ],
)
def test_a_stopped_holder_that_wakes_up_is_refused(writer: str, target: str, file: Path) -> None:
    """And nothing of what it would write is there."""
    assert fenced.wakes_up_late(f"sqlite:///{file}.locks", writer, target.format(file)) == "StaleWrite"
    assert report(file) == "new"


# -- what a row says --------------------------------------------------------------------------------------------------


@contextmanager
def of_sqlite3(file: Path) -> Iterator[Any]:
    with closing(sqlite3.connect(file)) as connection, connection:
        yield connection


@contextmanager
def begun(file: Path) -> Iterator[Any]:
    """By hand, as who wants BEGIN IMMEDIATE does."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        connection.execute("COMMIT")


@contextmanager
def of_sqlalchemy(file: Path) -> Iterator[Any]:
    engine = sqlalchemy.create_engine(f"sqlite:///{file}", poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        yield connection


@contextmanager
def of_session(file: Path) -> Iterator[Any]:
    with Session(sqlalchemy.create_engine(f"sqlite:///{file}", poolclass=sqlalchemy.NullPool)) as session, session.begin():
        yield session


Connect = Callable[[Path], AbstractContextManager[Any]]
each = pytest.mark.parametrize("connect", [of_sqlite3, begun, of_sqlalchemy, of_session])


@each
def test_a_row_remembers_the_greatest_token_of_each_name(connect: Connect, file: Path) -> None:
    """Equal ones pass; a smaller one is refused, with what was found."""
    for token in (7, 7, 2**63 - 1):
        with connect(file) as connection:
            FENCE.guard(connection, "a", token)
            FENCE.guard(connection, "b", 1)

    with connect(file) as connection:
        with pytest.raises(StaleWrite, match="nothing was written") as caught:
            FENCE.guard(connection, "a", 8)
        assert (caught.value.name, caught.value.tried, caught.value.found) == ("a", 8, 2**63 - 1)
        FENCE.guard(connection, "b", 1)


def test_a_rollback_takes_the_token_back(file: Path) -> None:
    """The write and its token are there together, or not."""
    with pytest.raises(ZeroDivisionError), of_sqlite3(file) as connection:
        FENCE.guard(connection, "a", 9)
        raise ZeroDivisionError
    with of_sqlite3(file) as connection:
        FENCE.guard(connection, "a", 8)


@each
def test_a_version_that_was_read_is_compared_on_write(connect: Connect, file: Path) -> None:
    """A write by anybody moves it on, also a guarded one; the loser is told, and reads again."""
    with connect(file) as connection:
        assert FENCE.version(connection, "a") == 0
    with connect(file) as connection:
        assert FENCE.advance(connection, "a", 0) == 1
    with connect(file) as connection:
        with pytest.raises(StaleWrite, match="Read again") as caught:
            FENCE.advance(connection, "a", 0)
        assert (caught.value.tried, caught.value.found) == (0, 1)
        FENCE.guard(connection, "a", 5)
        with pytest.raises(StaleWrite):
            FENCE.advance(connection, "a", 1)
        assert FENCE.advance(connection, "a", FENCE.version(connection, "a")) == 3
        FENCE.guard(connection, "a", 5)  # an optimistic write takes no lock away


@pytest.mark.parametrize("version", [1, 2**63 - 1])
def test_a_version_of_a_row_that_is_gone_is_stale(version: int, file: Path) -> None:
    """It does not make the row."""
    with of_sqlite3(file) as connection:
        with pytest.raises(StaleWrite) as caught:
            FENCE.advance(connection, "a", version)
        assert caught.value.found == 0
        assert FENCE.version(connection, "a") == 0


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5) | st.integers(0, 2**63 - 1), st.booleans()), max_size=12))
def test_a_row_decides_as_the_pure_decision_does(steps: list[tuple[str, int, bool]]) -> None:
    """Whatever the order of tokens, names, commits and rollbacks."""
    newest: dict[str, int] = {}
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(FENCE.ddl("sqlite"))
        for name, token, commit in steps:
            if token < newest.get(name, 0):
                with pytest.raises(StaleWrite):
                    FENCE.guard(connection, name, token)
            else:
                FENCE.guard(connection, name, token)
                newest[name] = token if commit else newest.get(name, 0)
            connection.commit() if commit else connection.rollback()
            assert dict(connection.execute("SELECT name, token FROM narrowboat_fence WHERE token > 0")) == {
                name: token for name, token in newest.items() if token
            }


def test_a_guard_waits_for_the_transaction_before(file: Path) -> None:
    """It compares with what that has committed: an older holder that guarded later is refused."""
    outcome: list[object] = []

    def older() -> None:
        with closing(sqlite3.connect(file, timeout=60)) as connection, pytest.raises(StaleWrite) as caught:
            FENCE.guard(connection, "a", 1)
        outcome.append(caught.value.found)

    with of_sqlite3(file) as connection:
        FENCE.guard(connection, "a", 2)
        thread = threading.Thread(target=older)
        thread.start()
    thread.join(60)
    assert outcome == [2]


def test_a_table_may_have_another_name(file: Path) -> None:
    """Also after a schema; what would have to be quoted is refused, for it becomes a part of statements."""
    fence = TableFence("main.fences")
    with of_sqlite3(file) as connection:
        connection.execute(fence.ddl("sqlite"))
        fence.guard(connection, "a", 2)
        assert fence.advance(connection, "a", fence.version(connection, "a")) == 2
        assert connection.execute("SELECT * FROM fences").fetchall() == [("a", 2, 2)]
    for name in ("a; DROP TABLE report", "", "a-b", 'a"', "a.b.c", None):
        with pytest.raises(InvalidArgument):
            TableFence(name)  # type: ignore[arg-type]


# -- what is refused --------------------------------------------------------------------------------------------------

Call = Callable[[Any], object]
calls = pytest.mark.parametrize(
    "call",
    [lambda c: FENCE.guard(c, "a", 1), lambda c: FENCE.version(c, "a"), lambda c: FENCE.advance(c, "a", 0)],
    ids=["guard", "version", "advance"],
)


@calls
def test_a_connection_that_commits_by_itself_is_refused(call: Call, file: Path) -> None:
    """There is no transaction that the guard and the write could share."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection, pytest.raises(NoTransaction, match="Begin one"):
        call(connection)
    with of_sqlite3(file) as connection:
        assert connection.execute("SELECT count(*) FROM narrowboat_fence").fetchone() == (0,)


@calls
def test_a_missing_table_says_the_ddl(call: Call, tmp_path: Path) -> None:
    """Which makes it."""
    with of_sqlite3(tmp_path / "empty.db") as connection:
        with pytest.raises(TableMissing) as caught:
            call(connection)
        _, _, ddl = str(caught.value).partition("\n\n")
        connection.execute(ddl)
        call(connection)


@pytest.mark.parametrize("connect", [of_sqlite3, of_sqlalchemy])
def test_another_transaction_in_the_way_is_typed(connect: Connect, file: Path) -> None:
    """A read before the guard took a snapshot, and others have written since: nothing was written, and it can be done again."""
    with connect(file) as connection:
        driver = connection if connect is of_sqlite3 else connection.connection.dbapi_connection
        driver.execute("BEGIN")
        driver.execute("SELECT * FROM report").fetchall()
        with of_sqlite3(file) as other:
            FENCE.guard(other, "a", 1)
        with pytest.raises(Unavailable, match="BEGIN IMMEDIATE") as caught:
            FENCE.guard(connection, "a", 2)
        assert caught.value.retryable and not caught.value.sent
        driver.rollback()
        FENCE.guard(connection, "a", 2)


@pytest.mark.parametrize("token", [True, None, 1.0, "1", -1, 2**63])
def test_what_is_no_token_is_refused(token: Any, file: Path) -> None:
    """Before the connection is looked at."""
    for call in (FENCE.guard, FENCE.advance):
        with pytest.raises(InvalidArgument):
            call(None, "a", token)


def test_what_is_no_connection_is_refused() -> None:
    """And the two faces do not take each other's."""
    with pytest.raises(Unsupported, match="psycopg 3"):
        FENCE.guard(object(), "a", 1)
    engine = create_async_engine("sqlite+aiosqlite://")
    with pytest.raises(InvalidArgument, match=r"narrowboat\.aio"):
        FENCE.guard(AsyncSession(engine), "a", 1)


# -- asyncio ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", [AsyncSession, "connection"])
def test_the_same_on_asyncio(of: Any, file: Path) -> None:
    """Refusals, versions and errors are those of the sync face."""
    fence = aio_fencing.TableFence()

    async def main() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{file}")
        async with engine.connect() if of == "connection" else AsyncSession(engine) as connection:
            await fence.guard(connection, "a", 7)
            await connection.commit()
            with pytest.raises(StaleWrite) as caught:
                await fence.guard(connection, "a", 6)
            assert caught.value.found == 7
            assert await fence.advance(connection, "a", await fence.version(connection, "a")) == 2
            await connection.rollback()
            with pytest.raises(NarrowboatError, match="CREATE TABLE"):
                await aio_fencing.TableFence("none").guard(connection, "a", 1)
        await engine.dispose()

    asyncio.run(main())
