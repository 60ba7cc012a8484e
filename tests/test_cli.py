"""The command line: what it decides, and what it does as a process - exit codes, signals, the end of a lease."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pty
import select
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import narrowboat
from narrowboat.cli import run
from narrowboat.cli.deadline import Order, decide, longest_grace, moment
from narrowboat.cli.exits import Exit, code_of, code_of_status
from narrowboat.cli.lines import LineTooLong, batches
from narrowboat.cli.output import printable, redact
from narrowboat.cli.records import BadLine, Record, parse_ndjson
from narrowboat.errors import (
    AccessDenied,
    ConfigurationError,
    Conflict,
    LeaseLost,
    LockTimeout,
    PublishUnknown,
    Reason,
    Unavailable,
    Unsupported,
)

PROGRAM = (sys.executable, "-m", "narrowboat")


def command(*arguments, env=None, **options):
    """Start `narrowboat ARGUMENTS`."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    return subprocess.Popen([*PROGRAM, *map(str, arguments)], env={**os.environ, **(env or {})}, **pipes)


def finish(process, timeout=20):
    """Wait for it: exit code, output, errors."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out, err


def call(*arguments, text="", **options):
    """Run `narrowboat ARGUMENTS` with `text` on its standard input: exit code, output, errors."""
    process = command(*arguments, stdin=subprocess.PIPE, **options)
    try:
        out, err = process.communicate(text, timeout=20)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out, err


@pytest.fixture
def url(tmp_path):
    """A database of its own."""
    return f"sqlite:///{tmp_path}/shop.db"


@pytest.fixture
def locks(url):
    """The same locks as a program's."""
    with narrowboat.locks(url) as locks:
        yield locks


@pytest.fixture
def broker(url):
    """The same messages as a program's."""
    with narrowboat.broker(url) as broker:
        yield broker


class TestDeadline:
    """When the command is told to end, and when it is killed."""

    @given(st.floats(0.05, 1e5), st.floats(0, 1), st.floats(0, 1))
    def test_a_renewed_lease_is_left_alone(self, ttl, part, spent):
        """Whatever grace is allowed, a lease of which no more than its renewal's third is spent gives no order."""
        grace = longest_grace(ttl) * part

        step = decide(expires_in=ttl * (0.98 - spent / 3), revoked=False, told_since=None, grace=grace, ttl=ttl)

        assert step.order is Order.WAIT

    @given(st.floats(0.05, 1e5), st.floats(0, 1), st.floats(-0.5, 1))
    def test_the_command_has_its_grace_before_the_lease_ends(self, ttl, part, left):
        """Asked again whenever it says, it gives SIGTERM with the grace time left, and SIGKILL before the end."""
        grace, expires_in = longest_grace(ttl) * part, ttl * left

        step = decide(expires_in=expires_in, revoked=False, told_since=None, grace=grace, ttl=ttl)

        if step.order is Order.WAIT:
            assert expires_in - step.seconds >= (grace + moment(ttl)) * (1 - 1e-9)
        else:
            assert (step.order is Order.KILL) == (expires_in <= moment(ttl))

    @given(st.floats(0.05, 100), st.floats(0, 1), st.floats(0, 200), st.floats(0, 100))
    def test_a_command_that_was_told_is_killed_in_time(self, ttl, part, told_since, expires_in):
        """When its grace is over or the lease is about to be, whichever comes first; a late renewal spares nobody."""
        grace = longest_grace(ttl) * part

        step = decide(expires_in=expires_in, revoked=False, told_since=told_since, grace=grace, ttl=ttl)

        due = told_since >= grace or expires_in <= moment(ttl)
        assert step.order is (Order.KILL if due else Order.WAIT)
        assert step.seconds <= max(0.0, min(grace - told_since, expires_in - moment(ttl)))

    def test_a_lock_that_was_taken_away_leaves_the_grace_time(self):
        """There is no deadline left to keep: SIGTERM at once, SIGKILL after the grace time."""
        tell = decide(expires_in=0, revoked=True, told_since=None, grace=5, ttl=30)
        wait = decide(expires_in=0, revoked=True, told_since=2, grace=5, ttl=30)
        kill = decide(expires_in=0, revoked=True, told_since=5, grace=5, ttl=30)

        assert (tell.order, wait.order, wait.seconds, kill.order) == (Order.TERMINATE, Order.WAIT, 3, Order.KILL)


