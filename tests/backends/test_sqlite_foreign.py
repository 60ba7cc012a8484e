"""Rows that another program has written or damaged: they cost their own name or message, and nothing else.

The rows are made by statements on the real file, column by column, with every type that SQLite takes: integers of any size,
fractions, infinity, text, text that is no UTF-8, bytes, nothing at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import narrowboat
from narrowboat.clock import SystemClock
from narrowboat.contract import Address, Depth, Kind, Properties, Reject, Source
from narrowboat.errors import Conflict, LockTimeout
from narrowboat.locking import Locks
from narrowboat.messaging.consumer import Messages
from narrowboat_sqlite.tables.lock_rows import PATIENCE

pytestmark = pytest.mark.timeout(3600)  # for thousands of cases, and a machine that others keep busy

#: (table, column, value, where)
Changes = list[tuple[str, str, str, str]]

CASES = settings(
    max_examples=int(os.environ.get("NARROWBOAT_FUZZ_CASES", "200")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

#: What any column may hold, as an expression of SQL.
VALUE = st.one_of(
    st.sampled_from(
        [
            "NULL",
            "''",
            "'abc'",
            "x''",
            "x'ff00'",
            "CAST(x'61ff62' AS TEXT)",
            "9e999",
            "-9e999",
            "1e300",
            "0.5",
            "0",
            "-1",
            "9007199254740992",
            "9223372036854775807",
            "-9223372036854775808",
            "'[1'",
            "'{\"a\": 1}'",
            '\'["\\ud800", null, ["queue", "payroll", ""]]\'',
            f"'{'[' * 5000}'",
            f"'{'9' * 5000}'",
        ]
    ),
    st.integers(-(2**63), 2**63 - 1).map(str),
    st.binary(max_size=8).map(lambda data: f"CAST(x'{data.hex()}' AS TEXT)"),
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where a sync costs nothing, if there is such a place: hundreds of databases are opened here."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


def loosen(path: Path) -> None:
    """Make the tables anew without their constraints: another program can, and then a column may be NULL."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute("UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '') WHERE type = 'table'")
    connection.execute("PRAGMA writable_schema=OFF")
    connection.close()


def damage(path: Path, changes: Changes) -> None:
    """Apply (table, column, value, where); what SQLite itself refuses (a key that is there) is left out."""
    connection = sqlite3.connect(path, isolation_level=None)
    for table, column, value, where in changes:
        try:
            connection.execute(f"UPDATE {table} SET {column} = {value} {where}")
        except sqlite3.Error:
            pass
    connection.close()


# -- locks -------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def held_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in which `odd` is held, and waited for, by programs that are gone."""
    path = tmp_path_factory.mktemp("locks") / "template.db"
    url = f"sqlite:///{path}?durability=normal"
    locks = narrowboat.locks(url)
    driver: Any = locks._core.driver.get()
    locks.lock("odd", ttl=86_400, label="who").acquire()  # longer than the longest run with its many cases
    for name in ("odd", "odd", "free"):
        with pytest.raises(LockTimeout), narrowboat.locks(url) as other, locks.lock("free"):
            other.lock(name).acquire(timeout=0)
    driver._database.write(
        lambda connection: connection.executemany(
            "INSERT INTO lock_waiter SELECT prefix, name, ?, 'w' || ?, mode, size, ends, clock, 0 FROM lock_holder",
            [(1, 1), (2, 2)],
        )
    )
    driver._database.close()
    locks._core.driver._driver = None  # its locks stay: it is as if it had been killed
    loosen(path)
    return path


LOCK_CHANGE = st.one_of(
    st.tuples(
        st.just("lock_holder"),
        st.sampled_from(["name", "token", "owner", "mode", "size", "ttl", "ends", "clock", "renewals", "label", "acquired_at"]),
        VALUE,
        st.just("WHERE name = 'odd'"),
    ),
    st.tuples(
        st.just("lock_waiter"),
        st.sampled_from(["seq", "owner", "mode", "size", "deadline", "clock", "looks"]),
        VALUE,
        st.sampled_from(["", "WHERE seq = 1"]),
    ),
)


