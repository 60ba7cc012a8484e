"""Schedules and elections of a worker, on both faces: once in the fleet, after an outage, what fails, what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import queue
import subprocess
import sys
import threading
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fleet
import pytest
from test_worker import FACES, living, logged, make, register, state, until

import narrowboat
from narrowboat import Retry, Tick, events
from narrowboat.clock import ManualClock
from narrowboat.electing import candidate
from narrowboat.errors import ConfigurationError, InvalidArgument, Unavailable, Unsupported
from narrowboat.layers.faults import Faults
from narrowboat.working.answers import exposition

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}"


class Clock(ManualClock):
    """A clock of the test's, and the wall clock that goes with it."""

    def wall(self) -> float:
        return EPOCH.timestamp() + self() - 1000.0


def ticking(face: str, url: str, clock: Clock, every: Any, ticks: queue.Queue[Any], **options: Any) -> Any:
    """A worker with one schedule, `often`, whose ticks go to a queue. No lease ends where the clock is moved by an hour."""
    worker = make(face, url, clock=clock, now=clock.wall)
    register(worker.every(every, name="often", lease=7200, **options), face, ticks.put)
    return worker


def ready(worker: Any) -> None:
    until(lambda: worker.health().ready)


def caught_up(workers: list[Any], number: int) -> bool:
    """Each has published that many ticks, and together they have handled so many."""
    health = [worker.health().sources for worker in workers]
    return sum(each[0].handled for each in health) == number and [each[1].handled for each in health] == [number] * 3


def settled(worker: Any, handled: int) -> None:
    """Nothing is in a handler."""
    owing = [source for source in worker.health().sources if source.source.endswith(".owed")]
    until(lambda: worker.health().sources[0].handled == handled)
    if owing:
        until(lambda: worker.health().sources[1].handled == handled)


def seconds(tick: Tick) -> float:
    return (tick.instant - EPOCH).total_seconds()


# -- once in the fleet --------------------------------------------------------------------------------------------


def test_a_tick_runs_once_in_three_workers(url: str) -> None:
    """A thousand of them, on both faces at the same time: none is missed and none is doubled."""
    clock, ticks = Clock(), queue.Queue[Tick]()
    workers = [(face, ticking(face, url, clock, 1, ticks)) for face in ("sync", "asyncio", "sync")]
    with contextlib.ExitStack() as stack:
        for face, worker in workers:
            stack.enter_context(living(worker, face))
            ready(worker)
        for number in range(1, 1001):
            clock.advance(1)
            tick = ticks.get(timeout=60)
            assert (seconds(tick), tick.attempt, tick.schedule) == (number, 1, "often")
            if number % 20 == 0:  # by this clock ends the time in which a tick may be published as well
                until(functools.partial(caught_up, [worker for _, worker in workers], number))
    assert ticks.empty()


@pytest.mark.parametrize("missed", ["skip", "once"])
def test_a_fleet_whose_processes_are_killed_misses_and_doubles_no_tick(tmp_path: Path, missed: Any) -> None:
    """What a killed process had runs again, and says so."""
    found = fleet.rehearse(f"sqlite:///{tmp_path}/fleet.db", 50, tmp_path / "record", missed)
    assert (found.due, found.missed, found.doubled) == (50, [], [])
    assert found.killed > 0


def test_a_tick_says_what_it_is(face: str, url: str) -> None:
    """Its instant is in the schedule's time zone; its identity is in UTC, the same for each attempt."""
    pytest.importorskip("cronsim")
    clock, ticks = Clock(), queue.Queue[Tick]()
    worker = make(face, url, clock=clock, now=clock.wall)

    def nightly(tick: Tick) -> None:
        ticks.put(tick)
        if tick.attempt == 1:
            raise OSError("the disk is full")

    register(worker.every("30 2 * * *", tz="Europe/Berlin", retry=Retry(first=1, jitter=0)), face, nightly)
    with living(worker, face):
        ready(worker)
        clock.advance(1.5 * 3600)
        first = ticks.get(timeout=60)
        until(lambda: worker.health().sources[0].failed == 1)
        clock.advance(1)
        second = ticks.get(timeout=60)
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.instant == second.instant == EPOCH + timedelta(hours=1.5)
    assert first.instant.isoformat() == "2026-01-01T02:30:00+01:00"
    assert first.identity == second.identity == "nightly@2026-01-01T01:30:00Z"