class TestRecords:
    """One line of NDJSON."""

    def test_every_field(self):
        """What the line says is what is published."""
        fields = {
            "key": "k",
            "headers": {"v": "1"},
            "delay": 1.5,
            "priority": 3,
            "ttl": 60,
            "id": "x",
            "correlation_id": "c",
            "content_type": "t",
        }

        assert parse_ndjson(json.dumps({"body": "hé", **fields}).encode()) == Record("hé".encode(), fields)

    @given(st.binary())
    def test_any_body_travels(self, body):
        """As base64."""
        line = json.dumps({"body_base64": base64.b64encode(body).decode()}).encode()

        assert parse_ndjson(line) == Record(body, {})

    @pytest.mark.parametrize("line", [b"", b"\n", b"  \r\n"])
    def test_a_blank_line_is_no_message(self, line):
        """And no error."""
        assert parse_ndjson(line) is None

    def test_null_is_as_if_it_were_not_there(self):
        """Programs write it for what they do not have."""
        assert parse_ndjson(b'{"body": "a", "key": null}') == Record(b"a", {})

    @pytest.mark.parametrize(
        ("line", "why"),
        [
            (b"hello", "no JSON: Expecting value at column 1"),
            (b'{"body": "a"', "no JSON"),
            (b'["a"]', "expected an object such as {'body': 'text'}, got a list"),
            (b"{}", "needs one of 'body' and 'body_base64'"),
            (b'{"body": "a", "body_base64": "YQ=="}', "not both"),
            (b'{"body": 1}', "body: expected text, got a number"),
            (b'{"body": null}', "body: expected text, got null"),
            (b'{"body_base64": "*"}', "body_base64: "),
            (b'{"body": "\\ud800"}', "surrogate"),
            (b'{"body": "a", "kee": "k"}', "unknown field 'kee'. Did you mean 'key'?"),
            (b'{"body": "a", "key": 1}', "key: expected text, got a number"),
            (b'{"body": "a", "delay": "1"}', "delay: expected a number, got text"),
            (b'{"body": "a", "delay": true}', "delay: expected a number, got true or false"),
            (b'{"body": "a", "delay": NaN}', "NaN is no JSON"),
            (b'{"body": "a", "priority": 1.5}', "priority: expected a whole number"),
            (b'{"body": "a", "headers": []}', "headers: expected an object of texts, got a list"),
            (b'{"body": "a", "headers": {"v": 1}}', "headers: 'v': expected text, got a number"),
            (b"\xff\xfe", "UTF-8"),
            (b"[" * 100_000, "nested too deeply"),
            (b'{"body": "a", "delay": ' + b"1" * 5000 + b"}", "no JSON"),
        ],
    )
    def test_what_is_wrong_is_said(self, line, why):
        """In the words of the line, not of a parser."""
        with pytest.raises(BadLine) as error:
            parse_ndjson(line)

        assert why in str(error.value)


class TestLines:
    """Lines in batches."""

    @given(st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"x", b"\n").replace(b"y", b"\r\n"))), st.integers(1, 4))
    def test_nothing_is_lost_and_nothing_is_cut(self, chunks, size):
        """However the bytes come, the lines are the same."""
        parts = iter([*filter(None, chunks), b""])

        found = list(batches(lambda n: next(parts), size))

        data = b"".join(chunks)
        lines = [line for batch in found for line in batch]
        assert b"".join(lines) == data
        assert all(line.count(b"\n") == 1 and line.endswith(b"\n") for line in lines[:-1])
        assert all(1 <= len(batch) <= size for batch in found)

    def test_a_line_goes_on_as_soon_as_it_is_there(self):
        """Whoever writes slowly is not kept waiting for a full batch."""
        parts = iter([b"a\n", b"b"])
        reader = batches(lambda n: next(parts), 100)

        assert next(reader) == [b"a\n"]

    def test_a_line_without_an_end_does_not_fill_the_memory(self):
        """It is refused."""
        with pytest.raises(LineTooLong):
            list(batches(lambda n: b"a" * n, 1, chunk=10, line_max=100))


class TestExits:
    """Which error gives which exit code."""

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (ConfigurationError(""), 2),
            (Conflict(""), 2),
            (Unsupported(""), 2),
            (Unavailable(""), 69),
            (LockTimeout("", name="a"), 75),
            (AccessDenied(""), 77),
            (LeaseLost("", name="a", reason=Reason.TAKEN), 79),
            (PublishUnknown(""), 1),
        ],
    )
    def test_errors_of_the_library(self, error, code):
        """What a script can act on is told apart."""
        assert code_of(error) == code

    @pytest.mark.parametrize("code", [0, 1, 2, 77, 255])
    def test_a_command_s_own_code(self, code):
        """Goes through."""
        assert code_of_status(code << 8) == code

    def test_a_command_that_a_signal_ended(self):
        """128 and its number, also with a core dump."""
        assert (code_of_status(9), code_of_status(6 | 0x80)) == (137, 134)

    def test_all_codes_are_in_the_help(self, capsys):
        """Nobody has to look for them in the source."""
        assert run(["--help"]) == 0

        text = " ".join(capsys.readouterr().out.split())
        missing = [code for code in Exit if code not in {126, 127, 128} and f"{code.value} " not in text]
        assert missing == []


