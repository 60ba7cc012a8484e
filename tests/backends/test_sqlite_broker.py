"""Messages in SQLite: the suite of all drivers, agreement with the reference, other processes, other clocks, no residue."""

from __future__ import annotations

import itertools
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given

from bounds import upper
from broker_calls import DASHBOARD, ORDERS, PRICES, Drivers, consume, ids, message, open_driver, send, settle, take
from broker_programs import GROUPS, QUEUES, Side, programs
from broker_suite import BrokerSuite
from narrowboat.clock import ManualClock
from narrowboat.contract import Ack, Address, Broker, Delivery, Depth, Feed, Kind, Properties, Source
from narrowboat.errors import Conflict, NarrowboatError, PublishFailed, StaleDelivery, Unavailable
from narrowboat_memory import broker as memory
from narrowboat_sqlite import broker as backend
from narrowboat_sqlite.tables import message_rows
from programs import AGREEMENT

T = TypeVar("T")

TABLES = ("message", "delivery", "kept", "known_id")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.db"


@pytest.fixture
def drivers(clock: ManualClock, path: Path) -> Iterator[Drivers]:
    opened: list[Broker] = []

    def open_one(options: str = "", clock: ManualClock = clock) -> Broker:
        opened.append(open_driver(backend, f"sqlite:///{path}?durability=normal&{options}", clock))
        return opened[-1]

    yield open_one
    for broker in opened:
        broker.close()


class TestSqliteBroker(BrokerSuite):
    """The same as in memory."""


def rows(path: Path | str, *tables: Any) -> list[int]:
    with sqlite3.connect(path) as connection:
        counted = [connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables or TABLES]
    connection.close()
    return counted


# --- agreement with the reference

_serial = itertools.count(1)


@AGREEMENT
@given(program=programs())
def test_any_program_gives_the_same_answers_as_in_memory(program: list[tuple[Any, ...]]) -> None:
    """The reference and SQLite agree on every answer, at every step, and in the end nothing is left of either."""
    clock = ManualClock()
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/broker.db"
        options = "dedup=7&retention=9"
        reference = Side(open_driver(memory, f"memory://agree{next(_serial)}?{options}", clock))
        other = Side(open_driver(backend, f"sqlite:///{path}?durability=normal&{options}", clock))
        try:
            for number, step in enumerate(program):
                if step[0] == "send":
                    step = ("send", [{**fields, "id": f"{number}.{n}"} for n, fields in enumerate(step[1])])
                if step[0] == "advance":
                    clock.advance(step[1])
                    continue
                assert other.run(step) == reference.run(step), (number, step)
            everything = [*QUEUES, *GROUPS, *(queue.dead for queue in QUEUES), *(group.dead for group in GROUPS)]
            for address in everything:
                assert other.run(("depth", address)) == reference.run(("depth", address)), address
            for address in [*everything, PRICES]:
                assert other.run(("delete", address)) == reference.run(("delete", address)), address
            clock.advance(30)
            other.broker.depth(ORDERS)
            assert rows(path) == [0, 0, 0, 0]
        finally:
            other.broker.close()
            reference.broker.close()


# --- residue


def test_nothing_is_left_of_settled_messages(drivers: Drivers, path: Path, clock: ManualClock) -> None:
    """Rows and file are flat after many messages, in queues, topics, dead letters, windows and inboxes."""
    broker = drivers("retention=5&dedup=5")
    feed, group = consume(broker, ORDERS), consume(broker, DASHBOARD, ordered=True)
    sizes = []
    for round_ in range(40):
        broker.send([message(ORDERS, body=os.urandom(500), dedup=True, ttl=60.0) for _ in range(200)])
        broker.send([message(PRICES, body=os.urandom(500), key=str(n)) for n in range(20)])
        inbox, replies = broker.inbox(lambda: None)
        send(broker, inbox, "reply")
        replies.close()
        for source in (feed, group):
            while got := take(source):
                settle(source, Ack(), *got)
        clock.advance(1)
        if round_ % 10 == 9:
            sizes.append(sum(os.stat(f"{path}{end}").st_size for end in ("", "-wal")))
    clock.advance(10)
    broker.depth(ORDERS)

    assert rows(path, *TABLES, "source") == [0, 0, 0, 0, 3]
    assert sizes[-1] <= sizes[0] * 1.2
    assert sizes[-1] < 8 * 1024 * 1024


