"""The SQLite driver: the rules of every embedded one, and what only a file between processes can show."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bounds import upper
from lock_rules import LockRules, attempt, bell, busy, granted, grants, released, request, shared
from narrowboat.clock import ManualClock, SystemClock
from narrowboat.contract.backend import Context
from narrowboat.contract.locks import Busy, Grant, Released
from narrowboat.dsn import Url, parse_options
from narrowboat.errors import Closed, LeaseLost, Unavailable
from narrowboat_sqlite.clocks.clock import boot_id, clock_id
from narrowboat_sqlite.clocks.foreign_leases import Observer
from narrowboat_sqlite.locks import SqliteLocks, locks
from narrowboat_sqlite.options import Options
from narrowboat_sqlite.tables.lock_rows import PATIENCE, TOKENS

#: what the fixture `opened` gives: opens one more on the file of the test
Opened = Callable[..., SqliteLocks]


def opened_at(path: str, clock: ManualClock | None = None, timeout: float = 5.0, **options: Any) -> SqliteLocks:
    url = Url.parse(f"sqlite:///{path}")
    used = clock or SystemClock()
    parsed = parse_options(url, Options, {"durability": "normal", **options})
    made = locks.open(url, parsed, Context(clock=used, timeout=timeout, watch=used.watch))
    assert isinstance(made, SqliteLocks)
    return made


def count(path: str) -> int:
    """The rows of the lock tables, read by somebody else."""
    with sqlite3.connect(path) as connection:
        found = sum(
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("lock_holder", "lock_waiter", "lock_evicted")
        )
    connection.close()
    return int(found)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "locks.db")


@pytest.fixture
def opened(path: str) -> Iterator[Opened]:
    providers = []

    def opened(clock: ManualClock | None = None, **options: Any) -> SqliteLocks:
        providers.append(opened_at(path, clock, **options))
        return providers[-1]

    yield opened
    for provider in providers:
        provider.close()


class Child:
    """A process that runs `lock_child.py`, perhaps behind a command that starts it."""

    def __init__(self, path: str, *before: Any, options: str = "durability=normal") -> None:
        script = Path(__file__).with_name("lock_child.py")
        self.process = subprocess.Popen(
            [*before, sys.executable, str(script), f"sqlite:///{path}?{options}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def say(self, *words: Any) -> None:
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        return json.loads(self.process.stdout.readline())

    def ask(self, *words: Any) -> Any:
        self.say(*words)
        return self.hear()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


#: what the fixture `child` gives: starts one more, behind the words of another command
Children = Callable[..., Child]


@pytest.fixture
def child(path: str) -> Iterator[Children]:
    children = []

    def child(*before: Any, **more: Any) -> Child:
        children.append(Child(path, *before, **more))
        return children[-1]

    yield child
    for one in children:
        one.end()


class TestSqliteLocks(LockRules):
    """The rules, on a file of its own."""

    @pytest.fixture
    def opened(self, opened: Opened) -> Opened:
        return opened

    @pytest.fixture
    def residue(self, path: str) -> Callable[[], int]:
        return lambda: count(path)


# -- between processes -----------------------------------------------------------------------------------------------------


def test_processes_take_turns_in_the_order_in_which_they_came(child: Children, opened: Opened) -> None:
    """FIFO between processes, and a released lock is theirs within a few polls of the watcher, not after a retry."""
    here = opened()
    first, second = child(), child()
    grant = granted(here, request(ttl=60))  # two programs have to start meanwhile, on a machine that may be busy
    first.say("take", "a", 30)
    waits(here, 1)
    second.say("take", "a", 30)
    waits(here, 2)
    released(here, grant)
    token_1 = first.hear()["token"]
    last = request(ttl=30.0)
    busy(here, last)
    first.ask("release")
    token_2 = second.hear()["token"]
    assert not bell(last).wait(0.05)
    second.ask("release")

    assert bell(last).wait(upper(1.0))
    assert grant.token < token_1 < token_2 < granted(here, last).token


def waits(provider: SqliteLocks, many: int) -> None:
    """Until that many wait for `a`, as everybody sees it."""
    deadline = time.monotonic() + upper(30)
    while provider.holders("a")[0].waiters != many:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_handing_over_between_processes_takes_a_few_milliseconds(child: Children, opened: Opened) -> None:
    """The median is about half a poll of 5 ms; a waiter that had to rely on its retry would need 2 s."""
    here, there = opened(), child()
    took = []
    for _ in range(40):
        grant = granted(here, request(ttl=30.0))
        there.say("take", "a", 30)
        waits(here, 1)
        time.sleep(0.01)  # a waiter that has been waiting for a while, asleep between two polls
        at = time.clock_gettime(time.CLOCK_MONOTONIC_RAW)
        released(here, grant)
        took.append(there.hear()["at"] - at)
        there.ask("release")

    print(f"hand-over between processes: median {statistics.median(took) * 1e3:.2f} ms, worst {max(took) * 1e3:.2f} ms")
    assert statistics.median(took) < upper(0.25)


def test_a_killed_holder_is_succeeded_when_its_lease_ends(child: Children, opened: Opened) -> None:
    """SIGKILL: free at the end of the ttl, not before."""
    here, there = opened(), child()
    there.ask("cpu")  # it is there: from here on it takes no time but that of its grant
    before = time.monotonic()
    there.ask("take", "a", 1)
    at = time.monotonic()
    there.process.send_signal(signal.SIGKILL)
    mine = request(ttl=30.0)
    while isinstance(answer := attempt(here, mine), Busy):
        bell(mine).wait(answer.retry_after)
    free = time.monotonic()

    assert free - before >= 1.0  # the lease begins between the two looks, wherever a busy machine puts it
    assert free - at < 1.0 + upper(here.capabilities.expiry_lag)


def test_a_killed_waiter_is_passed_over(child: Children, opened: Opened) -> None:
    """A dead process at the head of the queue delays the others by no more than what is declared, and leaves no row."""
    here, there = opened(), child()
    grant = granted(here, request(ttl=60.0))
    there.say("take", "a", 60)
    waits(here, 1)
    there.process.send_signal(signal.SIGKILL)
    mine = request(ttl=60.0)
    busy(here, mine)
    released(here, grant)
    at = time.monotonic()
    while isinstance(answer := attempt(here, mine), Busy):
        bell(mine).wait(answer.retry_after)

    assert time.monotonic() - at < upper(here.capabilities.dead_waiter_bound)
    released(here, answer)
    assert count(here._database.path) == 0


# -- clocks ------------------------------------------------------------------------------------------------------------------


def foreign(path: str, *, table: str = "lock_holder") -> None:
    """Make it look as if what is there was written under another clock, far ahead of ours."""
    with sqlite3.connect(path) as connection:
        column = "ends" if table == "lock_holder" else "deadline"
        connection.execute(f"UPDATE {table} SET clock = 'boot:another:1', {column} = {column} - 1e6")
    connection.close()


def renewed(path: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE lock_holder SET renewals = renewals + 1")
    connection.close()


def test_a_lease_of_a_foreign_clock_ends_when_it_stood_still_for_one_ttl_of_ours(opened: Opened, path: str) -> None:
    """Its times say that it is over, or far from it: neither is believed."""
    clock = ManualClock()
    here = opened(clock)
    granted(here, request(ttl=8.0))
    foreign(path)
    mine = request(ttl=8.0)
    for _ in range(5):  # its holder is alive
        busy(here, mine)
        clock.advance(7.9)
        busy(here, mine)
        renewed(path)
    assert [holder.expires_in for holder in here.holders("a")] == [8.0]
    begun = clock()
    while isinstance(answer := attempt(here, mine), Busy):
        clock.advance(answer.retry_after)

    assert isinstance(answer, Grant)
    assert clock() - begun == pytest.approx(8.0, abs=0.01)


def test_a_waiter_of_a_foreign_clock_is_passed_over_when_it_stood_still(opened: Opened, path: str) -> None:
    """The same for places in the queue."""
    clock = ManualClock()
    here = opened(clock)
    grant = granted(here, request(ttl=1000.0))
    busy(here, request())
    foreign(path, table="lock_waiter")
    mine = request()
    busy(here, mine)
    released(here, grant)
    begun = clock()
    while isinstance(answer := attempt(here, mine), Busy):
        clock.advance(answer.retry_after)

    assert PATIENCE <= clock() - begun + 0.001 <= here.capabilities.dead_waiter_bound


def test_rows_that_an_earlier_boot_left_are_swept(opened: Opened, path: str) -> None:
    """Nobody asks for those names any more; other names' traffic deletes them, after it has watched them stand still."""
    clock = ManualClock()
    here = opened(clock)
    for index in range(10):
        granted(here, request(f"old-{index}", ttl=5.0))
    foreign(path)
    for start in range(0, 5000, 100):
        clock.advance(1.0)
        here.release(grants(here.attempt([request(f"new-{start + index}") for index in range(100)])))

    assert count(path) == 0


