"""Opening a file and the transactions on it: what can be wrong, each met for real, told in one clear error."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Never

import pytest

from narrowboat.dsn import Url, parse_options
from narrowboat.errors import AccessDenied, Closed, ConfigurationError, NarrowboatError, Unavailable
from narrowboat_sqlite import errors
from narrowboat_sqlite.connection.database import APPLICATION_ID, SCHEMA_VERSION, Database, path_of, statements
from narrowboat_sqlite.options import Durability, Options
from narrowboat_sqlite.tables import schema

TABLE = "-- a comment; with a semicolon\nCREATE TABLE IF NOT EXISTS note (text TEXT);\n"


def database(path: Path, timeout: float = 0.2, durability: Durability = Durability.NORMAL, schema: str = TABLE) -> Database:
    return Database(str(path), durability=durability, timeout=timeout, schema=schema)


def note(opened: Database, text: str = "x") -> None:
    opened.write(lambda connection: connection.execute("INSERT INTO note VALUES (?)", (text,)))


def notes(opened: Database) -> list[str]:
    return opened.read(lambda connection: [text for (text,) in connection.execute("SELECT text FROM note ORDER BY rowid")])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.db"


# -- the URL -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("sqlite:///", "memory://"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite://shop.db", "sqlite:///shop.db"),
        ("sqlite://user:hunter2@/shop.db", "no host"),
        ("sqlite+x:///shop.db", "sqlite\\+x"),
        ("sqlite:///a%00b", "zero byte"),
    ],
)
def test_a_url_that_names_no_file_is_refused(text: str, hint: str) -> None:
    """With the form that would work, and without a secret."""
    with pytest.raises(ConfigurationError, match=hint) as caught:
        path_of(Url.parse(text))

    assert "hunter2" not in str(caught.value)


def test_three_slashes_are_relative_and_four_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder counts; two ways to one file are one path."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)

    assert path_of(Url.parse("sqlite:///shop.db")) == str(tmp_path / "shop.db")
    assert path_of(Url.parse(f"sqlite:///{tmp_path}/link/shop.db")) == str(tmp_path / "shop.db")


@pytest.mark.parametrize("text", ["poll=0", "poll=0.0001", "poll=60", "durability=fast", "pol=1", "poll=x"])
def test_an_option_that_is_unknown_or_out_of_range_is_refused(text: str) -> None:
    """One error that says what is allowed."""
    url = Url.parse(f"sqlite:///a.db?{text}")

    with pytest.raises(ConfigurationError, match="poll|durability"):
        parse_options(url, Options, {})


# -- places ------------------------------------------------------------------------------------------------------------------


def test_a_missing_folder_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    """Nothing is created."""
    with pytest.raises(ConfigurationError, match=f"mkdir -p {tmp_path}/no/such"):
        database(tmp_path / "no" / "such" / "some.db")

    assert os.listdir(tmp_path) == []


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    """A file in it would be."""
    with pytest.raises(ConfigurationError, match="is a folder"):
        database(tmp_path)


def test_names_that_mean_something_to_sqlite_are_plain_names(tmp_path: Path) -> None:
    """A question mark, a percent sign, a hash: the file is called so."""
    odd = tmp_path / "a?mode=memory#50%25 ü.db"
    opened = database(odd)
    note(opened)
    opened.close()

    assert os.listdir(tmp_path) == [odd.name]


@pytest.mark.parametrize("content", [b"this is no database, but long enough to be read as one" * 100, None])
def test_what_is_no_database_or_damaged_is_refused_and_left_as_it_is(path: Path, content: bytes | None) -> None:
    """A text file, and a database of ours whose first page was overwritten."""
    if content is None:
        database(path).close()
        content = path.read_bytes()[:100] + b"\xff" * 3996 + path.read_bytes()[4096:]
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="no SQLite database, or a damaged one") as caught:
        database(path)

    assert isinstance(caught.value.__cause__, sqlite3.DatabaseError)
    assert path.read_bytes() == content


def test_damage_met_in_the_middle_is_told_too(path: Path) -> None:
    """A page deeper in the file is rubbish: found by the statement that reads it."""
    opened = database(path)
    opened.write(lambda connection: connection.executemany("INSERT INTO note VALUES (?)", [("x" * 900,)] * 400))
    opened.close()
    data = bytearray(path.read_bytes())
    data[8192:] = b"\xff" * (len(data) - 8192)
    path.write_bytes(data)
    opened = database(path)
    with pytest.raises(ConfigurationError, match="damaged"):
        notes(opened)
    opened.close()


def test_a_newer_schema_is_refused_and_both_versions_are_named(path: Path) -> None:
    """And the file is left as it is."""
    database(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION + 41}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=f"version {SCHEMA_VERSION + 41}.*version {SCHEMA_VERSION}"):
        database(path)

    assert path.read_bytes() == before


@pytest.mark.parametrize("mark", ["CREATE TABLE theirs (a)", "PRAGMA application_id=77", "PRAGMA user_version=3"])
def test_another_applications_database_is_refused_and_left_as_it_is(path: Path, mark: str) -> None:
    """Not even its journal mode is changed."""
    with sqlite3.connect(path) as connection:
        connection.execute(mark)
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="another application"):
        database(path)

    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_both_halves_share_a_file_and_its_marks(path: Path) -> None:
    """Each makes its own tables, whoever comes first."""
    one, two = database(path), database(path, schema=schema("locks"))
    note(one)

    assert two.read(lambda connection: connection.execute("SELECT count(*) FROM lock_counter").fetchone()) == (1,)
    for pragma, value in (("application_id", APPLICATION_ID), ("user_version", SCHEMA_VERSION), ("journal_mode", "wal")):
        statement = f"PRAGMA {pragma}"
        assert one.read(lambda connection: connection.execute(statement).fetchone()) == (value,)  # noqa: B023  # called here
    one.close()
    two.close()


def test_many_processes_may_make_the_file_at_once(path: Path) -> None:
    """Each finds it usable, and its tables made once."""
    program = (
        "import sys; from narrowboat_sqlite.connection.database import *; from narrowboat_sqlite.tables import schema; "
        "sys.stdin.read(1); "
        "d = Database(sys.argv[1], durability=Durability.FULL, timeout=10.0, schema=schema('locks')); "
        "d.write(lambda c: c.execute('UPDATE lock_counter SET next = next + 1')); d.close()"
    )
    command = [sys.executable, "-c", program, str(path)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(6)]
    for process in processes:
        process.stdin.write(b"!")
        process.stdin.close()

    assert [process.wait() for process in processes] == [0] * 6
    opened = database(path)
    assert opened.read(lambda connection: connection.execute("SELECT next FROM lock_counter").fetchall()) == [(7,)]
    opened.close()


# -- rights and room: made with small file systems of their own where that is allowed -----------------------------------------


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB that can be made read-only. It needs root, who otherwise passes every check of rights."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def can_mount(tmp: str = "/tmp") -> bool:
    """Whether this user may: tried once, in a mount namespace that is gone at once."""
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", tmp]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True, check=False).returncode == 0


needs_mount = pytest.mark.skipif(not can_mount(), reason="platform: may not mount a file system")


@needs_mount
def test_a_full_disk_is_unavailable_and_nothing_is_lost(mounted: Path) -> None:
    """What was committed is there, what did not fit is not, and with room again all goes on."""
    opened = database(mounted / "some.db")
    note(opened, "before")
    ballast = mounted / "ballast"
    with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
        while file.write(b"\0" * 4096):
            pass
    with pytest.raises(Unavailable, match="disk") as caught:
        for _ in range(100):
            note(opened, "x" * 20_000)
    fitted = len(notes(opened))
    assert caught.value.retryable
    assert isinstance(caught.value.__cause__, (sqlite3.OperationalError, OSError))
    ballast.unlink()
    note(opened, "after")

    kept = notes(opened)
    assert (kept[0], kept[-1], len(kept)) == ("before", "after", fitted + 1)
    opened.close()


@needs_mount
def test_a_read_only_file_system_is_refused(mounted: Path) -> None:
    """Also one on which the database lies ready."""
    database(mounted / "some.db").close()
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    for name in ("some.db", "new.db"):
        with pytest.raises(AccessDenied, match="read-only") as caught:
            database(mounted / name)
        assert isinstance(caught.value.__cause__, (sqlite3.OperationalError, OSError))


def test_a_user_without_rights_is_refused(tmp_path: Path) -> None:
    """A file and a folder that this user may not write: a child process drops root's rights first, where it has them."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    database(folder / "some.db").close()
    os.chmod(folder / "some.db", 0o444)
    os.chmod(folder, 0o555)
    for parent in (tmp_path, *tmp_path.parents[:3]):  # down from the folder of all tests, or of one worker of them
        os.chmod(parent, 0o755)
    program = """
import os, sys
from narrowboat.errors import AccessDenied
from narrowboat_sqlite.connection.database import Database
from narrowboat_sqlite.options import Durability
if os.getuid() == 0:
    os.setgid(65534), os.setuid(65534)
for name in ("some.db", "new.db"):
    try:
        Database(f"{sys.argv[1]}/{name}", durability=Durability.FULL, timeout=0.2, schema="")
    except AccessDenied as error:
        assert "may not be written" in str(error) and error.__cause__ is not None
    else:
        sys.exit(f"{name} was opened")
"""
    ran = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=False)
    os.chmod(folder, 0o755)

    assert ran.returncode == 0, ran.stderr


