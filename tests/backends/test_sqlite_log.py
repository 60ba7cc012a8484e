"""When the write-ahead log says that nothing was committed, nothing was: files really written, and generated clocks."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrowboat_sqlite.waking.log import Log, Stamp, stands

SECOND = 10**9
LATER = 10 * SECOND


@given(
    st.integers(0, 6 * SECOND),  # when the last write was that the first look has seen
    st.integers(0, 6 * SECOND),  # from there to the first look
    st.integers(0, 6 * SECOND),  # from there to a write in between, and on to the second look
    st.sampled_from([1, 4_000_000, 10_000_000, SECOND, 2 * SECOND]),  # what the file system's clock counts in
)
def test_no_write_between_two_looks_is_hidden_by_a_coarse_clock(before: int, first: int, then: int, grain: int) -> None:
    """The log may be written again from its start: its size says nothing."""
    now = 1_700_000_000 * SECOND + before
    seen = Stamp(1, 4096, now // grain * grain, now + first)
    written = now + first + then
    assert not stands(seen, Stamp(1, 4096, written // grain * grain, written + then))


def test_what_differs_or_is_not_there_does_not_stand() -> None:
    old = Stamp(1, 4096, 0, LATER)
    assert stands(old, Stamp(1, 4096, 0, LATER + 1))
    for other in (None, Stamp(2, 4096, 0, LATER), Stamp(1, 8192, 0, LATER), Stamp(1, 4096, 1, LATER)):
        assert not stands(old, other)
        assert not stands(other, old)
    assert not stands(None, None)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "a.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:  # while one is open, nobody removes the log
        connection.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t (a);")
        yield path


def aged(database: Path) -> Log:
    """A log that was last written long ago, as SQLite has confirmed."""
    log = Log(str(database))
    os.utime(f"{database}-wal", ns=(1, 1))
    assert not log.untouched(), "nobody has asked SQLite yet"
    log.confirmed()
    assert log.untouched()
    return log


@pytest.mark.parametrize("first", ["", "PRAGMA wal_checkpoint(RESTART);", "PRAGMA wal_checkpoint(TRUNCATE);"])
def test_a_commit_of_another_process_is_seen(first: str, database: Path) -> None:
    log = aged(database)
    code = f"import sqlite3; sqlite3.connect({str(database)!r}).executescript('{first} INSERT INTO t VALUES (1);')"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert not log.untouched()


def test_a_new_log_is_not_taken_for_the_old_one(database: Path) -> None:
    log = aged(database)
    found = os.stat(f"{database}-wal")
    os.rename(f"{database}-wal", f"{database}-old")
    assert not log.untouched(), "there is none"
    Path(f"{database}-wal").write_bytes(bytes(found.st_size))
    os.utime(f"{database}-wal", ns=(1, 1))
    assert not log.untouched()


def test_what_was_written_just_now_is_not_believed(database: Path) -> None:
    log = Log(str(database))
    for _ in range(3):
        assert not log.untouched()
        log.confirmed()


def test_it_is_believed_so_many_times_only(database: Path) -> None:
    log = aged(database)
    assert sum(log.untouched() for _ in range(100)) < 100 / 4
    log.confirmed()
    assert log.untouched()
    log.forget()
    assert not log.untouched()


def test_the_log_of_a_link_is_that_of_its_file(database: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(database)
    os.utime(f"{database}-wal", ns=(1, 1))
    log = Log(str(link))
    assert not log.untouched()
    log.confirmed()
    assert log.untouched()
