"""The outbox, its relay and the inbox on PostgreSQL: over each client, woken by NOTIFY, in order of commit, and in a storm."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import narrowboat
from integration.servers import PostgreSQLServer
from narrowboat import InvalidArgument, NoTransaction, StaleWrite, TableMissing, TransactionAborted, aio
from narrowboat.aio.inbox import Inbox as AsyncInbox
from narrowboat.aio.outbox import Outbox as AsyncOutbox
from narrowboat.codecs import JSON
from narrowboat.contract import Outgoing
from narrowboat.fencing import TableFence
from narrowboat.inbox import Inbox
from narrowboat.layers.passing import PassingBroker
from narrowboat.outbox import Outbox

#: Seconds of a poll that would fail a test which waits for it, and in which what is waited for happens.
NEVER, SOON = 3000, 30
_numbers = count()


class Shop:
    """Tables of its own, and a broker in memory."""

    def __init__(self, server: PostgreSQLServer) -> None:
        number = next(_numbers)
        self.server = server
        self.url = server.url
        self.name = f"outbox{number}"
        self.outbox: Outbox[Any] = Outbox(self.name, codec=JSON)
        self.inbox = Inbox("billing", f"inbox{number}")
        self.where = f"memory://postgresql-outbox-{number}"
        self.broker = narrowboat.broker(self.where)
        with self.connect() as connection:
            connection.execute(self.outbox.ddl("postgresql"))
            connection.execute(self.inbox.ddl("postgresql"))

    def connect(self, **options: Any) -> Any:
        import psycopg

        return psycopg.connect(self.url, **options)

    def rows(self) -> int:
        with self.connect() as connection:
            return int(connection.execute(f"SELECT count(*) FROM {self.name}").fetchone()[0])

    def worker(self) -> narrowboat.Worker:
        worker = narrowboat.Worker(self.broker)
        worker.relay(self.outbox, self.connect, poll=NEVER)
        return worker

    def taken(self, number: int) -> list[Any]:
        """So many messages, acked."""
        found: list[Any] = []
        with self.broker.queue("orders", codec=JSON).consume() as messages:
            for _ in range(number):
                message = messages.receive(timeout=SOON)
                assert message is not None, f"{len(found)} of {number} messages came"
                message.ack()
                found.append(message.data)
        return found


@pytest.fixture
def shop(postgresql_server: PostgreSQLServer) -> Iterator[Shop]:
    shop = Shop(postgresql_server)
    yield shop
    shop.broker.close()


def engine_url(shop: Shop) -> str:
    return shop.url.replace("postgresql://", "postgresql+psycopg://")


def test_each_client_stores_in_its_transaction_and_the_relay_is_told(shop: Shop) -> None:
    """psycopg, SQLAlchemy's connections and sessions: there after the commit, at once; and nothing after a rollback."""
    import sqlalchemy
    from sqlalchemy.orm import Session

    engine = sqlalchemy.create_engine(engine_url(shop))
    with shop.worker() as worker:
        while not worker.health().ready:
            threading.Event().wait(0.01)
        for number, opened in enumerate((shop.connect(), shop.connect(autocommit=True), engine.connect(), Session(engine))):
            with closing(opened) as connection:
                if getattr(connection, "autocommit", None) is True:
                    with connection.transaction():
                        shop.outbox.publish(connection, "orders", number)
                else:
                    shop.outbox.publish(connection, "orders", "phantom")
                    connection.rollback()
                    shop.outbox.publish(connection, "orders", number)
                    connection.commit()
            assert shop.taken(1) == [number]
    engine.dispose()
    assert shop.rows() == 0


