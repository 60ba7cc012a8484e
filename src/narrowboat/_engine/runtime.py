"""How one `async def` loop serves both faces: what may wait goes through a runtime.

The loops of locks and messages are written once and await nothing but a runtime's two methods, `call` (a driver
call through a lane) and `wait` (for a signal, until a deadline). `Blocking` never suspends, so running a loop is a
single `send(None)` in the caller's own thread, with no event loop anywhere. The asyncio runtime is in `narrowboat.aio`,
so that a sync program never imports asyncio.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from narrowboat._engine.exchange import DONE, Call, Op
from narrowboat._engine.inside import INSIDE, refused
from narrowboat._engine.lane import Lane
from narrowboat.clock import Clock, LoopClock
from narrowboat.errors import InvalidArgument, Unavailable

T = TypeVar("T")

#: Seconds between two looks at a lane's turn where no thread can be started that would carry the call.
PAUSE = 0.001


class Runtime(Protocol):
    """What the loops may await, and how they leave."""

    clock: Clock
    unclosed: object  #: the mark of the face, for all that comes from it

    def call(self, lane: Lane, call: Call) -> Awaitable[list[Any]]:
        """Send `call` through `lane`: one result or error (as a value) for each item.

        Raises only what struck the caller itself (cancellation, KeyboardInterrupt): then the call is dropped, or undone as
        soon as it is not under way any more, by what it says itself.
        """
        ...

    async def wait(self, signal: Any, deadline: float) -> bool:
        """Until `signal` is set (True, and it is taken back) or the clock reaches `deadline` (False)."""
        ...

    def signal(self) -> Any:
        """A new signal for this caller."""
        ...

    def undo(self, lane: Lane, op: Op, items: Sequence[Any]) -> None:
        """Make a call for a caller that is on its way out: done before this returns, or posted where nothing may wait."""
        ...

    def caller(self) -> object:
        """The thread or task that calls: an object that can be referred to weakly."""
        ...


async def answer_of(runtime: Runtime, lane: Lane, call: Call) -> Any:
    """The result of a call with one item; raises it where it is an error. What it raises keeps nothing of its caller's."""
    (answer,) = await runtime.call(lane, call)
    call.results = []  # an error leads to frames that know this call
    try:
        if isinstance(answer, Exception):
            raise answer
        return answer
    finally:
        answer = None  # as above


def run(loop: Coroutine[Any, Any, T], nested: Callable[[], T] | None = None) -> T:
    """Run a loop on the blocking runtime, which never suspends.

    From the middle of another call of this thread it is `nested` instead, which waits for nothing; without it, `NestedCall`.
    """
    me = threading.get_ident()
    if me in INSIDE:
        loop.close()
        if nested is not None:
            return nested()
        raise refused()
    INSIDE[me] = None
    try:
        loop.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        try:
            del INSIDE[me]
        except KeyError:
            pass
    raise _wrong(loop)


def straight(loop: Coroutine[Any, Any, T]) -> T:
    """Run what never suspends, because all that it awaits blocks. Unlike within `run`, it may make calls of its own."""
    try:
        loop.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    raise _wrong(loop)


def spawn(work: Coroutine[Any, Any, None], name: str, ended: Callable[[BaseException | None], None]) -> None:
    """Run `work` straight in a daemon thread of its own, which ends with the process, and tell how it ended."""

    def body() -> None:
        error: BaseException | None = None
        try:
            straight(work)
        except BaseException as raised:  # told, and not lost with the thread
            error = raised
        ended(error)

    thread = threading.Thread(target=body, name=name, daemon=True)
    try:
        thread.start()
    except BaseException:  # no thread is to be had: what was not begun would complain
        work.close()
        raise


def _wrong(loop: Coroutine[Any, Any, Any]) -> RuntimeError:
    loop.close()
    return RuntimeError("a loop awaited something other than its runtime")


class BlockingSignal:
    """One waiter's signal: `set` never blocks, can be repeated, and may come from a signal handler.

    What is waited on, a bare lock, is made by the first who waits: nearly all signals are never waited for.
    """

    __slots__ = ("__weakref__", "_is_set", "_lock", "watched")

    def __init__(self) -> None:
        self._is_set = False
        self._lock: threading.Lock | None = None
        self.watched = False  #: a clock that is moved by hand sets it

    def set(self) -> None:
        """Wake the waiter now, or let its next wait return at once."""
        self._is_set = True  # first: whoever makes the lock looks at this afterwards
        lock = self._lock
        if lock is not None:
            try:
                lock.release()
            except RuntimeError:
                pass  # it is released already

    def arm(self) -> threading.Lock:
        """What is waited on; from now on `set` releases it."""
        lock = self._lock
        if lock is None:
            lock = threading.Lock()
            lock.acquire()
            self._lock = lock
        return lock

    def take(self, timeout: float | None) -> bool:
        """Wait for it for `timeout` real seconds (None: for as long as it takes), and take it back. False may come early."""
        lock = self.arm()
        if self._is_set:
            timeout = 0.0  # what `set` has released is taken back as well
        lock.acquire(timeout=-1 if timeout is None else min(max(timeout, 0.0), threading.TIMEOUT_MAX))
        if not self._is_set:
            return False
        self._is_set = False  # never taken back unseen: a `set` in between would be lost
        return True


class Blocking:
    """The runtime of the sync face: everything happens in the caller's own thread."""

    signal = BlockingSignal
    unclosed: object = None

    def __init__(self, clock: Clock) -> None:
        if isinstance(clock, LoopClock):
            raise InvalidArgument("clock=LoopClock: a blocking call would stop that loop; it is for narrowboat.aio")
        self.clock = clock

    async def call(self, lane: Lane, call: Call) -> list[Any]:
        """In this thread where the lane is free, otherwise by the lane's thread; blocks meanwhile."""
        try:
            while not lane.run(call):
                if sys.is_finalizing():  # who has the turn, or would carry the call, stands still for ever
                    call.results = [Unavailable("the interpreter is ending: nothing was sent", sent=False)] * len(call.items)
                    break
                ready = BlockingSignal()
                call.sink = _setter(ready)
                if lane.hand_over(call):
                    while call.state != DONE:
                        ready.take(None)
                    break
                ready.take(PAUSE)  # no thread can be started: whoever has the turn gives it back
            return call.results
        except BaseException:
            lane.abandon(call)
            raise

    async def wait(self, signal: BlockingSignal, deadline: float) -> bool:
        """Blocks. Meanwhile this thread has nothing that another call would wait for, so a signal handler may make any."""
        me = threading.get_ident()
        if not signal.watched:
            signal.watched = True
            self.clock.watch(signal.set)
        while True:
            left = deadline - self.clock()
            if left <= 0:
                return signal.take(0)
            try:
                INSIDE.pop(me, None)
                if signal.take(self.clock.real(left)):
                    return True
            finally:
                INSIDE[me] = None

    def undo(self, lane: Lane, op: Op, items: Sequence[Any]) -> None:
        """Done before this returns, so that a program that ends on Ctrl-C leaves nothing behind."""
        me = threading.get_ident()
        if me in INSIDE:
            straight(self.call(lane, Call(op, items)))
        else:
            run(self.call(lane, Call(op, items)))

    def caller(self) -> object:
        """The thread."""
        return threading.current_thread()


def _setter(signal: BlockingSignal) -> Callable[[Call], None]:
    return lambda call: signal.set()
