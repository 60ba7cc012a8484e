"""The commits of one member: they make durable what its ledgers know, one at a time. Used on the loop only.

Handing out and settling change the ledger of a partition and then await `commit`. Callers that come while a commit is under
way share the next one (group commit). What is told of a partition is what its ledger knows when the commit is sent. A consumer
that takes many at a time will ask for more, so the commit that is made anyway claims its next ones ahead.

It does not know who asks or what for, hands nothing to anybody, and does not decide what is ours: it commits what is in
`parts`, and says so when the server tells that some of that is gone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from narrowboat_kafka.client import Code, Committed, Future, KafkaError, Loop, Membership, TopicPartition, Wakeup
from narrowboat_kafka.format import ledger as ledgers
from narrowboat_kafka.member.demand import Demand
from narrowboat_kafka.member.parts import Parts

#: Seconds after which a request that was begun has left this process.
_SENT = 0.001


class Commits:
    """See the module's text.

    `parts`: what is ours, as it is at any time. `wakeup`: lets the member read on. `deleted`: these partitions do not exist any
    more.
    """

    def __init__(
        self,
        loop: Loop,
        timeout: float,
        group: Membership,
        parts: Parts,
        demand: Demand,
        wakeup: Wakeup,
        *,
        deleted: Callable[[list[TopicPartition]], None],
    ) -> None:
        self.dirty: set[TopicPartition] = set()  #: partitions that the next commit includes, whoever asks for it
        self._loop = loop
        self._timeout = timeout
        self._group = group
        self._parts = parts
        self._demand = demand
        self._wakeup = wakeup
        self._deleted = deleted
        self._asked: Future[None] | None = None  #: the future of the next commit
        self._running = False
        self._on_the_wire = False
        self.unanswered = False  #: the last one was not answered: a member that closes does not wait for another

    async def commit(self, dirty: set[TopicPartition]) -> None:
        """Make what is known of these partitions durable. Callers that come while a commit is under way share the next one."""
        self.dirty |= dirty
        if self._asked is None:
            self._asked = self._loop.future()
        asked = self._asked
        if not self._running:
            self._running = True
            self._loop.call_soon(self._run)
        await asked

    def tell_soon(self, tp: TopicPartition) -> None:
        """Commit a partition whose last offsets have no record: no settlement will do it."""

        async def tell() -> None:
            with contextlib.suppress(KafkaError):  # the next commit tells it
                await self.commit({tp})

        self._loop.call_soon(tell)

    async def quiet(self) -> None:
        """Return when no commit is on its way to the server."""
        while self._on_the_wire:
            await self._loop.sleep(0.002)

    async def _run(self) -> None:
        try:
            while self._asked is not None:
                asked, self._asked = self._asked, None
                dirty, self.dirty = self.dirty, set()
                if self._demand.bulk:
                    self._claim_ahead(dirty)
                    self._loop.call_later(_SENT, self._wakeup.now)  # there is room, and time until the server answers
                claiming = [self._parts[tp] for tp in dirty if tp in self._parts and self._parts[tp].claiming]
                try:
                    await self._commit_once(dirty)
                except Exception as error:
                    self.unanswered = True
                    for part in claiming:
                        part.unclaim()
                    self.dirty |= dirty
                    asked.failure(error)
                else:
                    self.unanswered = False
                    for part in claiming:
                        part.confirm_claims()
                    asked.success(None)
        finally:
            self._running = False

    def _claim_ahead(self, dirty: set[TopicPartition]) -> None:
        """Claim the next messages of a consumer that takes many at a time, in a commit that is made anyway."""
        now, room = time.time(), self._demand.bulk - sum(len(part.claimed) for part in self._parts.values())
        for tp, part in self._parts.items():
            found, expired = part.next(room, now)
            if found or expired:
                part.claim_ahead(found)
                dirty.add(tp)
                room -= len(found)

    async def _commit_once(self, dirty: set[TopicPartition]) -> None:
        until = time.monotonic() + self._timeout
        while True:
            offsets = {}
            for tp in dirty:
                part = self._parts.get(tp)
                if part is not None:
                    text = ledgers.encode(part.ledger)
                    part.crowded = part.ledger.is_crowded(text)
                    offsets[tp] = Committed(part.ledger.base, text)
            if not offsets:
                return
            self._on_the_wire = True
            try:
                await self._group.commit(offsets, until - time.monotonic())
                return
            except KafkaError as error:
                if error.code == Code.NOT_A_MEMBER:
                    self._parts.lose(self._parts)
                    return
                if error.code in (Code.UNKNOWN_TOPIC_OR_PARTITION, Code.UNKNOWN_TOPIC_ID):
                    self._deleted(list(offsets))
                    return
                rebalancing = error.code == Code.REBALANCE_IN_PROGRESS
                if not rebalancing and (not error.retriable or time.monotonic() >= until):
                    raise
            finally:
                self._on_the_wire = False
            if time.monotonic() >= until:
                raise KafkaError(Code.TIMED_OUT_HERE, "the offsets could not be committed in time", retriable=True)
            await self._loop.sleep(0.02)
