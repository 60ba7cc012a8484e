"""Drivers that pass every call on to another driver: the base of a layer, which overrides the calls that it changes.

It is not used by itself. `layer.inner` is the driver behind it.
"""

# ruff: noqa: D102  # each method's docstring is the contract's

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
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
    Properties,
    Receipt,
    Received,
    Released,
    Request,
    Source,
)
from narrowboat.errors import NarrowboatError


class PassingLocks(LockProvider):
    """A lock driver in front of `inner`."""

    def __init__(self, inner: LockProvider) -> None:
        self.inner = inner
        self.capabilities = inner.capabilities

    def attempt(self, requests: Sequence[Request]) -> list[Grant | Busy | NarrowboatError]:
        return self.inner.attempt(requests)

    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        return self.inner.renew(grants)

    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        return self.inner.release(grants)

    def withdraw(self, requests: Sequence[Request]) -> list[NarrowboatError | None]:
        return self.inner.withdraw(requests)

    def holders(self, name: str | None) -> list[Holder]:
        return self.inner.holders(name)

    def evict(self, name: str, token: int) -> bool:
        return self.inner.evict(name, token)

    def ping(self) -> None:
        self.inner.ping()

    def close(self) -> None:
        self.inner.close()


class PassingBroker(Broker):
    """A message driver in front of `inner`. `feed` says what stands in front of its feeds."""

    def __init__(self, inner: Broker) -> None:
        self.inner = inner
        self.capabilities = inner.capabilities

    def feed(self, inner: Feed, wake: Callable[[], None]) -> Feed:
        """What the core gets to hold instead of `inner`, a feed that was opened with `wake`."""
        return inner

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        return self.inner.send(messages)

    def enlist(self, connection: Any, message: Outgoing) -> Awaitable[object] | None:
        return self.inner.enlist(connection, message)

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        return self.feed(self.inner.open(source, earliest=earliest, wake=wake), wake)

    def inbox(self, wake: Callable[[], None]) -> tuple[Address, Feed]:
        address, feed = self.inner.inbox(wake)
        return address, self.feed(feed, wake)

    def is_inbox(self, address: Address) -> bool:
        return self.inner.is_inbox(address)

    def declare(self, source: Source, *, earliest: bool) -> None:
        self.inner.declare(source, earliest=earliest)

    def stored(self, address: Address) -> Properties | None:
        return self.inner.stored(address)

    def alter(self, address: Address, *, lease: float | None, max_deliveries: int | None) -> Properties:
        return self.inner.alter(address, lease=lease, max_deliveries=max_deliveries)

    def sources(self) -> list[Address]:
        return self.inner.sources()

    def delete(self, address: Address) -> bool:
        return self.inner.delete(address)

    def purge(self, address: Address) -> int:
        return self.inner.purge(address)

    def depth(self, address: Address) -> Depth:
        return self.inner.depth(address)

    def ping(self) -> None:
        self.inner.ping()

    def close(self) -> None:
        self.inner.close()


class PassingFeed(Feed):
    """A feed in front of `inner`."""

    def __init__(self, inner: Feed) -> None:
        self.inner = inner
        self._left: list[Delivery] = []  #: received before an interrupt, and not handed on

    def receive(self, limit: int) -> Received:
        came: list[Received] = []
        try:
            received = self._take(limit, came)
        except BaseException:
            self._keep(came)
            raise
        return received

    def _take(self, limit: int, came: list[Received]) -> Received:
        """Receive into `came`: first what an interrupt left. Where the caller is interrupted, it gives `came` to `_keep`."""
        if self._left:
            came.append(Received(self._left[:limit], 0.0))
            del self._left[:limit]
        else:  # no point for an interrupt between the inner feed's return and the storing of what it returned
            came.extend(map(self.inner.receive, (limit,)))
        return came[0]

    def _keep(self, came: list[Received]) -> None:
        """Hand it out at the next call. A lease that is a membership or a connection would bring it back at its end only."""
        for received in came:  # once each: the interrupt may have come before they were taken out
            self._left.extend([each for each in received.deliveries if each not in self._left])

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        return self.inner.settle(settlements)

    def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[NarrowboatError | None]:
        return self.inner.extend(deliveries, seconds)

    def use(self, properties: Properties) -> None:
        self.inner.use(properties)

    def current(self, delivery: Delivery) -> bool:
        return self.inner.current(delivery)

    def leave(self) -> None:
        self.inner.leave()

    def close(self) -> None:
        self.inner.close()
