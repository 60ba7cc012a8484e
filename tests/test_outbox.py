"""The outbox and its relay on SQLite, on both faces: what is stored, published, repeated, put aside and refused."""

from __future__ import annotations

import asyncio
import math
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine

import narrowboat
from narrowboat import InvalidArgument, NoTransaction, TableMissing, Unavailable, Unsupported, aio, events
from narrowboat._engine.runtime import straight
from narrowboat.aio.outbox import Outbox as AsyncOutbox
from narrowboat.codecs import JSON
from narrowboat.contract import Broker, Outgoing
from narrowboat.layers.passing import PassingBroker
from narrowboat.outbox import Outbox
from narrowboat.outbox.table import TOGETHER
from narrowboat.transactions import opened
from narrowboat.transactions.turn import Turn

#: Seconds in which what happens has happened; the tests wait for it and not for the time.
SOON = 30


class Shop:
    """A database with an outbox, and a broker that nobody else has."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "shop.db"
        self.outbox: Outbox[Any] = Outbox(codec=JSON)
        with closing(self.connect()) as connection:
            connection.execute(self.outbox.ddl("sqlite"))
            connection.execute("CREATE TABLE orders (n)")
            connection.commit()
        self.url = f"memory://outbox-{folder.name}"
        self.broker = narrowboat.broker(self.url)

    def connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.file)

    def rows(self, columns: str = "*") -> list[Any]:
        with closing(self.connect()) as connection:
            return connection.execute(f"SELECT {columns} FROM outbox ORDER BY seq").fetchall()

    def publish(self, *numbers: int, **options: Any) -> list[str]:
        """Each in one transaction with its order."""
        found: list[str] = []
        with closing(self.connect()) as connection:
            for number in numbers:
                connection.execute("INSERT INTO orders VALUES (?)", (number,))
                found.append(self.outbox.publish(connection, "orders", number, **options))
                connection.commit()
        return found

    def worker(self, broker: narrowboat.Messaging | None = None, **options: Any) -> narrowboat.Worker:
        worker = narrowboat.Worker(self.broker if broker is None else broker)
        worker.relay(self.outbox, self.connect, poll=0.02, **options)
        return worker

    def taken(self, count: int, name: str = "orders") -> list[Any]:
        """So many messages, acked."""
        found: list[Any] = []
        with self.broker.queue(name, codec=JSON).consume() as messages:
            for _ in range(count):
                message = messages.receive(timeout=SOON)
                assert message is not None, f"{len(found)} of {count} messages came"
                message.ack()
                found.append(message)
        return found


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    yield shop
    shop.broker.close()


def until(true: Callable[[], object]) -> None:
    """Wait for it."""
    pause = threading.Event()
    for _ in range(SOON * 100):
        if true():
            return
        pause.wait(0.01)
    raise AssertionError("it has not come to pass")


# -- what is stored -----------------------------------------------------------------------------------------------


def test_a_message_is_published_if_and_when_its_transaction_is_committed(shop: Shop) -> None:
    """With all that it has, under its own id; what was rolled back is never seen."""
    with closing(shop.connect()) as connection, shop.worker():
        shop.outbox.publish(connection, "orders", "phantom")
        connection.rollback()
        id = shop.outbox.publish(
            connection,
            "orders",
            {"n": 1},
            key="ada",
            headers={"v": "ü"},
            type="OrderMade",
            correlation_id="c",
            content_type="application/x",
        )
        stored = connection.execute("SELECT created FROM outbox").fetchone()[0]
        connection.commit()
        (message,) = shop.taken(1)
        until(lambda: not shop.rows())

    assert (message.id, message.data, message.key) == (id, {"n": 1}, "ada")
    assert dict(message.headers) == {"v": "ü", "type": "OrderMade"}
    assert (message.correlation_id, message.content_type, message.published_at) == ("c", "application/x", stored)
    assert shop.broker.queue("orders").depth().ready == 0


def test_order_is_kept_over_batches(shop: Shop) -> None:
    """As they were stored."""
    shop.publish(*range(25), key="ada")
    with shop.worker(batch=4):
        found = shop.taken(25)

    assert [message.data for message in found] == list(range(25))


def test_a_topic_and_a_delay_are_kept(shop: Shop) -> None:
    """A delay counts from the publish into the outbox."""
    topic = shop.broker.topic("prices", codec=JSON)
    topic.subscription("page").declare()
    with closing(shop.connect()) as connection:
        shop.outbox.publish(connection, "prices", 12, topic=True)
        shop.outbox.publish(connection, "later", 13, delay=3600)
        connection.execute("UPDATE outbox SET due = due - 1800 WHERE aggregatetype = 'later'")
        connection.commit()
    with shop.worker(), topic.subscription("page").consume() as messages:
        message = messages.receive(timeout=SOON)
        assert message is not None and message.data == 12
        until(lambda: not shop.rows())

    assert shop.broker.queue("later").depth().delayed == 1


def test_a_second_message_of_an_id_that_waits_is_dropped(shop: Shop) -> None:
    """The id is the idempotency key, and the transaction goes on."""
    assert shop.publish(1, 2, id="order-1") == ["order-1", "order-1"]

    assert shop.rows("id, payload") == [("order-1", b"1")]


def test_the_first_columns_are_the_event_routers(shop: Shop) -> None:
    """So that change data capture can read the table in the relay's place."""
    shop.publish(7, key="ada", type="OrderMade", id="x")

    with closing(shop.connect()) as connection:
        cursor = connection.execute("SELECT * FROM outbox")
        names = [column[0] for column in cursor.description]
        assert names[:5] == ["id", "aggregatetype", "aggregateid", "type", "payload"]
        assert cursor.fetchone()[:5] == ("x", "orders", "ada", "OrderMade", b"7")


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("orders.dead", {}, "reserved"),
        (["orders"], {}, "expected text"),
        ("orders", {"headers": {"narrowboat-x": "1"}}, "reserved"),
        ("orders", {"key": "\n"}, "control characters"),
        ("orders", {"delay": -1}, "delay"),
        ("orders", {"topic": 1}, "topic"),
        ("orders", {"type": ""}, "type"),
    ],
)
def test_what_a_publish_refuses_the_outbox_refuses(shop: Shop, name: Any, options: Any, text: str) -> None:
    """Before anything is written."""
    with closing(shop.connect()) as connection, pytest.raises(InvalidArgument, match=text):
        shop.outbox.publish(connection, name, 1, **options)

    assert shop.rows() == []


