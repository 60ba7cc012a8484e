"""All queues, topics and inboxes of one namespace, and how a published message finds its way into them.

Bookkeeping like `source.py`: no lock and no waking; each call is told what time it is. What it changes it reports as rings:
path and number of messages that somebody should be woken for.
"""

from __future__ import annotations

import itertools
import uuid
from collections import Counter, deque
from collections.abc import Mapping
from heapq import heappop, heappush
from types import MappingProxyType
from typing import NamedTuple

from narrowboat.contract import Address, Kind, Outgoing, Properties, Receipt
from narrowboat.driver.sources import DEAD, altered, dead_headers, first_properties, has_dead_letters
from narrowboat.errors import Conflict, NarrowboatError, NotFound
from narrowboat_memory.errors import refuse
from narrowboat_memory.source import Entry, MemorySource

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class _Pending(NamedTuple):
    """A message for a topic that is not due yet: its groups are those that exist then."""

    due: float
    seq: int
    message: Outgoing
    expires: float | None
    retention: float


class _Kept(NamedTuple):
    """A message that a topic keeps for subscriptions that begin at the earliest."""

    until: float
    place: float
    seq: int
    message: Outgoing
    expires: float | None


class MemoryTopic:
    """A topic: its groups, what is not due yet, what is kept for replay."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.groups: dict[str, MemorySource] = {}
        self.pending: list[_Pending] = []
        self.kept: deque[_Kept] = deque()


_Known = tuple[MemorySource | MemoryTopic, str]


class Sources:
    """Every address of one namespace. `rings` collects what to wake for; the caller takes it with `take_rings`."""

    def __init__(self) -> None:
        self._sources: dict[str, MemorySource] = {}
        self._inboxes: dict[str, MemorySource] = {}
        self._topics: dict[str, MemoryTopic] = {}
        self._seq = itertools.count(1)
        #: By the target itself, not by its address: what is deleted and made again has seen nothing.
        self._seen: dict[_Known, float] = {}
        self._forget: deque[tuple[float, _Known]] = deque()
        self._rings: Counter[str] = Counter()

    def take_rings(self) -> Counter[str]:
        """Whom to wake for what was done since the last call."""
        rings, self._rings = self._rings, Counter()
        return rings

    def ring(self, path: str, count: int = 1) -> None:
        """Somebody should be woken for `count` messages of `path`."""
        if count:
            self._rings[path] += count

    def find(self, address: Address) -> MemorySource | MemoryTopic | Conflict | None:
        """What `address` names; None when it is not there, `Conflict` when it is something else."""
        if address.kind is Kind.INBOX:
            return self._inboxes.get(address.path)
        taken = self._taken(address)
        if taken is not None:
            return taken
        return self._topics.get(address.name) if address.kind is Kind.TOPIC else self._sources.get(address.path)

    def declare(
        self, address: Address, properties: Properties, now: float, *, make: bool, earliest: bool = False
    ) -> MemorySource | MemoryTopic | Conflict | NotFound:
        """Find or make what a consumer declares. `make`: whether it may be made."""
        found = self.find(address)
        if isinstance(found, Conflict):
            return found
        if found is None:
            if not make:
                return refuse.missing(address.path, address.kind.value)
            return self._make(address, properties, now, declared=True, earliest=earliest)
        if isinstance(found, MemorySource):
            if found.declared:
                return refuse.differs(address.path, found.properties._asdict(), properties) or found
            # It was made by a publish: a producer that starts first must not fix the consumers' properties.
            self.tick(found, now)  # so that what is due already is sorted with the rest
            found.declare(properties)
        return found

    def stored(self, address: Address) -> Properties | Conflict | None:
        """What a consumer declared, or somebody altered since; None where nobody did."""
        found = self.find(address)
        if isinstance(found, MemorySource):
            return found.properties if found.declared else None
        return found if isinstance(found, Conflict) else None

    def alter(self, address: Address, lease: float | None, limit: int | None) -> Properties | NarrowboatError:
        """Store another lease or limit; what is None stays."""
        found = self.find(address)
        if isinstance(found, Conflict):
            return found
        if not isinstance(found, MemorySource) or not found.declared:
            return refuse.undeclared(address.path, address.kind.value)
        found.properties = altered(found.properties, lease, limit)
        return found.properties

    def listed(self) -> list[Address]:
        """Every queue, topic and subscription, without dead letters."""
        found = [*(source.address for source in self._sources.values()), *(topic.address for topic in self._topics.values())]
        return [address for address in found if not address.path.endswith(DEAD)]

    def inbox(self) -> MemorySource:
        """A new private source. It never counts deliveries: nobody would look at its dead letters."""
        address = Address(Kind.INBOX, f"inbox-{uuid.uuid4().hex}")
        source = MemorySource(address, Properties(max_deliveries=0), declared=True)
        self._inboxes[source.path] = source
        return source

    def send(self, message: Outgoing, now: float, *, make: bool, window: float, retention: float) -> Receipt | NarrowboatError:
        """Store one message wherever it belongs."""
        target = self.find(message.to)
        if isinstance(target, Conflict):
            return target
        if target is None:
            if message.to.kind is Kind.INBOX:
                return Receipt(message.id)  # whoever asked is gone
            if not make:
                return refuse.missing(message.to.path, message.to.kind.value)
            target = self._make(message.to, first_properties(message.to.path), now, declared=False, earliest=False)
            if isinstance(target, Conflict):
                return target
        if message.dedup and window > 0 and not self._first((target, message.id), now, window):
            return Receipt(message.id, duplicate=True)
        # The caller's mapping may change after this; and no consumer shall change what the next one gets.
        headers = MappingProxyType(dict(message.headers)) if message.headers else _NO_HEADERS
        message = message._replace(headers=headers)
        expires = None if message.ttl is None else now + message.ttl
        seq = next(self._seq)
        if isinstance(target, MemoryTopic):
            if message.delay > 0:
                heappush(target.pending, _Pending(now + message.delay, seq, message, expires, retention))
                for group in target.groups.values():
                    self.ring(group.path)  # whoever waits there must hear when it is due
            else:
                self._tick_topic(target, now)  # what is due before this one goes before it
                self._fan_out(target, message, seq, now, now, expires, retention)
        else:
            due = now + message.delay if message.delay > 0 else None
            if target.properties.ordered:
                self.tick(target, now)  # what is due before this one goes before it
            target.add(message, seq, now if due is None else due, due, expires)
            self.ring(target.path)
        return Receipt(message.id)

    def tick(self, target: MemorySource | MemoryTopic, now: float) -> None:
        """Do what is due in a source and, before it, in its topic."""
        if isinstance(target, MemoryTopic):
            self._tick_topic(target, now)
            return
        if target.address.kind is Kind.SUBSCRIPTION:
            topic = self._topics.get(target.address.name)
            if topic is not None:
                self._tick_topic(topic, now)
        target.tick(now)

    def next_change(self, source: MemorySource) -> float | None:
        """When something will be due in `source` by itself."""
        times = [source.next_change()]
        if source.address.kind is Kind.SUBSCRIPTION:
            topic = self._topics.get(source.address.name)
            times.append(topic.pending[0].due if topic is not None and topic.pending else None)
        return min((time for time in times if time is not None), default=None)

    def bury(self, source: MemorySource, entry: Entry, reason: str, attempts: int, now: float) -> Conflict | None:
        """Move a message to the dead letters of its source, if it has any."""
        if has_dead_letters(source.address):
            address = source.address.dead
            # Made whatever the URL says about declaring: it is a part of its source, and the message must go somewhere.
            dead = self.find(address) or self._make(
                address, first_properties(address.path), now, declared=False, earliest=False
            )
            if not isinstance(dead, MemorySource):
                return dead if isinstance(dead, Conflict) else refuse.taken(address.path, "topic", "queue")
            headers = dead_headers(entry.message.headers, reason=reason, attempts=attempts, origin=source.path)
            # In the order in which they died, for ever, and below nothing: its levels end here.
            dead.add(
                entry.message._replace(headers=MappingProxyType(headers), ttl=None, delay=0.0), next(self._seq), now, None, None
            )
            self.ring(dead.path)
        source.remove(entry)
        return None

    def delete(self, address: Address) -> bool | Conflict:
        """Remove it with its messages; what is out becomes stale."""
        found = self.find(address)
        if found is None or isinstance(found, Conflict):
            return found or False
        if isinstance(found, MemoryTopic):
            for group in list(found.groups.values()):
                self._drop(group)
            del self._topics[address.name]
        else:
            self._drop(found)
        return True

    def repair(self) -> None:
        """Put right what an interrupt left half done."""
        for source in [*self._sources.values(), *self._inboxes.values()]:
            source.repair()

    def _drop(self, source: MemorySource) -> None:
        for entry in list(source.entries.values()):
            entry.key = None  # nobody moves up
            source.remove(entry)
        if source.address.kind is Kind.INBOX:
            self._inboxes.pop(source.path, None)
            return
        self._sources.pop(source.path, None)
        topic = self._topics.get(source.address.name)
        if source.address.kind is Kind.SUBSCRIPTION and topic is not None:
            topic.groups.pop(source.address.group, None)

    def _taken(self, address: Address) -> Conflict | None:
        """The conflict when the name of `address` is something else already."""
        path = address.path
        found = Kind.TOPIC if path in self._topics else None
        if path in self._sources:
            found = self._sources[path].address.kind
        if found is not None and found is not address.kind:
            return refuse.taken(path, found.value, address.kind.value)
        if address.kind is Kind.SUBSCRIPTION and address.name in self._sources:
            return refuse.taken(address.name, self._sources[address.name].address.kind.value, "topic")
        return None

    def _make(
        self, address: Address, properties: Properties, now: float, *, declared: bool, earliest: bool
    ) -> MemorySource | MemoryTopic | Conflict:
        if address.kind is Kind.TOPIC:
            return self._topics.setdefault(address.name, MemoryTopic(address))
        source = MemorySource(address, properties, declared=declared)
        if address.kind is Kind.SUBSCRIPTION:
            topic = self._topics.setdefault(address.name, MemoryTopic(Address(Kind.TOPIC, address.name)))
            self._tick_topic(topic, now)  # what is due already was not for a group that begins now
            if earliest:
                for kept in topic.kept:
                    if kept.until > now and (kept.expires is None or kept.expires > now):
                        source.add(kept.message, kept.seq, kept.place, None, kept.expires)
            topic.groups[address.group] = source
        self._sources[source.path] = source
        return source

    def _tick_topic(self, topic: MemoryTopic, now: float) -> None:
        while topic.kept and topic.kept[0].until <= now:
            topic.kept.popleft()
        while topic.pending and topic.pending[0].due <= now:
            due, seq, message, expires, retention = topic.pending[0]
            self._fan_out(topic, message, seq, due, now, expires, retention)
            heappop(topic.pending)  # last, so that an interrupt before it loses nothing

    def _fan_out(
        self,
        topic: MemoryTopic,
        message: Outgoing,
        seq: int,
        place: float,
        now: float,
        expires: float | None,
        retention: float,
    ) -> None:
        if expires is not None and expires <= now:
            return
        if retention > 0 and place + retention > now:
            topic.kept.append(_Kept(place + retention, place, seq, message, expires))
        for group in topic.groups.values():
            if seq in group.entries:
                continue  # an interrupt cut this very step short before
            if group.properties.ordered:
                group.tick(now)
            group.add(message, seq, place, None, expires)
            self.ring(group.path)

    def _first(self, known: _Known, now: float, window: float) -> bool:
        """Whether no message of this id went to this target within the window; from now on there is one."""
        while self._forget and self._forget[0][0] <= now:
            until, old = self._forget.popleft()
            if self._seen.get(old) == until:
                del self._seen[old]
        if self._seen.get(known, now) > now:
            return False
        self._seen[known] = now + window
        self._forget.append((now + window, known))
        return True