def test_asynchronous_clients_are_awaited(shop: Shop) -> None:
    """Psycopg's and SQLAlchemy's, by outbox, inbox and the relay of an asyncio worker."""
    import psycopg
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    async def main() -> list[int]:
        outbox: AsyncOutbox[Any] = AsyncOutbox(shop.name, codec=JSON)
        inbox = AsyncInbox("billing", shop.inbox._table)
        engine = create_async_engine(engine_url(shop))

        async def connect() -> Any:
            return await psycopg.AsyncConnection.connect(shop.url)

        found = []
        async with aio.broker(shop.where) as broker:
            worker = aio.Worker(broker)
            worker.relay(outbox, connect, poll=NEVER)
            async with worker, broker.queue("orders", codec=JSON).consume() as messages:
                while not worker.health().ready:
                    await asyncio.sleep(0.01)
                for number, opened in enumerate((await connect(), engine.connect(), AsyncSession(engine))):
                    async with opened as connection:
                        await outbox.publish(connection, "orders", number)
                        await connection.commit()
                    message = await messages.receive(timeout=SOON)
                    assert message is not None
                    async with await connect() as connection:
                        assert await inbox.first(connection, message)
                        assert not await inbox.first(connection, message)
                    await message.ack()
                    found.append(message.data)
        await engine.dispose()
        return found

    assert asyncio.run(main()) == [0, 1, 2]
    assert shop.rows() == 0


def test_django_is_joined_in_its_atomic_block(shop: Shop) -> None:
    """Its wrapper of psycopg; outside of a block it commits by itself, and is refused."""
    import django
    from django.conf import settings
    from django.db.backends.postgresql.base import DatabaseWrapper

    if not settings.configured:
        settings.configure()
        django.setup()
    with shop.connect() as plain:
        told = plain.info
        options = {"NAME": told.dbname, "USER": told.user, "PASSWORD": told.password, "HOST": told.host, "PORT": told.port}
    usual: dict[str, Any] = {
        "TIME_ZONE": None,
        "CONN_MAX_AGE": 0,
        "CONN_HEALTH_CHECKS": False,
        "AUTOCOMMIT": True,
        "OPTIONS": {},
    }
    wrapper: Any = DatabaseWrapper({**usual, **options}, "shop")
    wrapper.connect()
    with pytest.raises(NoTransaction):
        shop.outbox.publish(wrapper, "orders", 1)
    wrapper.set_autocommit(False)
    shop.outbox.publish(wrapper, "orders", 1)
    wrapper.commit()
    wrapper.close()

    assert shop.rows() == 1


def test_what_has_no_transaction_that_goes_on_is_refused(shop: Shop) -> None:
    """Autocommit, an aborted transaction, a missing table: each with an error of its own, and nothing is stored."""
    with shop.connect(autocommit=True) as connection, pytest.raises(NoTransaction):
        shop.outbox.publish(connection, "orders", 1)
    with shop.connect() as connection:
        with pytest.raises(Exception, match="division by zero"):
            connection.execute("SELECT 1 / 0")
        with pytest.raises(TransactionAborted):
            shop.outbox.publish(connection, "orders", 1)
        connection.rollback()
        with pytest.raises(TableMissing, match="CREATE TABLE absent"):
            Outbox[bytes]("absent").publish(connection, "orders", b"1")
        with pytest.raises(TransactionAborted):
            shop.inbox.first(connection, SimpleNamespace(id="1"))
        connection.rollback()

    assert shop.rows() == 0


def test_a_pipeline_of_psycopg_is_joined(shop: Shop) -> None:
    """There an answer has to be asked for: without it each message would be one that was done, and each token a small one."""
    import psycopg

    fence, asynchronous = TableFence(f"fence_{shop.name}"), AsyncInbox("asyncio", shop.inbox._table)
    with shop.connect() as connection:
        connection.execute(fence.ddl("postgresql"))
    with shop.connect() as connection, connection.pipeline():
        shop.outbox.publish(connection, "orders", 1)
        assert [shop.inbox.first(connection, SimpleNamespace(id="1")) for _ in range(2)] == [True, False]
        fence.guard(connection, "a", 2)
        with pytest.raises(StaleWrite, match="has seen 2"):
            fence.guard(connection, "a", 1)
        with pytest.raises(TableMissing):
            Outbox[bytes]("absent").publish(connection, "orders", b"1")
        connection.rollback()
        shop.outbox.publish(connection, "orders", 2)

    async def main() -> list[bool]:
        async with await psycopg.AsyncConnection.connect(shop.url) as connection, connection.pipeline():
            return [await asynchronous.first(connection, SimpleNamespace(id="1")) for _ in range(2)]

    assert asyncio.run(main()) == [True, False]
    assert shop.rows() == 1