class Ahead(SystemClock):
    """The machine's clock, whose times are in the file, and seconds that the test did not wait for."""

    ahead = 0.0

    def __call__(self) -> float:
        return super().__call__() + self.ahead


@CASES
@given(changes=st.lists(LOCK_CHANGE, min_size=1, max_size=4))
def test_a_strange_lock_record_costs_its_own_name_and_can_be_evicted(held_file: Path, folder: Path, changes: Changes) -> None:
    """Others are granted; whoever asks for it is told; holders() shows it; once it is evicted the name is free."""
    path = folder / "case.db"
    shutil.copy(held_file, path)
    damage(path, changes)
    clock = Ahead()
    with narrowboat.locks(f"sqlite:///{path}?durability=normal&poll=0.001", clock=clock) as locks:
        with locks.lock("neighbour"):
            odd = _try(locks, "odd")
            if isinstance(odd, narrowboat.Held):
                odd.release()
            found = locks.holders()
            assert "neighbour" in {holder.name for holder in found}
            json.dumps([[*astuple(holder)[:3], holder.expires_in] for holder in found])
        with (
            locks.lock("busy"),
            narrowboat.locks(f"sqlite:///{path}?durability=normal") as others,
            pytest.raises((LockTimeout, Conflict)),
        ):
            others.lock("busy").acquire(timeout=0.01)
        for holder in locks.holders():
            assert locks.evict(holder.name, holder.token), holder
        assert locks.holders() == []
        # Waiters that are gone lose their place by themselves; those of a foreign clock, once they were seen for long enough.
        if (odd := locks.lock("odd").try_acquire()) is None:
            clock.ahead = PATIENCE
            odd = locks.lock("odd").acquire(timeout=30)
        odd.release()
    path.unlink()


def _try(locks: Locks, name: str) -> narrowboat.Held | Conflict | None:
    try:
        return locks.lock(name).try_acquire()
    except Conflict as conflict:
        return conflict


@CASES
@given(column=st.sampled_from(["next", "reserved"]), value=VALUE)
@pytest.mark.parametrize("durability", ["full", "normal"])
def test_a_counter_of_tokens_that_nobody_counted_is_not_believed(
    held_file: Path, folder: Path, durability: str, column: str, value: str
) -> None:
    """Either it can be ours, and tokens grow on from it, or every grant is refused and what it reads is told."""
    path = folder / f"{durability}.db"
    shutil.copy(held_file, path)
    damage(path, [("lock_counter", column, value, "")])
    with narrowboat.locks(f"sqlite:///{path}?durability={durability}") as locks:
        first, second = _try(locks, "a"), _try(locks, "b")
        if isinstance(first, Conflict):
            assert isinstance(second, Conflict)
            assert "counter of fencing tokens" in str(first)
        else:
            assert 0 < first.token < second.token < 2**53 + 2_000_000
            first.release()
            second.release()
        assert locks.holders("odd")
    path.unlink()


def test_a_renewal_of_a_record_that_was_damaged_is_not_told_as_lost_nor_as_held(tmp_path: Path) -> None:
    """Nobody can tell, so nobody gets it, and by its own clock its holder has lost it in time."""
    path = tmp_path / "some.db"
    with narrowboat.locks(f"sqlite:///{path}") as locks, narrowboat.locks(f"sqlite:///{path}") as others:
        held = locks.lock("odd", ttl=1).acquire()
        damage(path, [("lock_holder", "mode", "'bogus'", "")])
        with locks.lock("neighbour", ttl=1) as neighbour:
            assert isinstance(_try(others, "odd"), Conflict)
            (foreign,) = others.holders("odd")
            assert (foreign.foreign, foreign.token) == (True, held.token)
            neighbour.renew()
            assert others.evict("odd", foreign.token)
            assert held.wait_lost(30)
            others.lock("odd").acquire(timeout=10).release()


