"""What one queue, subscription or inbox holds: who is ready, who is out, who comes back when.

Pure bookkeeping: no lock, no clock (each call is told what time it is), no waking. `sources.py` finds sources and guards
them; the semantics stand here, and `narrowboat_sqlite` keeps the same in tables.

`entries` is the truth and everything else an index over it, so that `repair` can make the indexes anew when an interrupt
cut a change short. Heaps are cleaned lazily: an item whose entry has moved on is skipped when it comes up.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from typing import NamedTuple, TypeVar

from narrowboat.contract import Address, Outgoing, Properties
from narrowboat.driver.sources import rank


class State(enum.Enum):
    """Where a message stands."""

    READY = "ready"
    DELAYED = "delayed"  #: not available yet; blocks nobody
    CLAIMED = "claimed"  #: with a consumer, until its lease ends
    HELD = "held"  #: nacked with a delay in an ordered source: keeps its place and blocks its key
    BLOCKED = "blocked"  #: available, but an earlier one of its key is unsettled
    GONE = "gone"


READY, DELAYED, CLAIMED, HELD, BLOCKED, GONE = State
Item = TypeVar("Item", tuple[float, int, "Entry"], tuple[int, float, int, "Entry"])

_HOLDS_TURN = frozenset({READY, CLAIMED, HELD})

#: Stale items that a heap may carry beyond twice its live ones before it is made anew.
_SLACK = 64


class Entry:
    """One message in one source."""

    __slots__ = ("attempt", "expires", "feed", "key", "message", "place", "rank", "seq", "state", "token", "until")

    def __init__(self, message: Outgoing, seq: int, place: float, expires: float | None) -> None:
        self.message = message
        self.seq = seq  #: when it was published, among all messages
        self.place = place  #: when it became available: with `seq`, its place in the order
        self.rank = 0  #: by priority; smaller goes first
        self.attempt = 0
        self.expires = expires
        self.key: str | None = None  #: only in ordered sources
        self.state = READY
        self.until: float | None = None  #: when a claim, delay or hold ends
        self.token: object = None  #: of the claim; a new one each time
        self.feed: object = None

    def __lt__(self, other: Entry) -> bool:
        return False  # two items of one entry may be equal in all that sorts


class Counts(NamedTuple):
    """How many messages stand where."""

    ready: int
    in_flight: int
    delayed: int


class MemorySource:
    """The messages of one address. `declared`: its properties were given by a consumer, not made up by a publish."""

    def __init__(self, address: Address, properties: Properties, *, declared: bool) -> None:
        self.address = address
        self.path = address.path
        self.properties = properties
        self.declared = declared
        self.entries: dict[int, Entry] = {}
        self._ready: list[tuple[int, float, int, Entry]] = []
        self._timers: list[tuple[float, int, Entry]] = []
        self._expiries: list[tuple[float, int, Entry]] = []
        #: For each key with a message whose turn it is: those that wait behind it.
        self._chains: dict[str, list[tuple[float, int, Entry]]] = {}

    def declare(self, properties: Properties) -> None:
        """Take the properties of the first consumer; what was published before is sorted by them."""
        self.properties, self.declared = properties, True
        self.repair()

    def add(self, message: Outgoing, seq: int, place: float, due: float | None, expires: float | None) -> None:
        """Store a message; `due`: when it becomes available, None for at once."""
        entry = Entry(message, seq, place, expires)
        self._sort(entry)
        if due is not None:
            entry.until, entry.state = due, DELAYED
        self.entries[seq] = entry  # from here on it is stored, whatever interrupts us
        if expires is not None:
            heappush(self._expiries, (expires, seq, entry))
        if due is None:
            self._available(entry)
        else:
            heappush(self._timers, (due, seq, entry))

    def tick(self, now: float) -> None:
        """Do what is due: end leases and delays, drop what has expired."""
        while self._timers and self._timers[0][0] <= now:
            until, _, entry = heappop(self._timers)
            if entry.until != until:
                continue
            if entry.expires is not None and entry.expires <= now:
                self.remove(entry)
            elif entry.state is DELAYED:
                self._start(entry, until)
            else:
                self._back(entry)
        while self._expiries and self._expiries[0][0] <= now:
            entry = heappop(self._expiries)[2]
            # One that is out may still be settled by its consumer; when it comes back instead, it is dropped there.
            if entry.state is not GONE and entry.state is not CLAIMED:
                self.remove(entry)
        self._compact()

    def claim(self, limit: int, now: float, lease: float, feed: object, token: object) -> list[Entry]:
        """Up to `limit` messages in order, counted and marked with `token`, for `lease` seconds. Call `tick` first."""
        claimed: list[Entry] = []
        ready, timers = self._ready, self._timers
        until = now + lease
        while ready and len(claimed) < limit:
            entry = heappop(ready)[3]
            if entry.state is not READY:
                continue
            claimed.append(entry)
            entry.until, entry.token, entry.feed = until, token, feed
            entry.state = CLAIMED
            entry.attempt += 1
            heappush(timers, (until, entry.seq, entry))
        return claimed

    def unclaim(self, token: object, now: float) -> int:
        """Take back, uncounted, what was claimed with `token` and reached nobody. How many."""
        claimed = [entry for entry in self.entries.values() if entry.token is token]
        for entry in claimed:
            self.give_back(entry, now, counted=False)
        return len(claimed)

    def nack(self, entry: Entry, now: float, delay: float) -> None:
        """It comes back after `delay`; in an ordered source at its place, which nobody of its key overtakes.

        What expires before that is dropped then: until the end of the delay it would hold up its key.
        """
        if delay <= 0:
            self.give_back(entry, now, counted=True)
            return
        until = now + delay if entry.expires is None else min(now + delay, entry.expires)
        entry.token = entry.feed = None
        entry.until, entry.state = until, DELAYED if entry.key is None else HELD
        heappush(self._timers, (until, entry.seq, entry))

    def give_back(self, entry: Entry, now: float, *, counted: bool) -> None:
        """It is ready again at its own place, unless it has expired meanwhile."""
        if not counted:
            entry.attempt -= 1
        if entry.expires is not None and entry.expires <= now:
            self.remove(entry)
        else:
            self._back(entry)

    def extend(self, entry: Entry, until: float) -> None:
        """Its lease ends at `until`."""
        entry.until = until
        heappush(self._timers, (until, entry.seq, entry))

    def remove(self, entry: Entry) -> None:
        """It leaves for good, and the next of its key has its turn."""
        held, entry.state = entry.state in _HOLDS_TURN, GONE
        entry.until = entry.token = entry.feed = None
        self.entries.pop(entry.seq, None)
        if entry.key is not None and held:
            self._turn(entry.key)

    def of_feed(self, feed: object) -> list[Entry]:
        """What `feed` has out. Each once: what was extended has several timers."""
        return list(dict.fromkeys(entry for *_, entry in self._timers if entry.feed is feed and entry.state is CLAIMED))

    def purge(self) -> int:
        """Drop all that is not out. How many."""
        doomed = [entry for entry in self.entries.values() if entry.state is not CLAIMED]
        for entry in doomed:
            entry.key = None  # nobody moves up: what waits behind it goes as well
            self.remove(entry)
        self.repair()
        return len(doomed)

    def counts(self) -> Counts:
        """How many are ready (or wait for their key's turn), out, delayed."""
        states = [entry.state for entry in self.entries.values()]
        return Counts(
            states.count(READY) + states.count(BLOCKED), states.count(CLAIMED), states.count(DELAYED) + states.count(HELD)
        )

    def oldest(self) -> float | None:
        """When the message became available that waits for longest. Only priorities cost a look at all that is ready."""
        ready = self._ready
        while ready and ready[0][3].state is not READY:
            heappop(ready)
        mixed = bool(ready) and ready[0][0] != 0
        places = [place for _, place, _, entry in (ready if mixed else ready[:1]) if entry.state is READY]
        for chain in self._chains.values():
            while chain and chain[0][2].state is not BLOCKED:
                heappop(chain)
            places += [place for place, _, _ in chain[:1]]
        return min(places, default=None)

    def ready(self) -> int:
        """About how many could be claimed now: for waking, which may be spurious."""
        return len(self._ready)

    def next_change(self) -> float | None:
        """When the next lease, delay or hold ends."""
        timers = self._timers
        while timers and timers[0][2].until != timers[0][0]:
            heappop(timers)
        return timers[0][0] if timers else None

    def repair(self) -> None:
        """Make every index anew from the entries, also those that an interrupt left half changed."""
        self._ready, self._timers, self._expiries, self._chains = [], [], [], {}
        rest = []
        for entry in list(self.entries.values()):
            if entry.state is GONE:
                del self.entries[entry.seq]
                continue
            turn = entry.state is CLAIMED or entry.state is HELD
            if entry.state is CLAIMED and entry.until is None:
                entry.state = READY  # it was claimed for nobody
                turn = False
            if entry.state in {READY, BLOCKED}:
                entry.until = entry.token = entry.feed = None
                rest.append(entry)
            self._sort(entry)
            if entry.expires is not None:
                self._expiries.append((entry.expires, entry.seq, entry))
            if entry.until is not None:
                self._timers.append((entry.until, entry.seq, entry))
            if turn and entry.key is not None:
                self._chains[entry.key] = []
        heapify(self._expiries)
        heapify(self._timers)
        rest.sort(key=lambda entry: (entry.place, entry.seq))
        for entry in rest:
            self._available(entry)

    def _sort(self, entry: Entry) -> None:
        entry.rank = rank(self.path, self.properties, self.declared, entry.message.priority)
        entry.key = entry.message.key if self.properties.ordered else None

    def _start(self, entry: Entry, due: float) -> None:
        entry.place, entry.until = due, None
        self._available(entry)

    def _back(self, entry: Entry) -> None:
        entry.state = READY
        entry.until = entry.token = entry.feed = None
        heappush(self._ready, (entry.rank, entry.place, entry.seq, entry))

    def _available(self, entry: Entry) -> None:
        if entry.key is not None:
            chain = self._chains.get(entry.key)
            if chain is not None:
                entry.state = BLOCKED
                heappush(chain, (entry.place, entry.seq, entry))
                return
            self._chains[entry.key] = []
        entry.state = READY
        heappush(self._ready, (entry.rank, entry.place, entry.seq, entry))

    def _turn(self, key: str) -> None:
        chain = self._chains.get(key, [])
        while chain:
            entry = heappop(chain)[2]
            if entry.state is BLOCKED:
                self._back(entry)
                return
        self._chains.pop(key, None)

    def _compact(self) -> None:
        """Keep the heaps in proportion to what is stored: memory stays flat under endless traffic."""
        most = 2 * len(self.entries) + _SLACK
        if len(self._timers) > most:
            _rebuild(self._timers, (item for item in self._timers if item[2].until == item[0]))
        if len(self._expiries) > most:
            _rebuild(self._expiries, (item for item in self._expiries if item[2].state is not GONE))
        if len(self._ready) > most:
            _rebuild(self._ready, (item for item in self._ready if item[3].state is READY))


def _rebuild(heap: list[Item], live: Iterable[Item]) -> None:
    heap[:] = list(live)
    heapify(heap)