def test_jitter_comes_on_top(face: str, url: str) -> None:
    """The instant is the schedule's; the tick comes later."""
    clock, ticks = Clock(), queue.Queue[Tick]()
    worker = make(face, url, clock=clock, now=clock.wall, random=lambda: 0.5)
    register(worker.every(60, name="often", jitter=20), face, ticks.put)
    with living(worker, face), narrowboat.broker(url, clock=clock) as broker:
        ready(worker)
        clock.advance(60)
        until(lambda: broker.queue("schedule.often").depth().delayed == 1)
        clock.advance(9.9)
        assert ticks.empty()
        clock.advance(0.2)
        assert seconds(ticks.get(timeout=60)) == 60


@pytest.mark.parametrize("missed", ["skip", "once"])
def test_a_wall_clock_that_was_ahead_silences_no_schedule(face: str, url: str, missed: Any) -> None:
    """It goes on from the time that the clock was set back to, and says so once."""
    clock, ticks, ahead = Clock(), queue.Queue[Tick](), [86400.0]
    worker = make(face, url, clock=clock, now=lambda: clock.wall() + ahead[0])
    register(worker.every(60, name="often", lease=7200, missed=missed), face, ticks.put)
    with logged() as log, living(worker, face):
        ready(worker)
        clock.advance(60)
        assert seconds(ticks.get(timeout=60)) == 86460
        ahead[0] = 0.0

        def told() -> bool:
            clock.advance(0)  # who waits looks again
            return not log.lines.empty()

        until(told)
        clock.advance(60)
        assert seconds(ticks.get(timeout=60)) == 120
    assert log.next() == ("WARNING", "schedule 'often': the wall clock was set back by 86400 s, and it goes on from now")
    assert log.lines.empty() and ticks.empty()


# -- after an outage ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("missed", "found"), [("once", [60.0]), ("skip", [])])
@pytest.mark.parametrize("before", ["sync", "asyncio"])
def test_what_was_missed_while_no_worker_was_there(face: str, before: str, url: str, missed: str, found: list[float]) -> None:
    """`once`: the first of them, and one alone. `skip`: none. After that all goes on."""
    clock, ticks = Clock(), queue.Queue[Tick]()
    worker = ticking(before, url, clock, 60, ticks, missed=missed)
    with living(worker, before):
        ready(worker)
        with narrowboat.broker(url, clock=clock) as broker:
            until(lambda: missed == "skip" or broker.queue("schedule.often.owed", max_deliveries=0).depth().delayed == 1)
    clock.advance(10_000)
    worker = ticking(face, url, clock, 60, ticks, missed=missed)
    with living(worker, face):
        ready(worker)
        assert [seconds(ticks.get(timeout=60)) for _ in found] == found
        for number, due in enumerate((10_020, 10_080)):
            settled(worker, len(found) + number)
            clock.advance(due - clock() + 1000)
            assert seconds(ticks.get(timeout=60)) == due
    assert ticks.empty()


def test_a_first_start_has_missed_nothing(face: str, url: str) -> None:
    """Nobody owed anything."""
    clock, ticks = Clock(), queue.Queue[Tick]()
    worker = ticking(face, url, clock, 86400, ticks, missed="once")
    with living(worker, face):
        ready(worker)
        clock.advance(86400)
        assert seconds(ticks.get(timeout=60)) == 86400
    assert ticks.empty()


