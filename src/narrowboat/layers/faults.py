"""A layer between core and driver that makes calls fail as a network does, when it is told to.

    faults = Faults()
    locks = narrowboat.locks(url, wrap=faults.wrap)
    faults.drop_reply("release")      # the next release is made, and its answer is lost: the driver "raises" Unavailable
    faults.drop_request("attempt")    # the next attempt is never made
    faults.fail("renew", AccessDenied("..."), times=3)
    faults.delay("settle", 0.2)
    gate = faults.hold("attempt")     # the next attempt is made and its answer kept back until gate.open()

For tests of programs and for the conformance kit. One plan serves all drivers that are wrapped by it, and any number of
threads. It decides nothing by chance and does nothing unless told.
"""

# ruff: noqa: D102  # each method's docstring is the contract's

from __future__ import annotations

import dataclasses
import enum
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

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
from narrowboat.errors import NarrowboatError, Unavailable
from narrowboat.layers.passing import PassingBroker, PassingFeed, PassingLocks

T = TypeVar("T")

#: The calls of both contracts that can go wrong here.
OPERATIONS = frozenset(
    name
    for contract in (LockProvider, Broker, Feed)
    for name in contract.__abstractmethods__
    if name != "close"  # what closes must get through, or every test would leak
)


class Kind(enum.Enum):
    """What happens to a call."""

    DROP_REPLY = "reply dropped"  #: made, then Unavailable
    DROP_REQUEST = "request dropped"  #: never made, Unavailable
    FAIL = "failed"  #: never made, the given error
    DELAY = "delayed"  #: made after a while
    HOLD = "held"  #: made, its answer kept back until the gate is opened
    BEFORE = "held before"  #: kept back until the gate is opened, then made


class Gate:
    """A call that stands still. `reached` is set once it does; `open()` lets it go on."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._go = threading.Event()

    def open(self) -> None:
        """Let the call go on."""
        self._go.set()

    def stand(self, timeout: float) -> None:
        """The call itself: tell that it is here, and wait."""
        self.reached.set()
        self._go.wait(timeout)


@dataclasses.dataclass
class _Fault:
    operation: str
    kind: Kind
    left: int
    error: NarrowboatError | None = None
    seconds: float = 0.0
    gate: Gate | None = None
    only: Callable[[Any], bool] | None = None


class Faults:
    """What shall go wrong, in the order in which it was asked for. `sleep` serves `delay`."""

    #: Seconds after which a held call goes on by itself, so that a test that failed half way does not hang its threads.
    GATE_TIMEOUT = 60.0

    def __init__(self, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._sleep = sleep
        self._mutex = threading.Lock()
        self._plan: list[_Fault] = []
        self.struck: list[tuple[str, Kind]] = []  #: what did go wrong, in order

    def drop_reply(self, operation: str, *, times: int = 1, only: Callable[[Any], bool] | None = None) -> None:
        """The next `times` calls of `operation` are made, and their answers lost. `only` chooses by the call's items."""
        self._add(_Fault(operation, Kind.DROP_REPLY, times, only=only))

    def drop_request(self, operation: str, *, times: int = 1, only: Callable[[Any], bool] | None = None) -> None:
        """The next `times` calls of `operation` are never made."""
        self._add(_Fault(operation, Kind.DROP_REQUEST, times, only=only))

    def fail(self, operation: str, error: NarrowboatError, *, times: int = 1) -> None:
        """The next `times` calls of `operation` are not made and raise `error`."""
        self._add(_Fault(operation, Kind.FAIL, times, error=error))

    def delay(self, operation: str, seconds: float, *, times: int = 1) -> None:
        """The next `times` calls of `operation` are made `seconds` later."""
        self._add(_Fault(operation, Kind.DELAY, times, seconds=seconds))

    def hold(self, operation: str, *, before: bool = False) -> Gate:
        """The next call of `operation` stands still, after it was made or `before`, until the gate is opened."""
        gate = Gate()
        self._add(_Fault(operation, Kind.BEFORE if before else Kind.HOLD, 1, gate=gate))
        return gate

    def clear(self) -> None:
        """Nothing more goes wrong; what is held goes on."""
        with self._mutex:
            plan, self._plan = self._plan, []
        for fault in plan:
            if fault.gate is not None:
                fault.gate.open()

    def wrap(self, driver: Any) -> Any:
        """`driver`, a `LockProvider` or a `Broker`, behind this plan: hand it over as `wrap=`."""
        return FaultyLocks(driver, self) if isinstance(driver, LockProvider) else FaultyBroker(driver, self)

    def through(self, operation: str, items: Any, call: Callable[[], T]) -> T:
        """Make `call`, or let it go wrong."""
        fault = self._take(operation, items)
        if fault is None:
            return call()
        lost = Unavailable(f"{operation}: {fault.kind.value} by the fault layer; what was asked may have happened")
        if fault.kind is Kind.DROP_REQUEST:
            raise lost
        if fault.kind is Kind.FAIL and fault.error is not None:
            raise fault.error
        if fault.kind is Kind.DELAY:
            self._sleep(fault.seconds)
        if fault.kind is Kind.BEFORE and fault.gate is not None:
            fault.gate.stand(self.GATE_TIMEOUT)
        answer = call()
        if fault.kind is Kind.HOLD and fault.gate is not None:
            fault.gate.stand(self.GATE_TIMEOUT)
        if fault.kind is Kind.DROP_REPLY:
            raise lost
        return answer

    def _add(self, fault: _Fault) -> None:
        if fault.operation not in OPERATIONS:
            raise ValueError(f"{fault.operation!r} is no operation of a driver; these are: {', '.join(sorted(OPERATIONS))}")
        with self._mutex:
            self._plan.append(fault)

    def _take(self, operation: str, items: Any) -> _Fault | None:
        with self._mutex:
            for fault in self._plan:
                if fault.operation == operation and (fault.only is None or fault.only(items)):
                    fault.left -= 1
                    if fault.left <= 0:
                        self._plan.remove(fault)
                    self.struck.append((operation, fault.kind))
                    return fault
        return None


