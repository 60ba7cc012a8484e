"""Elections on both faces: who leads, who is told, what becomes of a leader that dies, hangs, raises or returns."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import narrowboat
from narrowboat import aio
from narrowboat._locks.possession import HELD
from narrowboat.clock import ManualClock
from narrowboat.electing import candidate
from narrowboat.electing.candidate import pause
from narrowboat.errors import AccessDenied, InvalidArgument, LeaseLost, LockTimeout, Reason, Unavailable
from narrowboat.layers.faults import Faults
from narrowboat.layers.passing import PassingLocks

FACES = {"sync": narrowboat, "asyncio": aio}


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}"


async def maybe(value: Any) -> Any:
    """What a call of either face gives."""
    return await value if asyncio.iscoroutine(value) else value


def function(face: str, plain: Callable[[Any], object], coroutine: Callable[[Any], Any] | None = None) -> Any:
    """A function for `run` of either face."""
    if face == "sync":
        return plain

    @functools.wraps(plain)
    async def made(term: Any) -> object:
        return await coroutine(term) if coroutine is not None else plain(term)

    return made


def waits(face: str) -> Any:
    """A function that works until its term is over, and says how it ended."""

    def plain(term: Any) -> None:
        term.wait()

    async def coroutine(term: Any) -> None:
        await term.wait()

    return function(face, plain, coroutine)


class Running:
    """`election.run` in a thread, on a loop of its own where that is needed."""

    def __init__(self, face: str, url: str, work: Any, wrap: Any = None, clock: Any = None, **options: Any) -> None:
        self.error: BaseException | None = None
        self.made: queue.Queue[Any] = queue.Queue()

        def body() -> None:
            try:
                if face == "sync":
                    with narrowboat.locks(url, wrap=wrap, clock=clock) as locks:
                        self.made.put(locks.elect("boss", **options))
                        self.election.run(work, signals=False)
                else:
                    asyncio.run(self._main(url, work, wrap, clock, options))
            except BaseException as error:
                self.error = error

        self.thread = threading.Thread(target=body)
        self.thread.start()

    async def _main(self, url: str, work: Any, wrap: Any, clock: Any, options: Any) -> None:
        async with aio.locks(url, wrap=wrap, clock=clock) as locks:
            self.made.put(locks.elect("boss", **options))
            await self.election.run(work, signals=False)

    @functools.cached_property
    def election(self) -> Any:
        return self.made.get(timeout=60)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *error: object) -> None:
        self.election.stop()
        self.thread.join(60)
        assert not self.thread.is_alive()


@pytest.fixture
def lines() -> Iterator[queue.Queue[str]]:
    """The lines of the log about elections: those of the locks below are told as well."""
    found: queue.Queue[str] = queue.Queue()

    class Log(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("election "):
                found.put(f"{record.levelname} {record.getMessage()}")

    handler, logger = Log(), logging.getLogger("narrowboat")
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


# -- a term in a with ---------------------------------------------------------------------------------------------


def test_one_leads_and_the_next_one_after_it(face: str, url: str) -> None:
    """Within `with election.term()` nobody else is elected; the token grows from term to term; `leader` says who it is."""

    async def main() -> None:
        told: list[tuple[str, int]] = []
        with contextlib.ExitStack() as stack:
            if face == "sync":
                locks: Any = stack.enter_context(narrowboat.locks(url))
            else:
                locks = aio.locks(url)
            election: Any = locks.elect("boss", label="first", on_elected=lambda term: told.append(("elected", term.token)))
            assert await maybe(election.leader()) is None

            async def lead(again: bool) -> int:
                if face == "sync":
                    with election.term() as term:
                        return await within(term, again)
                async with election.term() as term:
                    return await within(term, again)

            async def within(term: Any, again: bool) -> int:
                holder = await maybe(election.leader())
                assert (holder.name, holder.label, holder.token) == ("boss", "first", term.token)
                assert not term.over and not term.lost
                assert await maybe(term.wait(0)) is False and await maybe(term.wait_lost(0)) is False
                if again:
                    with pytest.raises(LockTimeout), narrowboat.locks(url) as others, others.elect("boss").term(timeout=0):
                        pass
                return int(term.token)

            first = await lead(True)
            assert await lead(False) > first
            assert told == [("elected", first), ("elected", first + 1)]
            await maybe(locks.close())

    asyncio.run(main())


def test_a_lost_term_is_over_and_its_with_says_so(url: str) -> None:
    """An evicted leader hears of it, by `wait`, `on_lost` and the error of the `with`."""
    lost: queue.Queue[Reason | None] = queue.Queue()
    with narrowboat.locks(url) as locks, narrowboat.locks(url) as operator:
        election = locks.elect("boss", ttl=0.2, on_lost=lambda term: lost.put(term.reason))
        with pytest.raises(LeaseLost), election.term() as term:
            assert operator.evict("boss", term.token)
            assert term.wait(60) and term.over and term.lost
        assert lost.get(timeout=60) is Reason.EVICTED


# -- run ----------------------------------------------------------------------------------------------------------


def test_run_calls_the_function_in_each_term(face: str, url: str) -> None:
    """After a lost term it is called again with a greater token; `stop` asks it to return, and `run` returns."""
    tokens: queue.Queue[int] = queue.Queue()
    returned: queue.Queue[bool] = queue.Queue()

    def plain(term: Any) -> None:
        tokens.put(term.token)
        term.wait()
        returned.put(term.lost)

    async def coroutine(term: Any) -> None:
        tokens.put(term.token)
        try:
            await term.wait()
        finally:
            returned.put(term.lost)

    with Running(face, url, function(face, plain, coroutine), ttl=0.3) as running, narrowboat.locks(url) as operator:
        first = tokens.get(timeout=60)
        assert operator.evict("boss", first)
        assert returned.get(timeout=60) is True
        assert tokens.get(timeout=60) > first
    assert returned.get(timeout=60) is False
    assert running.error is None and tokens.empty()


def test_a_function_in_a_task_is_cancelled_when_its_term_is_lost(url: str) -> None:
    """Whatever it awaits."""
    tokens: queue.Queue[int] = queue.Queue()

    async def forever(term: Any) -> None:
        tokens.put(term.token)
        await asyncio.Event().wait()

    with Running("asyncio", url, forever, ttl=0.3) as running, narrowboat.locks(url) as operator:
        assert operator.evict("boss", tokens.get(timeout=60))
        tokens.get(timeout=60)
        running.election.stop()
        for each in tuple(running.election._running):
            each.hurry()  # as a second signal
    assert running.error is None


def test_a_function_in_a_thread_that_does_not_return_is_told_of(
    url: str, lines: queue.Queue[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread cannot be cancelled: the log says that it hangs, and the process does not stand again before it has ended."""
    monkeypatch.setattr(candidate, "HANGS", 0.05)
    tokens: queue.Queue[int] = queue.Queue()
    go = threading.Event()

    def hangs(term: Any) -> None:
        tokens.put(term.token)
        go.wait(60)

    with Running("sync", url, hangs, ttl=0.3) as running, narrowboat.locks(url) as others:
        assert others.evict("boss", tokens.get(timeout=60))
        assert lines.get(timeout=60) == "ERROR election 'boss': its term is lost for 0.05 s, and its function has not returned"
        assert next(iter(running.election._running)).hung
        with others.elect("boss").term(timeout=60):  # another one leads meanwhile
            assert tokens.empty()
        go.set()
        tokens.get(timeout=60)


