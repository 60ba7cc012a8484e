"""A lane carries one driver call at a time, and gathers the callers that arrive meanwhile into the next one.

It belongs to the face over a driver, because any number of threads and event loops share that driver. A lone caller runs
in its own thread under the lane's turn: no hand-over, the bare driver's speed. Whoever finds the turn taken leaves the
call to the lane's thread, which executes all that has gathered as one batch (group commit). No caller ever carries
another's call, so a KeyboardInterrupt hits only its own.

What it does not do: wait for anything but the driver, try again what must not be repeated, or know what a call means.

Interrupts. A KeyboardInterrupt can strike in the main thread after every call and on every jump backwards, nowhere
else (CPython checks for signals only there). The turn is therefore taken by one atomic `dict.setdefault` with a mark of
the caller's own, and given back by a `del` that no call precedes: whichever point is hit, the turn is either not ours
or given back.
"""

from __future__ import annotations

import errno
import math
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from narrowboat._engine.inside import INSIDE
from narrowboat.errors import Closed, NarrowboatError, Unavailable


class Op(NamedTuple):
    """One kind of driver call: many items in, one result for each out, in order."""

    name: str
    perform: Callable[[Sequence[Any]], list[Any]]
    repeatable: bool  #: a failed exchange may be tried again, member by member
    distinct: Callable[[Any], object] | None = None  #: no batch holds two items for which this is equal
    last: bool = False  #: may wait until everything else that has gathered is done
    #: Whether an answer, beside every error, says that nothing was changed; None where nobody is told so. A repetition cannot
    #: know it: the first exchange, whose answer was lost, may have done it.
    denies: Callable[[Any], bool] | None = None
    patience: float = math.inf  #: seconds: a batch that took longer to fail is not tried again member by member


#: So many members of a failed batch are tried by themselves before the backend is taken to be away. Each costs an operation
#: timeout while it is, and whoever is next in the lane waits for that.
UNREACHED = 1

#: So many gathered calls are worth two exchanges. Fewer, and the second costs more than what is done meanwhile.
MANY = 64

#: The states of a call. Only the lane's mutex moves a call between QUEUED, RUNNING and LEFT.
NEW, QUEUED, RUNNING, DONE, LEFT = range(5)


class Call:
    """One caller's items on their way through a lane. `results` holds one value or error for each item when done."""

    __slots__ = ("future", "items", "left", "op", "results", "sink", "state", "undo")

    def __init__(
        self,
        op: Op,
        items: Sequence[Any],
        *,
        undo: Callable[[Call], None] | None = None,
        sink: Callable[[Call], None] | None = None,
    ) -> None:
        self.op = op
        self.items = items
        self.undo = undo  #: run on the lane's thread when it is done and its caller has left; must not block
        self.sink = sink  #: told on the lane's thread when it is done; must not block
        self.future: Any = None  #: of the task that waits for it, where one does
        self.results: list[Any] = []
        self.state = NEW
        self.left = False


def perform(op: Op, items: Sequence[Any]) -> list[Any]:
    """Do it, in as many exchanges as `distinct` asks for. A failed exchange is each member's error.

    Where repeating is safe, the members of a failed batch are tried again one by one, so that one poisonous member
    does not fail the others.
    """
    if len(items) == 1:
        return _exchange(op, items)
    results: list[Any] = [None] * len(items)
    for indices in _rounds(op, items):
        begun = time.monotonic()
        answers = _exchange(op, [items[index] for index in indices])
        again = op.repeatable and len(indices) > 1 and all(isinstance(answer, Exception) for answer in answers)
        if again and time.monotonic() - begun < op.patience:
            answers = _one_by_one(op, [items[index] for index in indices], answers)
        for index, answer in zip(indices, answers, strict=True):
            results[index] = answer
    return results


def _exchange(op: Op, items: Sequence[Any]) -> list[Any]:
    try:
        return op.perform(items)
    except Exception as error:
        return [_typed(error)] * len(items)


#: What the process has run out of, where an `OSError` says it: files, the system's files, memory.
_RUN_OUT = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


def _typed(error: Exception) -> Exception:
    """What a driver met that is nobody's fault and passes: a process that has run out of threads or files."""
    if not (isinstance(error, OSError) and error.errno in _RUN_OUT) and not _no_thread(error):
        return error
    made = Unavailable(f"this process has run out of something ({error}); what was asked may or may not have been sent")
    made.__cause__ = error
    return made


def _no_thread(error: BaseException) -> bool:
    """Python has no type of its own for it."""
    return type(error) is RuntimeError and str(error).startswith("can't start new thread")


def start(thread: threading.Thread) -> None:
    """Start it; `Unavailable` where no thread can be started."""
    if sys.is_finalizing():  # Python would wait for its beginning for ever
        raise Unavailable("the interpreter is ending: no thread can be started any more")
    try:
        thread.start()
    except RuntimeError as error:
        raise Unavailable(f"no thread can be started ({error}): the process or the machine has too many") from error