class TestOutput:
    """What reaches a terminal."""

    @given(st.text())
    def test_nothing_moves_the_cursor(self, text):
        """Whatever a lock's name or a header holds."""
        assert printable(text).isprintable()

    @pytest.mark.parametrize(
        "text", ["redis://u:hunter2@h/0", "x 'amqp://hunter2@h' y", "a://h/?password=hunter2&b=1", "a://u:p@hunter2@h"]
    )
    def test_credentials_are_taken_out(self, text):
        """Of whatever a usage error repeats."""
        assert "hunter2" not in redact(text)


class TestErrors:
    """One line, the right code, no traceback, no secret."""

    @pytest.mark.parametrize(
        ("arguments", "code", "said"),
        [
            (["depth", "nope://h", "q"], 2, "unknown scheme 'nope'"),
            (["depth", "shop.db", "q"], 2, "that is not a URL"),
            (["depth", "sqlite:///x.db?tiemout=1", "q"], 2, "Did you mean 'timeout'?"),
            (["depth", "-", "q"], 2, "NARROWBOAT_BROKER_URL is not set"),
            (["holders", "-"], 2, "NARROWBOAT_LOCKS_URL is not set"),
            (["holders", "sqlite:///x.db", ""], 2, "lock name ''"),
            (["holders", "memory://"], 2, "lives inside one process"),
            (["publish", "memory://", "q"], 2, "lives inside one process"),
            (["lock", "memory://", "a"], 2, "Missing argument"),
            (["lock", "memory://", "a", "ls", "-l"], 2, "write -- before the command"),
            (["lock", "memory://", "a", "--ttl", "nan", "--", "true"], 2, "'nan' is no number of seconds"),
            (["lock", "memory://", "a", "--timeout", "-1", "--", "true"], 2, "no number of seconds from 0"),
            (["lock", "memory://", "a", "--ttl", "6", "--grace", "3", "--", "true"], 2, "at most 2 s, a third of the ttl"),
            (["lock", "memory://", "a", "--shared", "--limit", "2", "--", "true"], 2, "exclude each other"),
            (["lock", "sqlite:///x.db", "a\nb", "--", "true"], 2, "control characters"),
            (["publish", "memory://", "q", "--header", "x"], 2, "write NAME=VALUE"),
            (["publish", "memory://", "q", "/nowhere/at/all"], 2, "does not exist"),
            (["consume", "memory://", "q", "--concurrency", "2"], 2, "belongs to --exec"),
            (["demo", "--locks", "memory://"], 2, "processes of their own"),
            (["demo", "--broker", "memory://"], 2, "--broker: the sale's workers"),
            (["demo", "--workers", "1"], 2, "leaves nobody"),
            (["depth", "sqlite:///nowhere/at/all/x.db", "q"], None, "nowhere"),
            (["publsh", "memory://", "q"], 2, "publsh"),
            (["depth", "q", "redis://shop:hunter2@h/0", "oops"], 2, "unexpected extra argument"),
            (["depth", "redis://shop:hunter2@h:x/0", "q"], 2, ""),
        ],
    )
    def test_one_line_says_what_is_wrong(self, arguments, code, said, capsys, monkeypatch):
        """And the exit code which kind of wrong."""
        monkeypatch.delenv("NARROWBOAT_LOCKS_URL", raising=False)
        monkeypatch.delenv("NARROWBOAT_BROKER_URL", raising=False)
        monkeypatch.setattr(sys, "stdin", sys.__stdin__)

        found = run(arguments)

        text = capsys.readouterr().err
        assert said in text
        assert text.startswith("narrowboat: ")
        assert text.count("\n") == 1
        assert "hunter2" not in text
        assert found == code if code is not None else found not in (0, 70)

    def test_a_traceback_is_there_for_who_asks(self, capsys):
        """With --debug."""
        assert run(["depth", "--debug", "nope://h", "q"]) == 2
        assert "Traceback" in capsys.readouterr().err

    @pytest.mark.parametrize("blocked", ["click", "rich"])
    def test_without_the_extra_it_says_how_to_get_it(self, blocked):
        """In one line, and the library itself can be imported all the same."""
        script = (
            "import sys\n"
            f"sys.modules[{blocked!r}] = None\n"  # what Python itself takes as: not installed
            "import narrowboat, narrowboat._script\n"
            "sys.exit(narrowboat._script.main())\n"
        )

        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

        assert done.returncode == 2
        assert (
            done.stderr
            == f"narrowboat: the command line needs {blocked}, which is not installed: pip install 'narrowboat[cli]'\n"
        )

    def test_importing_the_library_imports_no_command_line(self):
        """Its start-up costs only those who use it."""
        script = "import sys, narrowboat; print({'click', 'rich', 'narrowboat.cli'} & set(sys.modules))"

        assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "set()\n"