def test_a_clock_of_ones_own_is_known_in_its_process_only() -> None:
    """The same object is the same clock for two providers; another one, or the system's, is not."""
    one, two = ManualClock(), ManualClock()

    assert clock_id(one) == clock_id(one) != clock_id(two)
    assert clock_id(SystemClock()) == clock_id(SystemClock()) != clock_id(one)
    assert boot_id() in clock_id(SystemClock())


def test_an_observer_never_believes_a_foreign_time() -> None:
    """A row is over when it has not changed for its length of our time, whatever it says; a change starts afresh."""
    observer = Observer("ours")

    def left(now: float, changes: int, ends: float = 0.0) -> float:
        return observer.left(now, clock="theirs", ends=ends, key=1, changes=changes, length=5.0)

    assert left(100.0, 0, ends=1e9) == 5.0
    assert left(104.0, 0) == 1.0
    assert left(104.5, 1) == 5.0
    assert left(109.5, 1) == 0.0
    assert observer.left(109.5, clock="ours", ends=110.0, key=2, changes=0, length=5.0) == 0.5
    observer.keep({2})
    assert left(200.0, 1) == 5.0


TIME_NAMESPACE = ("unshare", "--time", "--boottime", "100000", "--monotonic", "100000", "--")


def can_make_time_namespaces() -> bool:
    try:
        return subprocess.run([*TIME_NAMESPACE, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(not can_make_time_namespaces(), reason="platform: no time namespaces, or not allowed to make one")
def test_two_time_namespaces_of_one_boot_never_hold_a_lock_together(child: Children, opened: Opened) -> None:
    """The other side's boot clock is 100,000 s ahead: its leases look endless here, and ours look long over there."""
    here, there, other = opened(), child(*TIME_NAMESPACE), child(*TIME_NAMESPACE)
    there.ask("take", "a", 1)
    there.ask("keep", 0.3)
    assert other.ask("try", "a", 1)["token"] is None  # and it is up, so that what it is asked below takes no time
    mine = request(ttl=2.0)
    end = time.monotonic() + 3.0
    while time.monotonic() < end:  # three of its leases
        answer = attempt(here, mine)
        assert isinstance(answer, Busy)
        bell(mine).wait(min(answer.retry_after, 0.2))
    there.process.send_signal(signal.SIGKILL)
    there.process.wait()
    at = time.monotonic()
    while isinstance(answer := attempt(here, mine), Busy):
        bell(mine).wait(answer.retry_after)
    took = time.monotonic() - at
    assert 0.6 < took < 1.0 + upper(here.capabilities.expiry_lag)

    for _ in range(9):  # longer than one of our leases
        assert other.ask("try", "a", 1)["token"] is None
        assert isinstance(answer, Grant)
        assert here.renew([answer]) == [answer]
        time.sleep(0.3)
    released(here, answer)
    assert other.ask("try", "a", 1)["token"] > answer.token


# -- tokens ------------------------------------------------------------------------------------------------------------------


def test_after_a_loss_of_power_tokens_go_on_from_the_reserved_mark(opened: Opened, path: str) -> None:
    """What `normal` may lose is the last commits, never the synced mark: a lost token is not given again."""
    here = opened(durability="normal")
    given = [granted(here, request(f"n{index}")).token for index in range(5)]
    with sqlite3.connect(path) as connection:  # as recovery would leave it: an older `next`, under the old boot
        connection.execute("UPDATE lock_counter SET next = 1, boot = 'the boot before'")
        connection.execute("DELETE FROM lock_holder")
    connection.close()

    assert granted(here, request()).token >= max(given[0] + TOKENS - 1, max(given) + 1)


def test_full_takes_over_the_mark_that_normal_left(opened: Opened, path: str) -> None:
    """A provider with `full` alone has no mark; it respects the one of others."""
    normal = opened(durability="normal")
    given = granted(normal, request()).token
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE lock_counter SET next = 1, boot = 'the boot before'")
        connection.execute("DELETE FROM lock_holder")
    connection.close()

    assert granted(opened(durability="full"), request()).token > given


def test_normal_reserves_again_when_the_reserved_tokens_are_used_up(opened: Opened, path: str) -> None:
    """No token at or past the mark is given without a new mark."""
    here = opened(durability="normal")
    granted(here, request("first"))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE lock_counter SET next = reserved - 1")
    connection.close()
    tokens = [granted(here, request(f"n{index}")).token for index in range(3)]
    with sqlite3.connect(path) as connection:
        following, reserved = connection.execute("SELECT next, reserved FROM lock_counter").fetchone()
    connection.close()

    assert tokens == [tokens[0], tokens[0] + 1, tokens[0] + 2]
    assert following <= reserved
    assert reserved > tokens[2]


def test_with_full_a_grant_to_a_waiter_is_synced_before_anybody_hears_of_it(opened: Opened) -> None:
    """Places in the queue are written without a sync; the grant that follows is not."""
    here = opened(durability="full")
    levels: list[str] = []
    grant = granted(here, request())
    waiter = request()
    busy(here, waiter)
    here._database._handle.connection.set_trace_callback(levels.append)
    busy(here, waiter)
    assert [text for text in levels if "synchronous" in text] == ["PRAGMA synchronous=NORMAL"]
    released(here, grant)
    levels.clear()
    granted(here, waiter)

    synced = levels.index("PRAGMA synchronous=FULL")
    assert any("INSERT INTO lock_holder" in text for text in levels[:synced])
    assert any("UPDATE lock_counter" in text for text in levels[synced:])
    assert levels[-1] == "COMMIT"


# -- this process ------------------------------------------------------------------------------------------------------------


def test_waiters_of_other_providers_in_this_process_are_woken_without_the_watcher(opened: Opened) -> None:
    """A release wakes its neighbour before it returns."""
    one, two = opened(poll=0.25), opened(poll=0.25)
    grant = granted(one, request())
    waiter = request()
    busy(two, waiter)
    bell(waiter).rings = 0
    released(one, grant)

    assert bell(waiter).rings == 1


def test_close_leaves_no_thread_and_no_descriptor(path: str) -> None:
    """Also when somebody still waits."""
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    providers = [opened_at(path), opened_at(path)]
    granted(providers[0], request())
    busy(providers[1], request())
    busy(providers[0], shared())
    assert threading.active_count() == threads + 1
    for provider in providers:
        provider.close()

    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_forked_child_opens_anew_and_does_not_touch_its_parents_connection(path: str, child: Children) -> None:
    """The parent goes on; the child neither uses nor closes what it inherited, and is excluded like any process."""
    here = opened_at(path)
    grant = granted(here, request())
    busy(here, request())  # the watcher runs
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            try:
                here.ping()
            except Closed:
                code = 2
            here.close()
            del here
            mine = opened_at(path)
            if code == 2 and isinstance(attempt(mine, request(wait=False)), Busy) and mine.holders("a")[0].waiters == 1:
                code = 0
            mine.close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    assert here.renew([grant]) == [grant]
    assert child().ask("try", "a", 1)["token"] is None
    assert here.release([grant]) == [Released.RELEASED]
    here.close()


def test_a_child_that_ends_like_a_program_does_not_spoil_its_parents_database(path: str) -> None:
    """Also the interpreter's end must not close the inherited connection: its write-ahead log would be removed."""
    program = """
import os, sys
sys.path[:0] = sys.argv[2:]
from test_sqlite_locks import *
here = opened_at(sys.argv[1])
grant = granted(here, request(ttl=600.0))
pid = os.fork()
if pid == 0:
    del here
    sys.exit(0)  # a full shutdown of the interpreter
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
other = Child(sys.argv[1])
assert other.ask("try", "a", 1)["token"] is None
assert other.ask("try", "b", 1)["token"] is not None
other.end()
assert here.renew([grant]) == [grant]
released(here, grant)
here.close()
assert not os.path.exists(sys.argv[1] + "-wal")
"""
    command = [sys.executable, "-c", program, path, str(Path(__file__).parent)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)

    assert ran.returncode == 0, ran.stderr


def test_a_waiting_process_sleeps(child: Children, opened: Opened) -> None:
    """The watcher's polling is all that a waiting process does."""
    here, there = opened(), child()
    grant = granted(here, request(ttl=60.0))
    idle = threading.Event()
    threads = [threading.Thread(target=wait_here, args=(here, idle)) for _ in range(1)]
    for thread in threads:
        thread.start()
    waits(here, 1)
    begun, used = time.monotonic(), time.process_time()
    idle.wait(3.0)
    share = (time.process_time() - used) / (time.monotonic() - begun)
    print(f"a waiting process uses {share:.2%} of a core")
    released(here, grant)
    for thread in threads:
        thread.join(30)
    assert there.ask("try", "a", 1)["token"] is not None

    assert share < upper(0.10)


def wait_here(provider: SqliteLocks, idle: threading.Event) -> None:
    mine = request(ttl=60.0)
    while isinstance(answer := attempt(provider, mine), Busy):
        bell(mine).wait(answer.retry_after)
    assert isinstance(answer, Grant)
    provider.release([answer])


def test_a_busy_database_is_waited_for_and_then_unavailable(opened: Opened, path: str) -> None:
    """Somebody's long transaction: within the time-out, retryable, nothing is lost; afterwards all goes on."""
    here = opened_at(path, timeout=0.3)
    grant = granted(here, request())
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    at = time.monotonic()
    with pytest.raises(Unavailable, match="long transaction") as caught:
        here.renew([grant])
    took = time.monotonic() - at
    assert caught.value.retryable
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    assert 0.3 <= took < 0.3 + upper(1.0)
    assert len(here.holders("a")) == 1  # readers do not wait for the writer
    threading.Timer(0.1, other.rollback).start()

    assert here.renew([grant]) == [grant]
    here.close()
    other.close()


def test_a_lost_lease_is_told_after_the_database_was_away(opened: Opened, path: str) -> None:
    """Unknown is not lost: the renewal that comes through says which."""
    clock = ManualClock()
    here = opened_at(path, clock, timeout=0.05)
    grant = granted(here, request())
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable):
        here.renew([grant])
    clock.advance(10)
    other.execute("ROLLBACK")
    other.close()

    assert isinstance(here.renew([grant])[0], LeaseLost)
    here.close()
