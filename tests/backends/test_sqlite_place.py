"""Where an SQLite database is, who may read it, and that one which was taken away is missed by everybody who has it open."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import narrowboat
from narrowboat.dsn import Url, parse_options
from narrowboat.errors import ConfigurationError, LeaseLost, PublishFailed, PublishUnknown, Unavailable
from narrowboat_sqlite.connection.database import Database
from narrowboat_sqlite.options import Durability, Options

TABLE = "CREATE TABLE IF NOT EXISTS note (text TEXT);\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.db"


def modes(folder: Path) -> dict[str, int]:
    return {each.name: stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()}


# -- a relative path ---------------------------------------------------------------------------------------------------------


def test_a_relative_path_means_the_folder_in_which_the_face_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two faces of one URL exclude each other, and meet in one file, though the folder changes between their first calls."""
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    monkeypatch.chdir(tmp_path / "first")
    one, other = narrowboat.locks("sqlite:///shop.db"), narrowboat.locks("sqlite:///shop.db")
    broker = narrowboat.broker("sqlite:///shop.db")
    one.lock("x").acquire().release()
    monkeypatch.chdir(tmp_path / "second")
    with one, other, broker, one.lock("job"):
        assert other.lock("job").try_acquire() is None
        broker.queue("q").publish(b"")

    assert [each.name for each in (tmp_path / "first").iterdir()] == ["shop.db"]
    assert list((tmp_path / "second").iterdir()) == []