def test_a_body_that_is_too_large_is_refused(shop: Shop) -> None:
    """By the outbox's own limit."""
    small: Outbox[bytes] = Outbox(body_max=10)
    with closing(shop.connect()) as connection, pytest.raises(InvalidArgument, match="11 bytes; the outbox takes up to 10"):
        small.publish(connection, "orders", b"x" * 11)

    assert shop.rows() == []


def test_a_connection_in_no_transaction_and_a_missing_table_are_refused(shop: Shop, tmp_path: Path) -> None:
    """Each with an error of its own, which says what to do."""
    with closing(sqlite3.connect(shop.file, isolation_level=None)) as connection, pytest.raises(NoTransaction):
        shop.outbox.publish(connection, "orders", 1)
    with closing(sqlite3.connect(tmp_path / "empty.db")) as connection, pytest.raises(TableMissing) as caught:
        shop.outbox.publish(connection, "orders", 1)

    assert shop.outbox.ddl("sqlite") in str(caught.value)
    assert shop.rows() == []


@pytest.mark.parametrize("table", ["", "a b", "x;y", "a.b.c", 'a"', "x" * 70, None])
def test_a_table_that_would_need_quotes_is_refused(table: Any) -> None:
    """It becomes a part of statements."""
    with pytest.raises(InvalidArgument, match="letters, digits and underscores"):
        Outbox(table)


def test_a_dialect_that_is_not_spoken_is_refused() -> None:
    """With the near miss."""
    with pytest.raises(InvalidArgument, match="postgresql"):
        Outbox().ddl("postgres")


# -- the relay ----------------------------------------------------------------------------------------------------