class TestGeneral:
    """Version, completion, backends."""

    def test_version(self, capsys):
        """The installed one."""
        assert run(["--version"]) == 0
        assert capsys.readouterr().out.startswith("narrowboat 0.")

    @pytest.mark.parametrize(
        ("shell", "said"), [("bash", "complete -o"), ("zsh", "#compdef narrowboat"), ("fish", "complete ")]
    )
    def test_completion_scripts(self, shell, said, capsys):
        """One for each shell."""
        assert run(["completion", shell]) == 0

        text = capsys.readouterr().out
        assert said in text
        assert "_NARROWBOAT_COMPLETE" in text

    def test_completion_completes(self):
        """What the script asks, the program answers."""
        env = {"_NARROWBOAT_COMPLETE": "bash_complete", "COMP_WORDS": "narrowboat de", "COMP_CWORD": "1"}

        _, out, _ = call(env=env)

        assert {line.partition(",")[2] for line in out.split()} == {"depth", "dead", "demo"}

    def test_backends_for_programs(self, capsys):
        """Both contracts, with claims."""
        assert run(["backends", "--json"]) == 0

        found = json.loads(capsys.readouterr().out)
        assert found["locks"]["sqlite"]["claims"]["fencing"] == "native"
        assert found["brokers"]["memory"]["claims"]["scope"] == "process"
        assert found["locks"]["sqlite"]["state"] == "installed"
        assert found["locks"]["sqlite"]["example"] == "sqlite:///shop.db"

    def test_backends_for_people(self, capsys):
        """A table."""
        assert run(["backends"]) == 0

        text = capsys.readouterr().out
        assert "guarantee" in text
        assert "sqlite" in text


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


def ticks(path):
    """What the ticker wrote: (time, what)."""
    return [(float(at), what) for at, what in (line.split() for line in Path(path).read_text().splitlines())]


def until(condition, timeout=15):
    """Wait for what no event tells: another process's file, another process's lock."""
    ends = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.005)
    return found


