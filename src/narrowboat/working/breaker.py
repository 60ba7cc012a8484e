"""The circuit breaker of a handler: after failures in a row its source pauses, and probes. A value, and pure functions.

A downstream that is away fails every message. Without a pause each of them would use up its deliveries within seconds, and a
whole queue become dead letters. So the source pauses, then hands out one message as a probe: where it fails, the next pause is
longer; where it succeeds, the source goes on as before. What says more about a message than about the downstream, a body that
cannot be decoded or an exception that `Retry.drop` names, is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from narrowboat._messages.checks import check_count
from narrowboat.working.retry import check_growth, growing


@dataclass(frozen=True, slots=True)
class Breaker:
    """When a source pauses, and for how long.

    Args:
        after: failures in a row.
        first: seconds of the first pause.
        factor: each further pause is this many times as long.
        most: seconds that no pause exceeds.
        jitter: which part of a pause is drawn, as for `Retry`.
    """

    after: int = 10
    first: float = 1.0
    factor: float = 2.0
    most: float = 60.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        check_count("after", self.after, 1, 1_000_000)
        check_growth(self.first, self.factor, self.most, self.jitter)


@dataclass(frozen=True, slots=True)
class Circuit:
    """Where a source stands. `pauses` is 0 while it consumes as it should."""

    failures: int = 0  #: in a row
    pauses: int = 0  #: since the last success
    until: float = -math.inf  #: the clock's time at which the pause ends


def failed(circuit: Circuit, breaker: Breaker | None, now: float, random: Callable[[], float]) -> Circuit:
    """After one more failure. One that was under way when the pause began makes it no longer.

    >>> circuit = failed(Circuit(failures=9), Breaker(after=10, first=2), 100.0, lambda: 1.0)
    >>> circuit
    Circuit(failures=10, pauses=1, until=102.0)
    >>> failed(circuit, Breaker(first=2), 101.0, lambda: 1.0).until, failed(circuit, Breaker(first=2), 102.0, lambda: 1.0).until
    (102.0, 106.0)
    """
    counted = replace(circuit, failures=circuit.failures + 1)
    if breaker is None or counted.failures < breaker.after or now < circuit.until:
        return counted
    pauses = circuit.pauses + 1
    pause = growing(pauses, breaker.first, breaker.factor, breaker.most, breaker.jitter, random)
    return replace(counted, pauses=pauses, until=now + pause)
