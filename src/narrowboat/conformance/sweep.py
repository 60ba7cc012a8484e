"""Cuts a call off at its n-th chance to be cut off: every await of a task, every interruptible point of a thread.

On the asyncio face a cancellation arrives while the task is suspended. On the sync face a KeyboardInterrupt strikes at a
function's start, after a call or on a jump backwards, which is where CPython looks for signals; it is raised by a tracing
function that counts those points, in the core's code and in the driver's alike. Both change the state of the whole
interpreter for a moment, so scenarios that use this run alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import dis
import functools
import sys
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from types import CodeType, FrameType
from typing import Any, NamedTuple, cast

from narrowboat.conformance.faces import Threaded, in_my_thread, unwrap, wrap
from narrowboat.errors import NarrowboatError


class Cut(NamedTuple):
    """What became of a call that was to be cut off."""

    struck: bool  #: False: it had fewer points than that, and ended by itself
    result: Any  #: what it gave, where it ended before the cut took effect
    error: BaseException | None  #: the interrupt, or what the call raised of itself


async def cut(target: Any, method: str, point: int, /, *args: Any, delay: int = 0, **kwargs: Any) -> Cut:
    """Call `target.method(...)` and cut it off at its `point`-th point; to be awaited in a task of its own.

    `delay`: on the asyncio face, so many turns of the loop after the task was suspended at that point.
    """
    if isinstance(target, Threaded):
        function = getattr(unwrap(target), method)
        return cast("Cut", await in_my_thread(_cut_thread, function, point, args, kwargs))
    coroutine = getattr(target, method)(*args, **kwargs)
    return await _cut_task(coroutine, point, delay)


async def _cut_task(coroutine: Coroutine[Any, Any, Any], point: int, delay: int) -> Cut:
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
        result, failure = None, error  # it ended by itself
    if awaited.struck:  # it ended in the very turn in which it was cancelled: the cancellation is still on its way
        try:
            for _ in range(delay + 2):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            task.uncancel()
    return Cut(awaited.struck, result, failure)


class _Counted(Awaitable[Any]):
    """Awaits a coroutine, and asks for the cancellation of its task at the n-th suspension."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], point: int, delay: int, task: asyncio.Task[Any]) -> None:
        self._coroutine = coroutine
        self._point = point
        self._delay = delay
        self._task = task
        self.struck = False

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[[], Any] = lambda: self._coroutine.send(None)  # noqa: E731  # replaced after each suspension
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
                step = _thrower(self._coroutine, error)
            else:
                step = _sender(self._coroutine, sent)

    def _cancel_after(self, turns: int) -> None:
        loop = asyncio.get_running_loop()
        if turns:
            loop.call_soon(self._cancel_after, turns - 1)
        else:
            loop.call_soon(self._task.cancel)


def _sender(coroutine: Coroutine[Any, Any, Any], value: Any) -> Callable[[], Any]:
    return lambda: coroutine.send(value)


def _thrower(coroutine: Coroutine[Any, Any, Any], error: BaseException) -> Callable[[], Any]:
    return lambda: coroutine.throw(error)


class _Points:
    """Counts the points at which a signal can strike in the project's own frames, and strikes at the n-th."""

    def __init__(self, point: int) -> None:
        self._left = point
        self._before: dict[FrameType, int] = {}
        self.where = ""

    def trace(self, frame: FrameType, event: str, arg: object) -> Callable[..., Any] | None:
        """Whether to follow a frame: the core's and the drivers', not the kit's own nor the standard library's."""
        module = str(frame.f_globals.get("__name__", ""))
        if not module.startswith("narrowboat") or module.startswith("narrowboat.conformance"):
            return None
        frame.f_trace = self._step  # Python 3.13 traces opcodes only of a frame that has its function already
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._step

    def _step(self, frame: FrameType, event: str, arg: object) -> Callable[..., Any]:
        if event == "opcode":
            before = self._before.get(frame)
            self._before[frame] = frame.f_lasti
            if before is not None and before in _after(frame.f_code):
                if self._left == 0 and not self.where:
                    self.where = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
                    raise KeyboardInterrupt(self.where)
                self._left -= 1
        elif event == "return":
            self._before.pop(frame, None)
        return self._step


@functools.cache
def _after(code: CodeType) -> frozenset[int]:
    """The offsets of the instructions after which CPython looks for signals: starts, calls and jumps backwards."""
    return frozenset(
        each.offset for each in dis.get_instructions(code) if each.opname.startswith(("CALL", "JUMP_BACKWARD", "RESUME"))
    )


def _cut_thread(function: Callable[..., Any], point: int, args: Any, kwargs: dict[str, Any]) -> Cut:
    points = _Points(point)
    with warnings.catch_warnings(), _quiet():
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)  # cut off before its first step
        result, error = _traced(points, function, args, kwargs)
    return Cut(bool(points.where), wrap(result), error)


def _traced(
    points: _Points, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]
) -> tuple[Any, BaseException | None]:
    sys._getframe().f_trace_opcodes = True  # Python 3.12 traces opcodes only if a frame has asked for them before
    sys.settrace(points.trace)
    try:
        return function(*args, **kwargs), None
    except KeyboardInterrupt:
        return None, KeyboardInterrupt(points.where)  # without the frames, which keep half-run coroutines alive
    except NarrowboatError as error:
        return None, error.with_traceback(None)
    finally:
        sys.settrace(None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """An interrupt that strikes in a weak reference's callback is swallowed by CPython with a complaint: not a failure."""
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