def _one_by_one(op: Op, items: Sequence[Any], answers: list[Any]) -> list[Any]:
    """Each by itself, until the backend turns out to be out of reach: then the rest keep the batch's error.

    Without that end a thousand members would wait for a thousand operation timeouts, and whoever comes next with them. An
    answer may become more certain, never wrong: where the batch's outcome is unknown, no repetition denies it.
    """
    again = list(answers)
    unreached = 0
    for index, item in enumerate(items):
        (answer,) = _exchange(op, [item])
        if op.denies is None or not may_have_happened(answers[index]):
            again[index] = answer
        elif not isinstance(answer, Exception) and not op.denies(answer):
            again[index] = answer  # it is done now, whichever of the two did it
        unreached += isinstance(answer, NarrowboatError) and answer.retryable
        if unreached == index + 1 == UNREACHED:
            break
    return again


def may_have_happened(error: object) -> bool:
    """Whether what was asked may have been done although this was the answer. A refusal, and what was never sent, was not.

    >>> may_have_happened(Unavailable("no answer")), may_have_happened(Unavailable("refused", sent=False))
    (True, False)
    """
    if isinstance(error, Unavailable) and not error.sent:
        return False
    return isinstance(error, Exception) and (not isinstance(error, NarrowboatError) or error.retryable)


def _rounds(op: Op, items: Sequence[Any]) -> list[list[int]]:
    """The indices of `items`, split so that no round holds two that `distinct` calls equal; each in order of arrival."""
    if op.distinct is None:
        return [list(range(len(items)))]
    rounds: list[list[int]] = []
    seen: dict[object, int] = {}
    for index, item in enumerate(items):
        key = op.distinct(item)
        turn = seen.get(key, 0)
        seen[key] = turn + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(index)
    return rounds


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

    def run(self, call: Call) -> bool:
        """Execute `call` in this thread if the lane is free: True. False: somebody has the turn, `submit` it."""
        turn = self._turn
        if self._waiting or self._closed:
            return False
        try:
            if turn.setdefault(0, call) is not call:
                return False
            call.results = perform(call.op, call.items)
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
                call.state = DONE
                call.results = [refusal] * len(call.items)
            for call in calls:
                _tell(call)
        self._bell.put(None)

    def hand_over(self, call: Call) -> bool:
        """`submit` for a caller that can wait. False: no thread can be started that would carry it; try `run` again."""
        refusal = self._queue((call,))
        if isinstance(refusal, Unavailable):
            return False
        if refusal is not None:
            call.state = DONE
            call.results = [refusal] * len(call.items)
        self._bell.put(None)
        return True

    def _queue(self, calls: Sequence[Call]) -> NarrowboatError | None:
        """Put them where the thread finds them; what is in the way, if something is."""
        with self._mutex:
            if self._closed:
                return Closed("the provider is closed")
            # An interrupt can strike between making a thread and starting it: look again each time.
            if self._thread is None or not self._thread.is_alive():
                thread = self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                try:
                    start(thread)
                except Unavailable as error:
                    return error
            for call in calls:
                call.state = QUEUED
            self._waiting.extend(calls)
        return None

    def post(self, op: Op, items: Sequence[Any]) -> None:
        """Leave `items` to the lane's thread; nobody waits for the answer."""
        self.submit([Call(op, items)])

    def leave(self, call: Call) -> bool:
        """The caller of `call` goes. True: it is not under way and never will be; what it did is the caller's to undo.

        False: it is under way; its `undo` runs on the lane's thread once it has returned, never before, so that a
        withdraw cannot overtake its own attempt.
        """
        with self._mutex:
            if call.state == RUNNING:
                call.left = True
                return False
            if call.state == QUEUED:
                call.state = LEFT
            return True

    def close(self, timeout: float) -> bool:
        """Refuse what comes now, finish what is queued or under way. False: it was still under way after `timeout`."""
        finished = threading.Event()
        barrier = Call(_NOTHING, [None], sink=lambda call: finished.set())
        with self._mutex:
            if self._closed:
                return True
            lone = self._turn.get(0)
            idle = self._thread is None and lone is None
        if not idle:
            self.submit([barrier])
        with self._mutex:
            self._closed = True
        if idle:
            return True
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
        groups: dict[int, list[Call]] = {}
        for call in batch:
            groups.setdefault(id(call.op), []).append(call)
        try:
            for calls in sorted(groups.values(), key=lambda calls: calls[0].op.last):
                self._execute_group(calls)
        finally:
            del self._turn[0]
        if self._waiting or self._closed:
            self._bell.put(None)

    def _execute_group(self, calls: list[Call]) -> None:
        items = calls[0].items if len(calls) == 1 else [item for call in calls for item in call.items]
        try:
            results = perform(calls[0].op, items)
        except BaseException as error:  # not even a driver that gives up may leave its callers waiting for ever
            results = [_given_up(error)] * len(items)
        first = 0
        for call in calls:
            call.results = results[first : first + len(call.items)]
            first += len(call.items)
        with self._mutex:
            for call in calls:
                call.state = DONE
        for call in calls:
            if not call.left:
                _tell(call)
            elif call.undo is not None:
                _call(call.undo, call)


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
