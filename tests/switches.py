"""Real threads of which one runs at a time, and that switch where a seed says, for tests that look for races of threads.

A switch may come before any line of the modules that are traced, and wherever a thread waits. While `explore` runs, the
modules of narrowboat wait by stand-ins for `threading`, `queue` and `time`: a wait gives the turn to another thread, time is
virtual, and threads of which none can go on are a failure that says where each of them stands. So a seed is the whole schedule.

It does not switch within a line, and knows nothing of what waits by other means: client libraries, sockets, asyncio.
"""

from __future__ import annotations

import _thread
import contextlib
import functools
import gc
import logging
import math
import queue
import random
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType, ModuleType
from typing import Any

#: Lines after which a schedule is taken to go round in a circle.
ENDLESS = 200_000
#: Real seconds after which a schedule is taken to wait by something that has no stand-in.
HUNG = 120.0


class Torn(BaseException):
    """Ends the threads of a schedule that has failed."""


class Schedule:
    """One run; see the module's text. `random` is for the test as well: what it draws is part of the schedule."""

    def __init__(self, seed: int, traced: tuple[ModuleType, ...]) -> None:
        self.random = random.Random(seed)  # a schedule is no secret
        self.now = 1000.0
        self.steps = 0
        self.switches: list[tuple[str, str, int]] = []  #: who got the turn, and from which line it was taken
        self.failure: BaseException | None = None
        self.waits: list[_Thread] = []  # threads that are alive, each with what it waits for, in the order of their start
        self._files = {module.__file__ for module in traced}
        # How likely a switch is before a line, and that time goes on although threads could: the next wait ends too early.
        self._rate = self.random.choice((0.02, 0.1, 0.3))
        self.haste = self.random.choice((0.0, 0.02, 0.1))
        self._over = threading.Semaphore(0)

    def __call__(self) -> float:
        """Virtual seconds: it is the clock as well."""
        return self.now

    def watch(self, callback: Callable[[], None]) -> None:
        """Waits have deadlines of this clock."""

    def real(self, seconds: float) -> float:
        """The same: the stand-ins wait."""
        return seconds

    def sleep(self, seconds: float) -> None:
        """The calling thread stands still."""
        self.wait(lambda: False, seconds)

    def start(self, *targets: Callable[[], object]) -> list[threading.Thread]:
        """Run each in a thread."""
        threads: list[threading.Thread] = [
            _Thread(self, target=target, name=f"test-{number}") for number, target in enumerate(targets)
        ]
        for thread in threads:
            thread.start()
        return threads

    def run(self, main: Callable[[Schedule], object]) -> None:
        """Run `main` in a thread, and all that it starts, to the end of the last one."""
        first = _Thread(self, target=main, args=(self,), name="main")
        first.start()
        first.baton.release()
        if not self._over.acquire(timeout=HUNG):
            where = "\n".join(f"{thread.name}: {_where(thread)}" for thread in self.waits)
            raise AssertionError(f"a thread waits by something that has no stand-in, or for very long:\n{where}")
        if self.failure is not None:
            raise self.failure

    def fail(self, error: BaseException) -> None:
        """The first failure is the schedule's; all threads are torn from what they do."""
        self.failure = self.failure or error

    def wait(self, until: Callable[[], bool], timeout: float | None = None) -> bool:
        """Let others run until that is true, or for so many virtual seconds; whether it is true."""
        if self.failure is not None:
            raise Torn
        if until():
            return True
        if timeout is None or timeout > 0:
            me: Any = threading.current_thread()
            me.until, me.ends = until, math.inf if timeout is None else self.now + timeout
            self._switch(me)
            me.until, me.ends = _at_once, math.inf
            if self.failure is not None:
                raise Torn
        return until()

    def leave(self, me: _Thread) -> None:
        """A thread has ended."""
        self.waits.remove(me)
        if self.waits:
            self._choose().baton.release()
        else:
            self._over.release()

    def _switch(self, me: _Thread) -> None:
        chosen = self._choose()
        if chosen is not me:
            chosen.baton.release()
            me.baton.acquire()

    def _choose(self) -> _Thread:
        while self.failure is None:
            ready = [each for each in self.waits if each.until() or each.ends <= self.now]
            later = min((each.ends for each in self.waits if each.ends > self.now), default=math.inf)
            if later < math.inf and (not ready or self.random.random() < self.haste):
                self.now = later
            elif ready:
                return self.random.choice(ready)
            else:
                where = "\n".join(f"{thread.name}: {_where(thread)}" for thread in self.waits)
                self.fail(AssertionError(f"all wait, and nothing will happen:\n{where}"))
        return self.waits[0]  # one after the other, to be torn

    def trace(self, frame: FrameType, event: str, arg: object) -> Any:
        """Trace the lines of a function of the traced modules."""
        return self._line if frame.f_code.co_filename in self._files and frame.f_code.co_name != "<module>" else None

    def _line(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "line" and self.failure is None:
            self.steps += 1
            if self.steps > ENDLESS:
                self.fail(AssertionError("the schedule does not end"))
            if self.random.random() < self._rate:
                me: Any = threading.current_thread()
                self.switches.append((me.name, frame.f_code.co_filename.rpartition("/")[2], frame.f_lineno))
                self._switch(me)
        return self._line


def _at_once() -> bool:
    return True


def _where(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    stack = [each for each in traceback.extract_stack(frame) if each.filename != __file__]
    return " > ".join(f"{each.filename.rpartition('/')[2]}:{each.lineno} {each.name}" for each in stack[-4:])


class _Thread(threading.Thread):
    """A real thread that runs while it has the turn."""

    def __init__(self, schedule: Schedule, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "daemon": True})
        self._schedule = schedule
        self.until: Callable[[], bool] = _at_once
        self.ends = math.inf
        self.baton = _thread.allocate_lock()
        self.baton.acquire()

    def start(self) -> None:
        super().start()
        self._schedule.waits.append(self)

    def run(self) -> None:
        self.baton.acquire()
        try:
            if self._schedule.failure is None:
                sys.settrace(self._schedule.trace)
                super().run()
        except Torn:
            pass
        except BaseException as error:  # the test's, or one that ends a thread of the core's
            self._schedule.fail(error)
        finally:
            sys.settrace(None)
            self._schedule.leave(self)

    def is_alive(self) -> bool:
        return self in self._schedule.waits

    def join(self, timeout: float | None = None) -> None:
        self._schedule.wait(lambda: not self.is_alive(), timeout)


class _Lock:
    """`Lock` and `RLock`."""

    def __init__(self, schedule: Schedule, *, again: bool) -> None:
        self._schedule = schedule
        self._again = again
        self._owner = self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        me = threading.get_ident()
        if not (self._again and self._depth and self._owner == me):
            seconds = None if timeout < 0 else timeout
            if not self._schedule.wait(lambda: not self._depth, seconds if blocking else 0):
                return False
        self._owner = me
        self._depth += 1
        return True

    def release(self) -> None:
        if not self._depth:
            raise RuntimeError("release unlocked lock")
        self._depth -= 1

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


class _Event:
    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        return self._schedule.wait(self.is_set, timeout)


class _SimpleQueue:
    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._items: deque[Any] = deque()

    def put(self, item: Any) -> None:
        self._items.append(item)

    def get(self) -> Any:
        self._schedule.wait(lambda: bool(self._items))
        return self._items.popleft()


class _StandIn:
    """A module of which some names are others."""

    def __init__(self, module: ModuleType, **names: Any) -> None:
        self._module = module
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


@contextlib.contextmanager
def _stand_ins(schedule: Schedule) -> Iterator[None]:
    """In all modules of narrowboat that are loaded, for the schedule's own threads: what an earlier test left runs on."""

    def ours(kind: Any, real: Any) -> Any:
        def chosen(*args: Any, **options: Any) -> Any:
            return (kind if isinstance(threading.current_thread(), _Thread) else real)(*args, **options)

        return chosen

    def made(kind: Any, real: Any, **fixed: bool) -> Any:
        return ours(functools.partial(kind, schedule, **fixed), real)

    stands: dict[str, tuple[ModuleType, Any]] = {
        "threading": (
            threading,
            _StandIn(
                threading,
                Lock=made(_Lock, threading.Lock, again=False),
                RLock=made(_Lock, threading.RLock, again=True),
                Event=made(_Event, threading.Event),
                Thread=made(_Thread, threading.Thread),
            ),
        ),
        "queue": (queue, _StandIn(queue, SimpleQueue=made(_SimpleQueue, queue.SimpleQueue))),
        "time": (
            time,
            _StandIn(
                time,
                monotonic=ours(schedule, time.monotonic),
                time=ours(schedule, time.time),
                sleep=ours(schedule.sleep, time.sleep),
            ),
        ),
    }
    changed = []
    for module in [module for name, module in sys.modules.items() if name.startswith("narrowboat")]:
        for name, (real, stand) in stands.items():
            if vars(module).get(name) is real:
                setattr(module, name, stand)
                changed.append((module, name, real))
    try:
        yield
    finally:
        for module, name, real in changed:
            setattr(module, name, real)


class _Complaints(logging.Handler):
    """What the core caught and logged as an error is a failure; what else it logs is not looked at. It takes no lock."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self._schedule = schedule

    def handle(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR and record.exc_info:
            self._schedule.fail(record.exc_info[1] or AssertionError(record.getMessage()))
        return True


def explore(seed: int, main: Callable[[Schedule], object], *traced: ModuleType) -> Schedule:
    """Run `main` under one schedule, with switches in the `traced` modules. A failure has its seed as a note."""
    schedule = Schedule(seed, traced)
    logger, complaints = logging.getLogger("narrowboat"), _Complaints(schedule)
    logger.addHandler(complaints)
    propagate, logger.propagate = logger.propagate, False  # a handler of others has a real lock
    gc.disable()  # finalisers would come when they like
    try:
        with _stand_ins(schedule):
            schedule.run(main)
    except BaseException as error:
        last = "\n".join(f"  {name} at {file}:{line}" for name, file, line in schedule.switches[-25:])
        error.add_note(f"seed {seed}, after {schedule.steps} lines; the last that lost the turn:\n{last}")
        raise
    finally:
        gc.enable()
        logger.propagate = propagate
        logger.removeHandler(complaints)
    return schedule
