"""The kit's child processes: what they are given, who can see it, and that a fork is as a process that was started."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from narrowboat.conformance.users import processes
from narrowboat.conformance.users.child import Link
from narrowboat.conformance.users.children import Child
from narrowboat.conformance.watch import watch

HERE = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}


def spoken(talk: Callable[[Child], Awaitable[Any]], program: Callable[..., Any], **arguments: Any) -> Any:
    """What `talk` returns, in an event loop of its own, with a child that runs `program`."""

    async def run() -> Any:
        child = await Child.start(program, arguments, watch(), HERE)
        try:
            return await talk(child)
        finally:
            await child.close()

    return asyncio.run(run())


def server_of(child: Child) -> int:
    """The process id of its fork server."""
    return child._process._server.process.pid


async def exit_of(child: Child) -> int:
    return await child.exit()


# -- programs of children -----------------------------------------------------------------------------------------


def echo(link: Link, url: str, number: int) -> None:
    """Tell what came, then wait."""
    link.tell("got", url=url, number=number)
    link.tell("told", value=link.wait("go")["value"])


def exits(link: Link, code: int) -> None:
    """End by an exit code."""
    sys.exit(code)


def waits(link: Link) -> None:
    """Tell, and wait for a word or a signal."""
    link.tell("waiting")
    link.wait("go")


class _Last:
    def __del__(self) -> None:
        os.write(2, b"finalised\n")


def ends_well(link: Link) -> None:
    """Leave an atexit handler, a text that is not flushed, and an object to the finalisation."""
    atexit.register(os.write, 2, b"atexit\n")
    sys.modules[__name__].kept = _Last()  # type: ignore[attr-defined]
    sys.stderr.write("no newline")
    print("printed")


def looks(link: Link) -> None:
    """Tell what a process finds at its start."""
    streams = [(sys.stdin, sys.__stdin__), (sys.stdout, sys.__stdout__), (sys.stderr, sys.__stderr__)]
    link.tell(
        "seen",
        streams=[
            [
                *(stream.name, stream.mode, stream.fileno(), stream.encoding, stream.errors, stream.line_buffering),
                *(stream.write_through, stream.newlines, type(stream.buffer).__name__, stream is other, repr(stream)),
            ]
            for stream, other in streams
        ],
        signals=[f"{number!r} {signal.getsignal(number)}" for number in sorted(signal.valid_signals())],
        blocked=sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        wakeup=signal.set_wakeup_fd(-1),
        argv=sys.argv,
        whole=sys.orig_argv,
        path=sys.path,
        folder=os.getcwd(),
        environment={name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
        files=sorted(os.listdir("/proc/self/fd"), key=int),
        pipes=[os.readlink(f"/proc/self/fd/{number}").partition(":")[0] for number in range(3)],
        threads=sorted(thread.name for thread in threading.enumerate()),
        native=len(os.listdir("/proc/self/task")),
        flags=repr(sys.flags),
        main=sys.modules["__main__"].__spec__.name if sys.modules["__main__"].__spec__ else None,
        groups=[os.getpgid(0), os.getsid(0)],
        strange=[name for name in sys.modules if name.endswith((".processes", ".children"))],
    )


def tells_variable(link: Link, name: str) -> None:
    """Tell a variable and the directory, as the process and as a program that it starts see them."""
    code = "import os, sys; print(os.environ.get(sys.argv[1]), os.getcwd())"
    inner = subprocess.run(
        [sys.executable, "-c", code, name], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
    )
    link.tell("variable", own=f"{os.environ.get(name)} {os.getcwd()}", inner=inner.stdout.strip())


# -- the link -----------------------------------------------------------------------------------------------------


def test_a_childs_arguments_are_not_on_its_command_line() -> None:
    """Every user of the machine can read that, and a URL has a password. What is said later comes in order behind them."""

    async def talk(child: Child) -> Any:
        child.tell("go", value="x")
        got = await child.event("got")
        with open(f"/proc/{child.pid}/cmdline", "rb") as file:
            line = file.read()
        return got, await child.event("told"), line, await child.exit()

    got, told, line, code = spoken(talk, echo, url="redis://:hunter2@h/0", number=7)

    assert (got["url"], got["number"], told["value"], code) == ("redis://:hunter2@h/0", 7, "x", 0)
    assert b"narrowboat.conformance.users.child" in line
    assert b"hunter2" not in line


# -- a fork is as a process that was started ------------------------------------------------------------------------


@pytest.mark.parametrize("early", [{}, {"PYTHONUNBUFFERED": "1"}, {"PYTHONIOENCODING": "latin-1:replace"}], ids=str)
def test_a_child_finds_what_a_started_process_finds(early: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams, signals, arguments, paths, variables, descriptors, threads."""
    for name, value in early.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "narrowboat.conformance.users.child", f"{__name__}:looks"]
    with subprocess.Popen(
        command, env={**os.environ, **HERE}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as started:
        assert started.stdin is not None
        assert started.stdout is not None
        started.stdin.write(b"{}\n")
        started.stdin.flush()
        wanted = json.loads(started.stdout.readline())

    async def talk(sibling: Child) -> dict[str, Any]:
        await sibling.event("waiting")  # none of its descriptors is the other's
        child = await Child.start(looks, {}, watch(), HERE)
        try:
            return await child.event("seen")
        finally:
            await child.close()

    seen = spoken(talk, waits)

    assert seen["groups"] == wanted["groups"]
    assert {**seen, "at": 0} == {**wanted, "at": 0}


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_an_exit_code_is_told(code: int) -> None:
    assert spoken(exit_of, exits, code=code) == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGABRT])