class Deaf(PassingBroker):
    """Sends, and loses its first answers."""

    def __init__(self, inner: Broker, answers: int) -> None:
        super().__init__(inner)
        self.left = answers
        self.ids: list[str] = []

    def send(self, messages: Sequence[Outgoing]) -> Any:
        self.ids += [message.id for message in messages]
        found = self.inner.send(messages)
        if self.left:
            self.left -= 1
            raise Unavailable("the answer is lost")
        return found


def test_an_unknown_publish_is_repeated_under_the_same_id(shop: Shop) -> None:
    """In the same order, until it is confirmed; a backend that claims dedup stores each once."""
    ids = shop.publish(1, 2, 3)
    layers: list[Deaf] = []

    def wrap(inner: Broker) -> Broker:
        layers.append(Deaf(inner, 2))
        return layers[0]

    with narrowboat.broker(shop.url, wrap=wrap) as deaf, shop.worker(deaf) as worker:
        until(lambda: not shop.rows())
        assert worker.health().ready
    assert layers[0].ids == ids * 3
    assert [message.id for message in shop.taken(3)] == ids
    assert shop.broker.queue("orders").depth().ready == 0


#: What another program may have written.
BAD: list[dict[str, Any]] = [
    {"headers": "["},
    {"headers": "[" * 100_000},
    {"headers": "[1]"},
    {"headers": '{"a": 1}'},
    {"kind": "bus"},
    {"aggregatetype": "a.dead"},
    {"aggregatetype": b"x"},
    {"aggregateid": "\n"},
    {"payload": 5},
    {"created": "yesterday"},
    {"created": math.inf},
    {"created": 1.7e12},
    {"due": "tomorrow"},
    {"due": 1.7e12},
    {"content_type": ""},
]