# -- transactions --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_whatever_work_raises_nothing_has_happened(
    path: Path, error: type[KeyboardInterrupt] | type[SystemExit] | type[ValueError]
) -> None:
    """And the database is free for the next one, here and elsewhere."""
    opened, other = database(path), database(path)

    def work(connection: sqlite3.Connection) -> Never:
        connection.execute("INSERT INTO note VALUES ('half')")
        raise error

    with pytest.raises(error):
        opened.write(work)
    note(other, "theirs")
    note(opened, "ours")

    assert notes(opened) == ["theirs", "ours"]
    opened.close()
    other.close()


def test_a_busy_database_is_waited_for_outside_the_mutex(path: Path) -> None:
    """The bound holds for each of several threads, not for one after the other."""
    opened = database(path, timeout=0.3)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waited = []

    def work() -> None:
        began = opened._monotonic()
        with pytest.raises(Unavailable, match=r"locked by another connection for 0\.3 s"):
            note(opened)
        waited.append(opened._monotonic() - began)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    other.execute("ROLLBACK")
    other.close()

    assert len(waited) == 4
    assert all(0.3 <= each < 1.1 for each in waited)
    opened.close()


def test_the_wait_for_a_busy_database_follows_the_given_clock_and_sleep(path: Path) -> None:
    """Pauses grow from a fraction of a millisecond, and the last one ends at the deadline."""
    pauses = []
    now = [0.0]

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    opened = Database(str(path), durability=Durability.NORMAL, timeout=1.0, schema=TABLE, sleep=sleep, monotonic=lambda: now[0])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable):
        note(opened)
    other.close()
    opened.close()

    assert sum(pauses) == pytest.approx(1.0)
    assert pauses[0] < 0.001
    assert max(pauses) <= 0.005


