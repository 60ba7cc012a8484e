"""What is known of one partition while it is ours: what is ready, waiting, handed out. Only the loop touches it."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from narrowboat_kafka.format import records
from narrowboat_kafka.format.ledger import Ledger

if TYPE_CHECKING:
    from narrowboat.errors import NarrowboatError
    from narrowboat_kafka.client import TopicPartition
    from narrowboat_kafka.format.stored import Stored


class Tag:
    """One delivery of a record, which settles that delivery alone. A record that comes back gets a new tag."""

    __slots__ = ("claims", "done", "due", "expires", "feed", "offset", "part", "record", "since")

    def __init__(self, part: Partition, record: Stored) -> None:
        self.part = part
        self.record = record
        self.offset = record.offset
        self.expires = records.expires(record)
        self.claims = 0  #: how often it was handed out since it was last published, this time included
        self.feed: object = None  #: who has it, and since when
        self.since = 0.0
        self.done: str | None = None  #: how it was settled, once it is
        self.due = 0.0  #: when it may be handed out again, where it waits for that here


class Partition:
    """A partition that is ours. A new one is made each time that it is assigned."""

    __slots__ = (
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
        "returned",
        "settling",
        "shut_until",
        "topic_id",
        "tp",
        "unreadable",
        "waiting",
    )

    def __init__(self, tp: TopicPartition, ledger: Ledger, topic_id: object) -> None:
        self.tp = tp
        self.topic_id = topic_id  #: which topic of that name: one that was made anew has another
        self.ledger = ledger
        self.owned = True
        self.leaving = False  #: it is being given up: nothing more is handed out
        self.ready: deque[Tag] = deque()  #: in their order
        self.claiming: list[Tag] = []  #: claimed ahead, in the commit that is under way
        self.claimed: deque[Tag] = deque()  #: claimed ahead, and committed: they can be handed out at once
        self.returned: list[tuple[int, Tag]] = []  #: a heap of those that came back
        self.waiting: list[tuple[float, int, Stored]] = []  #: a heap by when to look at them
        self.out: dict[int, Tag] = {}
        self.moving: set[int] = set()  #: being published elsewhere
        self.settling = 0  #: how many wait for the commit of what they have settled
        self.crowded = False  #: its metadata is nearly full
        self.paused = False
        self.unreadable: NarrowboatError | None = None  #: why it cannot be read on
        self.shut_until = 0.0  #: when that is tried again, by the monotonic clock

    @property
    def buffered(self) -> int:
        """Records that are read and not handed out."""
        return len(self.ready) + len(self.waiting)

    @property
    def waiting_for_us(self) -> int:
        """How many messages a consumer could be given now."""
        if self.leaving:
            return 0
        return len(self.returned) + len(self.claimed) + (0 if self.crowded else len(self.ready))

    @property
    def busy(self) -> bool:
        """Whether a delivery, a move or a commit is under way, for which a revocation waits."""
        return bool(self.out or self.moving or self.settling)

    def admit(self, found: Iterable[Stored]) -> None:
        """Records that were read become ready to be handed out."""
        self.ready.extend([Tag(self, record) for record in found])

    def next(self, limit: int, now: float) -> tuple[list[Tag], bool]:
        """Up to `limit` to hand out; and whether one before them had expired, and is done with."""
        return self._alive(self._pop, limit, now)

    def _pop(self) -> Tag | None:
        if self.returned:
            return heapq.heappop(self.returned)[1]
        return self.ready.popleft() if self.ready and not self.crowded else None

    def _alive(self, pop: Callable[[], Tag | None], limit: int, now: float) -> tuple[list[Tag], bool]:
        """Up to `limit` that `pop` gives and that have not expired; and whether some had, which are settled with that."""
        found: list[Tag] = []
        expired: list[int] = []
        while len(found) < limit and not self.leaving and (tag := pop()) is not None:
            if tag.expires <= now:
                expired.append(tag.offset)
            else:
                found.append(tag)
        if expired:
            self.ledger.settle(expired)
        return found, bool(expired)

    def hand_out(self, found: Sequence[Tag], feed: object, now: float) -> None:
        """Count them as deliveries and put them in flight."""
        self._claim(found, out=True)
        self._hand_out(found, feed, now)

    def claim_ahead(self, found: Sequence[Tag]) -> None:
        """Count them as deliveries before a consumer asks for them. They are not in flight yet."""
        self._claim(found, out=False)
        self.claiming += found

    def confirm_claims(self) -> None:
        """The commit that carried the early claims succeeded."""
        self.claimed.extend(self.claiming)
        self.claiming.clear()

    def hand_out_claimed(self, limit: int, feed: object, now: float) -> list[Tag]:
        """Put up to `limit` of those in flight that were claimed ahead."""
        found, _ = self._alive(lambda: self.claimed.popleft() if self.claimed else None, limit, now)
        self.ledger.hand_out([tag.offset for tag in found])
        self._hand_out(found, feed, now)
        return found

    def _claim(self, found: Sequence[Tag], *, out: bool) -> None:
        counts = self.ledger.claim([tag.offset for tag in found], out=out)
        for tag, count in zip(found, counts, strict=True):
            tag.claims = count

    def _hand_out(self, found: Sequence[Tag], feed: object, now: float) -> None:
        out = self.out
        for tag in found:
            tag.feed = feed
            tag.since = now
            out[tag.offset] = tag

    def unclaim(self) -> bool:
        """Take back the early claims, uncounted: no consumer asks for them any more. Whether there were any."""
        ahead = [*self.claimed, *self.claiming]
        for tag in ahead:
            self.ledger.release(tag.offset, counted=False)
            heapq.heappush(self.returned, (tag.offset, tag))
        self.claimed.clear()
        self.claiming.clear()
        return bool(ahead)

    def take_back(self, tag: Tag, *, counted: bool) -> None:
        """End a delivery that was not acknowledged: its record is ready again, for any consumer."""
        if self.owned and self.out.get(tag.offset) is tag:
            del self.out[tag.offset]
            self.ledger.release(tag.offset, counted=counted)
            if tag.due:
                heapq.heappush(self.waiting, (tag.due, tag.offset, tag.record))
            else:
                heapq.heappush(self.returned, (tag.offset, Tag(self, tag.record)))

    def clear(self) -> None:
        """Forget what was read and not handed out."""
        self.ready.clear()
        self.returned.clear()
        self.waiting.clear()
        self.claimed.clear()
        self.claiming.clear()


class Taken(list[Tag]):
    """What one call to `take` hands out. `abandoned`: the caller was interrupted and will never see it."""

    abandoned = False
