"""The sync face spoken with `await`, so that one scenario serves both faces.

Each task of a scenario owns one thread, and every blocking call of the task runs in it: "same task" is "same thread".
A method blocks on the sync face if the method of the same name is a coroutine function on the asyncio face, or returns there
what does its work when it is awaited or entered; every other method is called directly. A cancelled scenario task interrupts
its thread with a KeyboardInterrupt, which is what cancellation is to a sync program, and sees a `CancelledError` on both
faces.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import importlib
import inspect
import itertools
import queue
import sys
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Generator, Iterator
from types import FrameType
from typing import Any

from narrowboat.conformance.checks.collector import resting

_STOP = object()


class Worker:
    """One task's thread. Runs one function at a time; can be interrupted in it."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any], asyncio.AbstractEventLoop] | None]
        self._queue = queue.SimpleQueue()
        self._mutex = threading.Lock()
        self._inside = False
        self._struck = False
        self._ident: int | None = None
        self._future: asyncio.Future[Any] | None = None
        self.missed = False  #: the last call had ended when it was to be interrupted: it gave what it gives

    @property
    def busy(self) -> bool:
        """Whether a call is queued, under way, or has ended without the task knowing its outcome yet. Ask on the loop."""
        return self._future is not None

    def serve(self) -> None:
        """Make the calls in the calling thread, until `stop`."""
        self._ident = threading.get_ident()
        while (item := self._queue.get()) is not None:
            if not self._answer(*item):
                return
            del item  # it would keep the call's result alive until the next call

    def stop(self) -> None:
        """End after the calls that are queued."""
        self._queue.put(None)

    async def call(self, function: Callable[[], Any]) -> Any:
        """Run `function` in the thread. When the awaiting task is cancelled, the thread is not: use `interrupt`."""
        loop = asyncio.get_running_loop()
        future = self._future = loop.create_future()
        self._queue.put((function, future, loop))
        try:
            return await future
        finally:
            self._future = None

    def interrupt(self) -> bool:
        """Raise KeyboardInterrupt in the function under way, at its next chance to be interrupted. False: there is none."""
        with self._mutex:
            if not self._inside or self._ident is None:
                return False
            for _ in range(1000):
                if not _starts_a_thread(self._ident):
                    break
                time.sleep(0.001)
            self._struck = True
            self.missed = False
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._ident), ctypes.py_object(KeyboardInterrupt))
            return True

    def _answer(self, function: Callable[[], Any], future: asyncio.Future[Any], loop: asyncio.AbstractEventLoop) -> bool:
        value, error = self._perform(function)
        try:
            loop.call_soon_threadsafe(_settle, future, value, error)
        except RuntimeError:
            return False  # the scenario is over and its loop closed
        return True

    def _perform(self, function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
        # C code alone keeps the value: an interrupt can strike between a call's return and the caller's own variable, and
        # the result would be dropped unseen. (A program that is interrupted there does not get the result either, but a
        # scenario must tell the two cases apart.)
        kept: list[Any] = []
        error: BaseException | None = None
        self._struck = False
        self._inside = True
        try:
            try:
                kept.extend(itertools.starmap(function, ((),)))
            except BaseException as raised:
                error = raised
            with self._mutex:
                self._inside = False
            if self._struck and not isinstance(error, KeyboardInterrupt):
                # The interrupt may still be on its way, and must not strike later. (Taking it back by setting NULL leaves
                # CPython 3.11 with its flag up for ever, and a traced thread spins at the next function's start.)
                for _ in range(100):
                    time.sleep(0)
        except KeyboardInterrupt as late:  # it struck after the function's last line
            self._inside = False
            error = error or late
        if kept:
            self.missed = self.missed or self._struck
            return kept[0], None
        if isinstance(error, KeyboardInterrupt):
            error = asyncio.CancelledError("interrupted")
        elif error is None:
            error = RuntimeError("StopIteration out of a call")
        return None, error


def _starts_a_thread(ident: int) -> bool:
    """Whether that thread is starting another. CPython 3.11 gives the new one the ident of its starter until it runs.

    An interrupt would strike the new thread instead, which then never begins, and its starter would wait for it for ever.
    """
    frame = _frames().get(ident)
    while frame is not None:
        if frame.f_code is threading.Thread.start.__code__:
            return True
        frame = frame.f_back
    return False


def _frames() -> dict[int, FrameType]:
    """What each thread is doing. The collector rests meanwhile.

    CPython up to 3.11.8 holds a lock of the interpreter here. A collection may call back into Python, which gives the turn to
    a thread that begins and waits for that lock: then nothing in the process goes on (https://github.com/python/cpython/issues/106883).
    """
    with resting():
        return sys._current_frames()


def _settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if isinstance(error, asyncio.CancelledError):
        future.cancel()
    elif error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)


_workers: weakref.WeakKeyDictionary[asyncio.Task[Any], Worker] = weakref.WeakKeyDictionary()


def worker_of(task: asyncio.Task[Any]) -> Worker | None:
    """The thread that `task` owns, if it has made a blocking call."""
    return _workers.get(task)


def _mine() -> Worker:
    task = asyncio.current_task()
    assert task is not None, "the sync face is spoken to from within a task"
    worker = _workers.get(task)
    if worker is None:
        worker = _workers[task] = Worker()
        threading.Thread(target=worker.serve, name="conformance-task", daemon=True).start()
        task.add_done_callback(_dismiss)
    return worker


def _dismiss(task: asyncio.Task[Any]) -> None:
    worker = _workers.pop(task, None)
    if worker is not None:
        worker.stop()


