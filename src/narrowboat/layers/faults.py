"""A layer between core and driver that makes calls fail as a network does, when it is told to.

    faults = Faults()
    locks = narrowboat.locks(url, wrap=faults.wrap)
    faults.drop_reply("release")      # the next release is made, and its answer is lost: the driver "raises" Unavailable
    faults.drop_request("attempt")    # the next attempt is never made
    faults.fail("renew", AccessDenied("..."), times=3)
    faults.delay("settle", 0.2)
    faults.call("attempt", strike)    # the next attempt is made after strike(requests)
    gate = faults.hold("attempt")     # the next attempt is made and its answer kept back until gate.open()

For tests of programs and for the conformance kit. One plan serves all drivers that are wrapped by it, and any number of
threads. It decides nothing by chance and does nothing unless told.
"""

from __future__ import annotations

import dataclasses
import enum
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from narrowboat.contract import Broker, Feed, LockProvider
from narrowboat.errors import NarrowboatError, Unavailable
from narrowboat.layers.through import ThroughBroker, ThroughLocks

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
    CALL = "called before"  #: made after a function of the test's
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
    function: Callable[[Any], object] | None = None
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

    def call(self, operation: str, function: Callable[[Any], object], *, times: int = 1) -> None:
        """The next `times` calls of `operation` are made after `function(items)` was; what it raises they raise instead."""
        self._add(_Fault(operation, Kind.CALL, times, function=function))

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
        return ThroughLocks(driver, self.through) if isinstance(driver, LockProvider) else ThroughBroker(driver, self.through)

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
        if fault.function is not None:
            fault.function(items)
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
