"""Consumers that found nothing: the server looks for them, once for all that wait for one source.

What is published wakes a consumer by itself. What the clock alone changes (a delay that ends, an abandoned lease) is found by
looking, and so is a message whose wake went to a consumer that is busy. A look is a claim by the feed of the consumer that has
waited longest. What it finds goes back to its place, uncounted, and as many consumers are woken. It keeps no time, and knows
nothing of the wire.
"""

from __future__ import annotations

import heapq
import math
from typing import Any

from narrowboat.contract.messages import Delivery, Feed, Return
from narrowboat.errors import NarrowboatError
from narrowboat_zeromq.server.session import Session

#: Seconds between two looks at one source. Longer delays what is found by looking alone, shorter costs the server.
LOOK = 0.4
#: Seconds after a wake until the next look at its source. Shorter finds what the woken one is about to take.
_SOON = 0.02
#: Seconds after which a consumer asks again by itself. It is woken for all that it needs to know, so this is to be seldom.
ASK = 30.0
#: Consumers of one source that one look wakes at most.
_MOST = 100

_Key = tuple[str, int]  #: a session's token, and the number of its feed


class Idle:
    """See the module's text. Of the server's thread."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[_Key, tuple[Session[Any], Feed]]] = {}  # by path, the longest first
        self._looks: dict[str, float] = {}  #: when each path is looked at
        self._heap: list[tuple[float, str]] = []  #: the same in order; what `_looks` does not say any more is old
        self._owed: list[tuple[Feed, list[Delivery]]] = []  #: claimed by a look, and not given back yet

    def add(self, path: str, session: Session[Any], number: int, feed: Feed, at: float) -> None:
        """The feed has found nothing. Look for it at `at`, or earlier."""
        self._waiting.setdefault(path, {})[session.token, number] = session, feed
        self._plan(path, at)

    def remove(self, path: str, session: Session[Any], number: int, now: float) -> None:
        """The feed does not wait any more. A look for the next one follows soon: it makes the driver wake that one next."""
        waiting = self._waiting.get(path)
        if waiting is not None and waiting.pop((session.token, number), None) is not None:
            if waiting:
                self._plan(path, now + _SOON)
            else:
                del self._waiting[path], self._looks[path]

    def look(self, now: float) -> None:
        """Look at the sources whose time has come."""
        while self._heap and self._heap[0][0] <= now:
            at, path = heapq.heappop(self._heap)
            if self._looks.get(path) == at:
                del self._looks[path]
                self._look(path, now)

    @property
    def next(self) -> float:
        """When there is something to look at; infinite while nobody waits."""
        return self._heap[0][0] if self._heap else math.inf

    def _plan(self, path: str, at: float) -> None:
        if at < self._looks.get(path, math.inf):
            self._looks[path] = at
            heapq.heappush(self._heap, (at, path))

    def _look(self, path: str, now: float) -> None:
        self._give_back()
        waiting = self._waiting[path]
        _, feed = next(iter(waiting.values()))
        try:
            deliveries, pause = feed.receive(min(len(waiting), _MOST))
            found = len(deliveries)
            if found:
                self._owed.append((feed, list(deliveries)))
                self._give_back()
        except Exception:  # of any kind: the consumer asks, and meets it itself
            found, pause = 1, LOOK
        self._plan(path, now + min(LOOK, pause or LOOK))
        for (_, number), (session, _) in list(waiting.items())[:found]:
            session.wake(number)()

    def _give_back(self) -> None:
        while self._owed:
            feed, deliveries = self._owed[-1]
            try:
                feed.settle([(each, Return()) for each in deliveries])
            except NarrowboatError as error:
                if error.retryable:
                    return  # at the next look
            self._owed.pop()
