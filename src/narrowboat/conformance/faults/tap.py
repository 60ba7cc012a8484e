"""Layers that only look: which calls reach the driver, who waits there, and how to wake it.

Every face that a scenario opens has one. With it a scenario waits for "B has queued" as for an event instead of sleeping,
the runner proves that a refused call reached no driver, and an interrupt reaches a thread that is asleep in its wait (a
spurious wake is allowed at any time by the contract).
"""

# ruff: noqa: D102  # each method's docstring is the contract's

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from narrowboat.contract import (
    Address,
    Broker,
    Busy,
    Delivery,
    Depth,
    Feed,
    Grant,
    Holder,
    LockProvider,
    Outcome,
    Outgoing,
    Receipt,
    Received,
    Released,
    Request,
    Source,
)
from narrowboat.errors import NarrowboatError
from narrowboat.layers.passing import PassingBroker, PassingFeed, PassingLocks


class Seen:
    """What the taps of one scenario have seen."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self.calls: Counter[str] = Counter()  #: driver calls by operation; "open" counts drivers that were made
        self.members: Counter[str] = Counter()  #: the members of those calls
        self._waiting: dict[str, Request] = {}
        self._wakes: dict[int, Callable[[], None]] = {}
        self.addresses: set[Address] = set()

    def count(self, operation: str, members: int = 1) -> None:
        """A call reached the driver."""
        with self._mutex:
            self.calls[operation] += 1
            self.members[operation] += members

    def waiting(self, name: str) -> int:
        """How many owners of this process were answered `Busy` for `name`, and still wait."""
        with self._mutex:
            return sum(request.name == name for request in self._waiting.values())

    def waits(self, request: Request) -> None:
        """It was told that it is queued."""
        with self._mutex:
            self._waiting[request.owner] = request

    def left(self, owner: str) -> None:
        """It was granted, or has withdrawn."""
        with self._mutex:
            self._waiting.pop(owner, None)

    def feed(self, feed: object, wake: Callable[[], None] | None) -> None:
        """A feed was opened, or closed (None)."""
        with self._mutex:
            if wake is None:
                self._wakes.pop(id(feed), None)
            else:
                self._wakes[id(feed)] = wake

    def wake_all(self) -> None:
        """Spurious wake-ups for everybody who waits for a driver."""
        with self._mutex:
            wakes = [request.wake for request in self._waiting.values()] + list(self._wakes.values())
        for wake in wakes:
            wake()


class LockTap(PassingLocks):
    """See the module's text."""

    def __init__(self, inner: LockProvider, seen: Seen) -> None:
        super().__init__(inner)
        self._seen = seen
        seen.count("open")

    def attempt(self, requests: Sequence[Request]) -> list[Grant | Busy | NarrowboatError]:
        self._seen.count("attempt", len(requests))
        answers = self.inner.attempt(requests)
        for request, answer in zip(requests, answers, strict=True):
            if isinstance(answer, Busy) and request.wait:
                self._seen.waits(request)
            else:
                self._seen.left(request.owner)
        return answers

    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        self._seen.count("renew", len(grants))
        return self.inner.renew(grants)

    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        self._seen.count("release", len(grants))
        return self.inner.release(grants)

    def withdraw(self, requests: Sequence[Request]) -> list[NarrowboatError | None]:
        self._seen.count("withdraw", len(requests))
        answers = self.inner.withdraw(requests)
        for request in requests:
            self._seen.left(request.owner)
        return answers

    def holders(self, name: str | None) -> list[Holder]:
        self._seen.count("holders")
        return self.inner.holders(name)

    def evict(self, name: str, token: int) -> bool:
        self._seen.count("evict")
        return self.inner.evict(name, token)

    def ping(self) -> None:
        self._seen.count("ping")
        self.inner.ping()

    def close(self) -> None:
        self._seen.count("close")
        self.inner.close()


class BrokerTap(PassingBroker):
    """See the module's text."""

    def __init__(self, inner: Broker, seen: Seen) -> None:
        super().__init__(inner)
        self._seen = seen
        seen.count("open")

    def feed(self, inner: Feed, wake: Callable[[], None]) -> Feed:
        """A tap as well."""
        return FeedTap(inner, self._seen, wake)

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        self._seen.count("send", len(messages))
        self._seen.addresses.update(message.to for message in messages)
        return self.inner.send(messages)

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        self._seen.count("open_feed")
        self._seen.addresses.add(source.address)
        return super().open(source, earliest=earliest, wake=wake)

    def inbox(self, wake: Callable[[], None]) -> tuple[Address, Feed]:
        self._seen.count("inbox")
        return super().inbox(wake)

    def declare(self, source: Source, *, earliest: bool) -> None:
        self._seen.count("declare")
        self._seen.addresses.add(source.address)
        self.inner.declare(source, earliest=earliest)

    def delete(self, address: Address) -> bool:
        self._seen.count("delete")
        return self.inner.delete(address)

    def purge(self, address: Address) -> int:
        self._seen.count("purge")
        return self.inner.purge(address)

    def depth(self, address: Address) -> Depth:
        self._seen.count("depth")
        return self.inner.depth(address)

    def ping(self) -> None:
        self._seen.count("ping")
        self.inner.ping()

    def close(self) -> None:
        self._seen.count("close")
        self.inner.close()


class FeedTap(PassingFeed):
    """See the module's text."""

    def __init__(self, inner: Feed, seen: Seen, wake: Callable[[], None]) -> None:
        super().__init__(inner)
        self._seen = seen
        seen.feed(self, wake)

    def receive(self, limit: int) -> Received:
        self._seen.count("receive")
        answer = self.inner.receive(limit)
        self._seen.count("delivered", len(answer.deliveries))
        return answer

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        self._seen.count("settle", len(settlements))
        return self.inner.settle(settlements)

    def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[NarrowboatError | None]:
        self._seen.count("extend", len(deliveries))
        return self.inner.extend(deliveries, seconds)

    def close(self) -> None:
        self._seen.count("close_feed")
        self._seen.feed(self, None)
        self.inner.close()


def tapped(seen: Seen, driver: Any) -> Any:
    """`driver` with a tap in front of it."""
    return LockTap(driver, seen) if isinstance(driver, LockProvider) else BrokerTap(driver, seen)