# -- messages ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def filled_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with messages of every kind in the queue `odd`, in a topic, and in `neighbour`."""
    path = tmp_path_factory.mktemp("messages") / "template.db"
    with narrowboat.broker(f"sqlite:///{path}?durability=normal") as broker:
        odd = broker.queue("odd", max_deliveries=3, ordered=True)
        odd.declare()
        broker.topic("prices").subscription("g").declare()
        for number in range(4):
            odd.publish(b"%d" % number, key="k", headers={"a": "b"}, correlation_id="c", id=f"i{number}")
            broker.queue("neighbour").publish(b"n%d" % number)
            broker.topic("prices").publish(b"p%d" % number, delay=0.01)
        odd.publish(b"late", delay=0.01, ttl=3600)
        broker.queue("neighbour").declare()
    loosen(path)
    return path


ODD = "IN (SELECT id FROM source WHERE path IN ('odd', 'prices', 'prices.g'))"
MESSAGE_CHANGE = st.one_of(
    st.tuples(
        st.just("message"),
        st.sampled_from(["name", "body", "headers", "key", "published", "priority", "details", "copies"]),
        VALUE,
        st.just(f"WHERE id IN (SELECT message FROM delivery WHERE source {ODD})"),
    ),
    st.tuples(
        st.just("delivery"),
        st.sampled_from(
            ["message", "state", "rank", "place", "until", "clock", "key", "expires", "origin", "attempt", "token", "span"]
        ),
        VALUE,
        st.sampled_from([f"WHERE source {ODD}", f"WHERE source {ODD} AND id % 2 = 0"]),
    ),
    st.tuples(
        st.just("source"),
        st.sampled_from(["kind", "topic", "declared", "lease", "max_deliveries", "ordered", "priorities", "seen", "clock"]),
        VALUE,
        st.sampled_from(["WHERE path = 'odd'", "WHERE path LIKE 'prices%'"]),
    ),
    st.tuples(st.just("known_id"), st.sampled_from(["name", "until", "clock"]), VALUE, st.just("")),
    st.tuples(st.just("message_clock"), st.sampled_from(["base", "wall", "seen"]), VALUE, st.just("")),
)


@CASES
@example(changes=[("delivery", "message", "9e999", f"WHERE source {ODD}")])
@example(changes=[("delivery", "message", "x'ff00'", f"WHERE source {ODD}")])
@given(changes=st.lists(MESSAGE_CHANGE, min_size=1, max_size=4))
def test_a_strange_message_is_handed_out_or_dies_and_its_neighbours_notice_nothing(
    filled_file: Path, folder: Path, changes: Changes
) -> None:
    """No consumer ends for it but by a typed refusal of its own source; everything else is published, received and counted."""
    path = folder / "case.db"
    shutil.copy(filled_file, path)
    damage(path, changes)
    with narrowboat.broker(f"sqlite:///{path}?durability=normal&poll=0.001&retention=60") as broker:
        broker.queue("neighbour").publish(b"n4")
        with broker.queue("neighbour").consume(idle=30) as messages:
            assert sorted(_next(messages) for _ in range(5)) == [b"n0", b"n1", b"n2", b"n3", b"n4"]
        for source, address in (
            (broker.queue("odd", max_deliveries=3, ordered=True), broker.queue("odd")),
            (broker.topic("prices").subscription("g"), broker.topic("prices")),
        ):
            with contextlib.suppress(Conflict):  # its row in `source` is strange
                _drain(source)
                depth = source.depth()
                *counts, oldest = astuple(depth)
                assert all(each is not None and each >= 0 for each in (*counts, oldest or 0.0))
                # What was put into a sequence of another key, or behind no message, stands in nobody's way, nor in line.
                assert depth.ready == 0 or {"state", "key"} & {change[1] for change in changes}
            with contextlib.suppress(Conflict):
                address.publish(b"more")
            assert address.delete() in (True, False)
            address.publish(b"again")
        assert broker.queue("neighbour").depth() == Depth(0, 0, 0, 0)
    path.unlink()