def test_a_forked_child_meets_its_parents_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon changes to / and forks its workers there: what it holds is held."""
    monkeypatch.chdir(tmp_path)
    with narrowboat.locks("sqlite:///shop.db") as locks, locks.lock("job"):
        monkeypatch.chdir("/")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if locks.lock("job").try_acquire() is None and locks.lock("other").try_acquire() else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# -- who may read it ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize(("option", "mode"), [("", 0o600), ("?mode=0660", 0o660), ("?mode=644", 0o644)])
def test_a_file_that_is_made_is_read_by_whom_the_url_says(tmp_path: Path, umask: int, option: str, mode: int) -> None:
    """With the logs beside it, under any umask; by this user alone unless the URL says otherwise."""
    before = os.umask(umask)
    try:
        with narrowboat.broker(f"sqlite:///{tmp_path}/shop.db{option}") as broker:
            broker.queue("payroll").publish(b"secret")
            assert modes(tmp_path) == dict.fromkeys(("shop.db", "shop.db-shm", "shop.db-wal"), mode)
    finally:
        os.umask(before)


def test_the_mode_of_a_file_that_is_there_is_left_alone(tmp_path: Path, path: Path) -> None:
    """Whoever made it, has decided."""
    path.touch(0o640)
    path.chmod(0o640)
    with narrowboat.locks(f"sqlite:///{path}?mode=0600") as locks:
        locks.ping()

    assert modes(tmp_path) == {"some.db": 0o640}


@pytest.mark.parametrize("text", ["mode=0400", "mode=rw", "mode=10600", "mode=", "mode=0o600", "mode=06880", "mode=٠٦٠٠"])
def test_a_mode_that_is_none_or_shuts_us_out_is_refused(text: str) -> None:
    """The error says how one is written."""
    with pytest.raises(ConfigurationError, match=r"mode.*0600" if text != "mode=" else "mode"):
        parse_options(Url.parse(f"sqlite:///a.db?{text}"), Options, {})


def test_threads_that_make_one_file_at_once_keep_their_locks_on_it(path: Path) -> None:
    """To close a file ends all locks that the process has on it: nobody may open it before its maker has closed it."""
    other = (
        "import sqlite3, sys\n"
        "try:\n"
        "    sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None).execute('BEGIN IMMEDIATE')\n"
        "except sqlite3.OperationalError as error:\n"
        "    print(error)\n"
    )
    barrier = threading.Barrier(8)
    opened = []

    def work() -> None:
        barrier.wait(30)
        opened.append(Database(str(path), durability=Durability.NORMAL, timeout=30, schema=TABLE))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    command = [sys.executable, "-c", other, str(path)]
    said = opened[0].write(lambda _: subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for each in opened:
        each.close()

    assert "locked" in said


# -- gone --------------------------------------------------------------------------------------------------------------------


def remove(path: Path | str) -> None:
    os.remove(path)


def replace(path: str) -> None:
    shutil.copy(path, f"{path}.copy")
    os.replace(f"{path}.copy", path)


@pytest.mark.parametrize("end", ["", "-wal", "-shm"])
@pytest.mark.parametrize("take_away", [remove, replace])
def test_what_was_taken_away_is_gone_for_good(path: Path, end: str, take_away: Callable[..., Any]) -> None:
    """For writing and reading, at each later call, also when something lies at the path again."""
    now = [100.0]
    opened = Database(str(path), durability=Durability.NORMAL, timeout=0.2, schema=TABLE, monotonic=lambda: now[0])
    look = opened.read, opened.write
    for call in look:
        call(lambda connection: connection.execute("SELECT count(*) FROM note").fetchone())
    take_away(f"{path}{end}")
    now[0] += 1.0
    for _ in range(3):
        for call in look:
            with pytest.raises(Unavailable, match="deleted|replaced") as caught:
                call(lambda connection: connection.execute("SELECT count(*) FROM note").fetchone())
            assert not caught.value.retryable
    if not os.path.exists(f"{path}{end}"):
        open(f"{path}{end}", "wb").close()
    now[0] += 100.0
    with pytest.raises(Unavailable, match="deleted|replaced"):
        opened.read(lambda connection: None)
    opened.close()


def write(opened: Database, text: str) -> None:
    opened.write(lambda connection: connection.execute("INSERT INTO note VALUES (?)", (text,)))


def test_logs_that_a_fork_makes_anew_are_not_missed(path: Path) -> None:
    """Everything is closed before a fork, so the last one to close takes them along; that is no loss."""
    now = [100.0]
    opened = Database(str(path), durability=Durability.NORMAL, timeout=0.2, schema=TABLE, monotonic=lambda: now[0])
    for text in ("before", "between", "after"):
        write(opened, text)
        now[0] += 1.0
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)

    assert opened.read(lambda connection: connection.execute("SELECT count(*) FROM note").fetchone()) == (3,)
    opened.close()


def test_a_holder_whose_file_is_gone_has_lost_by_its_deadline(path: Path) -> None:
    """Whoever opens the path now is granted the lock; the first holder knows before that it has it no more."""
    with narrowboat.locks(f"sqlite:///{path}") as locks:
        held = locks.lock("job", ttl=1.5).acquire()
        remove(path)
        assert held.wait_lost(30)
        with narrowboat.locks(f"sqlite:///{path}") as others, others.lock("job"), pytest.raises(LeaseLost):
            held.check()
        with pytest.raises(Unavailable, match="deleted"):
            locks.holders("job")


# -- what a publish says -----------------------------------------------------------------------------------------------------


def test_a_publish_that_met_a_locked_database_has_failed_for_sure(path: Path) -> None:
    """Its transaction never began, so nobody will ever see the message: that is not unknown."""
    with narrowboat.broker(f"sqlite:///{path}?timeout=0.2") as broker:
        queue = broker.queue("q")
        queue.publish(b"first")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(PublishFailed, match="locked by another connection") as caught:
            queue.publish(b"second")
        (outcome,) = queue.publish_many([b"third"])
        other.execute("ROLLBACK")
        other.close()

        assert caught.value.retryable
        assert isinstance(outcome, PublishFailed)
        assert queue.depth().ready == 1


def test_a_publish_into_a_full_disk_has_failed_for_sure(path: Path) -> None:
    """It is rolled back as a whole; with room, the next one is stored."""
    with narrowboat.broker(f"sqlite:///{path}") as broker:
        queue = broker.queue("q")
        queue.publish(b"first")
        driver: Any = broker._core.driver.get()
        connection = driver._messages.database._handle.connection
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages}")  # what SQLite then says is what it says of a full disk
        with pytest.raises(PublishFailed, match="full") as caught:
            queue.publish(b"x" * 100_000)
        connection.execute("PRAGMA max_page_count=1000000")
        queue.publish(b"second")

        assert caught.value.retryable
        assert not isinstance(caught.value, PublishUnknown)
        assert queue.depth().ready == 2


def test_a_publish_into_a_file_that_is_gone_has_failed_and_depth_says_so_too(path: Path) -> None:
    """It says what happened to the file, and that repeating it is of no use."""
    with narrowboat.broker(f"sqlite:///{path}") as broker:
        queue = broker.queue("q")
        queue.publish(b"first")
        remove(path)
        driver: Any = broker._core.driver.get()
        driver._messages.database._place.reopened()  # as if a second had passed since the last look
        with pytest.raises(PublishFailed, match="deleted") as caught:
            queue.publish(b"second")
        with pytest.raises(Unavailable, match="deleted"):
            queue.depth()

        assert not caught.value.retryable