def test_a_tick_that_waited_too_long_is_skipped(face: str, url: str) -> None:
    """It was published in time, and nobody was there to run it."""
    clock, ticks = Clock(), queue.Queue[Tick]()
    worker = ticking(face, url, clock, 3600, ticks)
    with worker.broker if face == "sync" else narrowboat.broker(url, clock=clock) as broker:
        broker.queue("schedule.often", lease=7200).publish(b"2026-01-01T00:00:00Z")
        clock.advance(61)
        worker = ticking(face, url, clock, 3600, ticks)
        with living(worker, face):
            until(lambda: worker.health().sources[0].handled == 1)
    assert ticks.empty()


def test_what_is_owed_beyond_the_longest_delay_is_said_again(face: str, url: str) -> None:
    """A tick 45 days ahead, where a message can be delayed for 30: it comes once, also when nobody publishes it."""
    clock, ticks = Clock(), queue.Queue[Tick]()
    length = 45 * 86400.0
    first = length - (EPOCH.timestamp() % length)
    worker = ticking(face, url, clock, length, ticks, missed="once")
    with living(worker, face), narrowboat.broker(url, clock=clock) as broker:
        ready(worker)
        owed = broker.queue("schedule.often.owed", max_deliveries=0)
        until(lambda: owed.depth().delayed == 1)
        if first > 30 * 86400:
            clock.advance(30 * 86400)
            until(lambda: worker.health().sources[1].handled == 1 and owed.depth().delayed == 1)
    clock.advance(length)
    worker = ticking(face, url, clock, length, ticks, missed="once")
    with living(worker, face):
        assert seconds(ticks.get(timeout=60)) == first
        ready(worker)
    assert ticks.empty()


# -- what fails ---------------------------------------------------------------------------------------------------


def test_a_backend_that_is_away_at_the_instant_gets_the_tick_when_it_is_back(face: str, url: str) -> None:
    """Within the minute."""
    clock, ticks, faults = Clock(), queue.Queue[Tick](), Faults()
    broker = FACES[face].broker(url, clock=clock, wrap=faults.wrap)
    worker = make(face, broker, clock=clock, now=clock.wall)
    register(worker.every(60, name="often"), face, ticks.put)
    with living(worker, face):
        ready(worker)
        faults.fail("send", Unavailable("away"))
        clock.advance(60)
        until(lambda: state(worker, 1) == "unavailable")
        clock.advance(5)
        assert seconds(ticks.get(timeout=60)) == 60
        until(lambda: worker.health().ready)
        assert not worker.health().sources[1].error
    closed = broker.close()
    if closed is not None:
        asyncio.run(closed)


def test_what_others_publish_into_the_queue_of_a_schedule_is_a_dead_letter(face: str, url: str) -> None:
    """A body that is no instant, and an instant without a time zone."""
    worker = make(face, url)
    register(worker.every(86400, name="often"), face, lambda tick: None)
    with living(worker, face), narrowboat.broker(url) as broker:
        ready(worker)
        broker.queue("schedule.often").publish_many([b"now", b"\xff", b"2026-01-01T00:00:00"])
        until(lambda: broker.queue("schedule.often").depth().dead == 3)


# -- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"every": "61 * * * *"},
        {"every": 0},
        {"tz": "Europe/Berlin"},
        {"missed": "all"},
        {"jitter": -1},
        {"jitter": float("nan")},
        {"name": ""},
        {"name": "a\nb"},
        {"name": "a.owed"},
        {"batch": 10},
        {"prefetch": 10},
        {"lease": -1, "every": 1, "concurrency": 0},
    ],
)
def test_what_cannot_work_is_refused_at_the_decorator(face: str, url: str, options: dict[str, Any]) -> None:
    if isinstance(options.get("every"), str):
        pytest.importorskip("cronsim")
    worker = make(face, url)
    with pytest.raises(InvalidArgument):
        register(worker.every(**{"every": 60, **options}), face, lambda tick: None)