def _next(messages: Messages[bytes]) -> bytes:
    message = messages.receive(30)
    message.ack()
    return message.body


def _drain(source: narrowboat.Queue[bytes] | narrowboat.Subscription[bytes]) -> None:
    """Receive until nothing comes; the first claim of each is given back, the next one acknowledged."""
    seen = set()
    with source.consume(prefetch=1) as messages:
        for _ in range(40):
            message = messages.receive(0.05)
            if message is None:
                return
            assert isinstance(message.body, bytes)
            assert message.attempt >= 1
            json.dumps([message.id, dict(message.headers), message.key, message.priority])
            if message.body in seen:
                message.ack()
            else:
                seen.add(message.body)
                message.nack()
    raise AssertionError("it never ends")


@pytest.mark.parametrize("state", ["9", "-1", "1.5", "'ready'", "x'00'"])
def test_a_message_in_no_state_is_counted_and_handed_out(tmp_path: Path, state: str) -> None:
    """Whatever another program wrote there: `depth` shows it as ready, and the next consumer gets it."""
    path = tmp_path / "some.db"
    with narrowboat.broker(f"sqlite:///{path}") as broker:
        queue = broker.queue("q")
        queue.publish(b"1")
        with sqlite3.connect(path) as connection:
            connection.execute(f"UPDATE delivery SET state = {state}")
        connection.close()
        assert queue.depth() == Depth(1, 0, 0, 0)
        with queue.consume() as messages:
            assert _next(messages) == b"1"
        assert queue.depth() == Depth(0, 0, 0, 0)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ("UPDATE message SET headers = '[1'", "headers"),
        ('UPDATE message SET details = \'[1, 2, ["queue", "payroll", ""]]\'', "details"),
        ("UPDATE message SET name = CAST(x'ff' AS TEXT)", "name"),
        ("UPDATE message SET priority = 'high'", "priority"),
        ("UPDATE message SET key = x'00'", "key"),
        ("DELETE FROM message", "body"),
    ],
)
def test_what_cannot_be_read_is_handed_out_raw_with_a_reason(tmp_path: Path, change: str, word: str) -> None:
    """The driver says which columns; the body is as it was, where there is one; settled like any other."""
    path = tmp_path / "some.db"
    with narrowboat.broker(f"sqlite:///{path}") as broker:
        queue = broker.queue("q")
        queue.publish(b"\xff raw", priority=0)
        with sqlite3.connect(path) as connection:
            connection.execute(change)
        connection.close()
        feed = broker._core.driver.get().open(Source(Address(Kind.QUEUE, "q"), Properties()), earliest=False, wake=lambda: None)
        (delivery,) = feed.receive(10).deliveries
        assert delivery.body == (b"" if "DELETE" in change else b"\xff raw")
        assert word in delivery.malformed
        assert feed.settle([(delivery, Reject("odd", 1))]) == [None]
        feed.close()
        assert queue.depth() == Depth(0, 0, 0, 0 if "DELETE" in change else 1)


def test_an_attempt_that_nobody_counted_does_not_make_a_message_immortal(tmp_path: Path) -> None:
    """Below 0 it begins at 1; what is no number, or beyond counting, is a dead letter at once."""
    path = tmp_path / "some.db"
    for value, handed in (("-1000000", [1, 2]), ("'abc'", []), ("9223372036854775807", []), ("0.5", [1, 2]), ("NULL", [1, 2])):
        with narrowboat.broker(f"sqlite:///{path}") as broker:
            queue = broker.queue(f"q{abs(hash(value))}", max_deliveries=2)
            queue.publish(b"x")
            if value != "NULL":  # it is refused by the column
                damage(path, [("delivery", "attempt", value, "")])
            seen = []
            with queue.consume(idle=0.3) as messages:
                for message in messages:
                    seen.append(message.attempt)
                    message.nack()
            assert seen == handed
            assert queue.depth() == Depth(0, 0, 0, 1)
            queue.dead_letters().purge()
