"""A lane carries one driver call at a time, and gathers the callers that arrive meanwhile into the next one.

It belongs to the face over a driver, because any number of threads and event loops share that driver. A lone caller runs
in its own thread under the lane's turn: no hand-over, the bare driver's speed. Whoever finds the turn taken leaves the
call to the lane's thread, which executes all that has gathered as one batch (group commit). No caller ever carries
another's call, so a KeyboardInterrupt hits only its own.

While the backend does not answer, each exchange costs an operation timeout, and the last of ten callers would wait for ten. So
a call that has waited for an exchange without an answer ends with it and has none of its own, unless that one failed at once
(`Op.patience`).

Interrupts. A KeyboardInterrupt can strike in the main thread after every call and on every jump backwards, nowhere
else (CPython checks for signals only there). The turn is therefore taken by one atomic `dict.setdefault` with a mark of
the caller's own, and given back by a `del` that no call precedes: whichever point is hit, the turn is either not ours
or given back.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from narrowboat._engine.exchange import BEGUN, DONE, LEFT, QUEUED, RUNNING, Call, Op, perform, unanswered
from narrowboat._engine.inside import INSIDE
from narrowboat.capabilities import Concurrency
from narrowboat.errors import Closed, NarrowboatError, Unavailable

#: So many gathered calls are worth two exchanges. Fewer, and the second costs more than what is done meanwhile.
MANY = 64


def start(thread: threading.Thread) -> None:
    """Start it; `Unavailable` where no thread can be started."""
    if sys.is_finalizing():  # Python would wait for its beginning for ever
        raise Unavailable("the interpreter is ending: no thread can be started any more")
    try:
        thread.start()
    except RuntimeError as error:
        raise Unavailable(f"no thread can be started ({error}): the process or the machine has too many") from error


class Lane:
    """One driver call at a time; see the module's text. `name` is its thread's.

    `remote`: a driver call is mostly another process's work. From `MANY` calls on only half of what has gathered goes at once,
    so that this process handles the answers of the one half while the other is under way.
    """

    def __init__(self, name: str, *, remote: bool = False) -> None:
        self._name = name
        self._remote = remote
        self._turn: dict[int, object] = {}
        self._mutex = threading.RLock()  # whoever posts may be a signal handler in the middle of one that does
        self._waiting: deque[Call] = deque()
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._unanswered: tuple[str, str | None] | None = None  # the text and the backend of what the last exchange met instead

    @property
    def opened(self) -> bool:
        """Whether it has a thread."""
        return self._thread is not None

    def run(self, call: Call) -> bool:
        """Execute `call` in this thread if the lane is free: True. False: somebody has the turn, `submit` it."""
        turn = self._turn
        if self._waiting or self._closed:
            return False
        try:
            if turn.setdefault(0, call) is not call or self._closed:  # again: `close` waits only for who had the turn
                return False
            call.state = BEGUN
            call.results = perform(call.op, call.items)
            if self._waiting:  # before the turn is given back, to whoever has waited for this
                self._heard(call.op, call.results)
            call.state = DONE
            return True
        finally:
            # No call may stand between here and the `del`: an interrupt there would leave the turn taken for ever.
            try:
                if turn[0] is call:
                    del turn[0]
            except KeyError:
                pass
            if self._waiting:
                self._bell.put(None)

    def submit(self, calls: Sequence[Call]) -> None:
        """Leave `calls` to the lane's thread. Each one's sink is told when it is done."""
        refusal = self._queue(calls)
        if refusal is not None:
            for call in calls:
                _refuse(call, refusal)
            for call in calls:
                _tell(call)
        self._bell.put(None)

    def hand_over(self, call: Call) -> bool:
        """`submit` for a caller that can wait. False: no thread can be started that would carry it; try `run` again."""
        refusal = self._queue((call,))
        if isinstance(refusal, Unavailable):
            return False
        if refusal is not None:
            _refuse(call, refusal)
        self._bell.put(None)
        return True

    def _queue(self, calls: Sequence[Call]) -> NarrowboatError | None:
        """Put them where the thread finds them; what is in the way, if something is."""
        with self._mutex:
            if self._closed:
                return Closed("the provider is closed")
            refusal = self._carried()
            if refusal is not None:
                return refusal
            now = time.monotonic()
            for call in calls:
                call.state, call.since = QUEUED, now
            self._waiting.extend(calls)
        return None

    def _carried(self) -> NarrowboatError | None:
        """See that somebody carries what is queued; what is in the way, if something is."""
        # An interrupt can strike between making a thread and starting it: look again each time.
        if self._thread is None or not self._thread.is_alive():
            thread = self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            try:
                start(thread)
            except Unavailable as error:
                return error
        return None

    def post(self, op: Op, items: Sequence[Any]) -> None:
        """Leave `items` to the lane's thread; nobody waits for the answer."""
        self.submit([Call(op, items)])

    def leave(self, call: Call) -> bool:
        """The caller of `call` goes. True: it is not under way and never will be; what it did is the caller's to undo.

        False: it is under way; it is undone on the lane's thread once it has returned, never before, so that a withdraw
        cannot overtake its own attempt.
        """
        with self._mutex:
            call.left = True
            if call.state == RUNNING:
                return False
            if call.state == QUEUED:
                call.state = LEFT
            return True

    def abandon(self, call: Call) -> None:
        """The caller of `call` was torn away: drop the call or let it be undone, whatever has become of it. Idempotent."""
        if not call.left and self.leave(call) and call.undo is not None:
            call.undo(call)

    def close(self, timeout: float) -> bool:
        """Refuse what comes now, finish what is queued or under way. False: it was still under way after `timeout`."""
        finished = threading.Event()
        barrier = Call(_NOTHING, [None], sink=lambda call: finished.set())
        with self._mutex:
            if self._closed:
                return True
            barrier.state = QUEUED
            self._waiting.append(barrier)  # before `_closed`: the thread ends where it is closed and nothing waits
            self._closed = True  # before the look at the turn: who takes it later than that goes away again
            if self._thread is None and not self._turn:
                self._waiting.clear()
                return True
            if self._carried() is not None:
                finished.set()
        self._bell.put(None)
        done = finished.wait(timeout)
        thread = self._thread
        if thread is not None and thread.ident is not None and thread is not threading.current_thread():
            thread.join(timeout if done else 0)
        return done

    def _work(self) -> None:
        me = threading.get_ident()
        INSIDE[me] = None  # a finaliser that strikes here must not wait for this thread
        try:
            self._serve()
        finally:
            INSIDE.pop(me, None)

    def _serve(self) -> None:
        while True:
            self._bell.get()
            batch = self._next()
            if batch:
                self._execute(batch)
                del batch  # its calls know who made them, and this thread may now wait for long
            elif self._closed and not self._waiting:
                return

    def _next(self) -> list[Call]:
        """What has gathered, with the turn taken; empty when there is nothing or somebody else has the turn."""
        if not self._waiting or self._turn.setdefault(0, self) is not self:
            return []  # whoever has the turn rings the bell on leaving
        with self._mutex:
            batch = [call for call in self._waiting if call.state == QUEUED]
            self._waiting.clear()
            if self._remote and len(batch) >= MANY:
                batch.sort(key=_is_last)
                self._waiting.extend(batch[len(batch) // 2 :])
                del batch[len(batch) // 2 :]
            for call in batch:
                call.state = RUNNING
        if not batch:
            del self._turn[0]
        return batch

    def _execute(self, batch: list[Call]) -> None:
        groups: dict[object, list[Call]] = {}
        for call in batch:
            key = id(call.op) if call.op.apart is None else (id(call.op), call.op.apart(call))
            groups.setdefault(key, []).append(call)
        try:
            for calls in sorted(groups.values(), key=lambda calls: calls[0].op.last):
                self._execute_group(calls)
            if not self._waiting:
                self._unanswered = None  # who comes now has not waited for it
        finally:
            del self._turn[0]
        if self._waiting or self._closed:
            self._bell.put(None)

    def _execute_group(self, calls: list[Call]) -> None:
        if self._unanswered is not None and not (calls := self._in_time(calls, *self._unanswered)):
            return
        items = calls[0].items if len(calls) == 1 else [item for call in calls for item in call.items]
        try:
            results = perform(calls[0].op, items, calls[0].since)
        except BaseException as error:  # not even a driver that gives up may leave its callers waiting for ever
            results = _all_failed(calls[0].op, items, _given_up(error))
        self._heard(calls[0].op, results)
        first = 0
        for call in calls:
            call.results = results[first : first + len(call.items)]
            first += len(call.items)
        del results  # an error's traceback leads here: the two would keep each other, and what its caller holds
        self._finish(calls)

    def _heard(self, op: Op, results: Sequence[Any]) -> None:
        """Note whether an exchange that came to `results` had no answer."""
        error = None
        if results and all(isinstance(each, Exception) for each in results):
            error = next(filter(None, map(unanswered, results)), None)
        if error is not None:
            self._unanswered = str(error), error.backend
        elif op.reach is not None:  # what may ask the backend nothing says nothing of it
            self._unanswered = None

    def _in_time(self, calls: Sequence[Call], why: str, backend: str | None) -> list[Call]:
        """Those that have not waited for long. The others end with the exchange before them, which had no answer."""
        now = time.monotonic()
        ended = [call for call in calls if now - call.since >= call.op.patience]
        for call in ended:
            call.results = _all_failed(call.op, call.items, _in_vain(now - call.since, why, backend))
        self._finish(ended)
        return [call for call in calls if call.state == RUNNING]

    def _finish(self, calls: Sequence[Call]) -> None:
        """They have their results: tell their callers."""
        with self._mutex:
            for call in calls:
                call.state = DONE
            gone = [call.left for call in calls]  # who leaves from now on undoes it: asked later, both would
        for call, left in zip(calls, gone, strict=True):
            if not left:
                _tell(call)
            elif call.late is not None:
                _call(call.late, call)


def _refuse(call: Call, refusal: NarrowboatError) -> None:
    call.state = DONE
    call.results = _all_failed(call.op, call.items, refusal)


def _all_failed(op: Op, items: Sequence[Any], error: Exception) -> list[Any]:
    """The results of items that `perform` has not come back with."""
    results: list[Any] = [error] * len(items)
    if op.failed is not None:
        op.failed(items, results)
    return results


def _in_vain(waited: float, why: str, backend: str | None) -> Unavailable:
    return Unavailable(
        f"nothing was sent, because the call before it had no answer and this one had waited for it for {waited:.1f} s: {why}",
        backend=backend,
        sent=False,
    )


def _given_up(error: BaseException) -> Unavailable:
    made = Unavailable(f"the call was given up by {type(error).__name__}; what was asked may or may not have happened")
    made.__cause__ = error
    return made


def _is_last(call: Call) -> bool:
    return call.op.last


def _tell(call: Call) -> None:
    if call.sink is not None:
        _call(call.sink, call)


def _call(told: Callable[[Call], None], call: Call) -> None:
    """What one caller's code raises is no other's concern, and ends no thread."""
    try:
        told(call)
    except Exception:
        import logging  # only on the way to an error

        logging.getLogger("narrowboat").exception("whoever was to be told of a call raised")


_NOTHING = Op("nothing", list, repeatable=True)


class OpenLane(Lane):
    """For a driver that carries any number of calls at once: blocking callers enter it directly, side by side.

    A driver with an I/O thread of its own (`Concurrency.MULTIPLEXED`) gathers callers better than a lane in front of it can:
    several exchanges are under way at once there. What comes from an event loop is still gathered tick by tick and carried by
    the lane's thread, because no driver call may run on an event loop.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._inside: dict[int, Call] = {}
        self._gone = threading.Event()

    def run(self, call: Call) -> bool:
        """Execute `call` in this thread, whoever else does the same: True. False once the lane is closed."""
        key = id(call)
        try:
            self._inside[key] = call
            if self._closed:  # looked at after entering, so that close waits for whoever it does not refuse
                return False
            call.state = BEGUN
            call.results = perform(call.op, call.items)
            call.state = DONE
            return True
        finally:
            self._inside.pop(key, None)
            if self._closed:
                self._gone.set()

    def close(self, timeout: float) -> bool:
        """Refuse what comes now, finish what is queued or under way. False: it was still under way after `timeout`."""
        ends = time.monotonic() + timeout
        finished = super().close(timeout)
        while (inside := bool(self._inside)) and (left := ends - time.monotonic()) > 0:
            self._gone.wait(left)
            self._gone.clear()
        return finished and not inside  # not asked again: who is refused is inside for a moment


def lane(name: str, concurrency: Concurrency, *, remote: bool = False) -> Lane:
    """The lane that suits how a driver wants to be called; `remote` as for `Lane`."""
    return OpenLane(name) if concurrency is Concurrency.MULTIPLEXED else Lane(name, remote=remote)
