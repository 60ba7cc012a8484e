"""A lane whose driver cannot reach its backend: nobody pays for the timeouts of everybody else."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Never

import pytest

from narrowboat._engine.exchange import UNREACHED, Call, Op, perform
from narrowboat._engine.lane import Lane
from narrowboat.errors import Unavailable


def test_a_failed_batch_is_not_tried_member_by_member_when_the_backend_is_away() -> None:
    """Each exchange costs a whole timeout: a batch of a hundred may cost two of them, not a hundred and one."""
    exchanges = []

    def never(items: Sequence[int]) -> Never:
        exchanges.append(list(items))
        raise Unavailable("no answer in time")

    answers = perform(Op("renew", never, repeatable=True), list(range(100)))

    assert len(exchanges) == 1 + UNREACHED
    assert all(isinstance(answer, Unavailable) for answer in answers)
    assert len(answers) == 100


def test_members_are_tried_one_by_one_while_the_backend_answers() -> None:
    """One poisonous member fails alone, also when its failure looks like a lost connection."""

    def poisoned(items: Sequence[int]) -> list[int]:
        if 3 in items:
            raise Unavailable("the connection broke")
        return [item * 2 for item in items]

    answers = perform(Op("renew", poisoned, repeatable=True), list(range(6)))

    assert isinstance(answers[3], Unavailable)
    assert answers[:3] + answers[4:] == [0, 2, 4, 8, 10]


def test_what_may_come_last_does() -> None:
    """What nobody waits for stands behind what somebody waits for, in whatever order they came."""
    inside, go = threading.Event(), threading.Event()
    done: list[str] = []

    def first(items: Sequence[int]) -> list[int]:
        inside.set()
        go.wait(10)
        return list(items)

    def note(items: Sequence[str]) -> list[str]:
        done.extend(items)
        return list(items)

    lane, finished = Lane("test-lane"), threading.Event()
    lane.submit([Call(Op("first", first, repeatable=False), [0])])
    assert inside.wait(10)
    lane.submit([Call(Op("late", note, repeatable=False, last=True), ["late"], sink=lambda call: finished.set())])
    lane.submit([Call(Op("soon", note, repeatable=False), ["soon"])])
    go.set()
    assert finished.wait(10)
    assert done == ["soon", "late"]
    assert lane.close(5)


def _held(error: Exception | None) -> tuple[Call, threading.Event, threading.Event]:
    """A call, an event when it is under way, and one that ends it, with `error` where there is one."""
    inside, go = threading.Event(), threading.Event()

    def first(items: Sequence[str]) -> list[str]:
        inside.set()
        assert go.wait(10)
        if error is not None:
            raise error
        return list(items)

    call = Call(Op("first", first, repeatable=False), ["first"])
    return call, inside, go


@pytest.mark.parametrize("lone", [True, False], ids=["in its caller's thread", "in the lane's"])
@pytest.mark.parametrize("error", [Unavailable("no answer in time", backend="memory"), ValueError("refused"), None])
def test_a_call_ends_with_the_one_it_has_waited_for(lone: bool, error: Exception | None) -> None:
    """Behind an exchange without an answer, who has waited longer than his patience is sent nowhere; all others are."""
    done: list[str] = []

    def note(items: Sequence[str]) -> list[str]:
        done.extend(items)
        return list(items)

    lane, finished = Lane("test-lane"), threading.Event()
    call, inside, go = _held(error)
    threading.Thread(target=(lambda: lane.run(call)) if lone else (lambda: lane.submit([call]))).start()
    assert inside.wait(10)
    short = Call(Op("short", note, repeatable=False, patience=0.0), ["short"])
    patient = Call(Op("patient", note, repeatable=False, patience=60.0), ["patient"])
    endless = Call(Op("endless", note, repeatable=False, last=True), ["endless"], sink=lambda call: finished.set())
    local = Call(Op("local", note, repeatable=False), ["local"])  # may have asked the backend nothing: it is no answer
    lane.submit([local, short, patient, endless])
    go.set()
    assert finished.wait(10)
    silent = isinstance(error, Unavailable)
    assert done == ["local", *["short"] * (not silent), "patient", "endless"]
    (answer,) = short.results
    assert isinstance(answer, Unavailable) == silent
    assert not silent or (not answer.sent and answer.backend == "memory" and "no answer in time" in str(answer))
    assert lane.close(5)


def test_calls_that_stand_apart_are_told_one_by_one() -> None:
    """Its caller hears of an answer before the next one's driver call ends, which may take an operation timeout."""
    lane, told, finished = Lane("test-lane"), threading.Event(), threading.Event()
    heard: list[bool] = []

    def one(items: Sequence[str]) -> list[str]:
        if items == ["second"]:
            heard.append(told.wait(10))
        return list(items)

    op = Op("one", one, repeatable=False, apart=id)
    call, inside, go = _held(None)
    lane.submit([call])
    assert inside.wait(10)
    lane.submit([Call(op, ["first"], sink=lambda call: told.set()), Call(op, ["second"], sink=lambda call: finished.set())])
    go.set()
    assert finished.wait(30)
    assert heard == [True]
    assert lane.close(5)
