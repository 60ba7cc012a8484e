"""Who holds and who waits, by name: the state that all providers of one space share, and how it is kept tidy.

A name that nobody holds or waits for is not in it. Leases run by the clock of whoever holds them. Whatever is over is
dropped by the next call that meets it, or by a sweep. Callers hold the mutex; nothing here takes it, waits or wakes.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

from narrowboat.contract.locks import Mode, Request
from narrowboat.driver.admission import admitted

Clock = Callable[[], float]

#: Seconds that a waiter which was told that it can go may take to come. Too short, and a busy event loop loses its place;
#: too long, and one that has stopped coming holds up the rest.
PATIENCE = 5.0
#: Seconds between two looks of a waiter at most: well below the patience, and what an interrupt that cut off a wake-up
#: costs the one who was to be woken.
LOOK_AGAIN = 2.0
#: Names made between two sweeps at least; with more names there they are farther apart, so that each pays for a few.
_SWEEP_EVERY = 1024
#: How many evicted generations are remembered, so that their holders can be told why.
_EVICTED_KEPT = 1024


class Lease:
    """One owner's possession of one name."""

    __slots__ = ("acquired_at", "clock", "ends", "label", "limit", "mode", "token")

    def __init__(self, request: Request, token: int, clock: Clock, now: float) -> None:
        self.token = token
        self.mode = request.mode
        self.limit = request.limit
        self.clock = clock
        self.ends = now + request.ttl
        self.label = request.label
        self.acquired_at = time.time()


class Waiter:
    """One owner's place in the queue of one name."""

    __slots__ = ("clock", "limit", "mode", "seen", "told", "wake")

    def __init__(self, request: Request, clock: Clock, now: float) -> None:
        self.mode = request.mode
        self.limit = request.limit
        self.clock = clock
        self.wake = request.wake
        self.seen = now
        self.told: float | None = None  #: since when it could go, and knows


class Name:
    """Who holds one name and who waits for it, by owner, oldest first."""

    __slots__ = ("holders", "waiters")

    def __init__(self) -> None:
        self.holders: dict[str, Lease] = {}
        self.waiters: dict[str, Waiter] = {}


class LockSpace:
    """What all providers of one space and prefix share."""

    def __init__(self) -> None:
        self.mutex = threading.Lock()
        self.names: dict[str, Name] = {}
        self.tokens = itertools.count(1)
        self.evicted: dict[int, None] = {}
        self.until_sweep = _SWEEP_EVERY  #: names that may be made before the next one

    def tidy(self, name: str, entry: Name) -> list[Callable[[], None]]:
        """Drop what is over under `name`, and the name itself when nothing is left. Whom to wake, outside the mutex."""
        for owner, lease in list(entry.holders.items()):
            if lease.ends <= lease.clock():
                del entry.holders[owner]
        told = self._tell(entry) if entry.waiters else []
        if not entry.holders and not entry.waiters:
            self.names.pop(name, None)
        return told

    def remember_evicted(self, token: int) -> None:
        """So that its holder can be told why."""
        self.evicted[token] = None
        while len(self.evicted) > _EVICTED_KEPT:
            del self.evicted[next(iter(self.evicted))]

    def sweep(self) -> list[Callable[[], None]]:
        """Drop what is over under every name: of names that nobody asks for any more, nobody else would."""
        told: list[Callable[[], None]] = []
        for name, entry in list(self.names.items()):
            told += self.tidy(name, entry)
        self.until_sweep = max(_SWEEP_EVERY, 2 * len(self.names))
        return told

    @staticmethod
    def _tell(entry: Name) -> list[Callable[[], None]]:
        """Mark who at the front of the queue can go and was not told yet; pass over who was told and does not come."""
        holding, held = holding_of(entry)
        told = []
        gone: list[str] = []
        ahead = 0
        writer_ahead = False
        for owner, waiter in entry.waiters.items():
            now = waiter.clock()
            # Once somebody was passed over, all behind had the same time to look again: whoever did not is gone, too.
            since = waiter.seen if gone else waiter.told
            if since is not None and since + PATIENCE <= now:
                gone.append(owner)
                continue
            if owner in entry.holders:
                continue  # an interrupt struck between its grant and the end of its wait
            if not admitted(waiter.mode, waiter.limit, holding=holding, held=held, ahead=ahead, writer_ahead=writer_ahead):
                break
            ahead += 1
            writer_ahead = waiter.mode is Mode.EXCLUSIVE
            if waiter.told is None:
                waiter.told = now
                told.append(waiter.wake)
        for owner in gone:
            del entry.waiters[owner]
        return told


def holding_of(entry: Name) -> tuple[Mode | None, int]:
    """The mode of the present holders, and how many they are."""
    for lease in entry.holders.values():
        return lease.mode, len(entry.holders)
    return None, 0


def anybody(entry: Name) -> Lease | Waiter | None:
    """One of those who hold or wait; they all agree about the kind of lock."""
    for lease in entry.holders.values():
        return lease
    for waiter in entry.waiters.values():
        return waiter
    return None


def retry_after(entry: Name, owner: str) -> float:
    """In how many seconds another attempt of `owner` may find something over that nobody will tell it."""
    soonest = LOOK_AGAIN
    if next(iter(entry.waiters), owner) == owner:
        # Only who is next looks when a lease ends, and tells those who can go along with it.
        for lease in entry.holders.values():
            soonest = min(soonest, lease.ends - lease.clock())
    for waiter in entry.waiters.values():
        if waiter.told is None:
            break
        soonest = min(soonest, waiter.told + PATIENCE - waiter.clock())
    return max(soonest, 0.0)