def test_the_programs_own_cursors_do_not_matter(shop: Shop) -> None:
    """One of psycopg's takes another form of parameters."""
    import psycopg

    with shop.connect(cursor_factory=psycopg.RawCursor, row_factory=psycopg.rows.dict_row) as connection:
        shop.outbox.publish(connection, "orders", 1)
        assert shop.inbox.first(connection, SimpleNamespace(id="1"))
    assert shop.rows() == 1


def test_a_transaction_whose_connection_died_is_aborted(shop: Shop) -> None:
    """SQLAlchemy's connections and sessions say so from then on, until the rollback."""
    import sqlalchemy
    from sqlalchemy.orm import Session

    engine = sqlalchemy.create_engine(engine_url(shop))
    for opened in (engine.connect(), Session(engine)):
        with closing(opened) as connection, closing(shop.server.client()) as admin:
            admin.execute("SELECT pg_terminate_backend(%s)", (connection.scalar(sqlalchemy.text("SELECT pg_backend_pid()")),))
            with pytest.raises(sqlalchemy.exc.OperationalError):
                shop.outbox.publish(connection, "orders", 1)
            with pytest.raises(TransactionAborted):
                shop.outbox.publish(connection, "orders", 1)
            connection.rollback()
            shop.outbox.publish(connection, "orders", 1)
            connection.commit()
    engine.dispose()
    assert shop.rows() == 2


def test_what_no_index_takes_is_refused_before_it_aborts_the_transaction(shop: Shop) -> None:
    """Names and ids have 1,000 characters, of up to four bytes."""
    fence, long = TableFence(f"fence_{shop.name}"), "".join(chr(0x10400 + number % 79) for number in range(1000))
    with shop.connect() as connection:
        connection.execute(fence.ddl("postgresql"))
        refused: list[Callable[[], object]] = [
            lambda: shop.outbox.publish(connection, "orders", 1, id=long),
            lambda: shop.inbox.first(connection, SimpleNamespace(id=long)),
            lambda: fence.guard(connection, long, 1),
            lambda: fence.advance(connection, long, 0),
        ]
        for call in refused:
            with pytest.raises(InvalidArgument, match="4000 bytes|4007 bytes"):
                call()
        shop.outbox.publish(connection, "orders", 1, id=long[:600], key=long)
    assert shop.rows() == 1


def test_a_later_row_that_commits_first_goes_first_and_the_earlier_one_is_not_passed_over(shop: Shop) -> None:
    """The relay keeps no position: it takes what is committed, and a row that comes to be seen later is taken then."""
    with shop.worker(), shop.connect() as slow, shop.connect() as quick:
        shop.outbox.publish(slow, "orders", "slow")
        shop.outbox.publish(quick, "orders", "quick")
        quick.commit()
        assert shop.taken(1) == ["quick"]
        slow.commit()
        assert shop.taken(1) == ["slow"]


def test_transactions_that_stand_in_line_for_a_row_are_published_in_their_order(shop: Shop) -> None:
    """What is published after the aggregate is locked has its place by the lock."""
    with shop.connect() as connection:
        connection.execute(f"CREATE TABLE {shop.name}_order (id int PRIMARY KEY, n int)")
        connection.execute(f"INSERT INTO {shop.name}_order VALUES (1, 0)")
        connection.commit()

    def change(who: int) -> None:
        for _ in range(20):
            with shop.connect() as connection:
                (number,) = connection.execute(f"UPDATE {shop.name}_order SET n = n + 1 RETURNING n").fetchone()
                shop.outbox.publish(connection, "orders", number, key="1")

    with shop.worker():
        threads = [threading.Thread(target=change, args=[who]) for who in range(4)]
        for thread in threads:
            thread.start()
        assert shop.taken(80) == list(range(1, 81))
        for thread in threads:
            thread.join()