def test_a_body_is_stored_once_for_all_groups(drivers: Drivers, path: Path) -> None:
    """And goes with the last copy."""
    broker = drivers()
    feeds = [consume(broker, Address(Kind.SUBSCRIPTION, "prices", f"g{n}")) for n in range(5)]
    send(broker, PRICES, "one")
    assert rows(path, "message", "delivery") == [1, 5]
    for left, feed in zip((4, 3, 2, 1, 0), feeds, strict=True):
        settle(feed, Ack(), *take(feed))
        assert rows(path, "message", "delivery") == [min(left, 1), left]


def test_a_settled_batch_with_a_gap_leaves_what_is_in_the_gap(drivers: Drivers, path: Path) -> None:
    """Rows side by side go as one range; what lies between rows that do not stays."""
    broker = drivers()
    feed = consume(broker, ORDERS)
    send(broker, ORDERS, *"abcde")
    got = take(feed)

    assert settle(feed, Ack(), got[0], got[2], got[4]) == [None] * 3
    assert rows(path, "delivery", "message") == [2, 2]
    assert settle(feed, Ack(), got[1], got[2], got[3])[1:2] != [None]
    assert rows(path, "delivery", "message") == [0, 0]


def test_two_copies_of_a_message_are_no_range(drivers: Drivers, path: Path) -> None:
    """They are as many as the numbers from the first to the last, and the one between is another message's."""
    drivers().close()
    with sqlite3.connect(path) as connection:
        for number, copies in ((1, 2), (2, 1), (3, 1)):
            connection.execute(
                "INSERT INTO message (id, name, body, priority, copies) VALUES (?, 'a', x'', 0, ?)", (number, copies)
            )
        message_rows.release(connection, [1, 1, 3])

        assert connection.execute("SELECT id, copies FROM message").fetchall() == [(2, 1)]
    connection.close()


def test_a_full_claim_leaves_no_feed_that_sleeps_unarmed(drivers: Drivers) -> None:
    """A feed that got all that it asked for is not armed; the look that finds nothing afterwards arms it."""
    broker = drivers()
    woken: list[str] = []
    feed = consume(broker, ORDERS, wake=lambda: woken.append("woken"))
    send(broker, ORDERS, "a", "b")
    assert ids(take(feed, 2)) == ["a", "b"]

    assert take(feed, 2) == []
    woken.clear()
    send(broker, ORDERS, "c")
    assert woken == ["woken"]


def test_the_index_of_an_earlier_narrowboat_is_replaced(drivers: Drivers, path: Path) -> None:
    """A file that has it is taken over with its messages, and what is in no state of ours is found by the new one."""
    broker = drivers()
    send(broker, ORDERS, "a")
    broker.close()
    with sqlite3.connect(path) as connection:
        connection.execute("DROP INDEX delivery_strange")
        connection.execute("CREATE INDEX delivery_odd ON delivery (source) WHERE state NOT IN (0, 1, 2, 3, 4)")
        connection.execute("UPDATE delivery SET state = 7")
    connection.close()

    assert ids(take(consume(drivers(), ORDERS))) == ["a"]
    with sqlite3.connect(path) as connection:
        found = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE tbl_name = 'delivery'")}
        assert "delivery_odd" not in found
        query = f"EXPLAIN QUERY PLAN SELECT id FROM delivery WHERE source = 1 AND {message_rows._STRANGE}"
        assert "delivery_strange" in str(connection.execute(query).fetchall())
    connection.close()


