"""One member of one group, as coroutines on the loop: joins, keeps its place, owns partitions, leaves. It needs no lock.

All consumers of one source on one broker share a member, so opening a second one moves no partition. Handlers run
elsewhere and cannot starve it. What it owns is in `parts`: a partition is there from the moment that it was assigned, and
what was committed for it was read, until it is revoked or lost. Only what is there is ever committed (the server does not
check who commits a partition), and none of that is under way when the hook of a revocation returns.

Its loop is here. What happens to messages is not: it has a `Reader` that fetches them, `Waiting` for those whose time has
not come, `Deliveries` that hands them out and takes them back, and `Commits` that makes all that durable. They share `parts`,
which only this file adds to.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from narrowboat_kafka.client import Code, Edge, Future, KafkaError, TopicPartition
from narrowboat_kafka.connections import Connections
from narrowboat_kafka.format import ledger as ledgers
from narrowboat_kafka.format.ledger import Ledger
from narrowboat_kafka.member.commits import Commits
from narrowboat_kafka.member.deliveries import Deliveries
from narrowboat_kafka.member.demand import Demand
from narrowboat_kafka.member.partition import Partition
from narrowboat_kafka.member.parts import Parts
from narrowboat_kafka.member.reader import Reader
from narrowboat_kafka.member.waiting import Forward, Waiting
from narrowboat_kafka.member.watch import TopicWatch

log = logging.getLogger("narrowboat.kafka")

#: Seconds between two looks at what changes without telling us (heartbeats that ask for a rebalance).
_LOOK = 0.1
#: Seconds that a revoked partition may wait for the deliveries that are in handlers' hands.
_DRAIN = 3.0
#: Seconds after which a member that was given no partition says so.
_STANDBY = 10.0
#: Seconds for which the oldest message of a crowded partition may be in flight before it is moved to the retry topic.
_STALL = 30.0


class Member:
    """See the module's text.

    `retry`: the topic whose partitions are levels. `forward`: what moves a message on. `deliver`: False where what is due
    is moved on as well.
    """

    def __init__(
        self,
        connections: Connections,
        watch: TopicWatch,
        group: str,
        topics: Sequence[str],
        retry: str,
        forward: Forward,
        *,
        deliver: bool = True,
    ) -> None:
        self.group = group
        self.retry = retry
        self.parts = Parts()
        self.joined = threading.Event()
        self.failure: Exception | None = None
        self._connections = connections
        self._loop = connections.loop
        self._watch = watch
        self._topics = list(topics)
        self.ending = False  #: it is about to leave, and joins nothing any more
        self._abandoned = False  #: the server does not answer, and nobody waits for it any more
        self._ended: Future[None] = self._loop.future()
        self._main = topics[0] if topics[0] != retry else None  #: the topic whose partitions are shared out
        self._alone_since = time.monotonic()
        self._told = False
        self._doubted: set[TopicPartition] = set()  #: partitions that were read below where we began
        self._wakeup = self._loop.new_wakeup()
        self._group = connections.member(group, self)
        parts, demand, wakeup = self.parts, Demand(), self._wakeup
        self._commits = Commits(self._loop, connections.timeout, self._group, parts, demand, wakeup, deleted=self._deleted)
        self.waiting = Waiting(parts, self._commits, retry, forward, _STALL, deliver=deliver)
        self._reader = Reader(
            connections, self._group, parts, demand, self.waiting, self._commits, wakeup, deleted=self._cut_off
        )
        self.deliveries = Deliveries(parts, self._commits, demand, self._reader, self._loop, wakeup, failure=self._why_nothing)
        self._group.subscribe(self._topics)
        if retry not in self._topics:
            watch.want(retry, self, self._retry_is_there)
        self._loop.call_soon_threadsafe(self._run)

    # -- the loop -------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        pause = 0.05
        while not self.ending:
            try:
                await self._step()
                self.failure = None
                pause = 0.05
            except Exception as error:  # whatever it is, the loop goes on: the next look may succeed
                self.failure = error
                await self._loop.sleep(pause)
                pause = min(1.0, pause * 2)
        self._ended.success(None)

    async def _step(self) -> None:
        await self._group.step(self._connections.timeout)
        if self.ending:
            return
        self._reader.throttle()
        self._look_for_others()
        self._look_whether_idle()
        found = self._reader.read()
        soonest, due = self.waiting.look()
        self.joined.set()
        if found or due:
            self.deliveries.wake()
        if found:
            await self._loop.sleep(0)  # a caller that waits for a commit goes first
            return
        await self._reader.fetch()
        await self._wakeup(max(0.0, min(_LOOK, soonest - time.time())))

    def _retry_is_there(self) -> None:
        """Subscribe to the retry topic, which was made just now."""
        if not self.ending:
            self._topics.append(self.retry)
            self._group.subscribe(self._topics)
            self._wakeup.now()

    def _look_for_others(self) -> None:
        """A topic may have been deleted and made anew: then what we know is about messages that are gone."""
        anew = [tp for tp, part in self.parts.items() if self._group.topic_id(tp.topic) not in (part.topic_id, None)]
        if anew:
            self._deleted(anew)

    def _why_nothing(self) -> Exception | None:
        """The error of a consumer that finds nothing; None where there is just nothing to find."""
        if self.failure is not None:
            return self.failure
        shut = [part.unreadable for part in self.parts.values() if part.unreadable is not None]
        if not shut:
            return None
        # Where other partitions can be read, a later call may find something.
        shut[0].retryable |= len(shut) < sum(tp.topic != self.retry for tp in self.parts)
        return shut[0]

    def _look_whether_idle(self) -> None:
        """A member that was given nothing waits for others to go, which who started it may not expect: say so, once."""
        main, now = self._main, time.monotonic()
        if main is None or self._told or any(tp.topic == main for tp in self.parts):
            self._alone_since = now
        elif now - self._alone_since > _STANDBY:
            self._told = True
            there = len(self._group.partitions_of(main))
            log.warning(
                "this process consumes topic %r in group %r and was given no partition: %d of %d are with others, and it gets "
                "something when one of those goes. Take as many partitions as processes: ?partitions= for what is made anew, "
                "kafka-topics.sh --alter --topic %s --partitions N for what is there",
                main,
                self.group,
                there,
                there,
                main,
            )

    # -- what it hears --------------------------------------------------------------------------------------------

    def news(self) -> None:
        """Take the next step now."""
        self._wakeup.now()

    def passed(self, tp: TopicPartition, end: int) -> None:
        """The reader knows what to do with it."""
        self._reader.passed(tp, end)

    def unreadable(self, tp: TopicPartition, offset: int, error: KafkaError) -> None:
        """So it does with that."""
        self._reader.unreadable(tp, offset, error)

    # -- ownership ------------------------------------------------------------------------------------------------

    async def revoked(self, partitions: list[TopicPartition]) -> None:
        """Wait a while for what is in handlers' hands, then give the partitions up; no commit is under way afterwards."""
        gone = partitions
        until = time.monotonic() + (0.0 if self.ending else _DRAIN)
        for tp in gone:
            part = self.parts.get(tp)
            if part is not None:
                part.leaving = True
                if part.unclaim():
                    self._commits.dirty.add(tp)
                part.clear()
        while time.monotonic() < until and any(self.parts[tp].busy for tp in gone if tp in self.parts):
            await self._loop.sleep(0.01)
        await self._give_up(gone)

    async def lost(self, partitions: list[TopicPartition]) -> None:
        """Forget partitions that another member owns already."""
        self.parts.lose(partitions)
        await self._commits.quiet()

    async def _give_up(self, gone: list[TopicPartition]) -> None:
        """What is still out is not ours any more, and waits for the next one; the last commit says so."""
        dirty = self._commits.dirty.intersection(gone)
        for tp in gone:
            part = self.parts.get(tp)
            if part is not None and part.out:
                dirty.add(tp)
                for tag in list(part.out.values()):
                    part.take_back(tag, counted=True)
        try:
            if dirty and not self._abandoned:
                await self._commits.commit(dirty)
        except KafkaError:
            pass  # the next one finds them handed out, and counts them
        self.parts.lose(gone)
        if not self._abandoned:
            await self._commits.quiet()

    async def assigned(self, partitions: list[TopicPartition]) -> None:
        """Read what was committed, and begin there."""
        assigned = partitions
        committed = await self._group.committed(assigned, self._connections.timeout)
        unknown = [tp for tp in assigned if tp not in committed]
        unknown += await self._beyond(
            {tp: committed[tp].offset for tp in assigned if tp in self._doubted and tp not in unknown}
        )
        self._doubted.difference_update(assigned)
        first = await self._connections.offsets(unknown, Edge.EARLIEST)
        for tp in assigned:
            if tp in first:
                ledger = Ledger(first[tp])
            else:
                ledger = ledgers.decode(*committed[tp])
            for offset, claim in list(ledger.claims.items()):
                ledger.claims[offset] = claim._replace(out=False)  # the consumer that had it is gone
            self.parts[tp] = Partition(tp, ledger, self._group.topic_id(tp.topic))
            if tp in self._group.assigned():
                self._group.seek(tp, ledger.base)
                self._group.resume(tp)
        self._wakeup.now()

    async def _beyond(self, committed: dict[TopicPartition, int]) -> list[TopicPartition]:
        """Which of them have no such offset: their end was cut off since, or another program committed for our group.

        That would settle all that is published up to there, unseen. Begun anew, nothing is lost, and some may come again.
        """
        ends = await self._connections.offsets(committed, Edge.LATEST)
        found = [tp for tp, offset in committed.items() if offset > ends[tp]]
        for tp in found:
            log.warning(
                "group %r has committed offset %d of topic %r, partition %d, which ends at %d: all that is there is delivered, "
                "some of it perhaps again",
                self.group,
                committed[tp],
                tp.topic,
                tp.partition,
                ends[tp],
            )
        return found

    def _cut_off(self, gone: list[TopicPartition]) -> None:
        """Of these the server gave what lies below where we began: it does so where it has no such offset."""
        self._doubted.update(gone)
        self._deleted(gone)

    def _deleted(self, gone: list[TopicPartition]) -> None:
        """Their topic is not there any more. Should it be made anew, begin at its beginning."""
        self.parts.lose(gone)
        self._loop.call_soon(self._begin_anew)

    async def _begin_anew(self) -> None:
        while not self.ending:
            missing = [tp for tp in self._group.assigned() if tp not in self.parts]
            if not missing:
                return
            try:
                await self._group.hear_of_topics(1.0)
                there = [tp for tp in missing if tp.partition in self._group.partitions_of(tp.topic)]
                if there:
                    await self.assigned(there)
            except KafkaError as error:
                self.failure = error
            await self._loop.sleep(0.1)

    async def purge(self) -> int | None:
        """Drop what is not in flight, of all partitions; how many. None: another member owns some of them."""
        tps = [TopicPartition(topic, partition) for topic in self._topics for partition in self._group.partitions_of(topic)]
        if any(tp not in self.parts for tp in tps):
            return None
        ends = await self._connections.offsets(tps, Edge.LATEST)
        dropped = 0
        for tp in tps:
            part = self.parts.get(tp)
            if part is None:
                return None
            part.clear()
            dropped += part.ledger.drop(ends[tp], part.out)
            self._group.seek(tp, part.ledger.next)
        await self._commits.commit(set(tps))
        return dropped

    @property
    def answered(self) -> bool:
        """Whether the server answered to the last commit."""
        return not self._commits.unanswered

    # -- the end --------------------------------------------------------------------------------------------------

    async def _stop(self) -> None:
        self.ending = True
        self._watch.forget(self.retry, self)
        self._wakeup.now()
        await self._ended

    def close(self, until: float) -> None:
        """Give everything back and leave the group; by then, if the server does not answer. Not on the loop's thread."""
        self._abandoned = self._commits.unanswered
        try:
            self._loop.call_until(0.0 if self._abandoned else until, self._stop)
        except KafkaError as error:
            if error.code != Code.TIMED_OUT_HERE:
                raise
            self._abandoned = True  # it hangs in a call to a server that does not answer; that call ends by its own time-out
        finally:
            self._group.close(0.0 if self._abandoned else until - time.monotonic())
