"""What a contender may do, given the contenders ahead of it: pure functions over the names in a listing.

The rule is that of `narrowboat.driver.admission`, for a queue that each contender reads for itself. In addition, it decides
which node a waiter watches, so that a release wakes one waiter and not all.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from narrowboat.contract.locks import Mode
from narrowboat.driver.admission import disagree
from narrowboat_zookeeper.names import Contender

#: The number of waiters that look at each change of a semaphore's queue, and so the permits that are handed over side by side.
FRONT_MAX = 4


class Verdict(Enum):
    """What a contender may do."""

    GO = "go"
    CONFLICT = "conflict"  #: with `other`
    WATCH = "watch"  #: until something becomes of `other`
    FRONT = "front"  #: among the first waiters for a permit: watch until any contender comes or leaves


class Decision(NamedTuple):
    """A verdict, and the other contender that it is about."""

    verdict: Verdict
    other: Contender | None = None


def decide(mode: Mode, limit: int | None, ahead: Sequence[Contender]) -> Decision:
    """What a contender may do that has `ahead` before it, oldest first.

    A writer goes when no contender is ahead of it, a reader when no writer is, a permit when fewer than `limit` are. A waiter
    watches one node only. A waiting permit cannot know which holder will leave. So the few at the front watch the whole queue.
    Each of the others watches the contender as many places ahead, whose data changes when it gets its permit.
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
