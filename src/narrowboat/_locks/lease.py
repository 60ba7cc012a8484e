"""When a lease ends, when it is renewed, and why it was lost: decisions without I/O.

Past its deadline (`_engine/validity.py`) a lease is lost, whatever a server or a client library says. An error is not a loss:
it means unknown, and is tried again until the deadline.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple

from narrowboat.errors import Reason

#: A lease is renewed when this share of it is over: two more tries fit in before it ends.
RENEW_SHARE = 1 / 3


class Step(enum.Enum):
    """What to do with a lease now."""

    WAIT = "wait"
    RENEW = "renew"
    EXPIRE = "expire"


class LeaseStep(NamedTuple):
    """A step, and when to look again."""

    step: Step
    until: float


def plan(now: float, ends: float, renew_at: float | None, *, under_way: bool) -> LeaseStep:
    """What to do with a lease that ends at `ends` and is due for renewal at `renew_at` (None: nobody renews it)."""
    if now >= ends:
        return LeaseStep(Step.EXPIRE, ends)
    if renew_at is None or under_way:
        return LeaseStep(Step.WAIT, ends)
    if now >= renew_at:
        return LeaseStep(Step.RENEW, ends)
    return LeaseStep(Step.WAIT, min(renew_at, ends))


def retry_at(now: float, ends: float, random: Callable[[], float]) -> float:
    """When to try a renewal again whose outcome is unknown: several times before the lease ends, not in step with others."""
    return now + max(0.01, (ends - now) / 8 * (0.5 + random()))


def why_ended(late: float, ttl: float) -> Reason:
    """The reason of a lease that ran out: paused if the watch over it came late by a good part of the lease itself."""
    return Reason.PAUSED if late > ttl * RENEW_SHARE else Reason.EXPIRED
