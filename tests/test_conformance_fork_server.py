"""The fork server of the kit's children: whom it serves, when it ends, and what is left of it and of them."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from child_programs import HERE, exits, server_of, spoken, waits

from narrowboat.conformance.users import processes
from narrowboat.conformance.users.children import Child
from narrowboat.conformance.watch import watch


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
from child_programs import server_of, waits, exits

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
