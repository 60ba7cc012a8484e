"""When a command that runs under a lock must be told to end, and when it must be killed. Decisions only, no I/O.

The command is told `grace` seconds before the lease can run out, and killed a moment before it does. A healthy lease is
renewed at a third of its ttl, so two thirds of it are always left, and a grace time of at most one third leaves another
third for renewals that fail and are tried again.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

#: Used when `--grace` is not given, as far as the ttl allows.
DEFAULT_GRACE = 5.0

#: The kill comes this part of the ttl before the lease can end, at most MOMENT seconds. Less, and on a busy machine the
#: command may still run when the lease is over; more, and a short lease has no time left for the command's own end.
_PART = 0.05
MOMENT = 0.1


class Order(enum.Enum):
    """What to do with the command now."""

    WAIT = "wait"
    TERMINATE = "terminate"
    KILL = "kill"


@dataclass(frozen=True)
class Step:
    """An order, and for `WAIT` the seconds after which to ask again."""

    order: Order
    seconds: float = 0.0


def longest_grace(ttl: float) -> float:
    """The longest grace time, in seconds, that a lease of `ttl` seconds leaves room for.

    >>> longest_grace(30)
    10.0
    """
    return ttl / 3


def moment(ttl: float) -> float:
    """How many seconds before the end of a lease of `ttl` seconds the command is killed."""
    return min(MOMENT, ttl * _PART)


def decide(*, expires_in: float, revoked: bool, told_since: float | None, grace: float, ttl: float) -> Step:
    """What to do now.

    `expires_in`: seconds until the lease can be over. `revoked`: it was lost before its time, by an eviction for
    instance, so that there is no deadline to keep any more. `told_since`: how many seconds ago the command was told to
    end; None: not yet.

    A command that was told to end is not spared by a renewal that succeeds later.

    >>> decide(expires_in=30, revoked=False, told_since=None, grace=5, ttl=30)
    Step(order=<Order.WAIT: 'wait'>, seconds=24.9)
    >>> decide(expires_in=5, revoked=False, told_since=None, grace=5, ttl=30).order
    <Order.TERMINATE: 'terminate'>
    """
    if not revoked and expires_in <= moment(ttl):
        return Step(Order.KILL)
    if told_since is None:
        left = expires_in - grace - moment(ttl)
        return Step(Order.TERMINATE) if revoked or left <= 0 else Step(Order.WAIT, left)
    left = grace - told_since
    if not revoked:
        left = min(left, expires_in - moment(ttl))
    return Step(Order.KILL) if left <= 0 else Step(Order.WAIT, left)