def test_a_relay_whose_connection_is_ended_opens_another(shop: Shop) -> None:
    """And publishes what came meanwhile."""
    with shop.worker() as worker, closing(shop.server.client()) as admin:
        while not worker.health().ready:
            threading.Event().wait(0.01)
        statement = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE %s AND usename = %s"
        admin.execute(statement, (f"%{shop.name}%", shop.server.user))
        with shop.connect() as connection:
            shop.outbox.publish(connection, "orders", 1)
        assert shop.taken(1) == [1]


def test_two_relays_take_turns(shop: Shop) -> None:
    """By a lock of the transaction, so that each message is published once, in order."""
    with shop.worker(), shop.worker():
        for number in range(30):
            with shop.connect() as connection:
                shop.outbox.publish(connection, "orders", number, key="1")
        assert shop.taken(30) == list(range(30))
    assert shop.broker.queue("orders").depth().ready == 0


def test_a_table_is_one_whatever_it_is_called(shop: Shop) -> None:
    """With its schema or without: its relays take turns, and each program tells them of its commits."""
    tables = (shop.name, f"public.{shop.name}", shop.name.upper())
    on_their_way: list[str] = []
    gone, go = threading.Event(), threading.Event()

    class Slow(PassingBroker):
        """Waits on its way, so that another relay would find the same rows."""

        def send(self, messages: Sequence[Outgoing]) -> Any:
            on_their_way.extend(message.id for message in messages)
            gone.set()
            go.wait(SOON)
            return self.inner.send(messages)

    def relaying(table: str, poll: float) -> narrowboat.Worker:
        worker = narrowboat.Worker(slow)
        worker.relay(Outbox(table), shop.connect, poll=poll)
        return worker

    with shop.connect() as connection:
        id = shop.outbox.publish(connection, "orders", -1)
    with narrowboat.broker(shop.where, wrap=Slow) as slow, relaying(tables[0], NEVER):
        assert gone.wait(SOON)
        with relaying(tables[1], 0.02) as second, relaying(tables[2], 0.02) as third:
            while not (second.health().sources[0].state == third.health().sources[0].state == "standby"):
                threading.Event().wait(0.01)
            assert on_their_way == [id]
            go.set()
        assert shop.taken(1) == [-1]
        for number, table in enumerate(tables):
            with shop.connect() as connection:
                Outbox(table, codec=JSON).publish(connection, "orders", number)
            assert shop.taken(1) == [number]


def test_the_longest_names_are_told_of(shop: Shop) -> None:
    """A channel's name has 63 characters, and a table's with its schema may have more."""
    outbox: Outbox[Any] = Outbox(f"{'s' * 63}.{'t' * 55}", codec=JSON)
    with shop.connect() as connection:
        connection.execute(f"CREATE SCHEMA {'s' * 63}")
        connection.execute(outbox.ddl("postgresql"))
    worker = narrowboat.Worker(shop.broker)
    worker.relay(outbox, shop.connect, poll=NEVER)
    with worker:
        while not worker.health().ready:
            threading.Event().wait(0.01)
        with shop.connect() as connection:
            outbox.publish(connection, "orders", 1)
        assert shop.taken(1) == [1]


def test_a_storm_loses_doubles_and_makes_up_nothing(postgresql_server: PostgreSQLServer, tmp_path: Path) -> None:
    """See tests/outbox_storm.py."""
    from tests.outbox_storm import Storm

    broker = f"sqlite:///{tmp_path}/broker.db?dedup=0&durability=normal"
    audit = Storm(postgresql_server.url, broker, tmp_path, orders=300, kills=5, seed=7).run()
    print(audit)

    assert audit.faults == 0, audit
    assert audit.orders == 300 and audit.kills.total() > 5