class FaultyLocks(PassingLocks):
    """A lock driver behind a plan of faults."""

    def __init__(self, inner: LockProvider, faults: Faults) -> None:
        super().__init__(inner)
        self._faults = faults

    def attempt(self, requests: Sequence[Request]) -> list[Grant | Busy | NarrowboatError]:
        return self._faults.through("attempt", requests, lambda: self.inner.attempt(requests))

    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        return self._faults.through("renew", grants, lambda: self.inner.renew(grants))

    def release(self, grants: Sequence[Grant]) -> list[Released | NarrowboatError]:
        return self._faults.through("release", grants, lambda: self.inner.release(grants))

    def withdraw(self, requests: Sequence[Request]) -> list[NarrowboatError | None]:
        return self._faults.through("withdraw", requests, lambda: self.inner.withdraw(requests))

    def holders(self, name: str | None) -> list[Holder]:
        return self._faults.through("holders", name, lambda: self.inner.holders(name))

    def evict(self, name: str, token: int) -> bool:
        return self._faults.through("evict", name, lambda: self.inner.evict(name, token))

    def ping(self) -> None:
        self._faults.through("ping", None, self.inner.ping)


class FaultyBroker(PassingBroker):
    """A message driver behind a plan of faults; so are its feeds."""

    def __init__(self, inner: Broker, faults: Faults) -> None:
        super().__init__(inner)
        self._faults = faults

    def feed(self, inner: Feed, wake: Callable[[], None]) -> Feed:
        """Behind the same plan."""
        return FaultyFeed(inner, self._faults)

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        return self._faults.through("send", messages, lambda: self.inner.send(messages))

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        return self._faults.through(
            "open", source, lambda: super(FaultyBroker, self).open(source, earliest=earliest, wake=wake)
        )

    def inbox(self, wake: Callable[[], None]) -> tuple[Address, Feed]:
        return self._faults.through("inbox", None, lambda: super(FaultyBroker, self).inbox(wake))

    def declare(self, source: Source, *, earliest: bool) -> None:
        self._faults.through("declare", source, lambda: self.inner.declare(source, earliest=earliest))

    def delete(self, address: Address) -> bool:
        return self._faults.through("delete", address, lambda: self.inner.delete(address))

    def purge(self, address: Address) -> int:
        return self._faults.through("purge", address, lambda: self.inner.purge(address))

    def depth(self, address: Address) -> Depth:
        return self._faults.through("depth", address, lambda: self.inner.depth(address))

    def ping(self) -> None:
        self._faults.through("ping", None, self.inner.ping)


class FaultyFeed(PassingFeed):
    """A feed behind a plan of faults."""

    def __init__(self, inner: Feed, faults: Faults) -> None:
        super().__init__(inner)
        self._faults = faults

    def receive(self, limit: int) -> Received:
        return self._faults.through("receive", limit, lambda: self.inner.receive(limit))

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        return self._faults.through("settle", settlements, lambda: self.inner.settle(settlements))

    def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[NarrowboatError | None]:
        return self._faults.through("extend", deliveries, lambda: self.inner.extend(deliveries, seconds))
