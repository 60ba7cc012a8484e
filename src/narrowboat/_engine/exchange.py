"""One exchange with a driver: what is asked, on whose behalf, and what the answers are worth.

An `Op` is a kind of driver call; a `Call` is one caller's items on their way through a lane, with what undoes them should the
caller go. `perform` makes the exchange, and repeats what may be repeated.

What it does not do: wait for anything but the driver, try again what must not be repeated, or know what an item means.
"""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from narrowboat.errors import NarrowboatError, Unavailable


class Hears(Protocol):
    """Who is told what exchanges come to, to know whether the backend answers; `reach.py`."""

    up: bool

    def heard(self, answers: Sequence[Any]) -> None:
        """One exchange has come to this."""
        ...


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
    #: Seconds after which no exchange is begun for a caller while the backend does not answer: neither the members of a batch
    #: that failed, one by one, nor a call that has waited in its lane behind one that had no answer.
    patience: float = math.inf
    #: No batch holds two calls for which this differs: its driver calls would follow each other, and each caller wait for all.
    apart: Callable[[Call], object] | None = None
    reach: Hears | None = None  #: is told of answers while there were none, and of errors
    #: Is told the items and what became of them, wherever an error is among that: for what is owed also to who has gone.
    failed: Callable[[Sequence[Any], Sequence[Any]], None] | None = None


#: The states of a call. Only the lane's mutex moves a call between QUEUED, RUNNING and LEFT. BEGUN is what its caller's own
#: thread carries: if that is torn away, the call stays BEGUN, and its outcome is unknown.
NEW, QUEUED, RUNNING, DONE, LEFT, BEGUN = range(6)


class Call:
    """One caller's items on their way through a lane. `results` holds one value or error for each item when done.

    `undo` is run when its caller has gone and it is not under way any more: where the caller was, or on the lane's thread once
    the driver has returned. There `late` is run in its stead, if it is given. On the lane's thread neither may block.
    """

    __slots__ = ("future", "items", "late", "left", "op", "results", "since", "sink", "state", "undo")

    def __init__(
        self,
        op: Op,
        items: Sequence[Any],
        *,
        undo: Callable[[Call], None] | None = None,
        late: Callable[[Call], None] | None = None,
        sink: Callable[[Call], None] | None = None,
    ) -> None:
        self.op = op
        self.items = items
        self.undo = undo
        self.late = late or undo
        self.sink = sink  #: told on the lane's thread when it is done; must not block
        self.future: Any = None  #: of the task that waits for it, where one does
        self.results: list[Any] = []
        self.state = NEW
        self.since = 0.0  #: when it was queued, by `time.monotonic`
        self.left = False  #: its caller has gone


#: The share of an operation timeout within which a failure is so early that one more call is made. More, and calls end late;
#: less, and a lost reply is told as unknown where asking again would have told.
AT_ONCE = 0.2

#: So many members of a failed batch are tried by themselves before the backend is taken to be away. Each costs an operation
#: timeout while it is, and whoever is next in the lane waits for that.
UNREACHED = 1


def perform(op: Op, items: Sequence[Any], since: float = math.inf) -> list[Any]:
    """Do it, in as many exchanges as `distinct` asks for. A failed exchange is each member's error.

    Where repeating is safe, the members of a failed batch are tried again one by one, so that one poisonous member
    does not fail the others. `since`: when the first of their callers began to wait, by `time.monotonic`.
    """
    reach = op.reach
    if len(items) == 1:
        try:
            answers = op.perform(items)
            if reach is None or (reach.up and not isinstance(answers[0], Exception)):
                return answers
        except Exception as error:
            answers = [_typed(error)]
        try:
            if reach is not None:
                reach.heard(answers)
            if op.failed is not None and isinstance(answers[0], Exception):
                op.failed(items, answers)
            return answers
        finally:
            answers = []  # an error's traceback leads here: the two would keep each other, and who gets it
    results: list[Any] = [None] * len(items)
    try:
        for indices in _rounds(op, items):
            begun = min(since, time.monotonic())
            answers = _exchange(op, [items[index] for index in indices])
            again = op.repeatable and len(indices) > 1 and all(isinstance(answer, Exception) for answer in answers)
            if again and time.monotonic() - begun < op.patience:
                answers = _one_by_one(op, [items[index] for index in indices], answers)
            for index, answer in zip(indices, answers, strict=True):
                results[index] = answer
        if reach is not None and (not reach.up or (results and isinstance(results[0], Exception))):
            reach.heard(results)
        if op.failed is not None and any(isinstance(answer, Exception) for answer in results):
            op.failed(items, results)
        return results
    finally:
        results = answers = answer = []  # as above


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


def _one_by_one(op: Op, items: Sequence[Any], answers: list[Any]) -> list[Any]:
    """Each by itself, until the backend turns out to be out of reach: then the rest keep the batch's error.

    Without that end a thousand members would wait for a thousand operation timeouts, and whoever comes next with them. An
    answer may become more certain, never wrong: where the batch's outcome is unknown, no repetition denies it.
    """
    again = list(answers)
    unreached = 0
    try:
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
    finally:
        again = answers = answer = []  # as above


def may_have_happened(error: object) -> bool:
    """Whether what was asked may have been done although this was the answer. A refusal, and what was never sent, was not.

    >>> may_have_happened(Unavailable("no answer")), may_have_happened(Unavailable("refused", sent=False))
    (True, False)
    """
    if isinstance(error, Unavailable) and not error.sent:
        return False
    return isinstance(error, Exception) and (not isinstance(error, NarrowboatError) or error.retryable)


def unanswered(error: Exception) -> Unavailable | None:
    """The error that says that there was no answer, if this is one, or was made of one."""
    for each in (error, error.__cause__):
        if isinstance(each, Unavailable):
            return each
    return None


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
