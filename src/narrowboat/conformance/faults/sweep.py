"""Cuts a call off at its n-th point: an await of a task, or a place of a thread where an interrupt can strike.

On the asyncio face a cancellation arrives while the task is suspended. On the sync face a KeyboardInterrupt strikes where
CPython looks for signals: at a function's start, after a call or on a jump backwards. A tracing function counts those points in
the core's code and in the driver's, and raises it. It changes the state of the whole interpreter for a moment, so scenarios
that use this run alone.

Scenarios write `await kit.spawn(cut(queue, "consume", point))`, for a method of either face. Tests of plain functions write

    def once(strike):
        try:
            held = strike(lock.acquire, timeout=5)
        except KeyboardInterrupt:
            ...
    assert sweep(once) > 50

Use it for calls that end by themselves. One that waits for ever is not cut off where it waits.
"""

from __future__ import annotations

import asyncio
import dis
import functools
import inspect
import sys
import warnings
from collections.abc import Awaitable, Callable, Generator
from types import CodeType, FrameType
from typing import Any, NamedTuple, TypeVar, cast

from narrowboat.conformance.faults.quiet import quiet
from narrowboat.conformance.users.faces import Threaded, argument, in_my_thread, unwrap, wrap
from narrowboat.errors import NarrowboatError

T = TypeVar("T")


class Cut(NamedTuple):
    """The outcome of a call that was to be cut off."""

    struck: bool  #: False when it had fewer points, and ended by itself
    result: Any  #: what it returned when it ended before the cut took effect
    error: BaseException | None  #: the interrupt, or the call's own error


async def cut(target: Any, method: str, point: int, /, *args: Any, delay: int = 0, **kwargs: Any) -> Cut:
    """Call `target.method(...)` and cut it off at its `point`-th point. Await this in a task of its own.

    `delay`: on the asyncio face the cancellation comes so many turns of the loop after the suspension at that point.
    """
    if isinstance(target, Threaded):
        function = getattr(unwrap(target), _TWINS.get(method, method))
        loop = asyncio.get_running_loop()
        plain = [argument(each, loop) for each in args]
        named = {name: argument(each, loop) for name, each in kwargs.items()}
        return cast("Cut", await in_my_thread(_cut_thread, function, point, plain, named))
    return await _cut_task(getattr(target, method)(*args, **kwargs), point, delay)


async def cut_block(function: Callable[[], Any], point: int, delay: int = 0) -> Cut:
    """The same for a function without arguments: a coroutine function as a task, a plain one in its task's thread."""
    if inspect.iscoroutinefunction(function):
        return await _cut_task(function(), point, delay)
    return cast("Cut", await in_my_thread(_cut_thread, function, point, (), {}))


#: The sync face's names of methods that have another one there.
_TWINS = {"__aenter__": "__enter__", "__aexit__": "__exit__"}


async def _cut_task(coroutine: Awaitable[Any], point: int, delay: int) -> Cut:
    task = asyncio.current_task()
    assert task is not None
    awaited = _Counted(coroutine, point, delay, task)
    failure: NarrowboatError | None = None
    try:
        result = await awaited
    except asyncio.CancelledError as error:
        task.uncancel()
        return Cut(awaited.struck, None, error)
    except NarrowboatError as error:
        result, failure = None, error  # the call ended by itself
    if awaited.struck:  # it ended in the very turn in which it was cancelled: the cancellation is still on its way
        try:
            for _ in range(delay + 2):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            task.uncancel()
    return Cut(awaited.struck, result, failure)


class _Counted(Awaitable[Any]):
    """Awaits what a call returned, and cancels its task at the n-th suspension."""

    def __init__(self, awaitable: Awaitable[Any], point: int, delay: int, task: asyncio.Task[Any]) -> None:
        self._steps = awaitable.__await__()
        self._point = point
        self._delay = delay
        self._task = task
        self.struck = False

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[[], Any] = functools.partial(self._steps.send, None)
        suspensions = 0
        while True:
            try:
                yielded = step()
            except StopIteration as stop:
                return stop.value
            if suspensions == self._point:
                self.struck = True
                self._cancel_after(self._delay)
            suspensions += 1
            try:
                sent = yield yielded
            except BaseException as error:
                step = functools.partial(self._steps.throw, error)
            else:
                step = functools.partial(self._steps.send, sent)

    def _cancel_after(self, turns: int) -> None:
        loop = asyncio.get_running_loop()
        if turns:
            loop.call_soon(self._cancel_after, turns - 1)
        else:
            loop.call_soon(self._task.cancel)