def test_what_cannot_be_published_is_put_aside_and_its_neighbours_go_on(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """With the reason in its row, where it stays until somebody decides; the log says so once."""
    large: Outbox[bytes] = Outbox(body_max=2**30)
    most = shop.broker.capabilities.body_max
    with closing(shop.connect()) as connection:
        large.publish(connection, "orders", b"x" * (most + 1))
        usual = {"aggregatetype": "orders", "type": "", "payload": b"1"}
        for number, bad in enumerate(BAD):
            row = {**usual, "id": f"bad {number}", **bad}
            marks = ", ".join("?" * len(row))
            connection.execute(f"INSERT INTO outbox ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
        connection.commit()
    shop.publish(1)
    with shop.worker() as worker:
        assert [message.data for message in shop.taken(1)] == [1]
        until(lambda: len(shop.rows()) == 1 + len(BAD) and all(problem for (problem,) in shop.rows("problem")))
        relay = worker.health().sources[0]
        assert (relay.source, relay.handled, relay.failed, relay.state) == ("outbox", 1, 1 + len(BAD), "running")

    assert [problem.split(":")[0] for (problem,) in shop.rows("problem")] == ["InvalidArgument"] * (1 + len(BAD))
    assert "message 'bad 1' cannot be published, and is put aside" in caplog.text
    assert "nothing is published" not in caplog.text


def test_a_row_that_was_put_aside_goes_out_when_it_is_given_back(shop: Shop) -> None:
    """By setting its problem to NULL."""
    shop.publish(1)
    with closing(shop.connect()) as connection:
        connection.execute("UPDATE outbox SET problem = 'x'")
        connection.commit()
        with shop.worker():
            shop.publish(2)
            assert [message.data for message in shop.taken(1)] == [2]
            connection.execute("UPDATE outbox SET problem = NULL")
            connection.commit()
            assert [message.data for message in shop.taken(1)] == [1]


def test_a_database_that_is_away_is_waited_for(shop: Shop) -> None:
    """The relay says so in its health, and goes on by itself."""
    away = threading.Event()
    away.set()

    def connect() -> sqlite3.Connection:
        if away.is_set():
            raise sqlite3.OperationalError("unable to open database file")
        return shop.connect()

    worker = narrowboat.Worker(shop.broker)
    worker.relay(shop.outbox, connect, poll=0.02)
    shop.publish(1)
    with worker:
        until(lambda: worker.health().sources[0].state == "unavailable")
        assert "unable to open" in str(worker.health().sources[0].error)
        assert not worker.health().ready
        away.clear()
        assert [message.data for message in shop.taken(1)] == [1]
        until(lambda: worker.health().ready)


def test_a_missing_table_ends_the_worker_with_its_ddl(tmp_path: Path) -> None:
    """It is no outage."""
    outbox: Outbox[bytes] = Outbox("shop_outbox")
    with narrowboat.broker(f"memory://{tmp_path.name}") as broker:
        worker = narrowboat.Worker(broker)
        worker.relay(outbox, lambda: sqlite3.connect(tmp_path / "empty.db"))
        with pytest.raises(TableMissing, match="CREATE TABLE shop_outbox"):
            worker.run(signals=False)


def test_an_engine_of_sqlalchemy_is_relayed_from(shop: Shop) -> None:
    """`connect` gives a connection of any client."""
    engine = sqlalchemy.create_engine(f"sqlite:///{shop.file}")
    worker = narrowboat.Worker(shop.broker)
    worker.relay(shop.outbox, engine.connect, poll=0.02)
    shop.publish(1, 2)
    with worker:
        assert [message.data for message in shop.taken(2)] == [1, 2]
    engine.dispose()


def test_one_relay_at_a_time_has_its_turn(shop: Shop) -> None:
    """The lock is of the file, so also for another process; it is free once its holder has gone."""
    with closing(shop.connect()) as one, closing(shop.connect()) as other:
        first, second = Turn("outbox"), Turn("main.Outbox")
        mine, theirs = straight(opened(one, shop.outbox.ddl)), straight(opened(other, shop.outbox.ddl))

        assert straight(first.take(mine)) and straight(first.take(mine))
        assert not straight(second.take(theirs))
        first.give()
        assert straight(second.take(theirs))
        second.give()


def test_a_child_that_was_forked_does_not_keep_the_turn(shop: Shop) -> None:
    """It may outlive the relay."""
    first, second = Turn("outbox"), Turn("outbox")
    (told, tell), (heard, ready) = os.pipe(), os.pipe()
    with closing(shop.connect()) as connection:
        transaction = straight(opened(connection, shop.outbox.ddl))
        assert straight(first.take(transaction))
        child = os.fork()
        if child == 0:
            os.close(tell)
            os.write(ready, b"1")
            os.read(told, 1)
            os._exit(0)
        os.read(heard, 1)
        try:
            assert not straight(second.take(transaction))
            first.give()
            assert straight(second.take(transaction))
        finally:
            second.give()
            os.close(tell)
            os.waitpid(child, 0)
            for each in (told, heard, ready):
                os.close(each)


def test_what_is_stored_while_a_batch_is_on_its_way_is_not_taken_for_it(shop: Shop) -> None:
    """Somebody empties the table meanwhile: the row that is stored next has another number, and is published."""
    shop.publish(1)

    class Emptied(PassingBroker):
        """Its first batch is deleted by somebody else before it is sent."""

        emptied = False

        def send(self, messages: Sequence[Outgoing]) -> Any:
            if not self.emptied:
                self.emptied = True
                with closing(shop.connect()) as connection:
                    connection.execute("DELETE FROM outbox")
                    connection.commit()
                shop.publish(2)
            return self.inner.send(messages)

    with narrowboat.broker(shop.url, wrap=Emptied) as broker, shop.worker(broker):
        assert [message.data for message in shop.taken(2)] == [1, 2]


def test_two_relays_share_an_outbox(shop: Shop) -> None:
    """One of them waits as standby, and is ready all the same."""
    with shop.worker() as one, shop.worker() as other:
        until(lambda: {one.health().sources[0].state, other.health().sources[0].state} == {"running", "standby"})
        assert one.health().ready and other.health().ready
        shop.publish(*range(5))
        assert [message.data for message in shop.taken(5)] == list(range(5))


def test_a_batch_is_bounded_in_bytes(shop: Shop) -> None:
    """Whatever its number of messages; one that is larger than the bound goes alone."""
    large: Outbox[bytes] = Outbox(body_max=2**30)
    with closing(shop.connect()) as connection:
        for size in (TOGETHER + 1, TOGETHER // 2, TOGETHER // 2, 1):
            large.publish(connection, "orders", bytes(size))
        take = large._table.take
        sizes = []
        while rows := connection.execute(take, (100, TOGETHER)).fetchall():
            sizes.append([len(row[5]) for row in rows])
            connection.execute(large._table.delete([row[0] for row in rows]))
        connection.rollback()

    assert sizes == [[TOGETHER + 1], [TOGETHER // 2, TOGETHER // 2], [1]]


def test_listeners_are_told_what_waits(shop: Shop) -> None:
    """How many messages, how many aside, and how old the oldest is that waits."""
    told: list[Any] = []
    shop.publish(1, 2)
    with closing(shop.connect()) as connection:
        connection.execute("UPDATE outbox SET problem = 'x' WHERE seq = 1")
        connection.execute("UPDATE outbox SET created = created - 60 * (CASE seq WHEN 1 THEN 100 ELSE 1 END)")
        connection.commit()
    with narrowboat.broker(shop.url, listeners=[told.append]) as broker, shop.worker(broker):
        until(lambda: any(isinstance(event, events.OutboxMeasured) for event in told))

    measured = next(event for event in told if isinstance(event, events.OutboxMeasured))
    assert (measured.table, measured.waiting, measured.aside) == ("outbox", 1, 1)
    assert 60 <= measured.age < 60 + SOON


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((None, sqlite3.connect), "expected a narrowboat.outbox.Outbox"),
        ((Outbox(), None), "expected a function that opens a connection"),
        ((Outbox(), sqlite3.connect, 0), "batch"),
        ((Outbox(), sqlite3.connect, 1, 0), "poll"),
    ],
)
def test_a_relay_that_cannot_work_is_refused_where_it_is_registered(arguments: Any, text: str) -> None:
    """Before any I/O."""
    outbox, connect, *more = arguments
    with pytest.raises(InvalidArgument, match=text):
        narrowboat.Worker("memory://x").relay(outbox, connect, **dict(zip(("batch", "poll"), more, strict=False)))


def test_a_second_relay_of_one_outbox_is_refused() -> None:
    """In one worker."""
    worker = narrowboat.Worker("memory://x")
    worker.relay(Outbox(), object)
    with pytest.raises(InvalidArgument, match="something of that name"):
        worker.relay(Outbox(), object)


def test_what_connects_to_another_database_ends_the_worker(tmp_path: Path) -> None:
    """With what is known."""
    with narrowboat.broker(f"memory://{tmp_path.name}") as broker:
        worker = narrowboat.Worker(broker)
        worker.relay(Outbox(), object)
        with pytest.raises(Unsupported, match="SQLAlchemy 2"):
            worker.run(signals=False)


# -- asyncio ------------------------------------------------------------------------------------------------------


def test_the_asyncio_face_does_the_same(shop: Shop) -> None:
    """An asynchronous connection is awaited, by the outbox and by the relay of an asyncio worker."""

    async def work() -> list[Any]:
        engine = create_async_engine(f"sqlite+aiosqlite:///{shop.file}")
        outbox: AsyncOutbox[Any] = AsyncOutbox(codec=JSON)
        async with engine.connect() as connection:
            await outbox.publish(connection, "orders", "phantom")
            await connection.rollback()
        for number in range(3):
            async with engine.begin() as connection:
                await outbox.publish(connection, "orders", number)
        found = []
        async with aio.broker(shop.url) as broker:
            worker = aio.Worker(broker)
            worker.relay(outbox, engine.connect, poll=0.02)
            async with worker, broker.queue("orders", codec=JSON).consume() as messages:
                for _ in range(3):
                    message = await messages.receive(timeout=SOON)
                    assert message is not None
                    await message.ack()
                    found.append(message.data)
        await engine.dispose()
        return found

    assert asyncio.run(work()) == [0, 1, 2]
    assert shop.rows() == []
