"""What mutants are made of: layers that change what is asked for, where it is kept, what is settled.

Each hands on what it does not change. A mutant overrides the one method that says what it breaks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from mutants import Mutant
from narrowboat.contract.locks import Busy, Grant, LockProvider, Released, Request
from narrowboat.contract.messages import (
    Broker,
    Delivery,
    Feed,
    Outcome,
    Outgoing,
    Receipt,
    Received,
    Source,
)
from narrowboat.errors import NarrowboatError
from narrowboat.layers.passing import PassingBroker, PassingFeed, PassingLocks

Answer = Grant | Busy | NarrowboatError
D = TypeVar("D", LockProvider, Broker)


def named(wrap: Callable[[Any], Any] | type[PassingFeed], *ids: str) -> Mutant:
    """A mutant that is named after its class and described by its docstring. A feed is put in front of a broker's feeds."""
    made = feeds(wrap) if isinstance(wrap, type) and issubclass(wrap, PassingFeed) else wrap
    name = "".join(f" {c.lower()}" if c.isupper() else c for c in getattr(wrap, "__name__", "")).strip()
    return Mutant(name, (wrap.__doc__ or "").strip(), made, ids=ids)


class Shared(Generic[D]):
    """One driver for all who come, whatever each of them opened. All are closed when the last one has gone."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._users = 0
        self._opened: list[D] = []

    def join(self, driver: D) -> D:
        """The common one, for somebody who opened `driver`."""
        with self._mutex:
            self._users += 1
            self._opened.append(driver)
            return self._opened[0]

    def leave(self) -> None:
        """One of them has gone."""
        with self._mutex:
            self._users -= 1
            over = [] if self._users else self._opened
            if over:
                self._opened = []
        for driver in over:
            driver.close()


class Joins:
    """Stands before a passing layer: all that are made of a class have one driver, that class's own `_all`."""

    _all: Shared[Any]

    def __init__(self, inner: Any) -> None:
        super().__init__(self._all.join(inner))  # type: ignore[call-arg]  # the layer's, which stands behind this one
        self._left = False

    def close(self) -> None:
        """The others go on."""
        if not self._left:
            self._left = True
            self._all.leave()


class Installs:
    """Stands before a passing layer that makes its tables at its first use, and stumbles over who is making them as well."""

    _making: set[int] = set()
    _made = False

    def stumbles(self) -> bool:
        """Whether it does. To be asked at each use: looking and making are two steps, and take a moment."""
        if self._made:
            return False
        self._made = True
        late = bool(self._making)
        self._making.add(id(self))
        time.sleep(0.05)
        self._making.discard(id(self))
        return late


def nobody() -> None:
    """The wake of somebody who is not to be woken."""


# -- locks --------------------------------------------------------------------------------------------------------


class Asks(PassingLocks):
    """Asks the backend for something else than it is told, and answers as if it had not."""

    def change(self, request: Request) -> Request:
        """What is asked for instead."""
        return request

    def there(self, grant: Grant) -> Grant:
        """The grant as the backend gave it."""
        return grant

    def here(self, asked: Request | Grant, grant: Grant) -> Grant:
        """The backend's grant as the caller is told of it: what the caller had asked for."""
        return grant._replace(name=asked.name, ttl=asked.ttl, mode=asked.mode, limit=asked.limit)

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """Changed."""
        answers = self.inner.attempt([self.change(request) for request in requests])
        pairs = zip(requests, answers, strict=True)
        return [self.here(asked, answer) if isinstance(answer, Grant) else answer for asked, answer in pairs]

    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        """As it is there."""
        pairs = zip(grants, self.inner.renew([self.there(grant) for grant in grants]), strict=True)
        return [self.here(grant, answer) if isinstance(answer, Grant) else answer for grant, answer in pairs]

    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        """As it is there."""
        return self.inner.release([self.there(grant) for grant in grants])

    def withdraw(self, requests: Sequence[Request]) -> list[NarrowboatError | None]:
        """Changed."""
        return self.inner.withdraw([self.change(request) for request in requests])


class Renames(Asks):
    """Keeps a lock under another name than its own."""

    def __init__(self, inner: LockProvider) -> None:
        super().__init__(inner)
        self._kept: dict[str, str] = {}  # by owner

    def kept_as(self, request: Request) -> str:
        """Under which name."""
        return request.name

    def change(self, request: Request) -> Request:
        """Under the other name."""
        return request._replace(name=self._kept.setdefault(request.owner, self.kept_as(request)))

    def there(self, grant: Grant) -> Grant:
        """Under the other name."""
        return grant._replace(name=self._kept.get(grant.owner, grant.name))


# -- messages -----------------------------------------------------------------------------------------------------


class _Feeds(PassingBroker):
    """A broker whose feeds are of `kind`."""

    kind: type[PassingFeed]

    def feed(self, inner: Feed, wake: Callable[[], None]) -> Feed:
        """Behind the broken one."""
        return self.kind(inner)


def feeds(broken: type[PassingFeed]) -> Callable[[Broker], Broker]:
    """A broker with such feeds."""
    return type(f"{broken.__name__}Broker", (_Feeds,), {"kind": broken})


class TellsFeed(PassingFeed):
    """A feed that shares what it breaks with its broker."""

    def __init__(self, inner: Feed, broker: Any) -> None:
        super().__init__(inner)
        self._broker = broker


class TellsBroker(PassingBroker):
    """A broker whose feeds are of `kind` and know it."""

    kind: type[TellsFeed]

    def feed(self, inner: Feed, wake: Callable[[], None]) -> Feed:
        """One that knows its broker."""
        return self.kind(inner, self)


class Out(PassingFeed):
    """Knows what was received; who settles takes it out."""

    def __init__(self, inner: Feed) -> None:
        super().__init__(inner)
        self.out: list[Delivery] = []

    def receive(self, limit: int) -> Received:
        """Noted."""
        received = self.inner.receive(limit)
        self.out += received.deliveries
        return received


class Changed(PassingFeed):
    """Settles something else than what was asked for."""

    def change(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        """What is done instead."""
        return outcome

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        """Changed."""
        return self.inner.settle([(delivery, self.change(delivery, outcome)) for delivery, outcome in settlements])


class Sends(PassingBroker):
    """Stores something else than it is told."""

    def change(self, message: Outgoing) -> Outgoing:
        """What is stored instead."""
        return message

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        """Changed."""
        return self.inner.send([self.change(message) for message in messages])


class Sources(PassingBroker):
    """Declares and opens another source than it is told."""

    def kept(self, source: Source) -> Source:
        """What is declared instead."""
        return source

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        """The other one."""
        return super().open(self.kept(source), earliest=earliest, wake=wake)

    def declare(self, source: Source, *, earliest: bool) -> None:
        """The other one."""
        self.inner.declare(self.kept(source), earliest=earliest)


# -- the reference itself ----------------------------------------------------------------------------------------------


def becomes(broken: type[D]) -> Callable[[D], D]:
    """The driver itself, as one of `broken`, a subclass of its class: for a step that no layer in front of it can change."""

    def wrap(driver: D) -> D:
        driver.__class__ = broken
        return driver

    wrap.__name__, wrap.__doc__ = broken.__name__, broken.__doc__
    return wrap
