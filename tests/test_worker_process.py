"""A worker as a process: real signals, a real exit code, a database that others see."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import narrowboat
from narrowboat.contract import Depth

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

HEAD = """
import asyncio, contextlib, os, signal, sys, threading, time
import narrowboat
from narrowboat import aio

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # in one piece, whichever thread says it
"""

SYNC = """
def still():
    return {forever} or worker.health().sources[0].state not in ("draining", "ended")

worker = narrowboat.Worker({url!r}, grace=600)
begun = []

@worker.queue("orders", concurrency=2)
def ship(message):
    say("orders", message.body.decode())
    while still():
        time.sleep(0.01)
    say("shipped")

@worker.queue("bills")
def bill(message):
    say("bills", message.body.decode())
    while still():
        time.sleep(0.01)
    say("billed")

@worker.subscription("prices", "page", batch=10)
def show(batch):
    say("prices", batch[0].body.decode())
    while {forever}:
        time.sleep(0.01)
"""

ASYNC = SYNC.replace("narrowboat.Worker", "aio.Worker").replace("time.sleep", "await asyncio.sleep")
ASYNC = re.sub("^def (ship|bill|show)", r"async def \1", ASYNC, flags=re.MULTILINE)
RUN = {"sync": SYNC + "worker.run()\nsay('over')\n", "asyncio": ASYNC + "asyncio.run(worker.run())\nsay('over')\n"}


class Program:
    """A program whose lines are read as they come."""

    def __init__(self, text: str, **variables: object) -> None:
        for name, value in variables.items():
            text = text.replace("{" + name + "!r}", repr(value)).replace("{" + name + "}", str(value))
        self.process = subprocess.Popen(
            [sys.executable, "-c", HEAD + textwrap.dedent(text)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def lines(self, count: int) -> set[str]:
        return {self.line() for _ in range(count)}

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def end(self) -> tuple[int, list[str], str]:
        """Exit code, the lines that were not read, what it complained of."""
        out, complaints = self.process.communicate(timeout=120)
        return self.process.returncode, out.split("\n")[:-1], complaints

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/shop.db"


@pytest.fixture
def broker(url: str) -> Iterator[narrowboat.Messaging]:
    with narrowboat.broker(url) as made:
        made.topic("prices").subscription("page").declare()
        made.queue("orders").publish_many([b"1", b"2", b"3"])
        made.queue("bills").publish(b"4")
        made.topic("prices").publish(b"5")
        yield made


@pytest.mark.parametrize("face", RUN)
def test_one_sigterm_drains_every_source(face: str, url: str, broker: narrowboat.Messaging) -> None:
    """Handlers that run finish and are acked; what was not begun goes back uncounted; the exit code is 0."""
    with Program(RUN[face], url=url, forever=False) as program:
        assert program.lines(4) == {"orders 1", "orders 2", "bills 4", "prices 5"}
        program.send(signal.SIGTERM)
        code, out, complaints = program.end()

    assert (code, sorted(out), complaints) == (0, ["billed", "over", "shipped", "shipped"], "")
    assert broker.queue("orders").depth() == Depth(1, 0, 0, 0)
    assert broker.queue("bills").depth() == Depth(0, 0, 0, 0)
    with broker.queue("orders").consume() as messages:
        message = messages.receive(timeout=60)
        assert message is not None and (message.body, message.attempt) == (b"3", 1)


@pytest.mark.parametrize("face", RUN)
def test_a_second_sigterm_ends_the_wait(face: str, url: str, broker: narrowboat.Messaging) -> None:
    """Handlers that would take ten minutes keep nobody, and their messages are others' at once."""
    text = RUN[face].replace("worker = ", "heard = []\nsignal.signal(signal.SIGTERM, lambda *_: say('heard'))\nworker = ", 1)
    with Program(text, url=url, forever=True) as program:
        assert program.lines(4) == {"orders 1", "orders 2", "bills 4", "prices 5"}
        program.send(signal.SIGTERM)
        assert program.line() == "heard"  # two at once are one to the system
        program.send(signal.SIGTERM)
        code, out, complaints = program.end()

    assert (code, out) == (0, ["heard", "over"])
    assert all(" has ended before " in line for line in complaints.splitlines())  # threads go on, tasks are cancelled
    assert broker.queue("orders").depth() == Depth(3, 0, 0, 0)
    assert broker.topic("prices").subscription("page").depth() == Depth(1, 0, 0, 0)


