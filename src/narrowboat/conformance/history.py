"""Records what users of a lock did and were told, and checks it. With fencing tokens this needs no search: linear time.

What is recorded is the users' side alone: when each call began and ended, what it answered, until when a holder believed in
its lock, and what a guarded resource was given. All times are of one clock that the machine's processes share. A call
whose outcome is not known stays open. Verdicts: `violations` must be empty; `unknown` counts what cannot be judged.

The rules, per name:

1. belief: between the answer of an acquire and the call of its release (or the end of its validity), nobody who is
   excluded by it is told that he holds;
2. tokens are unique, and none is reused;
3. real time: a grant that was answered before another one was asked for has the smaller token, if one excludes the other;
4. a guarded resource never sees an older token after a newer one that excludes it, unless it refused it;
5. liveness: while somebody waits, the name is not free for longer than a bound.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence


@dataclasses.dataclass
class Hold:
    """One acquire: asked at `asked`, answered at `granted` (None: not granted, or unknown), believed until `ended`."""

    name: str
    user: str
    asked: float
    mode: str = "exclusive"
    limit: int | None = None
    granted: float | None = None
    token: int | None = None
    ended: float | None = None  #: the call of its release, or the first moment at which it knew of the loss
    gave_up: float | None = None  #: when the caller left without a grant


@dataclasses.dataclass(frozen=True)
class Write:
    """A write to a guarded resource."""

    name: str
    token: int
    at: float
    accepted: bool


class Recorder:
    """Takes down one history; from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._mutex = threading.Lock()
        self.holds: list[Hold] = []
        self.writes: list[Write] = []

    def asks(self, name: str, user: str, *, mode: str = "exclusive", limit: int | None = None) -> Hold:
        """Before the call of acquire."""
        hold = Hold(name, user, self._clock(), mode, limit)
        with self._mutex:
            self.holds.append(hold)
        return hold

    def granted(self, hold: Hold, token: int) -> None:
        """After its answer."""
        hold.token = token
        hold.granted = self._clock()

    def gives_up(self, hold: Hold) -> None:
        """It ended without a grant."""
        hold.gave_up = self._clock()

    def ends(self, hold: Hold) -> None:
        """Before the call of release, or at the first moment at which the holder knows of its loss."""
        if hold.ended is None:
            hold.ended = self._clock()

    def wrote(self, name: str, token: int, *, accepted: bool) -> None:
        """A guarded resource was written to, or refused it."""
        with self._mutex:
            self.writes.append(Write(name, token, self._clock(), accepted))


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a history shows."""

    violations: tuple[str, ...]
    grants: int
    unknown: int  #: holds without a known end: judged up to their last known moment only
    longest_free: float  #: seconds for which a name was free while somebody waited


def check(holds: Sequence[Hold], writes: Sequence[Write] = (), *, free_bound: float = math.inf) -> Verdict:
    """Judge a history. `free_bound`: seconds for which a name may be free while somebody waits."""
    violations: list[str] = []
    longest = 0.0
    names: dict[str, list[Hold]] = {}
    for hold in holds:
        names.setdefault(hold.name, []).append(hold)
    for name, mine in names.items():
        granted = sorted((hold for hold in mine if hold.granted is not None), key=_granted)
        violations += _belief(name, granted)
        violations += _tokens(name, granted)
        violations += _real_time(name, granted)
        free = _longest_free(granted)
        longest = max(longest, free)
        if free > free_bound:
            violations.append(f"{name}: free for {free:.3f} s while somebody waited (bound {free_bound:g} s)")
    violations += _guarded(writes)
    grants = sum(hold.granted is not None for hold in holds)
    unknown = sum(hold.granted is not None and hold.ended is None for hold in holds)
    return Verdict(tuple(violations), grants, unknown, longest)


def _granted(hold: Hold) -> float:
    assert hold.granted is not None
    return hold.granted


def _excludes(one: Hold, other: Hold) -> bool:
    return "exclusive" in (one.mode, other.mode)


def _belief(name: str, granted: Iterable[Hold]) -> list[str]:
    """Sweep over the grants in order: those whose end has not come yet are the present holders."""
    found = []
    present: list[tuple[float, int, Hold]] = []
    for number, hold in enumerate(granted):
        while present and present[0][0] <= _granted(hold):
            heapq.heappop(present)
        others = [other for _, _, other in present]
        for other in others:
            if _excludes(hold, other):
                found.append(f"{name}: {hold.user} (token {hold.token}) and {other.user} (token {other.token}) both held")
        if hold.limit is not None and len(others) >= hold.limit:
            found.append(f"{name}: {len(others) + 1} held a semaphore of {hold.limit}")
        heapq.heappush(present, (hold.ended if hold.ended is not None else _granted(hold), number, hold))
    return found


def _tokens(name: str, granted: Iterable[Hold]) -> list[str]:
    seen: dict[int | None, Hold] = {}
    found = []
    for hold in granted:
        other = seen.setdefault(hold.token, hold)
        if other is not hold:
            found.append(f"{name}: token {hold.token} was given to {other.user} and to {hold.user}")
    return found


def _real_time(name: str, granted: Sequence[Hold]) -> list[str]:
    """For each grant, the largest token among those answered before it was asked for, by kind of holder."""
    found = []
    answered = iter(granted)
    upcoming = next(answered, None)
    largest: dict[bool, Hold] = {}  # by whether it was exclusive
    for hold in sorted(granted, key=lambda each: each.asked):
        while upcoming is not None and _granted(upcoming) < hold.asked:
            kind = upcoming.mode == "exclusive"
            if kind not in largest or (upcoming.token or 0) > (largest[kind].token or 0):
                largest[kind] = upcoming
            upcoming = next(answered, None)
        for earlier in largest.values():
            if _excludes(earlier, hold) and (hold.token or 0) <= (earlier.token or 0):
                found.append(
                    f"{name}: {hold.user} asked after {earlier.user} was granted token {earlier.token}, and got {hold.token}"
                )
    return found


def _guarded(writes: Iterable[Write]) -> list[str]:
    newest: dict[str, int] = {}
    found = []
    for write in sorted(writes, key=lambda each: each.at):
        if write.accepted:
            if write.token < newest.get(write.name, -1):
                found.append(f"{write.name}: accepted token {write.token} after {newest[write.name]}")
            newest[write.name] = max(write.token, newest.get(write.name, -1))
    return found


def _longest_free(granted: Sequence[Hold]) -> float:
    """The longest stretch from an end until the next grant, as far as the one who was granted then waited through it."""
    longest = 0.0
    ended = -math.inf
    for hold in granted:
        if ended < _granted(hold):
            longest = max(longest, _granted(hold) - max(ended, hold.asked))
        ended = max(ended, hold.ended if hold.ended is not None else math.inf)
    return longest
