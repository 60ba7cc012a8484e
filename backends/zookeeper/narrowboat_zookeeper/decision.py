"""What a contender may do, given who stands before it: pure functions over the names in a listing.

It is the rule of `narrowboat.driver.admission` for a queue that each contender reads for itself. What it adds is which node a
waiter watches, so that a release wakes one waiter and not all.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from narrowboat.contract.locks import Mode
from narrowboat.driver.admission import disagree
from narrowboat_zookeeper.names import Contender

#: Permits that are handed over side by side, at most: so many waiters look at each change of the queue.
FRONT_MAX = 4


class Verdict(Enum):
    """What a contender may do."""

    GO = "go"
    CONFLICT = "conflict"  #: with `other`
    WATCH = "watch"  #: until something becomes of `other`
    FRONT = "front"  #: among the first who wait for a permit: until anybody comes or leaves


class Decision(NamedTuple):
    """A verdict, and the other contender that it is about."""

    verdict: Verdict
    other: Contender | None = None


def decide(mode: Mode, limit: int | None, ahead: Sequence[Contender]) -> Decision:
    """What a contender may do that has `ahead` before it, oldest first.

    A writer goes when nobody is before it, a reader when no writer is, a permit when fewer than `limit` are. Who has to
    wait watches one node only. A waiting permit cannot know which holder will leave: the few at the front watch the whole
    queue, each of the others the one that stands as many places before it, which tells by its data when it goes.
    """
    for other in ahead:
        if disagree(mode, limit, other.mode, other.limit):
            return Decision(Verdict.CONFLICT, other)
    if mode is Mode.SEMAPHORE:
        if len(ahead) < (limit or 0):
            return Decision(Verdict.GO)
        front = min(limit or 0, FRONT_MAX)
        waiting = len(ahead) - (limit or 0)
        return Decision(Verdict.FRONT) if waiting < front else Decision(Verdict.WATCH, ahead[-front])
    for other in reversed(ahead):
        if mode is Mode.EXCLUSIVE or other.mode is Mode.EXCLUSIVE:
            return Decision(Verdict.WATCH, other)
    return Decision(Verdict.GO)
