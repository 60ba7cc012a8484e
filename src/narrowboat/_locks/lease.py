"""When a lease ends, when it is renewed, and why it was lost: decisions without I/O.

Validity is counted by the holder's own clock from *before* the request that last succeeded was sent, less a margin: the
server cannot have started the lease earlier, so it cannot end it earlier either. Past that deadline the lease is lost,
whatever a server or a client library says. An error is not a loss: it means unknown, and is tried again until the
deadline. (Kleppmann, "How to do distributed locking", 2016; Gray and Cheriton, "Leases", 1989.)
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple

from narrowboat.errors import Reason

#: The smallest margin in seconds, and the share of the ttl. Less, and a coarse clock or a late thread believes in a lease
#: that has ended; more, and short leases are of little use.
MARGIN, MARGIN_SHARE = 0.010, 0.02
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


def deadline(sent: float, ttl: float, margin: float) -> float:
    """Until when a lease of `ttl` seconds is ours, if the request for it was sent at `sent`.

    >>> deadline(100.0, 30.0, 0.0)
    129.4
    >>> round(deadline(100.0, 0.05, 0.0), 3)
    100.04
    """
    return sent + ttl - max(MARGIN, ttl * MARGIN_SHARE) - margin


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
