"""The inbox on SQLite, on both faces: what is done once, what is done again, for how long a mark is kept."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine

import narrowboat
from narrowboat import InvalidArgument, NoTransaction, TableMissing, aio
from narrowboat.aio.inbox import Inbox as AsyncInbox
from narrowboat.inbox import Inbox, horizon

MESSAGE = SimpleNamespace(id="order-1")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
        connection.execute(Inbox("billing").ddl("sqlite"))
        connection.execute("CREATE TABLE bills (id)")
        connection.commit()
    return tmp_path / "shop.db"


@pytest.fixture
def begin(file: Path) -> Callable[[], AbstractContextManager[sqlite3.Connection]]:
    @contextmanager
    def begin() -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(file)) as connection, connection:
            yield connection

    return begin


def bills(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as connection:
        return [id for (id,) in connection.execute("SELECT id FROM bills")]


def test_a_message_is_first_once_for_each_consumer(begin: Any) -> None:
    """And again after a rollback, because the work was rolled back with the mark."""
    inbox = Inbox("billing")
    with pytest.raises(ZeroDivisionError), begin() as connection:
        assert inbox.first(connection, MESSAGE)
        assert not inbox.first(connection, MESSAGE)
        raise ZeroDivisionError
    with begin() as connection:
        assert inbox.first(connection, MESSAGE)
    with begin() as connection:
        assert not inbox.first(connection, MESSAGE)
        assert Inbox("shipping").first(connection, MESSAGE)


def test_what_is_no_transaction_or_has_no_table_is_refused(file: Path, tmp_path: Path) -> None:
    """As the outbox does."""
    inbox = Inbox("billing")
    with closing(sqlite3.connect(file, isolation_level=None)) as connection, pytest.raises(NoTransaction):
        inbox.first(connection, MESSAGE)
    with closing(sqlite3.connect(tmp_path / "empty.db")) as connection, pytest.raises(TableMissing, match="CREATE TABLE inbox"):
        inbox.first(connection, MESSAGE)


def test_marks_are_kept_for_the_horizon(begin: Any) -> None:
    """An age within it is refused; older marks of this consumer alone are deleted."""
    now = 1000.0
    inbox = Inbox("billing", horizon=60, now=lambda: now)
    with begin() as connection:
        inbox.first(connection, MESSAGE)
        Inbox("shipping", now=lambda: now).first(connection, MESSAGE)
    now += 30
    with begin() as connection:
        inbox.first(connection, SimpleNamespace(id="order-2"))
    now += 31
    with begin() as connection:
        with pytest.raises(InvalidArgument, match="would be done again"):
            inbox.clean(connection, 59)
        assert inbox.clean(connection, 3600) == 0
        assert inbox.clean(connection) == 1
        assert connection.execute("SELECT consumer, id FROM inbox ORDER BY id").fetchall() == [
            ("shipping", "order-1"),
            ("billing", "order-2"),
        ]


def test_the_horizon_follows_from_the_retries() -> None:
    """Each delivery may last for its lease and its extension, and be followed by the longest delay."""
    retry = narrowboat.Retry(most=600, when={OSError: narrowboat.Retry(most=900)})

    assert horizon(max_deliveries=3, lease=10, max_extend=100, retry=retry, outage=1000, dead_letters=5) == 3 * 1010 + 1005
    assert Inbox("billing").horizon == horizon() > 86400
    with pytest.raises(InvalidArgument, match="for ever"):
        horizon(max_deliveries=0)
    with pytest.raises(InvalidArgument, match="lease"):
        horizon(lease=-1)


def delivered_twice(worker: narrowboat.Worker, id: str) -> None:
    with worker.test() as test:
        for _ in range(2):
            worker.broker.queue("orders").publish(b"x", id=id)
            test.drain()
            test.clock.advance(3600)  # beyond the window in which the broker drops an id by itself
        assert worker.broker.queue("orders").depth() == narrowboat.messaging.Depth(0, 0, 0, 0)


def test_a_decorated_handler_is_called_once_in_its_transaction(file: Path, begin: Any) -> None:
    """The second delivery is acked all the same."""
    worker, inbox = narrowboat.Worker(), Inbox("billing")

    @worker.queue("orders")
    @inbox.once(begin)
    def bill(message: narrowboat.Message[bytes], connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO bills VALUES (?)", (message.id,))

    delivered_twice(worker, "order-1")
    assert bill.__name__ == "bill"
    assert bills(file) == ["order-1"]


@pytest.mark.filterwarnings("ignore:coroutine")
def test_a_handler_that_has_not_run_leaves_no_mark(file: Path, begin: Any) -> None:
    """A coroutine of the other face, or a generator: marked as done, its message would be lost."""
    inbox = Inbox("billing")

    async def coroutine(message: Any, connection: Any) -> None:
        raise AssertionError("nobody awaits it")

    def generator(message: Any, connection: Any) -> Iterator[None]:
        yield

    for handler in (coroutine, generator):
        with pytest.raises(TypeError, match="has not run"):
            inbox.once(begin)(handler)(SimpleNamespace(id="1"))
    with begin() as connection:
        assert inbox.first(connection, SimpleNamespace(id="1"))


def test_around_a_worker_each_handler_has_its_connection(file: Path, begin: Any) -> None:
    """A handler that raises takes back mark and work, and the next delivery does both."""
    inbox = Inbox("billing")
    worker = narrowboat.Worker(around=[inbox.around(begin)])
    calls = []

    @worker.queue("orders", retry=narrowboat.Retry(first=0, most=0))
    def bill(message: narrowboat.Message[bytes]) -> None:
        calls.append(message.attempt)
        inbox.connection.execute("INSERT INTO bills VALUES (?)", (message.id,))
        if len(calls) == 1:
            raise OSError("no paper")

    delivered_twice(worker, "order-1")
    assert calls == [1, 2]
    assert bills(file) == ["order-1"]
    with pytest.raises(InvalidArgument, match="within its `around`"):
        inbox.connection  # noqa: B018  # looked at for that


def test_what_is_skipped_leaves_what_is_around_it_in_order(begin: Any) -> None:
    """A trace that stands outside of the inbox sees no failure."""
    inbox, seen = Inbox("billing"), []

    @contextmanager
    def trace(handling: object) -> Iterator[None]:
        yield
        seen.append("ended well")

    worker = narrowboat.Worker(around=[trace, inbox.around(begin)])

    @worker.queue("orders")
    def bill(message: narrowboat.Message[bytes]) -> None: ...

    delivered_twice(worker, "order-1")
    assert seen == ["ended well", "ended well"]


def test_around_a_batch_is_refused(begin: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Its messages are told apart one by one, by the handler."""
    worker = narrowboat.Worker(around=[Inbox("billing").around(begin)])

    @worker.queue("orders", batch=10, max_deliveries=1)
    def bill(messages: Any) -> None: ...

    with worker.test() as test:
        worker.broker.queue("orders").publish_many([b"1", b"2"])
        test.drain()
    assert "inbox.first(...) for each" in caplog.text


def test_the_asyncio_face_does_the_same(file: Path) -> None:
    """The decorator and what is around a worker await their connection."""

    async def work() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{file}")
        inbox, outer = AsyncInbox("billing"), AsyncInbox("all")
        worker = aio.Worker(around=[outer.around(engine.begin)])

        @worker.queue("orders")
        async def bill(message: aio.Message[bytes]) -> None:
            connection = outer.connection
            await connection.execute(sqlalchemy.text("INSERT INTO bills VALUES (:id)"), {"id": message.id})
            assert await inbox.first(connection, message)

        async with worker.test() as test:
            for _ in range(2):
                await worker.broker.queue("orders").publish(b"x", id="order-1")
                await test.drain()
                test.clock.advance(3600)

        @inbox.once(engine.begin)
        async def again(message: Any, connection: Any) -> None:
            raise AssertionError("it was done")

        await again(MESSAGE)
        async with engine.begin() as connection:
            assert await inbox.clean(connection) == 0
        await engine.dispose()

    asyncio.run(work())
    assert bills(file) == ["order-1"]
