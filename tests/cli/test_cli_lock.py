"""`narrowboat lock` as a process: exit codes, signals, the end of a lease, a terminal; and who holds what."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_program import HANGS, PROGRAM, call, command, finish, until

from narrowboat.cli import run
from narrowboat.cli.holders import _row, to_json
from narrowboat.contract.locks import Holder, Mode
from narrowboat.locking import Locks

#: A command that lives until it is killed, writes the time every few milliseconds, and answers SIGTERM as it is told.
TICKER = """
import signal, sys, time
path, answer = sys.argv[1:]
signal.signal(signal.SIGTERM, signal.SIG_IGN if answer == "ignore" else lambda *_: (note("TERM"), sys.exit(7)))
def note(what):
    with open(path, "a") as file:
        file.write(f"{time.clock_gettime(time.CLOCK_BOOTTIME)} {what}\\n")
while True:
    note("tick")
    time.sleep(0.005)
"""


def ticks(path: Path) -> list[tuple[float, str]]:
    """What the ticker wrote: (time, what)."""
    return [(float(at), what) for at, what in (line.split() for line in Path(path).read_text().splitlines())]


def boot() -> float:
    """The clock that leases are counted by."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@contextlib.contextmanager
def frozen(url: str) -> Iterator[None]:
    """Nobody can write to the database in this block."""
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as db:
        db.execute("PRAGMA busy_timeout=5000")
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")


