"""When a process was in trouble: what the adversary did to it, and the pauses of the machine. And the bounds that are owed.

Upper bounds of time do not count the time for which a process was stopped or the machine stood still. A user is owed a lock in
time only while nothing is wrong with its connection, and was not for a moment.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from narrowboat.conformance.histories.journal import Event

#: Seconds that a call may take beside its bound: the machine's, which runs several processes on few cores. At a load of 20 on
#: each core, calls of 2 s took 3.1 s beyond what the watch had measured as lost.
SLACK = 2.0
#: What holds up no other process than its own, and leaves nothing behind that reconnects.
HARMLESS = ("membership storm",)

Interval = tuple[float, float]


class Bounds(NamedTuple):
    """What the backend declares and the run has asked for, in seconds."""

    operation: float = 2.0  #: one driver call
    ttl: float = 2.0
    expiry_lag: float = 0.5
    wake_bound: float = 0.5
    dead_waiter_bound: float = 10.0
    copies: bool = False  #: a fault may leave two copies of a message, or its settlement be forgotten with the server
    host: bool = False  #: a process that stands still may stand in the way of all others (a file's lock)
    ordered: bool = False

    @classmethod
    def of(cls, events: Iterable[Event]) -> Bounds:
        """Those that a history begins with."""
        return next((cls(**event["bounds"]) for event in events if event["what"] == "begins"), cls())

    @property
    def call(self) -> float:
        """What a call may take beside its own timeout."""
        return self.operation + SLACK

    @property
    def calm(self) -> float:
        """For how long after a fault its process may still be busy with it."""
        return 2 * self.operation + SLACK

    @property
    def free(self) -> float:
        """For how long a user may wait for a lock that nobody can hold."""
        return self.wake_bound + self.dead_waiter_bound


class Trouble:
    """See the module's text. A process `p1.0` is the first one in the place `p1`."""

    def __init__(self, events: Sequence[Event], bounds: Bounds) -> None:
        self._faults: dict[str, list[Interval]] = {}
        self._stopped: dict[str, list[Interval]] = {}
        self._bad: dict[str, list[Interval]] = {}
        stood = sorted((each["since"], each["at"], each["lost"]) for each in events if each["what"] == "stood")
        self._stood = [(since, at) for since, at, _ in stood]
        self._shares = [lost / (at - since) for since, at, lost in stood]
        for event in events:
            if event["what"] == "fault" and event["kind"] not in HARMLESS:
                self._faults.setdefault(event["process"], []).append((event["since"], event["at"] + bounds.calm))
                if "stops" in event:
                    self._stopped.setdefault(event["stops"], []).append((event["since"], event["at"]))

    def bad(self, process: str) -> list[Interval]:
        """The times at which something was wrong with that process, or with all; without overlaps."""
        place = process.partition(".")[0]
        if place not in self._bad:
            self._bad[place] = union([*self._faults.get(place, ()), *self._faults.get("", ())])
        return self._bad[place]

    def lost(self, begun: float, ended: float) -> float:
        """Seconds between the two in which the machine stood still. It is written down in intervals that do not overlap."""
        total = 0.0
        for number in range(max(0, bisect.bisect(self._stood, (begun,)) - 1), len(self._stood)):
            if self._stood[number][0] >= ended:
                break
            total += self._shares[number] * overlap(self._stood[number], (begun, ended))
        return total

    def running(self, process: str, begun: float, ended: float) -> float:
        """Seconds between the two in which that process could run."""
        place = process.partition(".")[0]
        stopped = sum(overlap(each, (begun, ended)) for each in self._stopped.get(place, ()))
        return ended - begun - stopped - self.lost(begun, ended)


def overlap(one: Interval, other: Interval) -> float:
    """Seconds that two intervals share.

    >>> overlap((1, 4), (3, 9)), overlap((1, 2), (3, 9))
    (1, 0.0)
    """
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0]))


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The same times, in order and without overlaps.

    >>> union([(5, 6), (1, 3), (2, 4)])
    [(1, 4), (5, 6)]
    """
    found: list[Interval] = []
    for begun, ended in sorted(intervals):
        if found and begun <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], ended))
        else:
            found.append((begun, ended))
    return found


def without(whole: Interval, taken: Sequence[Interval]) -> list[Interval]:
    """What is left of an interval; `taken` is a union.

    >>> without((0, 10), [(-1, 2), (4, 5)])
    [(2, 4), (5, 10)]
    """
    left: list[Interval] = []
    begun = whole[0]
    first = bisect.bisect_left(taken, (whole[0],))
    for since, at in taken[max(0, first - 1) :]:
        if since >= whole[1]:
            break
        if since > begun:
            left.append((begun, since))
        begun = max(begun, at)
    if begun < whole[1]:
        left.append((begun, whole[1]))
    return left
