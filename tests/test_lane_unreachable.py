"""A lane whose driver cannot reach its backend: nobody pays for the timeouts of everybody else."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Never

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
