"""The stopwatch: two sides in turns, the best round of each, and a ratio."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import narrowboat

ROUNDS = 5
#: Of rounds of some milliseconds: what else the machine does then spoils a few of them, and not the best.
SHORT_ROUNDS = 60


@dataclass(frozen=True)
class Row:
    """One line of the table. `ratio` is in the sense of "more is better for us"."""

    what: str
    ours: str
    other: str
    ratio: float | None
    target: str
    met: bool


def best(work: Callable[[], int]) -> float:
    """Units of work a second, once."""
    begun = time.perf_counter()
    done = work()
    return done / (time.perf_counter() - begun)


def versus(what: str, ours: Callable[[], int], other: Callable[[], int], at_least: float, rounds: int = ROUNDS) -> Row:
    """Our rate against another's, the best of several rounds taken in turns. `at_least` is the ratio aimed at."""
    mine, theirs = 0.0, 0.0
    for _ in range(rounds):
        mine = max(mine, best(ours))
        theirs = max(theirs, best(other))
    ratio = mine / theirs
    return Row(what, f"{mine:,.0f}/s", f"{theirs:,.0f}/s", ratio, f">= {at_least:g}x", ratio >= at_least)


def at_most(what: str, value: float, limit: float, unit: str) -> Row:
    """A measured value against an upper bound."""
    return Row(what, f"{value:.3g} {unit}", "", None, f"<= {limit:g} {unit}", value <= limit)


def median(values: list[float]) -> float:
    """The middle one."""
    return sorted(values)[len(values) // 2]


def waking(queue: narrowboat.messaging.Queue[bytes], body: bytes) -> float:
    """Milliseconds from a publish to the message in the hands of an idle consumer: the median of twenty."""
    took = []
    with queue.consume() as messages:
        for _ in range(20):
            begun: list[float] = []

            def publish(begun: list[float] = begun) -> None:
                begun.append(time.monotonic())
                queue.publish(body)

            timer = threading.Timer(0.1, publish)
            timer.start()
            message = messages.receive(10)
            assert message is not None
            took.append((time.monotonic() - begun[0]) * 1000)
            message.ack()
            timer.join()
    return median(took)
