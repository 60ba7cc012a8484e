"""Fences in a table of PostgreSQL, over psycopg and SQLAlchemy: two holders at once, and what stands in the way."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import Any

import psycopg
import pytest

import fenced
from integration.servers import PostgreSQLServer
from narrowboat import NoTransaction, StaleWrite, TableMissing, TransactionAborted, Unavailable
from narrowboat.aio import fencing as aio_fencing
from narrowboat.fencing import TableFence

FENCE = TableFence()


@pytest.fixture
def url(postgresql_server: PostgreSQLServer) -> str:
    url = postgresql_server.url.partition("?")[0]
    with psycopg.connect(url) as connection:
        connection.execute("DROP TABLE IF EXISTS narrowboat_fence, report, history")
        connection.execute(FENCE.ddl("postgresql").encode())
        connection.execute("CREATE TABLE report (value TEXT)")
        connection.execute("INSERT INTO report VALUES ('')")
        connection.execute("CREATE TABLE history (place BIGINT, token BIGINT)")
    return url


@pytest.mark.parametrize("writer", ["in_psycopg", "in_psycopg_aio", "in_sqlalchemy", "in_sqlalchemy_aio"])
def test_a_stopped_holder_that_wakes_up_is_refused(writer: str, url: str, postgresql_server: PostgreSQLServer) -> None:
    target = url.replace("postgresql://", "postgresql+psycopg://") if "sqlalchemy" in writer else url
    assert fenced.wakes_up_late(postgresql_server.url, writer, target) == "StaleWrite"
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT value FROM report").fetchall() == [("new",)]


def test_what_is_written_by_many_at_once_never_goes_back(url: str) -> None:
    """In READ COMMITTED. Each accepted transaction counts what was there before it, so a write beside another would be seen."""
    errors: list[BaseException] = []

    def write(seed: int) -> None:
        chance = random.Random(seed)
        try:
            with psycopg.connect(url) as connection:
                for _ in range(40):
                    token = chance.choice([chance.randrange(1000), 2**63 - 1 - chance.randrange(100)])
                    try:
                        with connection.transaction():
                            FENCE.guard(connection, "a", token)
                            connection.execute("INSERT INTO history SELECT count(*), %s FROM history", (token,))
                    except StaleWrite:
                        pass
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT place, token FROM history ORDER BY place, token").fetchall()
        version = FENCE.version(connection, "a")
    tokens = [token for _, token in rows]
    assert not errors
    assert [place for place, _ in rows] == list(range(len(rows))) == list(range(version))
    assert tokens == sorted(tokens)


def test_many_optimistic_writers_lose_no_write(url: str) -> None:
    """Each that lost reads again, and at the end all have counted."""
    errors: list[BaseException] = []

    def add() -> None:
        try:
            with psycopg.connect(url) as connection:
                done = 0
                while done < 20:
                    try:
                        with connection.transaction():
                            version = FENCE.version(connection, "sum")
                            (row,) = connection.execute("SELECT value FROM report").fetchall()
                            FENCE.advance(connection, "sum", version)
                            connection.execute("UPDATE report SET value = %s", (str(int(row[0] or 0) + 1),))
                        done += 1
                    except StaleWrite:
                        pass
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    with psycopg.connect(url) as connection:
        assert not errors
        assert connection.execute("SELECT value FROM report").fetchall() == [("80",)]
        assert FENCE.version(connection, "sum") == 80


def waiting(watcher: Any) -> bool:
    """Whether a guard waits for a row."""
    (row,) = watcher.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%narrowboat_fence%'"
    ).fetchall()
    return bool(row[0])


@pytest.mark.parametrize("first", [5, 0], ids=["a row that is there", "the first row"])
@pytest.mark.parametrize(("mine", "theirs", "commit"), [(7, 6, True), (6, 7, True), (7, 6, False)])
def test_a_guard_waits_for_the_transaction_before(url: str, first: int, mine: int, theirs: int, commit: bool) -> None:
    """It compares with what that has committed, or with what was there where it was rolled back."""
    outcome: list[int | None] = []
    if first:
        with psycopg.connect(url) as connection:
            FENCE.guard(connection, "a", first)

    def other() -> None:
        with psycopg.connect(url) as connection:
            try:
                FENCE.guard(connection, "a", theirs)
            except StaleWrite as error:
                outcome.append(error.found)
            else:
                outcome.append(None)

    with psycopg.connect(url) as connection, psycopg.connect(url, autocommit=True) as watcher:
        FENCE.guard(connection, "a", mine)
        thread = threading.Thread(target=other)
        thread.start()
        while not waiting(watcher):
            assert thread.is_alive() or not outcome, "it did not wait"
        connection.commit() if commit else connection.rollback()
        thread.join(60)
    assert outcome == [mine if commit and theirs < mine else None]


def test_a_connection_that_commits_by_itself_is_refused(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        with pytest.raises(NoTransaction):
            FENCE.guard(connection, "a", 1)
        with connection.transaction():
            FENCE.guard(connection, "a", 1)


def test_an_aborted_transaction_is_refused(url: str) -> None:
    """It says to roll back, after which it goes on."""
    with psycopg.connect(url) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1/0")
        for call in (lambda: FENCE.guard(connection, "a", 1), lambda: FENCE.version(connection, "a")):
            with pytest.raises(TransactionAborted, match="Roll it back"):
                call()
        connection.rollback()
        FENCE.guard(connection, "a", 1)


def test_a_missing_table_says_the_ddl(url: str) -> None:
    """Which makes it, also in a schema."""
    with psycopg.connect(url) as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS shop")
        connection.execute("DROP TABLE IF EXISTS shop.fence")
        connection.commit()
        fence = TableFence("shop.fence")
        with pytest.raises(TableMissing) as caught:
            fence.guard(connection, "a", 1)
        connection.rollback()
        connection.execute(str(caught.value).partition("\n\n")[2].encode())
        fence.guard(connection, "a", 1)
        assert fence.advance(connection, "a", fence.version(connection, "a")) == 2


@pytest.mark.parametrize("level", [psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE])
def test_a_snapshot_that_is_too_old_is_typed(level: psycopg.IsolationLevel, url: str) -> None:
    """Nothing was written, and the same can be done again."""
    with psycopg.connect(url) as first, psycopg.connect(url) as second:
        FENCE.guard(first, "a", 1)
        first.commit()
        second.isolation_level = level
        second.execute("SELECT * FROM report")
        FENCE.guard(first, "a", 2)
        first.commit()
        with pytest.raises(Unavailable, match="Roll back") as caught:
            FENCE.guard(second, "a", 3)
        assert caught.value.retryable and not caught.value.sent
        second.rollback()
        FENCE.guard(second, "a", 3)


def test_the_same_on_asyncio(url: str) -> None:
    fence = aio_fencing.TableFence()

    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(url) as connection:
            await fence.guard(connection, "a", 7)
            await connection.commit()
            with pytest.raises(StaleWrite):
                await fence.guard(connection, "a", 6)
            assert await fence.advance(connection, "a", await fence.version(connection, "a")) == 2
            await connection.rollback()
            await connection.set_autocommit(True)
            with pytest.raises(NoTransaction):
                await fence.guard(connection, "a", 8)

    asyncio.run(main())
