"""Checks what was recorded of a queue: nothing lost, nothing invented, nothing after its ack, in order. In linear time.

    history = History()
    history.published(id, key=...)      # the publish returned
    history.uncertain(id, key=...)      # PublishUnknown: it may be there
    history.failed(id)                  # PublishFailed: it must never be delivered
    history.delivered(id, attempt)      # a consumer got it
    history.acked(id)                   # its ack was answered
    history.ack_unknown(id)             # no answer, or stale: it may come again
    check(history, drained=True)        # Verdict

Record in the order in which things happened: an ack after its answer, a delivery when the consumer has it. Each id is
published once, and so one pass decides without a search. A history that was not drained to its end can prove no loss: a
message that is missing is then unknown, not lost.
"""

from __future__ import annotations

import dataclasses
import enum
import threading
from collections.abc import Iterable
from typing import NamedTuple


class What(enum.Enum):
    """What happened."""

    PUBLISHED = "published"
    UNCERTAIN = "uncertain"
    FAILED = "failed"
    DELIVERED = "delivered"
    ACKED = "acked"
    ACK_UNKNOWN = "ack unknown"


class Event(NamedTuple):
    """One thing that happened; its place in the history is its time."""

    what: What
    id: str
    key: str | None = None
    attempt: int = 0


class History:
    """Events in order, from any number of threads."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.events = list(events)
        self._mutex = threading.Lock()

    def published(self, id: str, key: str | None = None) -> None:
        """Its publish returned. For the order of a key: record publishes of one key in their order."""
        self._add(Event(What.PUBLISHED, id, key))

    def uncertain(self, id: str, key: str | None = None) -> None:
        """Its publish had no answer."""
        self._add(Event(What.UNCERTAIN, id, key))

    def failed(self, id: str) -> None:
        """Its publish was refused."""
        self._add(Event(What.FAILED, id))

    def delivered(self, id: str, attempt: int) -> None:
        """It was delivered for the `attempt`-th time."""
        self._add(Event(What.DELIVERED, id, None, attempt))

    def acked(self, id: str) -> None:
        """Its ack was answered."""
        self._add(Event(What.ACKED, id))

    def ack_unknown(self, id: str) -> None:
        """Its ack had no answer."""
        self._add(Event(What.ACK_UNKNOWN, id))

    def _add(self, event: Event) -> None:
        with self._mutex:
            self.events.append(event)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the history shows: the ids of the messages, by what is wrong with them."""

    lost: tuple[str, ...] = ()  #: published, never delivered, and the queue was drained
    missing: tuple[str, ...] = ()  #: published, never delivered, but the queue was not drained: unknown
    unexpected: tuple[str, ...] = ()  #: delivered, and never published, or its publish was refused
    after_ack: tuple[str, ...] = ()  #: delivered again after an ack that was answered
    unordered: tuple[str, ...] = ()  #: first delivered after a later one of its key
    attempts: tuple[str, ...] = ()  #: its attempts did not grow from delivery to delivery
    unsettled: tuple[str, ...] = ()  #: drained, delivered, and no ack was ever answered or unknown
    duplicated: tuple[str, ...] = ()  #: delivered more than once; allowed, and counted
    deliveries: int = 0

    @property
    def ok(self) -> bool:
        """Whether the history keeps the promise: at least once, nothing after its ack, in order. Duplicates are allowed."""
        wrong = (self.lost, self.unexpected, self.after_ack, self.unordered, self.attempts, self.unsettled)
        return not any(wrong)

    @property
    def known(self) -> bool:
        """Whether the fate of every message is known."""
        return not self.missing

    def __str__(self) -> str:
        counts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "deliveries"}
        said = [f"{len(ids)} {name.replace('_', ' ')} ({', '.join(ids[:5])})" for name, ids in counts.items() if ids]
        return f"{self.deliveries} deliveries: {'; '.join(said) or 'nothing wrong'}"


def check(history: History, *, drained: bool, ordered: bool = False) -> Verdict:
    """One pass over the events.

    Args:
        history: what was recorded.
        drained: whether the queue was read to its end afterwards; otherwise no message is lost for certain.
        ordered: whether first deliveries of one key must be in the order of their publishes.
    """
    confirmed: dict[str, int] = {}  # by id, its place among the confirmed of its key
    possible: set[str] = set()
    for event in history.events:  # a delivery may be recorded before its publisher has recorded the confirm
        if event.what is What.PUBLISHED:
            confirmed.setdefault(event.id, len(confirmed))
        elif event.what is What.UNCERTAIN:
            possible.add(event.id)
    keys = {event.id: event.key for event in history.events if event.what is What.PUBLISHED}
    attempts: dict[str, int] = {}
    counts: dict[str, int] = {}
    acked: set[str] = set()
    settled: set[str] = set()
    latest: dict[str | None, int] = {}
    unexpected: dict[str, None] = {}
    after_ack: dict[str, None] = {}
    unordered: dict[str, None] = {}
    shrunk: dict[str, None] = {}
    deliveries = 0
    for what, id, _, attempt in history.events:
        if what is What.ACKED:
            acked.add(id)
            settled.add(id)
        elif what is What.ACK_UNKNOWN:
            settled.add(id)
        elif what is What.DELIVERED:
            deliveries += 1
            if id not in confirmed and id not in possible:
                unexpected[id] = None
            if id in acked:
                after_ack[id] = None
            if attempt <= attempts.get(id, 0):
                shrunk[id] = None
            attempts[id] = attempt
            counts[id] = counts.get(id, 0) + 1
            if ordered and counts[id] == 1 and id in confirmed and keys[id] is not None:
                place, key = confirmed[id], keys[id]
                if place < latest.get(key, -1):
                    unordered[id] = None
                latest[key] = max(place, latest.get(key, -1))
    never = tuple(id for id in confirmed if id not in counts)
    return Verdict(
        lost=never if drained else (),
        missing=() if drained else never,
        unexpected=tuple(unexpected),
        after_ack=tuple(after_ack),
        unordered=tuple(unordered),
        attempts=tuple(shrunk),
        unsettled=tuple(id for id in counts if id not in settled) if drained else (),
        duplicated=tuple(id for id, count in counts.items() if count > 1),
        deliveries=deliveries,
    )