def test_two_of_one_name_are_refused(face: str, url: str) -> None:
    """Schedules and elections, each among themselves."""
    worker = make(face, url)
    for decorate, arguments in ((worker.every, (60,)), (worker.elected, ("often",))):
        options = {"name": "often"} if decorate == worker.every else {}
        register(decorate(*arguments, **options), face, lambda each: None)
        with pytest.raises(InvalidArgument, match="often"):
            register(decorate(*arguments, **options), face, lambda each: None)


@pytest.mark.parametrize("name", ["schedule.often", "schedule.often.owed"])
def test_the_queues_of_a_schedule_are_its_own(face: str, url: str, name: str) -> None:
    """Whichever is registered first."""
    for first in ("queue", "schedule"):
        worker = make(face, url)
        decorates = [worker.queue(name), worker.every(60, name="often")]
        for number, decorate in enumerate(decorates if first == "queue" else reversed(decorates)):
            with pytest.raises(InvalidArgument, match="often") if number else contextlib.nullcontext():
                register(decorate, face, lambda each: None)


def test_decorators_without_parentheses_are_refused(face: str, url: str) -> None:
    """They would register nothing. So is what cannot be a name or a plan, before there is a function."""
    worker = make(face, url)

    def report(each: Any) -> None: ...

    for decorator, example in ((worker.queue, "orders"), (worker.every, "60"), (worker.elected, "indexer")):
        with pytest.raises(InvalidArgument, match=rf"write @worker\.\w+\(\"?{example}"):
            decorator(report)
        with pytest.raises(InvalidArgument):
            decorator("")
    with pytest.raises(InvalidArgument):
        worker.every(60, name="a\nb")
    with pytest.raises(InvalidArgument, match="now=5"):
        make(face, url, now=5)


def test_only_finds_a_schedule_by_its_name(face: str, url: str) -> None:
    worker = make(face, url)
    register(worker.every(60, name="report"), face, lambda tick: None)
    register(worker.queue("orders"), face, lambda message: None)
    assert [each.source for each in worker._handlers.pick(["report"])] == ["schedule.report"]


def test_functions_of_the_other_face_are_refused(face: str, url: str) -> None:
    worker, other = make(face, url), "asyncio" if face == "sync" else "sync"
    for decorate in (worker.every(60), worker.elected("boss")):
        with pytest.raises(InvalidArgument):
            register(decorate, other, lambda each: None)


@pytest.mark.parametrize("query", ["dedup=0", "dedup=3"])
def test_a_broker_that_cannot_keep_a_schedule_is_refused_at_the_start(face: str, url: str, query: str) -> None:
    """Before anything is published."""
    worker = make(face, f"{url}?{query}")
    register(worker.every(60, name="often"), face, lambda tick: None)
    with pytest.raises(Unsupported, match=r"the schedule 'often' on memory.* claim dedup"), living(worker, face):
        pass


def test_ticks_may_have_a_broker_of_their_own(face: str, url: str) -> None:
    """Where the worker's own cannot keep a schedule. It is closed with the worker."""
    got: queue.Queue[Any] = queue.Queue()
    worker = make(face, f"{url}-orders?dedup=0", schedules=url)
    register(worker.queue("orders"), face, lambda message: got.put(message.body))
    register(worker.every(0.05, name="often"), face, got.put)
    for _ in range(2):  # it can run again
        with living(worker, face), narrowboat.broker(f"{url}-orders") as broker:
            assert isinstance(got.get(timeout=60), Tick)
            broker.queue("orders").publish(b"1")
            while got.get(timeout=60) != b"1":
                pass
    with pytest.raises(InvalidArgument, match="schedules=3"):
        make(face, url, schedules=3)


def test_listeners_hear_of_ticks_that_have_a_broker_of_their_own(face: str, url: str) -> None:
    """Those that it was given, and those of what runs it: `narrowboat run --health` has metrics of schedules too."""
    heard: tuple[queue.Queue[Any], queue.Queue[Any]] = (queue.Queue(), queue.Queue())
    worker = make(face, f"{url}-orders?dedup=0", schedules=url, listeners=[heard[0].put])
    register(worker.every(0.05, name="often"), face, lambda tick: None)
    with living(worker, face):
        worker._listen(heard[1].put)
        for each in heard:
            while not isinstance(event := each.get(timeout=60), events.Handled):
                pass
            assert event.source == "schedule.often"


