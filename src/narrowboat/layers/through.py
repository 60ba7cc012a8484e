"""Drivers that pass every call through one function: the base of a layer that treats all calls alike.

The function gets the operation's name, its items and the call itself, and returns the call's answer. A layer that changes only
one or two calls overrides them in `passing` instead.
"""

# ruff: noqa: D102  # each method's docstring is the contract's

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

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
from narrowboat.layers.passing import PassingBroker, PassingFeed, PassingLocks

T = TypeVar("T")


class How(Protocol):
    """What each call goes through."""

    def __call__(self, operation: str, items: Any, call: Callable[[], T], /) -> T:
        """Make `call`, or not; `items` is what the operation is about: its requests, messages, name or source."""
        ...


class ThroughLocks(PassingLocks):
    """A lock driver each of whose calls goes through `how`."""

    def __init__(self, inner: LockProvider, how: How) -> None:
        super().__init__(inner)
        self._how = how

    def attempt(self, requests: Sequence[Request]) -> list[Grant | Busy | NarrowboatError]:
        return self._how("attempt", requests, lambda: self.inner.attempt(requests))

    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        return self._how("renew", grants, lambda: self.inner.renew(grants))

    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        return self._how("release", grants, lambda: self.inner.release(grants))

    def withdraw(self, requests: Sequence[Request]) -> list[NarrowboatError | None]:
        return self._how("withdraw", requests, lambda: self.inner.withdraw(requests))

    def holders(self, name: str | None) -> list[Holder]:
        return self._how("holders", name, lambda: self.inner.holders(name))

    def evict(self, name: str, token: int) -> bool:
        return self._how("evict", name, lambda: self.inner.evict(name, token))

    def ping(self) -> None:
        self._how("ping", None, self.inner.ping)

    def close(self) -> None:
        self._how("close", None, self.inner.close)


class ThroughBroker(PassingBroker):
    """A message driver each of whose calls goes through `how`, and those of its feeds."""

    def __init__(self, inner: Broker, how: How) -> None:
        super().__init__(inner)
        self._how = how

    def feed(self, inner: Feed, wake: Callable[[], None]) -> Feed:
        """Through the same."""
        return ThroughFeed(inner, self._how)

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        return self._how("send", messages, lambda: self.inner.send(messages))

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        return self._how("open", source, lambda: super(ThroughBroker, self).open(source, earliest=earliest, wake=wake))

    def inbox(self, wake: Callable[[], None]) -> tuple[Address, Feed]:
        return self._how("inbox", None, lambda: super(ThroughBroker, self).inbox(wake))

    def declare(self, source: Source, *, earliest: bool) -> None:
        self._how("declare", source, lambda: self.inner.declare(source, earliest=earliest))

    def stored(self, address: Address) -> Properties | None:
        return self._how("stored", address, lambda: self.inner.stored(address))

    def alter(self, address: Address, *, lease: float | None, max_deliveries: int | None) -> Properties:
        return self._how("alter", address, lambda: self.inner.alter(address, lease=lease, max_deliveries=max_deliveries))

    def sources(self) -> list[Address]:
        return self._how("sources", None, self.inner.sources)

    def delete(self, address: Address) -> bool:
        return self._how("delete", address, lambda: self.inner.delete(address))

    def purge(self, address: Address) -> int:
        return self._how("purge", address, lambda: self.inner.purge(address))

    def depth(self, address: Address) -> Depth:
        return self._how("depth", address, lambda: self.inner.depth(address))

    def ping(self) -> None:
        self._how("ping", None, self.inner.ping)

    def close(self) -> None:
        self._how("close", None, self.inner.close)


class ThroughFeed(PassingFeed):
    """A feed each of whose calls goes through `how`."""

    def __init__(self, inner: Feed, how: How) -> None:
        super().__init__(inner)
        self._how = how

    def receive(self, limit: int) -> Received:
        came: list[Received] = []
        try:
            received = self._how("receive", limit, lambda: self._take(limit, came))
        except Exception:
            raise  # an answer that `how` loses stays lost
        except BaseException:
            self._keep(came)
            raise
        return received

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        return self._how("settle", settlements, lambda: self.inner.settle(settlements))

    def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[NarrowboatError | None]:
        return self._how("extend", deliveries, lambda: self.inner.extend(deliveries, seconds))

    def close(self) -> None:
        self._how("close_feed", self.inner, self.inner.close)