@pytest.mark.parametrize("face", RUN)
def test_ctrl_c_drains_and_is_raised(face: str, url: str, broker: narrowboat.Messaging) -> None:
    """As everywhere: KeyboardInterrupt, once the handlers have finished."""
    with Program(RUN[face], url=url, forever=False) as program:
        assert program.lines(4) == {"orders 1", "orders 2", "bills 4", "prices 5"}
        program.send(signal.SIGINT)
        code, out, complaints = program.end()

    assert (code, sorted(out)) == (-signal.SIGINT, ["billed", "shipped", "shipped"])
    assert complaints.rstrip().endswith("KeyboardInterrupt")
    assert broker.queue("orders").depth() == Depth(1, 0, 0, 0)


@pytest.mark.parametrize("face", RUN)
def test_a_source_that_fails_for_good_ends_the_process_with_its_error(
    face: str, url: str, broker: narrowboat.Messaging
) -> None:
    """What the others had begun is finished first."""
    broker.queue("odd", ordered=True).declare()
    text = RUN[face].replace('@worker.queue("bills")', '@worker.queue("odd")')
    with Program(text, url=url, forever=False) as program:
        code, _, complaints = program.end()

    assert code == 1 and "narrowboat.errors.Conflict" in complaints and "odd" in complaints


WITHIN = {
    "sync": SYNC
    + """
def mine(*_):
    say("mine")
    over.set()
over = threading.Event()
signal.signal(signal.SIGTERM, mine)
with worker:
    while signal.getsignal(signal.SIGTERM) is mine and not over.wait(0.01):
        pass
say("over", signal.getsignal(signal.SIGTERM) is mine)
""",
    "asyncio": ASYNC
    + """
def mine():
    say("mine")
    over.set()
async def main():
    global over
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, mine)
    before = signal.getsignal(signal.SIGTERM)
    async with worker:
        await over.wait()
    say("over", signal.getsignal(signal.SIGTERM) is before)
asyncio.run(main())
""",
}


@pytest.mark.parametrize("face", WITHIN)
def test_within_with_no_signal_is_touched(face: str, url: str, broker: narrowboat.Messaging) -> None:
    """It is the web server's: its handler is called, and leaving the block drains."""
    with Program(WITHIN[face], url=url, forever=False) as program:
        assert program.lines(4) == {"orders 1", "orders 2", "bills 4", "prices 5"}
        program.send(signal.SIGTERM)
        code, out, complaints = program.end()

    assert (code, out[0], out[-1], complaints) == (0, "mine", "over True", "")
    assert sorted(out[1:-1]).count("billed") == 1
    assert broker.queue("bills").depth() == Depth(0, 0, 0, 0)


def test_a_thread_that_hangs_does_not_keep_the_process(url: str, broker: narrowboat.Messaging) -> None:
    """Its message was given back when its time was up; the grace time ends the wait, and an error says which source it was."""
    text = SYNC.replace("grace=600", "grace=0.2").replace('"orders", concurrency=2', '"orders", timeout=0.1') + "worker.run()\n"
    with Program(text, url=url, forever=True) as program:
        while program.line() != "orders 1":
            pass
        program.send(signal.SIGTERM)
        code, _, complaints = program.end()

    assert code == 0, complaints
    assert broker.queue("bills").depth() == Depth(1, 0, 0, 0)


def test_asking_for_a_worker_is_what_imports_it() -> None:
    """`import narrowboat` has no part of it."""
    with Program(
        """
        say(sorted(name for name in sys.modules if "working" in name or name in ("logging", "inspect")))
        import narrowboat.aio
        say([name for name in sys.modules if "working" in name])
        say(narrowboat.Worker.__module__, narrowboat.aio.Worker.__module__, narrowboat.Retry is narrowboat.aio.Retry)
        """.replace("import narrowboat.aio\n", "import narrowboat.aio\n")
    ) as program:
        code, out, complaints = program.end()

    assert (code, complaints) == (0, "")
    assert out[1:] == ["[]", "narrowboat.working.worker narrowboat.aio.working.worker True"]
