"""Records what users of a lock did and were told, and checks it. Fencing tokens make that a few sorts, without a search.

    recorder = Recorder()
    hold = recorder.asks(name, "user 7")        # before the call of acquire
    recorder.granted(hold, held.token)          # after its answer, or: recorder.gives_up(hold)
    recorder.wrote(name, held.token, accepted=store.write(..., fence=held.token))
    recorder.ends(hold)                         # before the call of release, or when the holder learns of its loss
    check(recorder.holds, recorder.writes, free_bound=2.0)          # Verdict

A history has the users' side alone: when each call began and ended, what it answered, until when a holder believed in its
lock, and what was written to a guarded resource. All times are of one clock that the machine's processes share. A call
without a known outcome stays open. In a verdict `violations` must be empty; `unknown` counts what cannot be judged.

The rules, per name:

1. belief: between the answer of an acquire and the call of its release (or the end of its validity), no user that it
   excludes is told that it holds, and a semaphore never has more holders than permits;
2. tokens are unique, and none is reused;
3. real time: a grant that was answered before another one was asked for has the smaller token, if one excludes the other;
4. a resource that is guarded by exclusive locks never accepts an older token after a newer one;
5. liveness: while a user waits, the name is not free for longer than a bound.

Each hold and each write is reported once for each rule that it breaks, beside another that breaks the rule with it. A history
in which nobody waited, or whose holds stay open, shows no time in which the name was free: that is unknown, not proven.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter

EXCLUSIVE = "exclusive"


@dataclasses.dataclass(slots=True)
class Hold:
    """One acquire: asked at `asked`, answered at `granted` (None: not granted, or unknown), believed until `ended`."""

    name: str
    user: str
    asked: float
    mode: str = EXCLUSIVE
    limit: int | None = None
    granted: float | None = None
    token: int | None = None
    ended: float | None = None  #: the call of its release, or the first moment at which it knew of the loss
    gave_up: float | None = None  #: when the caller left without a grant


@dataclasses.dataclass(frozen=True, slots=True)
class Write:
    """A write to a resource that is guarded by an exclusive lock."""

    name: str
    token: int
    at: float
    accepted: bool


class Recorder:
    """Records one history, from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._mutex = threading.Lock()
        self.holds: list[Hold] = []
        self.writes: list[Write] = []

    @property
    def grants(self) -> int:
        """How many acquires were granted so far."""
        with self._mutex:
            return sum(hold.token is not None for hold in self.holds)

    def asks(self, name: str, user: str, *, mode: str = EXCLUSIVE, limit: int | None = None) -> Hold:
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
        """The acquire ended without a grant."""
        hold.gave_up = self._clock()

    def ends(self, hold: Hold) -> None:
        """Before the call of release, or at the first moment at which the holder knows of its loss."""
        if hold.ended is None:
            hold.ended = self._clock()

    def wrote(self, name: str, token: int, *, accepted: bool) -> None:
        """A guarded resource accepted a write, or refused it."""
        with self._mutex:
            self.writes.append(Write(name, token, self._clock(), accepted))


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a history shows."""

    violations: tuple[str, ...]
    grants: int
    unknown: int  #: calls without a known outcome and holds without a known end: judged up to their last known moment only
    longest_free: float  #: seconds for which a name was free while a user waited

    @property
    def ok(self) -> bool:
        """Whether no rule is broken."""
        return not self.violations


def check(holds: Sequence[Hold], writes: Sequence[Write] = (), *, free_bound: float = math.inf) -> Verdict:
    """Judge a history. `free_bound`: seconds for which a name may be free while a user waits."""
    violations: list[str] = []
    longest = 0.0
    names: dict[str, list[Hold]] = {}
    for hold in sorted(holds, key=attrgetter("asked")):
        names.setdefault(hold.name, []).append(hold)
    for name, asked in names.items():
        granted = sorted((hold for hold in asked if hold.granted is not None), key=attrgetter("granted"))
        violations += _belief(granted)
        violations += _tokens(granted)
        violations += _real_time([hold for hold in asked if hold.granted is not None], granted)
        free = _longest_free(asked)
        longest = max(longest, free)
        if free > free_bound:
            violations.append(f"{name}: free for {free:.3f} s while somebody waited (bound {free_bound:g} s)")
    violations += _guarded(writes)
    grants = sum(hold.granted is not None for hold in holds)
    unknown = sum(hold.ended is None and hold.gave_up is None for hold in holds)
    return Verdict(tuple(violations), grants, unknown, longest)


def _times(granted: Iterable[Hold]) -> list[float]:
    """When each hold was granted."""
    return [hold.granted for hold in granted if hold.granted is not None]


def _token(hold: Hold) -> int:
    return -1 if hold.token is None else hold.token


def _excludes(one: Hold, other: Hold) -> bool:
    return EXCLUSIVE in (one.mode, other.mode)


def _belief(granted: Sequence[Hold]) -> Iterator[str]:
    """Go through the grants in their order: those whose end has not come yet are the present holders."""
    present: list[tuple[float, int, Hold]] = []  # by their end
    writers = 0
    for number, (now, hold) in enumerate(zip(_times(granted), granted, strict=True)):
        while present and present[0][0] <= now:
            if heapq.heappop(present)[2].mode == EXCLUSIVE:
                writers -= 1
        exclusive = hold.mode == EXCLUSIVE
        if present and (exclusive or writers):
            other = next(other for _, _, other in present if _excludes(hold, other))
            yield f"{hold.name}: {hold.user} (token {hold.token}) and {other.user} (token {other.token}) both held"
        if hold.limit is not None and len(present) >= hold.limit:
            yield f"{hold.name}: {len(present) + 1} held a semaphore of {hold.limit}"
        heapq.heappush(present, (hold.ended if hold.ended is not None else now, number, hold))
        writers += exclusive


def _tokens(granted: Iterable[Hold]) -> Iterator[str]:
    seen: dict[int | None, Hold] = {}
    for hold in granted:
        other = seen.setdefault(hold.token, hold)
        if other is not hold:
            yield f"{hold.name}: token {hold.token} was given to {other.user} and to {hold.user}"


def _real_time(asked: Iterable[Hold], granted: Sequence[Hold]) -> Iterator[str]:
    """Compare each grant with the largest token answered before its call began: of writers, and of the others."""
    answered = 0
    times = [*_times(granted), math.inf]
    largest: dict[bool, Hold] = {}  # by whether it was exclusive
    for hold in asked:
        while times[answered] < hold.asked:
            upcoming = granted[answered]
            answered += 1
            kind = upcoming.mode == EXCLUSIVE
            if kind not in largest or _token(upcoming) > _token(largest[kind]):
                largest[kind] = upcoming
        for earlier in largest.values():
            if _token(hold) <= _token(earlier) and _excludes(earlier, hold):
                yield (
                    f"{hold.name}: {hold.user} asked after {earlier.user} was granted token {earlier.token}, "
                    f"and got {hold.token}"
                )
                break


def _guarded(writes: Iterable[Write]) -> Iterator[str]:
    newest: dict[str, int] = {}
    for write in sorted(writes, key=attrgetter("at")):
        if write.accepted:
            before = newest.get(write.name, -1)
            if write.token < before:
                yield f"{write.name}: accepted token {write.token} after {before}"
            newest[write.name] = max(write.token, before)


def _longest_free(asked: Iterable[Hold]) -> float:
    """The longest time in which nobody held, or may have held, and a user waited, even one that gave up later."""
    changes: list[tuple[float, int, int]] = []  # when; how many holders and how many waiters there are more
    for hold in asked:
        answered = hold.gave_up if hold.granted is None else hold.granted
        if answered is not None:
            changes += [(hold.asked, 0, 1), (answered, 0, -1)]
        if hold.gave_up is None or hold.granted is not None:
            changes.append((hold.asked if hold.granted is None else hold.granted, 1, 0))
            changes.append((math.inf if hold.ended is None else hold.ended, -1, 0))
    longest, holders, waiters = 0.0, 0, 0
    since: float | None = None
    for now, holding, waiting in sorted(changes, key=_arrivals_first):
        if since is not None:
            longest = max(longest, now - since)
        holders += holding
        waiters += waiting
        if holders or not waiters:
            since = None
        elif since is None:
            since = now
    return longest


def _arrivals_first(change: tuple[float, int, int]) -> tuple[float, int]:
    """At one time arrivals go before departures: two waits, or two holds, that touch leave no gap."""
    now, holding, waiting = change
    return now, -holding - waiting