async def in_my_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a blocking function in the thread that belongs to the calling task."""
    return await _mine().call(functools.partial(function, *args, **kwargs))


def blocking(function: Callable[..., Any], loop: asyncio.AbstractEventLoop) -> Callable[..., Any]:
    """A coroutine function as a blocking one, for callbacks: its blocking calls run in the thread that calls it."""

    def call(*args: Any, **kwargs: Any) -> Any:
        worker = Worker()

        async def run() -> Any:
            task = asyncio.current_task()
            assert task is not None
            _workers[task] = worker
            try:
                return await function(*(wrap(arg) for arg in args), **kwargs)
            finally:
                _workers.pop(task, None)
                worker.stop()

        future = asyncio.run_coroutine_threadsafe(run(), loop)
        worker.serve()
        return unwrap(future.result())

    return call


class Threaded:
    """A sync object under the names and the `await`s of its asyncio twin."""

    __slots__ = ("__weakref__", "_inner", "_iterator", "_twin")

    def __init__(self, inner: Any, twin: type | None) -> None:
        self._inner = inner
        self._twin = twin
        self._iterator: Iterator[Any] | None = None

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not callable(value) or isinstance(value, type):
            return wrap(value)
        twin = inspect.getattr_static(self._twin, name, None) if self._twin else None
        if _awaits(twin):
            return lambda *args, **kwargs: _call(value, args, kwargs)
        if _returns(twin).startswith("Opening"):
            return lambda *args, **kwargs: _Opening(functools.partial(_call, value, args, kwargs))
        return lambda *args, **kwargs: wrap(value(*map(unwrap, args), **{k: unwrap(v) for k, v in kwargs.items()}))

    def __call__(self, function: Callable[..., Any]) -> Any:
        """As a decorator of a coroutine function."""
        decorated = self._inner(blocking(function, asyncio.get_running_loop()))

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await _call(decorated, args, kwargs)

        return call

    async def __aenter__(self) -> Any:
        return await _call(self._inner.__enter__, (), {})

    async def __aexit__(self, *error: Any) -> Any:
        return await _call(self._inner.__exit__, error, {})

    def __aiter__(self) -> Threaded:
        self._iterator = iter(self._inner)
        return self

    async def __anext__(self) -> Any:
        item = await _call(lambda: next(self._iterator or iter(()), _STOP), (), {})
        if item is _STOP:
            raise StopAsyncIteration
        return item

    def __iter__(self) -> Iterator[Any]:
        return map(wrap, iter(self._inner))

    def __len__(self) -> int:
        return len(self._inner)

    def __getitem__(self, index: Any) -> Any:
        return wrap(self._inner[index])

    def __bool__(self) -> bool:
        return bool(self._inner)

    def __eq__(self, other: object) -> bool:
        return bool(self._inner == unwrap(other))

    def __hash__(self) -> int:
        return hash(self._inner)

    def __repr__(self) -> str:
        return f"Threaded({self._inner!r})"


class _Opening:
    """What opens a consumer in the task's thread when it is awaited or entered, as its twin of the asyncio face does.

    Opened by the call itself, it would stop the event loop, and with it all other users of the process, for as long as a
    server is silent.
    """

    def __init__(self, call: Callable[[], Awaitable[Any]]) -> None:
        self._call = call
        self._opened: Any = None

    def __await__(self) -> Generator[Any, None, Any]:
        return self._call().__await__()

    async def __aenter__(self) -> Any:
        self._opened = await self._call()
        return await self._opened.__aenter__()

    async def __aexit__(self, *error: Any) -> Any:
        return await self._opened.__aexit__(*error)


async def _call(function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    loop = asyncio.get_running_loop()
    plain = [argument(arg, loop) for arg in args]
    named = {name: argument(value, loop) for name, value in kwargs.items()}
    return wrap(await in_my_thread(function, *plain, **named))


def argument(value: Any, loop: asyncio.AbstractEventLoop) -> Any:
    """A scenario's argument as the sync face takes it: a coroutine function becomes a blocking one."""
    if inspect.iscoroutinefunction(value):
        return blocking(value, loop)
    return unwrap(value)


def _awaits(twin: Any) -> bool:
    if isinstance(twin, (staticmethod, classmethod)):
        twin = twin.__func__
    if inspect.iscoroutinefunction(twin):
        return True
    return _returns(twin).startswith(("Awaitable", "Coroutine"))


def _returns(twin: Any) -> str:
    return str(getattr(twin, "__annotations__", {}).get("return", ""))


@functools.cache
def _find_twin(kind: type) -> type | None:
    """The asyncio face's class for one of the sync face; None for a class that both faces share."""
    package, _, module = kind.__module__.partition(".")
    if package != "narrowboat":
        return None
    try:
        twin = getattr(importlib.import_module(f"narrowboat.aio.{module}"), kind.__name__, None)
    except ModuleNotFoundError:
        return None
    return twin if isinstance(twin, type) and twin is not kind else None


def wrap(value: Any) -> Any:
    """`value` as the scenario sees it: an object of the sync face that has an asyncio twin is wrapped."""
    kind = type(value)
    twin = _find_twin(kind)  # type: ignore[arg-type]  # for mypy a class of Any is not hashable
    if twin is not None:
        return Threaded(value, twin)
    if inspect.isgenerator(value):
        return Threaded(value, None)
    if kind in (list, tuple):
        return kind(map(wrap, value))
    return value


def unwrap(value: Any) -> Any:
    """The object of the sync face itself."""
    return value._inner if isinstance(value, Threaded) else value