class TestLock:
    """`narrowboat lock`."""

    def test_the_command_runs_under_the_lock(self, url: str, locks: Locks) -> None:
        """It sees its name and token, others see it, and afterwards the lock is free."""
        script = f"{sys.executable} -m narrowboat holders {url} a --json; echo $NARROWBOAT_LOCK $NARROWBOAT_TOKEN"

        code, out, err = call("lock", url, "a", "--label", "me", "--", "sh", "-c", script)

        held = json.loads(out.splitlines()[0])
        assert code == 0, err
        assert (held[0]["name"], held[0]["label"]) == ("a", "me")
        assert out.splitlines()[1] == f"a {held[0]['token']}"
        assert locks.holders() == []
        assert err == ""

    def test_a_minimum_hold_outlives_the_command(self, url: str, locks: Locks) -> None:
        """The name stays taken after the command and we have ended, whatever the command came to."""
        for name, script, code in (("a", "exit 0", 0), ("b", "exit 3", 3), ("c", "kill -KILL $PPID", -signal.SIGKILL)):
            ended = call("lock", url, name, "-v", "--ttl", "30", "--at-least", "600", "--", "sh", "-c", script)
            assert ended[0] == code, ended
            assert (code < 0) or "stays taken" in ended[2]
            assert locks.lock(name).try_acquire() is None
            assert 500 < (locks.holders(name)[0].expires_in or 0) <= 600

    def test_a_backend_that_cannot_keep_a_minimum_is_refused_before_it_is_asked(self) -> None:
        """There is no server at that port."""
        code, _, err = call("lock", "--at-least", "60", "consul://127.0.0.1:1", "a", "--", "true")

        assert code == 2
        assert "at_least=60 s: consul cannot" in err

    @pytest.mark.parametrize(
        ("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", 143), ("kill -KILL $$", 137), ("exit 255", 255)]
    )
    def test_the_exit_code_is_the_command_s(self, url: str, script: str, code: int) -> None:
        """Or 128 and the signal that ended it."""
        assert call("lock", url, "a", "--", "sh", "-c", script)[0] == code

    def test_a_command_that_is_not_there(self, url: str, tmp_path: Path) -> None:
        """127 when it is not found, 126 when it cannot be executed; the lock is not even asked for."""
        (tmp_path / "data").write_text("no program")
        (tmp_path / "broken").write_text("#!/nowhere/at/all\n")
        (tmp_path / "broken").chmod(0o755)

        assert call("lock", url, "a", "--", "no-such-command")[::2] == (127, "narrowboat: no-such-command: command not found\n")
        assert call("lock", url, "a", "--", tmp_path / "data")[0] == 126
        assert call("lock", url, "a", "--", tmp_path / "broken")[0] == 127

    def test_standard_streams_are_the_command_s(self, url: str) -> None:
        """It reads ours and writes ours."""
        assert call("lock", url, "a", "--", "tr", "a-z", "A-Z", text="hello")[:2] == (0, "HELLO")

    def test_busy_after_the_timeout_is_75(self, url: str, locks: Locks) -> None:
        """And the command was never run."""
        with locks.lock("a"):
            code, out, err = call("lock", url, "a", "--timeout", "0.1", "--", "echo", "ran")

        assert (code, out) == (75, "")
        assert "still busy" in err

    def test_shared_and_limited_locks(self, url: str, locks: Locks) -> None:
        """--shared holds it with others that share, --limit with up to N."""
        with locks.lock("a", mode="shared"), locks.lock("b", limit=2):
            assert call("lock", url, "a", "--timeout", "0", "--shared", "--", "true")[0] == 0
            assert call("lock", url, "b", "--timeout", "0", "--limit", "2", "--", "true")[0] == 0
            assert call("lock", url, "b", "--timeout", "0", "--limit", "3", "--", "true")[0] == 2

    def test_it_waits_its_turn(self, url: str, locks: Locks) -> None:
        """Without --timeout for as long as it takes."""
        held = locks.lock("a").acquire()
        process = command("lock", url, "a", "-v", "--", "echo", "ran")
        until(lambda: locks.holders("a")[0].waiters)
        held.release()

        code, out, err = finish(process)

        assert (code, out) == (0, "ran\n")
        assert [line.split()[1] for line in err.splitlines()] == ["waiting", "holding", "released"]

    @pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1", "USR2", "QUIT", "WINCH"])
    def test_signals_reach_the_command(self, url: str, name: str) -> None:
        """Its whole process group; and its answer is our exit code."""
        script = f"trap 'exit 5' {name}; echo ready; while :; do sleep 0.02; done"
        process = command("lock", url, "a", "--", "sh", "-c", script)
        assert process.stdout.readline() == "ready\n"
        process.send_signal(getattr(signal, f"SIG{name}"))

        assert finish(process)[0] == 5

    def test_a_signal_ends_the_wait(self, url: str, locks: Locks) -> None:
        """With 128 and its number; nothing waits any more."""
        with locks.lock("a"):
            process = command("lock", url, "a", "--", "true")
            until(lambda: locks.holders("a")[0].waiters)
            process.terminate()

            assert finish(process)[0] == 143
            assert locks.holders("a")[0].waiters == 0

    def test_the_command_ends_before_a_lease_that_cannot_be_renewed(self, url: str, locks: Locks, tmp_path: Path) -> None:
        """SIGTERM with the grace time left; its own exit code is not taken for success."""
        path = tmp_path / "ticks"
        process = command(
            "lock", f"{url}?timeout=0.2", "a", "--ttl", 1.5, "--grace", 0.4, "--", sys.executable, "-c", TICKER, path, "leave"
        )
        until(path.exists)
        with frozen(url):
            since = boot()
            process.wait(HANGS)

        code, _, err = finish(process)
        (told, _), *_ = [tick for tick in ticks(path) if tick[1] == "TERM"]
        assert code == 79
        assert "could not be renewed" in err
        assert told < since + 1.5 - 0.2
        assert locks.lock("a").acquire(timeout=5).token

    def test_a_command_that_ignores_sigterm_is_killed_before_the_lease_ends(
        self, url: str, locks: Locks, tmp_path: Path
    ) -> None:
        """The last thing it did was within the lease."""
        path = tmp_path / "ticks"
        process = command(
            "lock", f"{url}?timeout=0.2", "a", "--ttl", 2, "--grace", 0.3, "--", sys.executable, "-c", TICKER, path, "ignore"
        )
        until(path.exists)
        with frozen(url):
            since = boot()
            process.wait(HANGS)

        assert finish(process)[0] == 79
        assert ticks(path)[-1][0] < since + 2

    def test_the_whole_group_ends_with_the_lease(self, url: str, locks: Locks, tmp_path: Path) -> None:
        """Also what the command has left behind in the background and that ignores SIGTERM."""
        path = tmp_path / "ticks"
        script = f"{sys.executable} -c '{TICKER}' {path} ignore & wait"
        process = command("lock", url, "a", "--ttl", 1.2, "--grace", 0.3, "--", "sh", "-c", script)
        until(path.exists)
        holder = locks.holders("a")[0]
        locks.evict("a", holder.token)

        assert finish(process)[0] == 79
        assert ticks(path)[-1][0] < boot() - 0.004

    def test_an_evicted_holder_s_command_is_ended(self, url: str, locks: Locks, tmp_path: Path) -> None:
        """Within a renewal's time; and it is told why."""
        path = tmp_path / "ticks"
        process = command("lock", url, "a", "--ttl", 5, "--", sys.executable, "-c", TICKER, path, "leave")
        until(path.exists)

        assert run(["evict", url, "a", "--token", str(locks.holders("a")[0].token)]) == 0

        code, _, err = finish(process)
        assert code == 79
        assert "was lost" in err
        assert ticks(path)[-1][1] == "TERM"

    def test_killed_with_its_command(self, url: str, locks: Locks, tmp_path: Path) -> None:
        """SIGKILL gives us no time to end the command: Linux does."""
        path = tmp_path / "pid"
        process = command(
            "lock", url, "a", "--ttl", 0.5, "--", "sh", "-c", f"echo $$ > {path}.new; mv {path}.new {path}; exec sleep 60"
        )
        until(path.exists)
        pidfd = os.pidfd_open(int(path.read_text()))
        process.kill()
        finish(process)

        ended, _, _ = select.select([pidfd], [], [], 10)
        os.close(pidfd)
        assert ended
        assert locks.lock("a").acquire(timeout=5).token