def test_a_durable_commit_is_synced_and_a_passing_one_is_not(path: Path) -> None:
    """Whatever the database's own level is."""
    seen = []
    for durability, more in (
        (Durability.NORMAL, {"durable": True}),
        (Durability.NORMAL, {}),
        (Durability.FULL, {"passing": True}),
        (Durability.FULL, {}),
    ):
        opened = database(path, durability=durability)
        opened.write(lambda connection: seen.append(connection.execute("PRAGMA synchronous").fetchone()[0]), **more)
        opened.close()

    assert seen == [2, 1, 1, 2]


def test_a_deleted_or_replaced_file_is_noticed(path: Path) -> None:
    """Who opens the name now gets another file: going on would give the same lock twice."""
    now = [0.0]
    opened = Database(str(path), durability=Durability.NORMAL, timeout=0.2, schema=TABLE, monotonic=lambda: now[0])
    note(opened)
    os.unlink(path)
    other = database(path)
    now[0] += 1.0
    with pytest.raises(Unavailable, match="replaced") as caught:
        note(opened)

    assert not caught.value.retryable
    opened.close()
    other.close()


def test_after_close_every_call_is_refused(path: Path) -> None:
    """Closing twice is harmless."""
    opened = database(path)
    opened.close()
    opened.close()

    for call in (note, notes):
        with pytest.raises(Closed):
            call(opened)


