"""Keeps the deliveries of one consumer ours while their handlers run: one call for all of them, at a third of the lease.

It extends all that the consumer has not settled, buffered or handed out, through the lane of settlements and without
waiting for the answer. What the backend says is no longer ours is marked lost; any other error means unknown and is
tried again soon. It extends no delivery beyond its `max_extend`: a handler that hangs must not keep its message for
ever. The core's timer looks at every `Extending` that has something to keep.
"""

from __future__ import annotations

import math
from typing import Any

from narrowboat._engine.exchange import Call
from narrowboat._messages.core import BrokerCore
from narrowboat._messages.delivery import HELD, TrackedDelivery
from narrowboat._messages.lifetime import Lifetime
from narrowboat._messages.settle import Settlement
from narrowboat._messages.terms import Terms
from narrowboat._messages.window import Window

#: Extended when this share of the lease is over, so that two more tries fit in; looked again after an error at this share.
EXTEND_SHARE, RETRY_SHARE = 1 / 3, 1 / 12


def due(until: float, cap: float, now: float, lease: float) -> bool:
    """Whether a delivery that is ours `until` then shall be extended now, without going beyond `cap`.

    >>> due(until=130.0, cap=4000.0, now=105.0, lease=30.0), due(until=130.0, cap=4000.0, now=111.0, lease=30.0)
    (False, True)
    >>> due(until=130.0, cap=140.0, now=111.0, lease=30.0)
    False
    """
    return until - now <= lease * (1 - EXTEND_SHARE) and now + lease <= cap


class Extending:
    """See the module's text. Its state is under the window's mutex."""

    def __init__(
        self, core: BrokerCore, life: Lifetime, window: Window[Any], settlement: Settlement[Any], terms: Terms
    ) -> None:
        self._core = core
        self._life = life
        self._window = window
        self._settlement = settlement
        self._terms = terms
        self._look_at = 0.0
        self._under_way = False

    def keep(self, since: float) -> bool:
        """Something was fetched at `since`. True: it was not among the kept until now, and `core.timer` is to be rung."""
        if self in self._core.kept:
            return False
        self._look_at = since + self._terms.lease * EXTEND_SHARE
        self._core.kept.add(self)
        return True

    def forget(self) -> None:
        """The next `keep` says True: the timer may not have been rung."""
        self._core.kept.discard(self)

    def hasten(self, since: float) -> None:
        """The lease was altered, as a fetch found at `since`: look no later than that lease demands."""
        with self._window.mutex:
            self._look_at = min(self._look_at, since + self._terms.lease * EXTEND_SHARE)
        self._core.timer.ring()

    def look(self) -> float:
        """Extend what is due; when to look again. On the timer's thread."""
        now, lease = self._core.clock(), self._terms.lease
        with self._window.mutex:
            if not self._window.unsettled or self._life.closed:
                self.forget()  # under the mutex: the next fetch keeps it again
                return math.inf
            if now < self._look_at:
                return self._look_at
            self._look_at = again = now + lease * EXTEND_SHARE / 2
            if self._under_way:
                return again
            entries = [e for e in self._window.unsettled if e._state is HELD and due(e._until, e._cap, now, lease)]
            self._under_way = bool(entries)
        if entries:
            key = (self._life.feed, lease)
            items = [(key, entry._delivery) for entry in entries]
            call = Call(self._core.EXTEND, items, sink=lambda call: self._answered(entries, call.results, now, lease))
            self._core.settlements.submit([call])
        return again

    def _answered(self, entries: list[TrackedDelivery[Any]], results: list[Any], sent: float, lease: float) -> None:
        """Apply the answers to an extension. On the lane's thread."""
        failed = self._settlement.extended(entries, results, sent, lease)
        with self._window.mutex:
            self._under_way = False
            if failed:
                self._look_at = self._core.clock() + lease * RETRY_SHARE
        if failed:
            self._core.timer.ring()
