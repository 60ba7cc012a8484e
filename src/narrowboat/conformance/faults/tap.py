"""The tap: a layer that counts the calls that reach a driver, and knows who waits there.

Every face that a scenario opens has one. With it a scenario waits for "B has queued" as for an event instead of sleeping. The
runner proves that a refused call reached no driver. An interrupt reaches a thread that sleeps in its wait: the contract allows
a spurious wake at any time.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar, cast

from narrowboat.contract import Broker, Busy, Feed, LockProvider, Request
from narrowboat.layers.through import ThroughBroker, ThroughLocks

T = TypeVar("T")

#: The operations whose items are a batch. Those of the others are one.
_BATCHES = frozenset({"attempt", "renew", "release", "withdraw", "send", "settle", "extend"})


class Seen:
    """What the taps of one scenario have seen. Only they write it."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self.calls: Counter[str] = Counter()  #: driver calls by operation; "open" counts drivers that were made
        self.members: Counter[str] = Counter()  #: the members of those calls
        self._waiting: dict[str, Request] = {}
        self._wakes: dict[int, Callable[[], None]] = {}

    def count(self, operation: str, members: int = 1) -> None:
        """Count a call that reached the driver."""
        with self._mutex:
            self.calls[operation] += 1
            self.members[operation] += members

    def waiting(self, name: str) -> int:
        """How many owners of this process got `Busy` for `name`, and still wait."""
        with self._mutex:
            return sum(request.name == name for request in self._waiting.values())

    def through(self, operation: str, items: Any, call: Callable[[], T]) -> T:
        """Make `call`, one of a driver or a feed, and record it."""
        self.count("open_feed" if operation == "open" else operation, len(items) if operation in _BATCHES else 1)
        answer: Any = call()
        if operation == "receive":
            self.count("delivered", len(answer.deliveries))
        with self._mutex:
            if operation == "attempt":
                for request, each in zip(items, answer, strict=True):
                    if isinstance(each, Busy) and request.wait:
                        self._waiting[request.owner] = request
                    else:
                        self._waiting.pop(request.owner, None)
            elif operation == "withdraw":
                for request in items:
                    self._waiting.pop(request.owner, None)
            elif operation == "close_feed":
                self._wakes.pop(id(items), None)
        return cast("T", answer)

    def wakes(self, feed: object, wake: Callable[[], None]) -> None:
        """Record how to wake the consumer that waits at `feed`, until the feed is closed."""
        with self._mutex:
            self._wakes[id(feed)] = wake

    def wake_all(self) -> None:
        """Wake everybody who waits for a driver, for no reason."""
        with self._mutex:
            wakes = [request.wake for request in self._waiting.values()] + list(self._wakes.values())
        for wake in wakes:
            wake()


class _BrokerTap(ThroughBroker):
    """A tap that also knows how to wake the consumers that wait at its feeds."""

    def __init__(self, inner: Broker, seen: Seen) -> None:
        super().__init__(inner, seen.through)
        self._seen = seen

    def feed(self, inner: Feed, wake: Callable[[], None]) -> Feed:
        """A tapped feed."""
        self._seen.wakes(inner, wake)
        return super().feed(inner, wake)


def tapped(seen: Seen, driver: Any) -> Any:
    """`driver` with a tap in front of it."""
    seen.count("open")
    return ThroughLocks(driver, seen.through) if isinstance(driver, LockProvider) else _BrokerTap(driver, seen)