def boot():
    """The clock that leases are counted by."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@contextlib.contextmanager
def frozen(url):
    """Nobody can write to the database in this block."""
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as db:
        db.execute("PRAGMA busy_timeout=5000")
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")


class TestLock:
    """`narrowboat lock`."""

    def test_the_command_runs_under_the_lock(self, url, locks):
        """It sees its name and token, others see it, and afterwards the lock is free."""
        script = f"{sys.executable} -m narrowboat holders {url} a --json; echo $NARROWBOAT_LOCK $NARROWBOAT_TOKEN"

        code, out, err = call("lock", url, "a", "--label", "me", "--", "sh", "-c", script)

        held = json.loads(out.splitlines()[0])
        assert code == 0, err
        assert (held[0]["name"], held[0]["label"]) == ("a", "me")
        assert out.splitlines()[1] == f"a {held[0]['token']}"
        assert locks.holders() == []
        assert err == ""

    @pytest.mark.parametrize(
        ("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", 143), ("kill -KILL $$", 137), ("exit 255", 255)]
    )
    def test_the_exit_code_is_the_command_s(self, url, script, code):
        """Or 128 and the signal that ended it."""
        assert call("lock", url, "a", "--", "sh", "-c", script)[0] == code

    def test_a_command_that_is_not_there(self, url, tmp_path):
        """127 when it is not found, 126 when it cannot be executed; the lock is not even asked for."""
        (tmp_path / "data").write_text("no program")
        (tmp_path / "broken").write_text("#!/nowhere/at/all\n")
        (tmp_path / "broken").chmod(0o755)

        assert call("lock", url, "a", "--", "no-such-command")[::2] == (127, "narrowboat: no-such-command: command not found\n")
        assert call("lock", url, "a", "--", tmp_path / "data")[0] == 126
        assert call("lock", url, "a", "--", tmp_path / "broken")[0] == 127

    def test_standard_streams_are_the_command_s(self, url):
        """It reads ours and writes ours."""
        assert call("lock", url, "a", "--", "tr", "a-z", "A-Z", text="hello")[:2] == (0, "HELLO")

    def test_busy_after_the_timeout_is_75(self, url, locks):
        """And the command was never run."""
        with locks.lock("a"):
            code, out, err = call("lock", url, "a", "--timeout", "0.1", "--", "echo", "ran")

        assert (code, out) == (75, "")
        assert "still busy" in err

    def test_shared_and_limited_locks(self, url, locks):
        """--shared holds it with others that share, --limit with up to N."""
        with locks.lock("a", mode="shared"), locks.lock("b", limit=2):
            assert call("lock", url, "a", "--timeout", "0", "--shared", "--", "true")[0] == 0
            assert call("lock", url, "b", "--timeout", "0", "--limit", "2", "--", "true")[0] == 0
            assert call("lock", url, "b", "--timeout", "0", "--limit", "3", "--", "true")[0] == 2

    def test_it_waits_its_turn(self, url, locks):
        """Without --timeout for as long as it takes."""
        held = locks.lock("a").acquire()
        process = command("lock", url, "a", "-v", "--", "echo", "ran")
        until(lambda: locks.holders("a")[0].waiters)
        held.release()

        code, out, err = finish(process)

        assert (code, out) == (0, "ran\n")
        assert [line.split()[1] for line in err.splitlines()] == ["waiting", "holding", "released"]

    @pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1", "USR2", "QUIT", "WINCH"])
    def test_signals_reach_the_command(self, url, name):
        """Its whole process group; and its answer is our exit code."""
        script = f"trap 'exit 5' {name}; echo ready; while :; do sleep 0.02; done"
        process = command("lock", url, "a", "--", "sh", "-c", script)
        assert process.stdout.readline() == "ready\n"
        process.send_signal(getattr(signal, f"SIG{name}"))

        assert finish(process)[0] == 5

    def test_a_signal_ends_the_wait(self, url, locks):
        """With 128 and its number; nothing waits any more."""
        with locks.lock("a"):
            process = command("lock", url, "a", "--", "true")
            until(lambda: locks.holders("a")[0].waiters)
            process.terminate()

            assert finish(process)[0] == 143
            assert locks.holders("a")[0].waiters == 0

    def test_the_command_ends_before_a_lease_that_cannot_be_renewed(self, url, locks, tmp_path):
        """SIGTERM with the grace time left; its own exit code is not taken for success."""
        path = tmp_path / "ticks"
        process = command(
            "lock", f"{url}?timeout=0.2", "a", "--ttl", 1.5, "--grace", 0.4, "--", sys.executable, "-c", TICKER, path, "leave"
        )
        until(path.exists)
        with frozen(url):
            since = boot()
            process.wait(10)

        code, _, err = finish(process)
        (told, _), *_ = [tick for tick in ticks(path) if tick[1] == "TERM"]
        assert code == 79
        assert "could not be renewed" in err
        assert told < since + 1.5 - 0.2
        assert locks.lock("a").acquire(timeout=5).token

    def test_a_command_that_ignores_sigterm_is_killed_before_the_lease_ends(self, url, locks, tmp_path):
        """The last thing it did was within the lease."""
        path = tmp_path / "ticks"
        process = command(
            "lock", f"{url}?timeout=0.2", "a", "--ttl", 2, "--grace", 0.3, "--", sys.executable, "-c", TICKER, path, "ignore"
        )
        until(path.exists)
        with frozen(url):
            since = boot()
            process.wait(10)

        assert finish(process)[0] == 79
        assert ticks(path)[-1][0] < since + 2

    def test_the_whole_group_ends_with_the_lease(self, url, locks, tmp_path):
        """Also what the command has left behind in the background and that ignores SIGTERM."""
        path = tmp_path / "ticks"
        script = f"{sys.executable} -c '{TICKER}' {path} ignore & wait"
        process = command("lock", url, "a", "--ttl", 1.2, "--grace", 0.3, "--", "sh", "-c", script)
        until(path.exists)
        holder = locks.holders("a")[0]
        locks.evict("a", holder.token)

        assert finish(process)[0] == 79
        assert ticks(path)[-1][0] < boot() - 0.004

    def test_an_evicted_holder_s_command_is_ended(self, url, locks, tmp_path):
        """Within a renewal's time; and it is told why."""
        path = tmp_path / "ticks"
        process = command("lock", url, "a", "--ttl", 1.2, "--", sys.executable, "-c", TICKER, path, "leave")
        until(path.exists)

        assert run(["evict", url, "a", "--token", str(locks.holders("a")[0].token)]) == 0

        code, _, err = finish(process)
        assert code == 79
        assert "was lost" in err
        assert ticks(path)[-1][1] == "TERM"

    def test_killed_with_its_command(self, url, locks, tmp_path):
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

    def __init__(self, *arguments):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.execv(PROGRAM[0], [*PROGRAM, *map(str, arguments)])
            finally:
                os._exit(99)
        self.seen = b""

    def expect(self, text, timeout=15):
        """Read until `text` is there."""
        ends = time.monotonic() + timeout
        while text.encode() not in self.seen:
            ready, _, _ = select.select([self.fd], [], [], max(0, ends - time.monotonic()))
            assert ready, self.seen
            self.seen += os.read(self.fd, 4096)

    def type(self, text):
        """Press keys."""
        os.write(self.fd, text.encode())

    def exit_code(self):
        """Wait for the end."""
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