class Strike:
    """Calls a function and raises a KeyboardInterrupt at its n-th point, if it has as many. It serves one call.

    `within` is the beginning of the names of the modules whose frames count; the kit's own never do. `where` is the function
    and the line where it struck, and is empty until then.
    """

    def __init__(self, point: int, within: str | tuple[str, ...] = "narrowboat") -> None:
        self._left = point
        self._within = within
        self._before: dict[FrameType, int] = {}
        # Kept here: CPython 3.11 calls them by borrowed references, and drops them when one of them raises.
        self._begin, self._follow = self._enter, self._step
        self.where = ""

    def __call__(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        """The result of `function`. The interrupt leaves it, unless code in it catches the interrupt."""
        sys._getframe().f_trace_opcodes = True  # Python 3.12 traces opcodes only if a frame has asked for them before
        sys.settrace(self._begin)
        try:
            return function(*args, **kwargs)
        finally:
            sys.settrace(None)
            self._before.clear()  # frames that an interrupt has ended, and all that they know of

    def _enter(self, frame: FrameType, event: str, arg: object) -> Callable[..., Any] | None:
        module = str(frame.f_globals.get("__name__", ""))
        if self.where or not module.startswith(self._within) or module.startswith("narrowboat.conformance"):
            return None
        frame.f_trace = self._follow  # Python 3.13 traces opcodes only of a frame that has its function already
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._follow

    def _step(self, frame: FrameType, event: str, arg: object) -> Callable[..., Any]:
        if event == "opcode":
            before = self._before.get(frame)
            self._before[frame] = frame.f_lasti
            if before is not None and before in _after(frame.f_code):
                if self._left == 0 and not self.where:
                    self.where = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
                    raise KeyboardInterrupt(self.where)
                self._left -= 1
        elif event in ("return", "exception"):  # a call that raises goes to its handler at once
            self._before.pop(frame, None)
        return self._follow


def sweep(operation: Callable[[Strike], object], *, within: str | tuple[str, ...] = "narrowboat", limit: int = 5000) -> int:
    """Run `operation(strike)` for each point until a run is not struck. Returns how many points there are."""
    for point in range(limit):
        strike = Strike(point, within)
        operation(strike)
        if not strike.where:
            return point
    raise AssertionError(f"{limit} points, and no end: does each run of the operation begin in the same state?")


#: CPython looks for signals after these. It does not after `JUMP_BACKWARD_NO_INTERRUPT`, nor where a coroutine goes on.
_LOOKS = frozenset({"CALL", "CALL_FUNCTION_EX", "CALL_KW", "JUMP_BACKWARD"})


@functools.cache
def _after(code: CodeType) -> frozenset[int]:
    """The offsets of the instructions after which CPython looks for signals: starts, calls and jumps backwards."""
    return frozenset(
        each.offset
        for each in dis.get_instructions(code)
        if each.opname in _LOOKS or (each.opname == "RESUME" and (each.arg or 0) & 3 < 2)
    )


def _cut_thread(function: Callable[..., Any], point: int, args: Any, kwargs: dict[str, Any]) -> Cut:
    strike = Strike(point)
    result: Any = None
    error: BaseException | None = None
    with warnings.catch_warnings(), quiet:
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)  # cut off before its first step
        warnings.filterwarnings("ignore", "unclosed", ResourceWarning)  # cut off before it was stored: closed as it is dropped
        try:
            result = strike(function, *args, **kwargs)
        except KeyboardInterrupt:
            error = KeyboardInterrupt(strike.where)  # no frames: they keep half-run coroutines alive
        except NarrowboatError as raised:
            error = raised.with_traceback(None)
    return Cut(bool(strike.where), wrap(result), error)