def test_a_claim_is_a_range_of_an_index(drivers: Drivers, path: Path) -> None:
    """No statement of the hot path scans a table or sorts."""
    broker = drivers()
    send(broker, ORDERS, "one")
    with sqlite3.connect(path) as connection:
        plans = [
            connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
            for statement in (
                "SELECT d.id, m.body FROM delivery d JOIN message m ON m.id = d.message"
                " WHERE d.source = 1 AND d.state = 0 ORDER BY d.rank, d.place, d.message LIMIT 100",
                "UPDATE delivery SET state = 0 WHERE source = 1 AND clock = 1 AND until <= 5",
                "SELECT id FROM delivery WHERE origin = 1 AND expires <= 5 AND expires IS NOT NULL AND state <> 2 LIMIT 500",
                "SELECT min(d.until) FROM delivery d WHERE d.source = 1 AND d.clock = 1 AND d.until IS NOT NULL",
                "SELECT id FROM delivery WHERE source = 1 AND key = 'k' ORDER BY place, message LIMIT 1",
                "SELECT id FROM source WHERE space = '' AND path = 'orders'",
            )
        ]
    connection.close()

    for plan in plans:
        assert all("SEARCH" in line[3] and "TEMP B-TREE" not in line[3] for line in plan), plan


# --- other processes

CHILD = """
import sys
from broker_calls import *
from narrowboat.contract import Ack
from narrowboat_sqlite import broker as backend
from narrowboat_sqlite.tables import message_rows
broker = open_driver(backend, sys.argv[1])
def say(*words):
    print(*words, flush=True)
"""


