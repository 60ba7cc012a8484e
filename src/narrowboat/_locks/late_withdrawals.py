"""Withdraws and releases that failed, and are tried again for as long as what they undo may live in the backend.

Whoever gave up its wait or its lock is not waited for by anybody, so nobody is there to try again: this is the list of what the
renewal engine sends once more when it is due. It decides when, and does not send.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable
from typing import NamedTuple

from narrowboat.clock import Clock
from narrowboat.contract.locks import Grant, Request
from narrowboat.errors import Unavailable

#: Seconds until a withdraw that failed is tried again, at first and at most: often enough that nobody waits long for a
#: ghost, rarely enough that a backend that is away is not kept busy with timeouts.
PAUSE, PAUSE_MAX = 0.25, 5.0


class LateWithdrawal(NamedTuple):
    """A withdraw that is to be tried again."""

    request: Request
    when: float
    until: float  #: what it undoes has ended by itself by then
    pause: float


class LateWithdrawals:
    """Those of one provider, one for each owner. `bound`: seconds that a dead waiter may stay in the backend's line."""

    def __init__(self, clock: Clock, bound: float, ring: Callable[[], None]) -> None:
        self._clock = clock
        self._bound = bound
        self._ring = ring  # somebody look: something may be due
        self._mutex = threading.RLock()  # a signal handler or finaliser may come in the middle
        self._by_owner: dict[str, LateWithdrawal] = {}

    def add(self, request: Request, before: LateWithdrawal | None = None, *, due: float | None = None) -> None:
        """`request` is to be withdrawn; it failed, again after `before`, unless it was not tried yet and is `due` then."""
        now = self._clock()
        if before is None:
            until, pause = now + max(request.ttl, self._bound), PAUSE
        else:
            until, pause = before.until, min(2 * before.pause, PAUSE_MAX)
        if now < until:
            with self._mutex:
                self._by_owner[request.owner] = LateWithdrawal(request, now + pause if due is None else due, until, pause)
            with contextlib.suppress(Unavailable):  # no thread can be started: the next ring looks, or the lease ends it
                self._ring()

    def free(self, grant: Grant, label: str, after: float) -> None:
        """Make sure that nobody holds `grant` from `after` on, for as long as its lease or its session may live."""
        request = Request(grant.name, grant.owner, grant.ttl, grant.mode, grant.limit, True, _nobody, label)
        self.add(request, due=max(after, self._clock()))

    def due(self, now: float) -> list[LateWithdrawal]:
        """Take out what is to be tried now."""
        with self._mutex:
            found = [late for late in self._by_owner.values() if late.when <= now]
            for late in found:
                del self._by_owner[late.request.owner]
        return found

    def next(self) -> float:
        """When the next one is due."""
        with self._mutex:
            return min((late.when for late in self._by_owner.values()), default=math.inf)


def _nobody() -> None:
    """The wake of a request for which nobody waits."""
