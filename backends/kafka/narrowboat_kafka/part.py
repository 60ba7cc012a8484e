"""What is known of one partition while it is ours: what is ready, waiting, handed out. Only the I/O thread touches it."""

from __future__ import annotations

import heapq
from collections import deque
from typing import Any

from narrowboat_kafka import records
from narrowboat_kafka.ledger import Ledger


class Tag:
    """What settles one delivery and no other."""

    __slots__ = ("done", "feed", "offset", "part", "record", "since")

    def __init__(self, part: Part, record: Any, feed: object, since: float) -> None:
        self.part = part
        self.record = record
        self.offset: int = record.offset
        self.feed = feed
        self.since = since
        self.done: str | None = None  #: how it was settled, once it is


class Part:
    """A partition that is ours. A new one is made each time that it is assigned."""

    __slots__ = (
        "again",
        "claimed",
        "claiming",
        "crowded",
        "leaving",
        "ledger",
        "moving",
        "out",
        "owned",
        "paused",
        "ready",
        "topic_id",
        "tp",
        "waiting",
    )

    def __init__(self, tp: Any, ledger: Ledger, topic_id: object) -> None:
        self.tp = tp
        self.topic_id = topic_id  #: which topic of that name: one that was made anew has another
        self.ledger = ledger
        self.owned = True
        self.leaving = False  #: it is being given up: nothing more is handed out
        self.ready: deque[Any] = deque()  #: records in their order
        self.claiming: list[tuple[Any, int]] = []  #: claimed ahead, in the commit that is under way
        self.claimed: deque[tuple[Any, int]] = deque()  #: claimed ahead, and committed: they can be handed out at once
        self.again: list[tuple[int, Any]] = []  #: a heap of those that came back
        self.waiting: list[tuple[float, int, Any]] = []  #: a heap by when to look at them
        self.out: dict[int, Tag] = {}
        self.moving: set[int] = set()  #: being published elsewhere
        self.crowded = False  #: its metadata is nearly full
        self.paused = False

    @property
    def buffered(self) -> int:
        """Records that are read and not handed out."""
        return len(self.ready) + len(self.waiting)

    def next(self, now: float) -> tuple[Any, bool]:
        """The next record to hand out, or None; and whether one before it had expired, and is done with."""
        dropped = False
        while not self.leaving and (self.again or (self.ready and not self.crowded)):
            record = heapq.heappop(self.again)[1] if self.again else self.ready.popleft()
            if not records.expired(record, now):
                return record, dropped
            self.ledger.settle(record.offset)
            dropped = True
        return None, dropped

    def hand_out(self, record: Any, feed: object, now: float) -> tuple[Tag, int]:
        """What settles it, and how often it was handed out."""
        tag = self.out[record.offset] = Tag(self, record, feed, now)
        return tag, self.ledger.claim(record.offset)

    def claim_ahead(self, record: Any) -> None:
        """Count it as handed out before anybody asks for it. It is in nobody's hands yet."""
        times = self.ledger.claim(record.offset)
        self.ledger.release(record.offset, counted=True)
        self.claiming.append((record, times))

    def claims_are_kept(self) -> None:
        """They were committed."""
        self.claimed.extend(self.claiming)
        self.claiming.clear()

    def unclaim(self) -> bool:
        """What was claimed ahead is not wanted any more: it does not count. Whether there was any."""
        ahead = [*self.claimed, *self.claiming]
        for record, _ in ahead:
            self.ledger.unclaim(record.offset)
            heapq.heappush(self.again, (record.offset, record))
        self.claimed.clear()
        self.claiming.clear()
        return bool(ahead)

    def hand_out_claimed(self, feed: object, now: float) -> tuple[Tag, int] | None:
        """The next of those that were claimed ahead, or None."""
        while self.claimed and not self.leaving:
            record, times = self.claimed.popleft()
            if records.expired(record, now):
                self.ledger.settle(record.offset)
                continue
            tag = self.out[record.offset] = Tag(self, record, feed, now)
            self.ledger.hand_out(record.offset)
            return tag, times
        return None

    def take_back(self, tag: Tag, *, counted: bool) -> None:
        """It is to be handed out again, to anybody."""
        if self.owned and self.out.get(tag.offset) is tag:
            del self.out[tag.offset]
            self.ledger.release(tag.offset, counted=counted)
            heapq.heappush(self.again, (tag.offset, tag.record))

    def clear(self) -> None:
        """Forget what was read and not handed out."""
        self.ready.clear()
        self.again.clear()
        self.waiting.clear()
        self.claimed.clear()
        self.claiming.clear()


class Taken(list[tuple[Tag, int]]):
    """What one call to `take` hands out, as (tag, claims). `left`: its caller was interrupted and will never see it."""

    left = False