def test_a_worker_whose_ticks_have_no_broker_is_live_and_not_ready(face: str, url: str) -> None:
    """Also hours before the next of them. Its health names that broker apart from the worker's own."""
    faults = Faults()
    ticks = FACES[face].broker(url, wrap=faults.wrap)
    worker = make(face, f"{url}-orders?dedup=0", schedules=ticks)
    register(worker.queue("orders"), face, lambda message: None)
    register(worker.every(86400, name="often"), face, lambda tick: None)

    def ping() -> None:
        asked = ticks.ping()
        if asked is not None:
            asyncio.run(asked)

    def unready() -> Any:
        """The worker's health. What its consumers still ask at their start is answered, and ends the outage."""
        with pytest.raises(Unavailable):
            ping()
        health = worker.health()
        return None if health.ready else health

    with living(worker, face):
        ready(worker)
        faults.fail("ping", Unavailable("no route to it", backend="memory"), times=10_000)
        health = until(unready)
        assert health.live
        assert (health.broker.state, health.schedules.state) == ("connected", "lost")
        assert 'worker_schedules_reached{backend="memory"} 0' in exposition(health).decode()
        faults.clear()
        ping()
        assert worker.health().ready
    closed = ticks.close()
    if closed is not None:
        asyncio.run(closed)


def test_a_worker_with_one_broker_tells_of_it_once(face: str, url: str) -> None:
    """Where the ticks have none of their own, whether that was said or not."""
    broker = FACES[face].broker(url)
    for given in ({}, {"schedules": broker}):
        worker = make(face, broker, **given)
        register(worker.every(86400, name="often"), face, lambda tick: None)
        with living(worker, face):
            ready(worker)
            health = worker.health()
            assert (health.broker.state, health.schedules) == ("connected", None)
    closed = broker.close()
    if closed is not None:
        asyncio.run(closed)