def test_a_function_that_raises_is_called_again_after_a_pause(
    face: str, url: str, lines: queue.Queue[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is in the log, and the lock is free meanwhile."""
    monkeypatch.setattr(candidate, "PAUSE_BASE", 0.01)
    calls: queue.Queue[int] = queue.Queue()

    def raises(term: Any) -> None:
        calls.put(term.token)
        raise OSError("the index is away")

    with Running(face, url, function(face, raises)) as running:
        assert calls.get(timeout=60) < calls.get(timeout=60)
        assert lines.get(timeout=60) == "ERROR election 'boss': its function or a callback raised, and has another term"
    assert running.error is None


def test_a_function_that_returns_lets_another_process_lead(face: str, url: str) -> None:
    """The term ends, and the next one of the same process comes after a pause."""
    clock = ManualClock()
    calls: queue.Queue[int] = queue.Queue()

    def returns(term: Any) -> None:
        calls.put(term.token)

    with Running(face, url, function(face, returns), clock=clock) as running, narrowboat.locks(url, clock=clock) as others:
        calls.get(timeout=60)
        with others.elect("boss").term(timeout=60):
            pass
        until(lambda: next(iter(running.election._running)).phase == "paused")
        assert calls.empty()
        clock.advance(candidate.REST)
        calls.get(timeout=60)


def until(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends, "it did not come about within a minute"
        time.sleep(0.005)


def test_a_backend_that_is_away_is_waited_for(face: str, url: str, lines: queue.Queue[str]) -> None:
    """One line of the log, and a term when it is back."""
    faults = Faults()
    faults.fail("attempt", Unavailable("away"), times=5)
    elected = threading.Event()
    with Running(face, url, function(face, lambda term: elected.set()), wrap=faults.wrap):
        assert elected.wait(60)
    assert lines.get(timeout=60) == "WARNING election 'boss': the backend does not answer, and is asked again: away"
    assert lines.empty()


def test_a_grant_that_came_too_late_is_stood_for_again(face: str, url: str, lines: queue.Queue[str]) -> None:
    """The process stood still during its acquire: it did not lead, and stands again."""
    clock, terms = ManualClock(), queue.Queue[bool]()

    class Slow(PassingLocks):
        slow = True

        def attempt(self, requests: Any) -> Any:
            answers = super().attempt(requests)
            if self.slow:
                self.slow = False
                clock.advance(31)
            return answers

    with Running(face, url, function(face, lambda term: terms.put(term.lost)), wrap=Slow, clock=clock, ttl=30) as running:
        until(lambda: any(clock() < each.resumes < math.inf for each in tuple(running.election._running)))
        clock.advance(1)
        assert terms.get(timeout=60) is False
    assert running.error is None
    assert lines.get(timeout=60).startswith("WARNING election 'boss': its grant came too late, because this process")
    assert lines.empty()


def test_a_second_signal_leaves_a_function_in_a_thread_behind(url: str, lines: queue.Queue[str]) -> None:
    """`run` returns though the function does not: nothing can end a thread."""
    clock, begun, go = ManualClock(), threading.Event(), threading.Event()

    def hangs(term: Any) -> None:
        begun.set()
        go.wait(120)

    with Running("sync", url, hangs, clock=clock) as running:
        assert begun.wait(60)
        running.election.stop()
        for each in tuple(running.election._running):
            each.hurry()
        clock.advance(candidate.LEAVING)
        running.thread.join(60)
        try:
            assert not running.thread.is_alive()
        finally:
            go.set()
            clock.advance(candidate.CLOSING)
    assert running.error is None
    assert lines.get(timeout=60) == "ERROR election 'boss': its function has not returned within the grace time"


def test_a_function_that_is_hurried_twice_cleans_up_within_its_term(url: str) -> None:
    """It is cancelled once: its term is held until it has returned."""
    begun, held = threading.Event(), queue.Queue[bool]()

    async def cleans(term: Any) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            for each in tuple(running.election._running):
                each.hurry()
            for _ in range(20):
                await asyncio.sleep(0)
            held.put(term._state is HELD)

    with Running("asyncio", url, cleans) as running:
        assert begun.wait(60)
        running.election.stop()
        for each in tuple(running.election._running):
            each.hurry()
        assert held.get(timeout=60)
    assert running.error is None


def test_a_run_that_is_cancelled_ends_after_its_function(url: str) -> None:
    """And after its term."""
    ended: list[str] = []

    async def main() -> None:
        async with aio.locks(url) as locks:
            begun = asyncio.Event()

            async def cleans(term: Any) -> None:
                begun.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    for _ in range(20):
                        await asyncio.sleep(0)
                    ended.append("function")

            election = locks.elect("boss")
            task = asyncio.create_task(election.run(cleans, signals=False))
            await asyncio.wait_for(begun.wait(), 60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 60)
            ended.append("run")
            assert await election.leader() is None

    asyncio.run(main())
    assert ended == ["function", "run"]


def test_what_cannot_be_tried_again_ends_the_run(face: str, url: str) -> None:
    """`AccessDenied` is raised by `run`."""

    faults = Faults()
    faults.fail("attempt", AccessDenied("no right"))
    with Running(face, url, waits(face), wrap=faults.wrap) as running:
        running.thread.join(60)
    assert isinstance(running.error, AccessDenied)


def test_a_candidate_that_waits_stops_at_once_and_leaves_the_line(face: str, url: str) -> None:
    """Nothing waits afterwards: the next one in line is somebody else."""
    with narrowboat.locks(url) as locks, locks.elect("boss").term():
        with Running(face, url, waits(face)):
            until(lambda: locks.holders("boss")[0].waiters == 1)
        assert locks.holders("boss")[0].waiters == 0


@pytest.mark.parametrize("wrong", [None, 3, "index"])
def test_what_is_no_function_is_refused(face: str, url: str, wrong: Any) -> None:
    """So is a function of the other face, a generator, and a callback that is a coroutine function."""

    async def coroutine(term: Any) -> None: ...

    def generator(term: Any) -> Iterator[int]:
        yield 1

    async def main() -> None:
        locks = FACES[face].locks(url)
        election = locks.elect("boss")
        for each in (wrong, generator, coroutine if face == "sync" else (lambda term: None)):
            with pytest.raises(InvalidArgument):
                await maybe(election.run(each))
        with pytest.raises(InvalidArgument):
            await maybe(election.run(waits(face), grace=-1))
        for callback in ("on_elected", "on_lost"):
            with pytest.raises(InvalidArgument, match=callback):
                locks.elect("boss", **{callback: coroutine})
        for name in ("", "a\nb"):
            with pytest.raises(InvalidArgument):
                locks.elect(name)
        with pytest.raises(InvalidArgument):
            locks.elect("boss", ttl=-1)
        await maybe(locks.close())

    asyncio.run(main())


def test_the_pause_grows_up_to_a_minute_and_has_jitter() -> None:
    """After a loss there is none."""
    assert pause(OSError(), lost=False, failures=1, random=lambda: 0.0) == 0.5
    assert pause(OSError(), lost=True, failures=70, random=lambda: 1.0) == 60.0
    assert pause(None, lost=True, failures=0, random=lambda: 1.0) == 0.0


# -- processes ----------------------------------------------------------------------------------------------------

PROGRAM = """
import os, sys, asyncio
import narrowboat
from narrowboat import aio

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def index(term):
    say("leads", term.token)
    term.wait()
    say("lost" if term.lost else "asked")

async def aindex(term):
    say("leads", term.token)
    try:
        await term.wait()
    finally:
        say("lost" if term.lost else "asked")

async def main():
    async with aio.locks(sys.argv[2]) as locks:
        await locks.elect("indexer", ttl=1).run(aindex)

if sys.argv[1] == "sync":
    with narrowboat.locks(sys.argv[2]) as locks:
        locks.elect("indexer", ttl=1).run(index)
else:
    asyncio.run(main())
say("over")
"""


class Leader:
    def __init__(self, face: str, url: str) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", PROGRAM, face, url], stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def __enter__(self) -> Leader:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def test_a_leader_that_is_killed_stopped_or_asked_is_replaced(face: str, tmp_path: Path) -> None:
    """kill -9 and SIGSTOP: by the end of the lease, and who was stopped knows it when it goes on. SIGTERM: at once."""
    url = f"sqlite:///{tmp_path}/shop.db"
    with Leader(face, url) as first:
        token = int(first.line().removeprefix("leads "))
        with Leader(face, url) as second, Leader(face, url) as third:
            first.send(signal.SIGKILL)
            with narrowboat.locks(url) as locks:
                election = locks.elect("indexer")
                until(lambda: (leader := election.leader()) is not None and leader.token > token)
                leader = election.leader()
                assert leader is not None
                now = second if leader.label.endswith(f":{second.process.pid}") else third
                other = third if now is second else second
                assert now.line() == f"leads {leader.token}"
                now.send(signal.SIGSTOP)
                until(lambda: (again := election.leader()) is not None and again.token > leader.token)
                assert int(other.line().removeprefix("leads ")) > leader.token
                now.send(signal.SIGCONT)
                assert now.line() == "lost"
                other.send(signal.SIGTERM)
                assert (other.line(), other.line()) == ("asked", "over")
                assert now.line().startswith("leads ")
                now.send(signal.SIGTERM)
                assert (now.line(), now.line(), now.process.wait(60)) == ("asked", "over", 0)