class Typist:
    """`narrowboat ARGUMENTS` on a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.execv(PROGRAM[0], [*PROGRAM, *map(str, arguments)])
            finally:
                os._exit(99)
        self.seen = b""

    def expect(self, text: str, timeout: float = 15) -> None:
        """Read until `text` is there."""
        ends = time.monotonic() + timeout
        while text.encode() not in self.seen:
            ready, _, _ = select.select([self.fd], [], [], max(0, ends - time.monotonic()))
            assert ready, self.seen
            self.seen += os.read(self.fd, 4096)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.fd, text.encode())

    def exit_code(self) -> int:
        """Wait for the end."""
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


class TestTerminal:
    """`narrowboat lock` where people sit."""

    def test_the_command_reads_from_the_terminal(self, url: str) -> None:
        """Although it is in a process group of its own."""
        typist = Typist("lock", url, "a", "--", "sh", "-c", "echo ready; read line; echo got:$line; exit 4")
        typist.expect("ready")
        typist.type("hello\n")
        typist.expect("got:hello")

        assert typist.exit_code() == 4

    def test_ctrl_c_reaches_the_command(self, url: str) -> None:
        """And only it; we pass on how it ended."""
        typist = Typist("lock", url, "a", "--", "sh", "-c", "echo ready; exec sleep 30")
        typist.expect("ready")
        typist.type("\x03")

        assert typist.exit_code() == 130

    def test_ctrl_z_does_not_keep_the_lock_for_ever(self, url: str) -> None:
        """The command goes on, and we say why."""
        typist = Typist("lock", url, "a", "--", "sh", "-c", "echo ready; read line; echo got:$line")
        typist.expect("ready")
        typist.type("\x1a")
        typist.expect("cannot be suspended")
        typist.type("hello\n")
        typist.expect("got:hello")

        assert typist.exit_code() == 0


class TestHolders:
    """`narrowboat holders` and `narrowboat evict`."""

    @pytest.mark.parametrize("since", [0.0, 1e300, float("nan")])
    def test_a_record_of_another_program_is_shown_as_foreign(self, since: float) -> None:
        """Whatever time it claims."""
        holder = Holder("a", 12, "theirs", Mode.EXCLUSIVE, 3, since, None, None, foreign=True)

        assert _row(holder) == ("a", 12, "foreign", "theirs", "", "", None)
        assert to_json(holder)["foreign"] is True

    def test_a_table_and_json(self, url: str, locks: Locks, capsys: pytest.CaptureFixture[str]) -> None:
        """The same facts for both readers."""
        with locks.lock("a", label="me") as held:
            assert run(["holders", url]) == 0
            people = capsys.readouterr().out
            assert run(["holders", url, "a", "--json"]) == 0
            (programs,) = json.loads(capsys.readouterr().out)

        assert str(held.token) in people
        assert "\x1b" not in people
        assert programs["token"] == held.token

    def test_nobody(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        """An empty list for programs, a sentence for people."""
        assert run(["holders", url, "a"]) == 0
        assert capsys.readouterr().out == "nobody holds 'a'\n"
        assert run(["holders", url, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == []

    def test_evicting_nobody(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Is a failure."""
        assert run(["evict", url, "a", "--token", "1", "--json"]) == 1
        assert json.loads(capsys.readouterr().out) == {"evicted": False}
        assert run(["evict", url, "a", "--token", "1"]) == 1
        assert "nobody holds 'a' with token 1" in capsys.readouterr().err

    def test_the_url_from_the_environment(
        self, url: str, locks: Locks, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Written as -."""
        monkeypatch.setenv("NARROWBOAT_LOCKS_URL", url)
        with locks.lock("a"):
            assert run(["holders", "-", "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)) == 1