def test_an_election_without_locks_is_refused_at_the_start(face: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker's URL is not asked for where nothing needs it."""
    monkeypatch.delenv("NARROWBOAT_LOCKS_URL", raising=False)
    worker = make(face, url)
    register(worker.elected("boss"), face, lambda term: None)
    with pytest.raises(ConfigurationError, match="NARROWBOAT_LOCKS_URL"), living(worker, face):
        pass


# -- elections ----------------------------------------------------------------------------------------------------


def test_an_elected_function_runs_in_one_worker_at_a_time(face: str, url: str) -> None:
    """The other stands by, and is elected when the first drains."""
    begun: queue.Queue[tuple[str, int]] = queue.Queue()

    def worker(name: str) -> Any:
        made = make(face, None, url)

        def index(term: Any) -> None:
            begun.put((name, term.token))
            term.wait()

        async def aindex(term: Any) -> None:
            begun.put((name, term.token))
            await term.wait()

        made.elected("indexer")(index if face == "sync" else aindex)
        return made

    with living(worker("second"), face) as second:
        (_, token) = begun.get(timeout=60)
        third = worker("third")
        with living(third, face):
            until(lambda: state(third) == "standby")
            assert third.health().ready and second.health().ready and state(second) == "running"
            assert begun.empty()
        assert begun.empty()
        with living(worker("fourth"), face):
            second.stop()
            name, following = begun.get(timeout=60)
            assert name == "fourth" and following > token


def test_an_elected_function_that_raises_pauses(face: str, url: str) -> None:
    """`health` tells why, and for how long."""
    worker = make(face, None, url)

    def index(term: Any) -> None:
        raise OSError("the index is away")

    register(worker.elected("indexer"), face, index)
    with living(worker, face):
        until(lambda: state(worker) == "paused")
        source = worker.health().sources[0]
        assert (source.source, source.handler, source.failed, source.error) == (
            "indexer",
            "index",
            1,
            "OSError: the index is away",
        )
        assert 0 < source.resumes_in <= 1


def test_a_thread_that_hangs_after_its_term_is_seen(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`health` says `hung`, and that a restart would help."""
    monkeypatch.setattr(candidate, "HANGS", 0.05)
    begun, go = queue.Queue[int](), threading.Event()
    worker = narrowboat.Worker(None, url)

    @worker.elected("indexer", ttl=0.3)
    def index(term: Any) -> None:
        begun.put(term.token)
        go.wait(60)

    with worker, narrowboat.locks(url) as operator:
        assert operator.evict("indexer", begun.get(timeout=60))
        until(lambda: state(worker) == "hung")
        assert (worker.health().sources[0].hung, worker.health().live) == (1, False)
        go.set()


def test_a_second_signal_leaves_an_elected_function_in_a_thread_behind(url: str) -> None:
    """The worker ends though the function does not."""
    clock, begun, go = ManualClock(), threading.Event(), threading.Event()
    worker = narrowboat.Worker(None, url, clock=clock)

    @worker.elected("indexer")
    def index(term: Any) -> None:
        begun.set()
        go.wait(120)

    thread = threading.Thread(target=worker.run, kwargs={"signals": False})
    thread.start()
    assert begun.wait(60)
    supervisor: Any = worker._supervisor
    worker.stop()
    supervisor.hurry()
    clock.advance(candidate.LEAVING)
    thread.join(60)
    try:
        assert not thread.is_alive()
    finally:
        go.set()
        clock.advance(60)


PROGRAM = """
import asyncio, os, sys
import narrowboat
from narrowboat import aio

def say(word):
    os.write(1, f"{word}\\n".encode())

worker = (narrowboat if sys.argv[1] == "sync" else aio).Worker(sys.argv[2], sys.argv[2])

def often(tick):
    say("tick")

def index(term):
    say("leads")
    term.wait()
    say("lost" if term.lost else "asked")

async def aoften(tick):
    often(tick)

async def aindex(term):
    say("leads")
    await term.wait()
    say("lost" if term.lost else "asked")

if sys.argv[1] == "sync":
    worker.every(3600, name="often")(often)
    worker.elected("indexer")(index)
    worker.run()
else:
    worker.every(3600, name="often")(aoften)
    worker.elected("indexer")(aindex)
    asyncio.run(worker.run())
say("over")
"""


def test_one_sigterm_ends_schedules_and_elections(face: str, tmp_path: Path) -> None:
    """The leader is asked to return, and the process ends with 0; nobody leads then."""
    url = f"sqlite:///{tmp_path}/shop.db"
    with subprocess.Popen([sys.executable, "-c", PROGRAM, face, url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "leads\n"
        process.terminate()
        out, _ = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, "asked\nover\n")
    with narrowboat.locks(url) as locks:
        assert locks.elect("indexer").leader() is None


# -- tests of users -----------------------------------------------------------------------------------------------


def test_a_tick_can_be_rehearsed(face: str, url: str) -> None:
    """`opened.tick(name)` is a tick for the next drain; a schedule that is not there is refused."""
    ticks: queue.Queue[Tick] = queue.Queue()
    worker = make(face, url)
    register(worker.every(60, name="often", missed="once"), face, ticks.put)

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            opened = stack.enter_context(worker.test()) if face == "sync" else await stack.enter_async_context(worker.test())
            for instant in (EPOCH, None):
                answer = opened.tick("often", instant)
                if answer is not None:
                    await answer
            told = opened.drain()
            told = told if face == "sync" else await told
            assert len(told.handled) == 2 and ticks.get().identity == "often@2026-01-01T00:00:00Z"
            for wrong in (("oftn", None), (5, None), ("often", "x"), ("often", datetime(2026, 1, 1))):
                with pytest.raises(InvalidArgument):
                    answer = opened.tick(*wrong)
                    if answer is not None:
                        await answer

    asyncio.run(main())
