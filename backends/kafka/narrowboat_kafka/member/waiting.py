"""What waits in one member for a time of its own, and what goes on elsewhere because it must not stay. On the loop only.

Messages of the retry topic (`levels.py`) lie in a heap until their partition looks at them; then they are ready, or `forward`
takes them on: it publishes them elsewhere and tells `moved` or `not_moved` of it. The same is done with the oldest message of
a crowded partition, which has been in flight for too long.

It does not publish (that is `mover.py`, on a thread of its own), does not read, and decides nothing about messages of the
main topic that are ready.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import time
from collections.abc import Callable, Iterable

from narrowboat_kafka.client import KafkaError
from narrowboat_kafka.format import levels, records
from narrowboat_kafka.format.levels import FIRST
from narrowboat_kafka.format.stored import Stored
from narrowboat_kafka.member.commits import Commits
from narrowboat_kafka.member.partition import Partition
from narrowboat_kafka.member.parts import Parts
from narrowboat_kafka.options import DELAY_MAX

#: Publishes a message of a partition elsewhere, to wait there for so many seconds more. It must not block.
Forward = Callable[[Partition, Stored, float], None]


class Waiting:
    """See the module's text.

    `retry`: the topic whose messages wait. `deliver`: False where what is due is forwarded as well. `stall`: seconds for
    which the oldest message of a crowded partition may be in flight.
    """

    def __init__(
        self,
        parts: Parts,
        commits: Commits,
        retry: str,
        forward: Forward,
        stall: float,
        *,
        deliver: bool,
    ) -> None:
        self.retry = retry
        self._parts = parts
        self._commits = commits
        self._forward = forward
        self._stall = stall
        self._deliver = deliver
        self._order = itertools.count()

    def keep(self, part: Partition, found: Iterable[Stored]) -> None:
        """These were read from the retry topic: look at each when it says so."""
        now = time.time()
        for record in found:
            look = min(records.number(record, records.STEP, 0.0), now + levels.stay(part.tp.partition))
            heapq.heappush(part.waiting, (look, next(self._order), record))

    def look(self) -> tuple[float, bool]:
        """Whatever its partition has kept long enough is ready, or goes on. When to look again; whether anything is ready."""
        now, soonest, due = time.time(), float("inf"), False
        for part in self._parts.values():
            waiting = part.waiting
            while waiting and waiting[0][0] <= now:
                _, _, record = heapq.heappop(waiting)
                # What waits in the main topic is too large for the other one, and due now.
                remaining = self._due(record, now) - now if part.tp.topic == self.retry else 0.0
                if remaining >= FIRST or (remaining <= 0 and not self._deliver):
                    part.moving.add(record.offset)
                    self._forward(part, record, max(0.0, remaining))
                elif remaining > 0:
                    heapq.heappush(waiting, (now + remaining, next(self._order), record))
                else:
                    part.admit([record])
                    due = True
            if waiting:
                soonest = min(soonest, waiting[0][0])
        return soonest, due

    def _due(self, record: Stored, now: float) -> float:
        """When it is due. A time that no delay of ours reaches was not written by us, and would keep it for ever."""
        due = records.number(record, records.DUE, 0.0)
        return due if due <= now + DELAY_MAX else 0.0

    def relieve(self, part: Partition) -> None:
        """The oldest message holds up the rest of its partition: let it go on elsewhere, with the claims that it had."""
        tag = part.out.get(part.ledger.base)
        if tag is not None and tag.since + self._stall < time.time() and tag.offset not in part.moving:
            part.moving.add(tag.offset)
            self._forward(part, tag.record, 0.0)

    async def moved(self, part: Partition, record: Stored) -> None:
        """Settle a message that was published elsewhere."""
        part.moving.discard(record.offset)
        if part.owned:
            tag = part.out.pop(record.offset, None)
            if tag is not None:
                tag.done = "moved"
            part.ledger.settle([record.offset])
            with contextlib.suppress(KafkaError):  # the next commit tells it
                await self._commits.commit({part.tp})

    async def not_moved(self, part: Partition, record: Stored) -> None:
        """Look again soon at a message that could not be published."""
        part.moving.discard(record.offset)
        tag = part.out.get(record.offset)
        if tag is not None:
            tag.since = time.time()  # what cannot be published is not tried at each step
        if part.owned and record.offset not in part.out and record.topic == self.retry:
            heapq.heappush(part.waiting, (time.time() + 0.5, next(self._order), record))
