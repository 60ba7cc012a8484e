"""SIGTERM and SIGINT end every `run` of this process: one registry for both faces, all threads and all event loops.

The handlers are installed by the first run that enters in the main thread (nobody else may) and put back exactly when the last
run of the main thread leaves; runs of other threads and of their loops are stopped meanwhile as well. Handlers that were there
are not taken away: each signal goes on to them after the runs were told, so a web server in whose process we run stops as ever.
What they raise (Ctrl-C's own KeyboardInterrupt, a `sys.exit`) waits until the runs of the main thread have drained, and is
raised by the last of them; so waits what `asyncio.run` does on Ctrl-C, which is to cancel its main task. A second signal of
either kind ends the wait for the handlers at once.

Only `signal.signal` is used, on event loops too. A loop's own handler (`loop.add_signal_handler`) is called by the bytes that
the interpreter writes for the loop, and not by what `signal.signal` installs, so ours beside it takes nothing away, and there
is nothing to put back but a function that does nothing.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Protocol

from narrowboat._engine.forks import watch_forks

#: What the signal's former handler raised, or the handler itself.
Kept = BaseException | Callable[[], object]

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stoppable(Protocol):
    """A run, as signals see it. Both are called in the main thread, between any two steps of its program."""

    def stop(self) -> None:
        """End in good order."""
        ...

    def hurry(self) -> None:
        """Do not wait for handlers any more: it was told to end before."""
        ...


class _Handler:
    """What is installed for one signal, and what was there. It may be put back by others long after the runs have ended."""

    def __init__(self, registry: Registry, number: int, before: Any) -> None:
        self._registry = registry
        self.number = number
        self.before = before

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The runs first: what was there may raise."""
        runs = self._registry.stop_all()
        if not runs and self.before is signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)  # nobody of ours: it does what it does without us
            signal.raise_signal(number)
            return
        if _cancels_the_main_task(self.before) and self._registry.keep(lambda: self.before(number, None)):
            return  # later: now it would take the handlers' time away
        try:
            if callable(before := self._chained()):
                before(number, frame)
        except BaseException as error:
            if not self._registry.keep(error):
                raise

    def _chained(self) -> Any:
        """What was there before any of ours: an older one of ours, put back by others, would tell the runs a second time."""
        before = self.before
        while isinstance(before, _Handler) and before._registry is self._registry:
            before = before.before
        return before


def _cancels_the_main_task(handler: Any) -> bool:
    """Whether it is what `asyncio.run` installs for Ctrl-C: the default of programs that run on an event loop."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return False
    owner = getattr(getattr(handler, "func", None), "__self__", None)  # a partial of a method of the runner's
    return isinstance(owner, asyncio.Runner)


class Registry:
    """The runs of this process that end on signals. A handler may strike anywhere, so nothing here takes a lock."""

    def __init__(self) -> None:
        self._runs: dict[Stoppable, list[bool]] = {}  # [True] once it was told to end
        self._main: dict[Stoppable, None] = {}  # those of the main thread
        self._installed: list[_Handler] = []
        self._kept: Kept | None = None  # to be raised, or done, when the last run of the main thread has ended
        watch_forks(self)

    def join(self, run: Stoppable) -> None:
        """`run` begins."""
        try:
            self._runs[run] = []
            if threading.current_thread() is threading.main_thread():
                self._main[run] = None
                if not self._installed:
                    self._install()
        except BaseException:
            self.leave(run)
            raise

    def leave(self, run: Stoppable) -> Kept | None:
        """`run` has ended; what it is to raise or to do, if it was the last of the main thread. Repeating it does no harm."""
        self._runs.pop(run, None)
        self._main.pop(run, None)
        if self._main or threading.current_thread() is not threading.main_thread():
            return None
        self._put_back()
        kept, self._kept = self._kept, None
        return kept

    def stop_all(self) -> bool:
        """Every run ends in good order; one that was told so before hurries. False: there is none."""
        runs = tuple(self._runs.items())
        for run, told in runs:
            if told:
                run.hurry()
            else:
                told.append(True)
                run.stop()
        return bool(runs)

    def keep(self, kept: Kept) -> bool:
        """Until the last run of the main thread has drained. False: there is none."""
        if not self._main:
            return False
        if self._kept is None:
            self._kept = kept
        return True

    def _install(self) -> None:
        for number in SIGNALS:
            before = signal.getsignal(number)
            if before is signal.SIG_IGN or before is None:
                continue  # what is ignored stays so; what another language installed could not be put back
            handler = _Handler(self, number, before)
            self._installed.append(handler)  # first: an interrupt between the two leaves nothing behind
            signal.signal(number, handler)

    def _put_back(self) -> None:
        while self._installed:
            handler = self._installed[-1]
            there: object = signal.getsignal(handler.number)
            if there is handler:  # else it is somebody else's by now, who may put ours back
                signal.signal(handler.number, handler.before)
            self._installed.pop()

    def forked(self) -> None:
        """In a forked child: the runs are the parent's, and a signal does what it does without them."""
        self._runs.clear()
        self._main.clear()
        self._installed.clear()
        self._kept = None


REGISTRY = Registry()


class Signals:
    """One run in the registry, for as long as its block lasts. None: it is not to end on signals."""

    def __init__(self, run: Stoppable | None) -> None:
        self._run = run

    def __enter__(self) -> Signals:
        if self._run is not None:
            REGISTRY.join(self._run)
        return self

    def leave(self) -> None:
        """Whatever happened; idempotent."""
        if self._run is not None:
            REGISTRY.leave(self._run)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._run is not None:
            kept = REGISTRY.leave(self._run)
            if not isinstance(kept, BaseException | None):
                kept()
            elif kept is not None and error is None:
                raise kept
