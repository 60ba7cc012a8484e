"""What one member reads: fetches from the server, and how much of that is taken into its partitions. On the loop only.

The member's loop calls `throttle`, `read` and `fetch` at each of its steps. A call that finds nothing to hand out awaits
`catch_up`. How far it reads ahead follows what consumers ask for (`demand.py`), so that a slow one bounds the memory.

It hands nothing out, settles nothing and commits nothing, and it has no say in which partitions are ours: what it reads of
others is dropped.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Sequence

from narrowboat.errors import AccessDenied
from narrowboat_kafka.client import Edge, Future, KafkaError, Membership, TopicPartition, Wakeup
from narrowboat_kafka.connections import Connections
from narrowboat_kafka.errors import unreadable
from narrowboat_kafka.format.stored import Stored
from narrowboat_kafka.member.commits import Commits
from narrowboat_kafka.member.demand import Demand
from narrowboat_kafka.member.partition import Partition
from narrowboat_kafka.member.parts import Parts
from narrowboat_kafka.member.waiting import Waiting

log = logging.getLogger("narrowboat.kafka")

#: Records that are read from what was fetched before others may have the loop. The rest of their batch comes on top.
_CHUNK = 500
#: Seconds after which a partition that cannot be read is tried again: another server may have it whole.
_SHUT = 5.0
#: Seconds for which the server keeps a fetch that finds nothing; the short ones are for `_is_pressed`.
_LONG, _SHORT = 0.5, 0.005


class Reader:
    """See the module's text.

    `wakeup`: makes the member's loop take its next step now. `deleted`: these partitions are not there any more, or are
    others by the same name.
    """

    def __init__(
        self,
        connections: Connections,
        group: Membership,
        parts: Parts,
        demand: Demand,
        waiting: Waiting,
        commits: Commits,
        wakeup: Wakeup,
        *,
        deleted: Callable[[list[TopicPartition]], None],
    ) -> None:
        self._connections = connections
        self._group = group
        self._parts = parts
        self._demand = demand
        self._waiting = waiting
        self._commits = commits
        self._wakeup = wakeup
        self._deleted = deleted
        self._look: Future[None] | None = None  #: the future of the next look for what was published
        self._looking = False
        self._ends: dict[TopicPartition, int] = {}  #: how far partitions were read where there is no record at the end of that
        self._told: set[tuple[TopicPartition, int]] = set()  #: where partitions cannot be read on, once the log has it
        self._shut = False  #: one was met just now that is to be paused

    # -- fetching -------------------------------------------------------------------------------------------------

    def throttle(self) -> None:
        """Fetch no further where much is read, or where what is settled cannot be told any more."""
        ahead, group, now = self._demand.ahead, self._group, time.monotonic()
        for tp, part in self._parts.items():
            full = part.buffered >= 2 * ahead or part.crowded or now < part.shut_until
            # Paused in the midst of what was fetched, a client may never give the rest.
            if full is not part.paused and tp in group.assigned() and not (full and tp in group.unread()):
                part.paused = full
                if not full and isinstance(part.unreadable, AccessDenied):
                    part.unreadable = None  # it is tried again: nobody says that it may be read, where there is nothing
                (group.pause if full else group.resume)(tp)
            if part.crowded:
                self._waiting.relieve(part)

    async def fetch(self) -> None:
        """Send for more, of all partitions that have room; the loop is woken when an answer is there.

        Not before what is wanted is read: the next fetch would be without the partitions that are still being read.
        """
        await self._group.fetch(_SHORT if self._is_pressed() else _LONG)

    def _is_pressed(self) -> bool:
        """Whether what is ready may be gone before a fetch that finds nothing comes back.

        Of a partition that is left out when a fetch is sent, and has room soon after, nothing comes before that.
        """
        if not self._demand.is_recent(time.monotonic()):
            return False
        left_out = bool(self._group.unread()) or any(part.paused for part in self._parts.values())
        return left_out and self._demand.outruns(self._parts.ready, _LONG)

    # -- reading --------------------------------------------------------------------------------------------------

    def read(self) -> bool:
        """Take in some of what was fetched, where it is wanted. Whether there was any."""
        if not self._is_wanted():
            return False
        self._shut = False
        found = self._group.read(_CHUNK)
        for tp, fetched in found.items():
            self._admit(tp, fetched)
        while self._ends:
            tp, end = self._ends.popitem()
            part = self._parts.get(tp)
            if part is not None and part.ledger.pass_by(end):
                self._commits.tell_soon(tp)
        return bool(found) or self._shut

    def passed(self, tp: TopicPartition, end: int) -> None:
        """A partition was read up to there, and there is no record at the end of that."""
        self._ends[tp] = end

    def unreadable(self, tp: TopicPartition, offset: int, error: KafkaError) -> None:
        """Pause a partition that cannot be read now. A consumer that finds nothing else is told why."""
        part = self._parts.get(tp)
        if part is None:
            return
        self._shut = True
        offset = offset if offset >= 0 else part.ledger.next
        part.unreadable = unreadable(error, tp, offset)
        part.shut_until = time.monotonic() + _SHUT
        if (tp, offset) not in self._told:
            self._told.add((tp, offset))
            log.error("%s", part.unreadable)

    async def catch_up(self) -> None:
        """What was published before this began is read when it ends, or a moment has passed. One for all who ask meanwhile."""
        self._wakeup.now()
        if self._look is None:
            self._look = self._connections.loop.future()
        look = self._look
        if not self._looking:
            self._looking = True
            self._connections.loop.call_soon(self._look_for_all)
        await look

    async def _look_for_all(self) -> None:
        try:
            while self._look is not None:
                look, self._look = self._look, None
                try:
                    await self._catch_up()
                except Exception as error:
                    look.failure(error)
                else:
                    look.success(None)
        finally:
            self._looking = False

    async def _catch_up(self) -> None:
        parts = {tp: part for tp, part in self._parts.items() if not self._has_enough(part)}
        if not parts:
            return
        ends = await self._connections.offsets(parts, Edge.LATEST)
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            if all(not part.owned or self._has_enough(part) or part.ledger.next >= ends[tp] for tp, part in parts.items()):
                return
            await self._connections.loop.sleep(0.002)

    def _is_wanted(self) -> bool:
        """Whether what was fetched is to be read on now, or lies until there is less: a commit would wait for that."""
        unread = self._group.unread()
        return not unread or not all(tp in self._parts and self._has_enough(self._parts[tp]) for tp in unread)

    def _has_enough(self, part: Partition) -> bool:
        return part.buffered >= self._demand.ahead or part.crowded or time.monotonic() < part.shut_until

    def _admit(self, tp: TopicPartition, fetched: Sequence[Stored]) -> None:
        part = self._parts.get(tp)
        if part is None:
            return
        if fetched[0].offset < part.ledger.next:
            # Its end was cut off, or it is another one by that name: what we know of it is about messages that are gone.
            self._deleted([tp])
            return
        part.unreadable = None
        wanted = itertools.compress(fetched, part.ledger.see([record.offset for record in fetched]))
        if tp.topic == self._waiting.retry:
            self._waiting.keep(part, wanted)
        else:
            part.admit(wanted)