def test_the_signal_that_ended_it_is_told(number: signal.Signals) -> None:
    """As a negative exit code. SIGINT is Python's KeyboardInterrupt, which ends the process by that signal."""

    async def talk(child: Child) -> int:
        await child.event("waiting")
        child._signal(number)
        return await child.exit()

    assert spoken(talk, waits) == -number


def test_a_stopped_child_stands_and_goes_on() -> None:
    async def talk(child: Child) -> int:
        await child.event("waiting")
        child.stop()
        with open(f"/proc/{child.pid}/stat", encoding="ascii") as stat:
            assert stat.read().rpartition(")")[2].split()[0] == "T"
        child.resume()
        child.tell("go")
        return await child.exit()

    assert spoken(talk, waits) == 0


def test_a_child_ends_as_python_ends() -> None:
    """Its atexit handlers run, its streams are flushed, and the interpreter is finalised; once."""

    async def talk(child: Child) -> int:
        code = await child.exit()
        await child.close()
        assert sorted(child.errors.decode().replace("no newline", "no newline\n").split("\n")) == [
            *("", "atexit", "finalised", "no newline", "printed"),
        ]
        return code

    assert spoken(talk, ends_well) == 0


def test_nothing_signals_a_child_that_has_ended() -> None:
    """Its process id stays its own until the runner knows the end. Then a signal is sent nowhere."""

    async def talk(child: Child) -> int:
        await child.event("waiting")
        with open(f"/proc/{child.pid}/stat", encoding="ascii") as stat:
            os.kill(child.pid, signal.SIGKILL)
            while stat.read().rpartition(")")[2].split()[0] != "Z":  # this loop stands: the runner cannot know yet
                stat.seek(0)
        child.stop()
        child.kill()
        code = await child.exit()
        child.kill()
        return code

    assert spoken(talk, waits) == -signal.SIGKILL


def test_variables_and_the_directory_are_those_of_the_moment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The runner's, changed behind its first child."""
    for value in ("first", "secönd"):
        folder = tmp_path / value
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setenv("KIT_TRIES", value)
        told = spoken(lambda child: child.event("variable"), tells_variable, name="KIT_TRIES")
        assert told["own"] == told["inner"] == f"{value} {folder}"


# -- the server ---------------------------------------------------------------------------------------------------


def test_children_of_one_kind_have_one_server_and_another_kind_ends_it() -> None:
    async def talk() -> None:
        first, second = [await Child.start(waits, {}, watch(), HERE) for _ in range(2)]
        assert server_of(first) == server_of(second)
        assert os.getpid() not in (server_of(first), first.pid)
        other = await Child.start(waits, {}, watch(), {**HERE, "KIT_TRIES": "1"})
        assert server_of(other) != server_of(first)
        assert alive(server_of(first))
        for child in (first, second):
            await child.close()
        third = await Child.start(waits, {}, watch(), {**HERE, "KIT_TRIES": "2"})
        assert not alive(server_of(first))
        await other.close()
        await third.close()

    asyncio.run(talk())


def alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def test_a_backend_that_begins_a_thread_is_not_forked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork would lose the thread. The child is a process of its own start, with all that was asked for."""
    (tmp_path / "begins_a_thread.py").write_text(
        textwrap.dedent("""\
            import os, sys, threading
            thread = threading.Thread(target=threading.Event().wait, daemon=True)
            thread.start()

            def program(link, number):
                names = [each.name for each in threading.enumerate()]
                link.tell("seen", alive=thread.is_alive(), argv=sys.argv[1:], number=number, value=os.environ["KIT_TRIES"],
                    line=open("/proc/self/cmdline").read(), files=sorted(os.listdir("/proc/self/fd")), threads=len(names))
                sys.exit(9)
            """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("KIT_TRIES", "a value")
    from begins_a_thread import program  # type: ignore[import-not-found]  # made above

    async def talk() -> tuple[dict[str, Any], int]:
        child = await Child.start(program, {"number": 5}, watch(), {"PYTHONPATH": os.pathsep.join(sys.path)})
        try:
            return await child.event("seen"), await child.exit()
        finally:
            await child.close()

    for _ in range(2):
        seen, code = asyncio.run(talk())
        assert (seen["alive"], seen["number"], seen["value"], seen["threads"], code) == (True, 5, "a value", 3, 9)
        assert seen["argv"] == ["begins_a_thread:program"]
        assert seen["line"].split("\0")[1:4] == ["-m", "narrowboat.conformance.users.child", "begins_a_thread:program"]
        assert seen["files"] == sorted(["0", "1", "2", "3", "4"])  # 3: the link's; 4: the listing


def test_many_at_once_from_several_event_loops_leave_nothing() -> None:
    """Each of fifty is told its own exit code. No descriptor and no process stays."""

    async def several(first: int) -> list[int]:
        children = await asyncio.gather(*(Child.start(exits, {"code": first + n}, watch(), HERE) for n in range(10)))
        try:
            return await asyncio.gather(*(child.exit(60) for child in children))
        finally:
            await asyncio.gather(*(child.close() for child in children))

    server = spoken(lambda child: _now(server_of(child)), waits)
    before = os.listdir("/proc/self/fd")
    with ThreadPoolExecutor(5) as pool:
        codes = list(pool.map(lambda first: asyncio.run(several(first)), range(0, 50, 10)))

    assert codes == [list(range(first, first + 10)) for first in range(0, 50, 10)]
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert spoken(lambda child: _now(server_of(child)), waits) == server
    until_gone([int(pid) for pid in Path(f"/proc/{server}/task/{server}/children").read_text().split()])


async def _now(value: int) -> int:
    return value


def until_gone(pids: list[int]) -> None:
    """Wait for the end of processes that are not ours."""
    for pid in pids:
        try:
            end = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        ended, _, _ = select.select([end], [], [], 30)
        os.close(end)
        assert ended, f"{pid} lives"


def test_a_server_that_was_killed_is_missed_once() -> None:
    """Who waits for its child is told so, and the next child has a new server."""

    async def talk(child: Child) -> int:
        await child.event("waiting")
        os.kill(server_of(child), signal.SIGKILL)
        with pytest.raises(processes.ServerGone, match="fork server"):
            await child.exit()
        return server_of(child)

    async def run() -> int:
        child = await Child.start(waits, {}, watch(), HERE)
        gone = await talk(child)
        with pytest.raises(processes.ServerGone):
            await child.close()
        return gone

    gone = asyncio.run(run())

    assert spoken(lambda child: _now(server_of(child)), waits) != gone


RUNNER = """
import asyncio, os, sys
from narrowboat.conformance.users.children import Child
from narrowboat.conformance.watch import watch
from test_conformance_child import server_of, waits, exits

async def started():
    child = await Child.start(waits, {}, watch(), {})
    await child.event("waiting")
    return child

async def both():
    child = await started()
    return server_of(child), child.pid
"""


def runner(text: str) -> subprocess.Popen[str]:
    """A runner of its own, that may be killed."""
    return subprocess.Popen(
        [sys.executable, "-c", RUNNER + textwrap.dedent(text)],
        env={**os.environ, **HERE},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_runner_leaves_neither_server_nor_child(number: signal.Signals) -> None:
    text = """
        async def main():
            child = await started()
            print(server_of(child), child.pid, flush=True)
            sys.stdin.read()
        asyncio.run(main())
        """
    with runner(text) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        assert len(pids) == 2
        process.send_signal(number)
        process.wait()
        until_gone(pids)


def test_a_fork_of_the_runner_has_a_server_of_its_own() -> None:
    """It neither asks its parent's nor keeps it alive. Both go on."""
    text = """
        import select
        async def code():
            child = await Child.start(exits, {"code": 3}, watch(), {})
            try:
                return server_of(child), await child.exit()
            finally:
                await child.close()

        before, _ = asyncio.run(code())
        fork = os.fork()
        if fork == 0:
            mine, ended = asyncio.run(code())
            print(mine != before, ended, flush=True)
            os.read(0, 1)  # lives longer than its parent
            os._exit(0)
        print(asyncio.run(code()) == (before, 3), fork, before, flush=True)
        os.waitpid(fork, 0)
        """
    with runner(text) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        lines = sorted(process.stdout.readline().split() for _ in range(2))
        (own, code), (same, fork, server) = sorted(lines, key=len)
        assert (own, code, same) == ("True", "3", "True")
        process.kill()
        process.wait()
        until_gone([int(server)])
        assert alive(int(fork))
        process.stdin.close()
        until_gone([int(fork)])


def test_a_run_that_ends_leaves_no_word_and_no_server() -> None:
    """Not even with every warning shown."""
    text = """
        async def main():
            child = await started()
            await child.close()
            print(server_of(child))
        asyncio.run(main())
        """
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", RUNNER + textwrap.dedent(text)],
        env={**os.environ, **HERE},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert not alive(int(done.stdout))