class TestTerminal:
    """`narrowboat lock` where people sit."""

    def test_the_command_reads_from_the_terminal(self, url):
        """Although it is in a process group of its own."""
        typist = Typist("lock", url, "a", "--", "sh", "-c", "echo ready; read line; echo got:$line; exit 4")
        typist.expect("ready")
        typist.type("hello\n")
        typist.expect("got:hello")

        assert typist.exit_code() == 4

    def test_ctrl_c_reaches_the_command(self, url):
        """And only it; we pass on how it ended."""
        typist = Typist("lock", url, "a", "--", "sh", "-c", "echo ready; exec sleep 30")
        typist.expect("ready")
        typist.type("\x03")

        assert typist.exit_code() == 130

    def test_ctrl_z_does_not_keep_the_lock_for_ever(self, url):
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

    def test_a_table_and_json(self, url, locks, capsys):
        """The same facts for both readers."""
        with locks.lock("a", label="me") as held:
            assert run(["holders", url]) == 0
            people = capsys.readouterr().out
            assert run(["holders", url, "a", "--json"]) == 0
            (programs,) = json.loads(capsys.readouterr().out)

        assert str(held.token) in people
        assert "\x1b" not in people
        assert programs["token"] == held.token

    def test_nobody(self, url, capsys):
        """An empty list for programs, a sentence for people."""
        assert run(["holders", url, "a"]) == 0
        assert capsys.readouterr().out == "nobody holds 'a'\n"
        assert run(["holders", url, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == []

    def test_evicting_nobody(self, url, capsys):
        """Is a failure."""
        assert run(["evict", url, "a", "--token", "1", "--json"]) == 1
        assert json.loads(capsys.readouterr().out) == {"evicted": False}
        assert run(["evict", url, "a", "--token", "1"]) == 1
        assert "nobody holds 'a' with token 1" in capsys.readouterr().err

    def test_the_url_from_the_environment(self, url, locks, monkeypatch, capsys):
        """Written as -."""
        monkeypatch.setenv("NARROWBOAT_LOCKS_URL", url)
        with locks.lock("a"):
            assert run(["holders", "-", "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)) == 1


class TestPublish:
    """`narrowboat publish`."""

    def test_lines_become_messages(self, url, broker):
        """Byte for byte, without their ends; an empty line is an empty message."""
        code, out, _ = call("publish", url, "q", "--key", "k", "--header", "v=1", text="a\n\nb\r\nc")

        assert (code, out) == (0, "published 4\n")
        with broker.queue("q").consume(idle=0) as messages:
            assert [(m.body, m.key, dict(m.headers)) for m in messages] == [
                (body, "k", {"v": "1"}) for body in (b"a", b"", b"b\r", b"c")
            ]

    def test_ndjson_beats_the_options(self, url, broker, tmp_path):
        """Line by line, from a file."""
        (tmp_path / "in").write_bytes(b'{"body": "a"}\n\n{"body_base64": "/w==", "key": "mine", "id": "x"}\n')

        assert run(["publish", url, "q", str(tmp_path / "in"), "--ndjson", "--key", "all"]) == 0

        with broker.queue("q").consume(idle=0) as messages:
            found = [(m.body, m.key) for m in messages]
        assert found == [(b"a", "all"), (b"\xff", "mine")]

    def test_a_whole_file_is_one_message(self, url, broker, tmp_path):
        """With its lines."""
        (tmp_path / "in").write_bytes(b"a\nb\n")

        assert run(["publish", url, "q", str(tmp_path / "in"), "--whole", "--id", "x"]) == 0

        assert broker.queue("q").depth().ready == 1

    def test_the_same_id_twice_is_a_duplicate(self, url, capsys, tmp_path):
        """Counted, and no failure."""
        (tmp_path / "in").write_bytes(b"a")
        arguments = ["publish", url, "q", str(tmp_path / "in"), "--id", "x", "--json"]

        assert (run(arguments), run(arguments)) == (0, 0)

        *_, last = capsys.readouterr().out.splitlines()
        assert json.loads(last) == {"published": 0, "failed": 0, "unknown": 0, "duplicates": 1}

    def test_a_malformed_line_stops_its_batch(self, url, broker):
        """All before that batch was published; the line's number is told, and so is what was published."""
        text = '{"body": "a"}\n{"body": "b"}\n{"body": "c"}\nnonsense\n'

        code, out, err = call("publish", url, "q", "--ndjson", "--batch", "2", "--json", text=text)

        assert code == 65
        assert json.loads(out)["published"] == 2
        assert "line 4: it is no JSON" in err
        assert "nothing from line 3 on was published" in err
        assert broker.queue("q").depth().ready == 2

    def test_an_argument_out_of_range_names_its_line(self, url, broker):
        """Whoever checks it: the library does."""
        code, _, err = call("publish", url, "q", "--ndjson", text='{"body": "a"}\n\n{"body": "b", "delay": -1}\n')

        assert code == 65
        assert "line 3: " in err
        assert "delay" in err
        assert broker.queue("q").depth().ready == 0

    def test_one_id_is_for_one_message(self, url):
        """A second one would silently be dropped."""
        code, _, err = call("publish", url, "q", "--id", "x", text="a\nb\n")

        assert code == 65
        assert "line 2: --id names one message" in err

    def test_to_a_topic(self, url, broker):
        """Every group gets it."""
        prices = broker.topic("prices").subscription("g")
        prices.declare()

        assert call("publish", url, "prices", "--topic", text="7\n")[0] == 0

        assert prices.depth().ready == 1

    def test_a_slow_writer_is_not_kept_waiting(self, url, broker):
        """What is on the pipe is published, although the input has not ended."""
        process = command("publish", url, "q", stdin=subprocess.PIPE)
        process.stdin.write("a\n")
        process.stdin.flush()

        with broker.queue("q").consume() as messages:
            message = messages.receive(timeout=10)
        assert message is not None
        assert message.body == b"a"
        assert finish(process)[0] == 0


class TestConsume:
    """`narrowboat consume`."""

    def test_what_is_written_is_acknowledged(self, url, broker):
        """And can be published again as it is."""
        queue = broker.queue("q")
        queue.publish(b"a", key="k", headers={"v": "1"}, id="x")
        queue.publish(b"\xff")

        code, out, err = call("consume", url, "q", "--idle", "0.05")

        assert (code, err) == (0, "")
        first, second = map(json.loads, out.splitlines())
        assert first == {**first, "id": "x", "body": "a", "key": "k", "headers": {"v": "1"}, "attempt": 1}
        assert second["body_base64"] == "/w=="
        assert (queue.depth().ready, queue.depth().in_flight) == (0, 0)
        assert call("publish", url, "other", "--ndjson", text=out)[0] == 0
        assert broker.queue("other").depth().ready == 2

    def test_count_takes_no_more(self, url, broker):
        """What is left is left for others."""
        queue = broker.queue("q")
        queue.publish_many([b"a", b"b", b"c"])

        code, out, _ = call("consume", url, "q", "--count", "2")

        assert (code, len(out.splitlines())) == (0, 2)
        assert (queue.depth().ready, queue.depth().in_flight) == (1, 0)

    def test_a_source_keeps_its_own_properties(self, url, broker):
        """They need not be repeated; what is asked for and differs is refused."""
        queue = broker.queue("q", lease=7, max_deliveries=3, ordered=True)
        queue.declare()
        queue.publish_many([b"a", b"b"])

        code, out, _ = call("consume", url, "q", "--count", "1")
        assert (code, len(out.splitlines())) == (0, 1)
        assert call("consume", url, "q", "--count", "1", "--lease", "7")[0] == 0
        code, out, err = call("consume", url, "q", "--count", "1", "--max-deliveries", "4")
        assert (code, out) == (2, "")
        assert "max_deliveries is 3 and was asked as 4" in err and "lease" not in err
        assert queue.depth() == (0, 0, 0, 0)

    def test_a_subscription(self, url, broker):
        """Of a topic, by its group."""
        broker.topic("prices").subscription("g").declare()
        broker.topic("prices").publish(b"7")

        assert json.loads(call("consume", url, "prices", "--group", "g", "--count", "1")[1])["body"] == "7"

    def test_a_reader_that_goes_away_costs_no_message(self, url, broker):
        """Nothing more is acknowledged, nothing is complained about."""
        queue = broker.queue("q")
        process = command("consume", url, "q")
        queue.publish(b"a")
        assert json.loads(process.stdout.readline())["body"] == "a"
        process.stdout.close()
        process.stdout = None
        queue.publish(b"b")

        code, _, err = finish(process)

        assert (code, err) == (141, "")
        assert [(m.body, m.attempt) for m in [queue.consume().__enter__().receive(10)]] == [(b"b", 2)]

    @pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
    def test_a_signal_ends_it_in_order(self, url, broker, signum, code):
        """What was written is acknowledged."""
        queue = broker.queue("q")
        process = command("consume", url, "q")
        queue.publish(b"a")
        process.stdout.readline()
        process.send_signal(signum)

        assert finish(process)[::2] == (code, "")
        assert (queue.depth().ready, queue.depth().in_flight) == (0, 0)

    def test_a_command_for_each_message(self, url, broker, tmp_path):
        """Body on its input, the rest in its environment; exit code 0 acknowledges."""
        queue = broker.queue("q")
        queue.publish(b"body", key="k", headers={"v": "1"}, id="x")
        seen = " ".join(f"$NARROWBOAT_MESSAGE_{name}" for name in ("ID", "KEY", "ATTEMPT", "SOURCE", "HEADERS"))
        script = f'cat; echo " {seen}"'

        code, out, err = call("consume", url, "q", "--count", "1", "--exec", script)

        assert (code, out, err) == (0, 'body x k 1 q {"v": "1"}\n', "")
        assert (queue.depth().ready, queue.depth().in_flight) == (0, 0)

    def test_a_command_that_fails_gives_the_message_back(self, url, broker):
        """With a delay; and after so many times it is a dead letter."""
        queue = broker.queue("q", max_deliveries=2)
        queue.publish(b"a")

        code, _, err = call("consume", url, "q", "--max-deliveries", "2", "--count", "2", "--exec", "exit 3")

        assert code == 0
        assert [line.split("attempt ")[1] for line in err.splitlines()] == ["1: exit code 3", "2: exit code 3"]
        assert queue.depth().dead == 1

    def test_several_commands_at_a_time(self, url, broker, tmp_path):
        """Each waits for the others: one after the other they would never end."""
        broker.queue("q").publish_many([b"a", b"b", b"c"])
        script = (
            f"touch {tmp_path}/$NARROWBOAT_MESSAGE_ID; while [ $(ls {tmp_path} | grep -vc shop) -lt 3 ]; do sleep 0.01; done"
        )

        assert call("consume", url, "q", "--count", "3", "--concurrency", "3", "--exec", script)[0] == 0

    def test_sigterm_lets_the_command_finish(self, url, broker, tmp_path):
        """And acknowledges; what was not begun stays."""
        queue = broker.queue("q")
        queue.publish_many([b"a", b"b"])
        script = f"echo ready; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; echo done"
        process = command("consume", url, "q", "--exec", script)
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        (tmp_path / "go").touch()

        assert finish(process)[:2] == (0, "done\n")
        assert (queue.depth().ready, queue.depth().in_flight) == (1, 0)


@pytest.fixture
def letter(broker):
    """A queue with one dead letter."""
    queue = broker.queue("q")
    queue.publish(b"a", id="x", key="k", headers={"v": "1"})
    with queue.consume() as messages:
        messages.receive(10).reject("no such item")
    return queue


class TestDead:
    """`narrowboat dead` and `narrowboat depth`."""

    def test_showing_takes_nothing_away(self, url, letter, capsys):
        """For programs and for people, as often as one likes."""
        assert run(["dead", url, "q", "--json"]) == 0
        (found,) = json.loads(capsys.readouterr().out)
        assert run(["dead", url, "q"]) == 0
        people = capsys.readouterr().out

        assert found == {**found, "id": "x", "reason": "no such item", "attempts": 1, "origin": "q", "headers": {"v": "1"}}
        assert "no such item" in people
        assert letter.depth().dead == 1

    def test_redriving(self, url, letter, capsys):
        """Back to where they came from."""
        assert run(["dead", url, "q", "--redrive", "--json"]) == 0

        assert json.loads(capsys.readouterr().out) == {"redriven": 1}
        assert (letter.depth().ready, letter.depth().dead) == (1, 0)

    def test_none(self, url, broker, capsys):
        """A sentence, or an empty list."""
        broker.queue("q").declare()

        assert run(["dead", url, "q"]) == 0
        assert "no dead letters" in capsys.readouterr().out

    def test_depth(self, url, letter, capsys):
        """For programs and for people."""
        letter.publish(b"b", delay=60)

        assert run(["depth", url, "q", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"ready": 0, "in_flight": 0, "delayed": 1, "dead": 1}
        assert run(["depth", url, "q"]) == 0
        assert "in flight" in capsys.readouterr().out