def child(path: Path, script: str, options: str = "durability=normal") -> subprocess.Popen[str]:
    """A process with a broker of its own on the file. It says lines and may be told lines."""
    here = os.path.dirname(__file__)
    return subprocess.Popen(
        [sys.executable, "-c", CHILD + textwrap.dedent(script), f"sqlite:///{path}?{options}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([here, *sys.path])},
    )


def ended(process: subprocess.Popen[str]) -> int:
    process.stdin.close()
    process.stdout.close()
    return process.wait(20)


def poll(look: Callable[[], T], seconds: float = 15.0) -> T:
    """What `look` gives first, looked for as a consumer does: until woken, or for as long as it was told."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
    raise AssertionError("it did not come in time")


def wait_for(feed: Feed, woken: threading.Event, limit: int = 100) -> list[Delivery]:
    """Receive as the core does."""

    def look() -> list[Delivery]:
        woken.clear()
        received = feed.receive(limit)
        if not received.deliveries:
            woken.wait(received.retry_after)
        return received.deliveries

    return poll(look)


def test_a_message_of_another_process_wakes(drivers: Drivers, path: Path) -> None:
    """Within a few milliseconds, by the watcher, and not by looking again (B103)."""
    broker = drivers(clock=None)
    woken = threading.Event()
    feed = consume(broker, ORDERS, woken.set)
    process = child(path, "say('ready')\nfor line in sys.stdin:\n    send(broker, ORDERS, line.strip())\n    say('sent')")
    assert process.stdout.readline() == "ready\n"
    taken = []
    for number in range(20):
        woken.clear()
        assert take(feed) == []
        process.stdin.write(f"m{number}\n")
        process.stdin.flush()
        began = time.monotonic()
        assert woken.wait(5)
        taken.append(time.monotonic() - began)
        got = poll(lambda: take(feed))
        assert ids(got) == [f"m{number}"]
        settle(feed, Ack(), *got)
        process.stdout.readline()

    assert sorted(taken)[10] < 0.25  # a look by itself would come after a second
    assert ended(process) == 0


def test_two_processes_share_a_queue(drivers: Drivers, path: Path) -> None:
    """Each message is delivered once, whoever publishes and whoever consumes (B13, B62)."""
    broker = drivers(clock=None)
    process = child(
        path,
        """
        feed = consume(broker, ORDERS)
        say('ready')
        sys.stdin.readline()
        seen = []
        for start in range(0, 1000, 50):
            send(broker, ORDERS, *(f"c{n}" for n in range(start, start + 50)))
            got = take(feed, 20)
            assert settle(feed, Ack(), *got) == [None] * len(got)
            seen += ids(got)
        say(*seen)
        """,
    )
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("go\n")
    process.stdin.flush()
    feed, seen = consume(broker, ORDERS), []
    for start in range(0, 1000, 50):
        send(broker, ORDERS, *(f"p{n}" for n in range(start, start + 50)))
        got = take(feed, 20)
        assert settle(feed, Ack(), *got) == [None] * len(got)
        seen += ids(got)
    seen += process.stdout.readline().split()
    assert ended(process) == 0
    while got := take(feed):
        settle(feed, Ack(), *got)
        seen += ids(got)

    assert sorted(seen) == sorted([f"c{n}" for n in range(1000)] + [f"p{n}" for n in range(1000)])
    assert rows(path, "message", "delivery") == [0, 0]


def test_what_a_killed_process_had_comes_back(drivers: Drivers, path: Path) -> None:
    """After its lease, counted, to a consumer that only waits (B63)."""
    broker = drivers(clock=None)
    before = time.monotonic()
    process = child(
        path,
        """
        feed = consume(broker, ORDERS, lease=1.0)
        send(broker, ORDERS, "one", "two")
        say(*ids(take(feed)))
        sys.stdin.readline()
        """,
    )
    assert process.stdout.readline() == "one two\n"
    began = time.monotonic()
    process.send_signal(signal.SIGKILL)
    ended(process)
    woken = threading.Event()

    got = wait_for(consume(broker, ORDERS, woken.set, lease=1.0), woken)

    assert [(d.id, d.attempt) for d in got] == [("one", 2), ("two", 2)]
    assert time.monotonic() - before >= 1.0  # the lease begins between the two looks
    assert time.monotonic() - began < 1.0 + upper(broker.capabilities.lease_lag + 1.0)


def test_a_stopped_process_cannot_settle_what_was_taken_over(drivers: Drivers, path: Path) -> None:
    """Its acknowledgement is stale, the copy of the other survives (B66)."""
    broker = drivers(clock=None)
    process = child(
        path,
        """
        feed = consume(broker, ORDERS, lease=0.3)
        send(broker, ORDERS, "one")
        got = take(feed)
        say(*ids(got))
        sys.stdin.readline()
        say(type(settle(feed, Ack(), *got)[0]).__name__)
        """,
    )
    assert process.stdout.readline() == "one\n"
    process.send_signal(signal.SIGSTOP)
    woken = threading.Event()
    feed = consume(broker, ORDERS, woken.set, lease=0.3)
    got = wait_for(feed, woken)
    assert feed.extend(got, 60) == [None]
    process.send_signal(signal.SIGCONT)
    process.stdin.write("go\n")
    process.stdin.flush()

    assert process.stdout.readline() == "StaleDelivery\n"
    assert settle(feed, Ack(), *got) == [None]
    assert ended(process) == 0


def test_a_process_may_be_killed_at_any_point(drivers: Drivers, path: Path) -> None:
    """What was answered is kept, nothing is half done, and the file stays usable (B65, B68)."""
    answered: list[str] = []
    acked: list[str] = []
    unknown: list[str] = []  # the process was killed while it settled these
    for round_ in range(6):
        process = child(
            path,
            f"""
            feed = consume(broker, ORDERS, lease=0.2)
            for n in range(100000):
                names = [f"{round_}-{{n}}-{{m}}" for m in range(20)]
                send(broker, ORDERS, *names)
                say("sent", *names)
                got = take(feed, 7)
                say("settling", *ids(got))
                settle(feed, Ack(), *got)
                say("acked", *ids(got))
            """,
        )
        lines = [process.stdout.readline() for _ in range(6 + random.Random(round_).randrange(30))]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines(keepends=True)
        ended(process)
        told = [line.split() for line in lines if line.endswith("\n")]
        for word, *names in told:
            {"sent": answered, "acked": acked, "settling": []}[word].extend(names)
        if told[-1][0] == "settling":
            unknown += told[-1][1:]
    broker = drivers(clock=None)
    woken = threading.Event()
    feed, rest = consume(broker, ORDERS, woken.set, lease=0.2), []
    poll(lambda: broker.depth(ORDERS).in_flight == 0)
    while got := take(feed):
        rest += ids(got)
        assert settle(feed, Ack(), *got) == [None] * len(got)

    assert len(rest) == len(set(rest))
    assert set(answered) <= set(acked) | set(rest) | set(unknown)
    assert not set(acked) & set(rest)
    assert rows(path, "message", "delivery") == [0, 0]


def test_delayed_messages_survive_a_new_process(drivers: Drivers, path: Path) -> None:
    """They are due when they are, whoever sent them is gone (B49)."""
    before = time.monotonic()
    process = child(path, "send(broker, ORDERS, 'later', delay=1.0)\nsay('sent')")
    assert process.stdout.readline() == "sent\n"
    began = time.monotonic()
    assert ended(process) == 0
    broker = drivers(clock=None)
    woken = threading.Event()
    feed = consume(broker, ORDERS, woken.set)

    assert ids(wait_for(feed, woken)) == ["later"]
    assert time.monotonic() - before >= 1.0  # the delay begins between the two looks
    assert time.monotonic() - began < 1.0 + upper(broker.capabilities.delay_lag + 1.0)


def test_a_forked_child_does_not_touch_the_parents_file(drivers: Drivers, path: Path) -> None:
    """It is told to open its own; the parent goes on."""
    broker = drivers(clock=None)
    feed = consume(broker, ORDERS)
    send(broker, ORDERS, "one")
    process = os.fork()
    if process == 0:
        try:
            broker.ping()
        except NarrowboatError:
            os._exit(7)
        os._exit(1)

    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 7
    assert ids(take(feed)) == ["one"]


# --- other clocks


def foreign_rows(path: Path, shift: float) -> None:
    """Make all rows look as if processes under another clock had written them, whose readings are `shift` behind ours."""
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE message_clock SET name = 'boot:another:1', wall = wall + ?", (shift,))
        connection.execute("UPDATE delivery SET until = until - ?, expires = expires - ?", (shift, shift))
        connection.execute("UPDATE source SET seen = seen - ?", (shift,))
    connection.close()


def test_a_lease_under_a_foreign_clock_ends_by_the_observers(drivers: Drivers, path: Path) -> None:
    """When it has not changed for one full lease."""
    writer = drivers()
    holder = consume(writer, ORDERS)
    send(writer, ORDERS, "one")
    take(holder)
    foreign_rows(path, 500000.0)
    clock = ManualClock(5.0)
    broker = drivers(clock=clock)
    feed = consume(broker, ORDERS)
    assert take(feed) == []
    clock.advance(29)
    assert take(feed) == []
    clock.advance(1)

    assert [(d.id, d.attempt) for d in take(feed)] == [("one", 2)]


def test_a_renewed_lease_under_a_foreign_clock_stays(drivers: Drivers, path: Path) -> None:
    """As long as its row keeps changing, for as long as its holder asked."""
    one, two = ManualClock(700000.0), ManualClock(5.0)
    holder_broker, broker = drivers(clock=one), drivers(clock=two)
    holder, feed = consume(holder_broker, ORDERS), consume(broker, ORDERS)
    send(holder_broker, ORDERS, "one")
    got = take(holder)
    for _ in range(5):
        assert take(feed) == []
        one.advance(20)
        two.advance(20)
        assert holder.extend(got, 50) == [None]
    assert take(feed) == []
    two.advance(49)
    assert take(feed) == []
    two.advance(1)

    assert [d.attempt for d in take(feed)] == [2]
    assert isinstance(settle(holder, Ack(), *got)[0], StaleDelivery)


@pytest.mark.parametrize("ordered", [False, True])
def test_a_delay_under_a_foreign_clock_ends_by_the_wall_clock(drivers: Drivers, path: Path, ordered: bool) -> None:
    """Also when that clock's readings were far ahead of ours, as after a reboot."""
    writer = drivers(clock=ManualClock(900000.0))
    send(writer, ORDERS, "due", delay=0.3, key="k")
    send(writer, ORDERS, "not due", delay=3600.0, key="k")
    send(writer, ORDERS, "expired", ttl=0.1)
    send(writer, ORDERS, "alive", ttl=3600.0)
    writer.close()
    broker = drivers(clock=ManualClock(5.0))
    feed = consume(broker, ORDERS, ordered=ordered)

    poll(lambda: broker.depth(ORDERS) == Depth(2, 0, 1, 0))

    alive, due = take(feed)
    assert (alive.id, due.id) == ("alive", "due")
    assert alive.expires_in is not None
    assert 3500 < alive.expires_in <= 3600


def test_a_set_wall_clock_reorders_nothing(drivers: Drivers, path: Path) -> None:
    """Places go on from the latest one, also when the wall clock was set back before a reboot."""
    writer = drivers(clock=ManualClock(900000.0))
    send(writer, ORDERS, "first")
    writer.close()
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE message_clock SET base = base + 1e6")
        connection.execute("UPDATE delivery SET place = place + 1e6")
    connection.close()
    broker = drivers(clock=ManualClock(5.0))
    send(broker, ORDERS, "second")

    assert ids(take(consume(broker, ORDERS))) == ["first", "second"]


def test_an_inbox_of_a_dead_process_goes(drivers: Drivers, path: Path, clock: ManualClock) -> None:
    """After a minute without a sign of life; one that is read, or asked to be replied to, stays."""
    broker, other = drivers(), drivers()
    read, reading = broker.inbox(lambda: None)
    asked, asking = broker.inbox(lambda: None)
    silent, _ = broker.inbox(lambda: None)
    for _ in range(5):
        clock.advance(50)
        take(reading)
        send(broker, ORDERS, "question", reply_to=asked)
    clock.advance(20)
    send(other, read, "reply")
    send(other, asked, "reply")
    send(other, silent, "reply")

    assert ids(take(reading)) == ids(take(asking)) == ["reply"]
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM source WHERE path = ?", (silent.path,)).fetchone() == (0,)
    connection.close()


# --- errors and lifecycle


def test_a_locked_database_is_unavailable_and_nothing_is_lost(drivers: Drivers, path: Path) -> None:
    """After the time-out, retryable; then everything goes on."""
    from narrowboat.clock import SystemClock
    from narrowboat.contract import Context
    from narrowboat.dsn import Url, parse_options

    url = Url.parse(f"sqlite:///{path}?durability=normal")
    broker = backend.open(url, parse_options(url, backend.options, {}), Context(clock=SystemClock(), timeout=0.1))
    feed = consume(broker, ORDERS)
    send(broker, ORDERS, "one")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    (refused,) = send(broker, ORDERS, "two")
    assert isinstance(refused, PublishFailed)  # its transaction never began
    with pytest.raises(Unavailable) as caught:
        take(feed)
    assert refused.retryable
    assert caught.value.retryable
    other.execute("ROLLBACK")
    other.close()

    assert ids(take(feed)) == ["one"]
    broker.close()


def test_a_refused_member_leaves_no_half_done_declare(drivers: Drivers, path: Path) -> None:
    """A conflict rolls back what came before it in the same call."""
    broker = drivers()
    broker.declare(Source(Address(Kind.QUEUE, "prices"), Properties()), earliest=False)
    with pytest.raises(Conflict):
        broker.declare(Source(DASHBOARD, Properties()), earliest=False)

    assert rows(path, "source") == [1]


def test_close_leaves_no_thread_and_no_file_open(drivers: Drivers, path: Path) -> None:
    """Also with idle feeds (B111)."""
    broker = drivers(clock=None)
    for _ in range(3):
        take(consume(broker, ORDERS))
    broker.close()

    assert not [thread for thread in threading.enumerate() if str(path) in thread.name]
    assert not [link for link in Path("/proc/self/fd").iterdir() if _target(link).startswith(str(path))]


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def test_idle_feeds_take_no_write_lock(drivers: Drivers, path: Path) -> None:
    """Two hundred of them look again while another process writes, and neither waits for the other."""
    broker = drivers()
    feeds = [consume(broker, ORDERS) for _ in range(200)]
    for feed in feeds:
        assert take(feed) == []
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")

    assert [feed.receive(10).deliveries for feed in feeds] == [[]] * 200

    writer.execute("ROLLBACK")
    writer.close()