def test_the_file_stays_small_over_many_transactions(path: Path) -> None:
    """The write-ahead log is reused, and cut back when the burst was large."""
    opened = database(path)
    for _ in range(20):
        opened.write(lambda connection: connection.executemany("INSERT INTO note VALUES (?)", [("x" * 1000,)] * 1000))
        opened.write(lambda connection: connection.execute("DELETE FROM note"))
    sizes = [os.path.getsize(f"{path}{end}") for end in ("", "-wal")]
    opened.close()

    assert sizes[0] < 3_000_000
    assert sizes[1] < 12_000_000


def test_after_a_fork_the_parent_goes_on_and_the_child_is_refused(path: Path) -> None:
    """Nothing is open while the process forks; the parent opens again by itself."""
    opened = database(path)
    note(opened, "before")
    child = os.fork()
    if child == 0:
        try:
            note(opened, "the child's")
        except Closed:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    note(opened, "after")

    assert notes(opened) == ["before", "after"]
    opened.close()


def test_the_lock_that_a_child_takes_after_a_fork_is_a_real_one(path: Path) -> None:
    """What the child opens is locked by the child: its log is not removed when its parent closes the file."""
    opened = database(path)
    note(opened, "before")
    heard, say = os.pipe()
    done, go = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            mine = database(path)
            note(mine, "child")
            os.write(say, b"!")
            os.read(done, 1)
            note(mine, "child again")
            mine.close()
            code = 0
        finally:
            os._exit(code)
    os.read(heard, 1)
    note(opened, "parent")
    opened.close()
    log = os.path.exists(f"{path}-wal")
    os.write(go, b"!")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for end in (heard, say, done, go):
        os.close(end)

    assert log
    opened = database(path)
    assert notes(opened) == ["before", "child", "parent", "child again"]
    opened.close()


def test_the_statements_of_a_script_are_run_one_by_one() -> None:
    """A semicolon in a comment or text ends nothing."""
    assert list(statements("-- a; b\nSELECT ';';\nSELECT\n 2;\n")) == ["-- a; b\nSELECT ';';", "SELECT\n 2;"]
    assert len(list(statements(schema("locks")))) == 5


# -- errors that only a stubborn machine has -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind", "retryable"),
    [
        (sqlite3.SQLITE_BUSY_RECOVERY, Unavailable, True),
        (sqlite3.SQLITE_IOERR_WRITE, Unavailable, True),
        (sqlite3.SQLITE_FULL, Unavailable, True),
        (sqlite3.SQLITE_READONLY_DIRECTORY, AccessDenied, False),
        (sqlite3.SQLITE_CORRUPT_INDEX, ConfigurationError, False),
        (sqlite3.SQLITE_CANTOPEN, Unavailable, True),
        (sqlite3.SQLITE_ERROR, NarrowboatError, False),
        (None, NarrowboatError, False),
    ],
)
def test_each_kind_of_failure_has_its_error(tmp_path: Path, code: int | None, kind: Any, retryable: bool) -> None:
    """By SQLite's primary code; each names the file."""
    error = sqlite3.OperationalError("what SQLite said")
    if code is not None:
        error.sqlite_errorcode = code
    told = errors.translate(error, str(tmp_path / "some.db"))

    assert type(told) is kind
    assert told.retryable is retryable
    assert told.backend == "sqlite"
    assert str(tmp_path / "some.db") in str(told)
