"""One member of one group, for the loop: what it owns, what was read of that and not asked for yet. See `client.Membership`.

It stands on two threads: `group.py` is the member, `fetcher.py` reads. Everything that is known here belongs to the loop.
A partition that is paused is read on for a while, so that a pause that ends soon costs nothing; where too much of it has
come, the reader is told to cease, and begins again where it was when the partition is resumed.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from narrowboat_kafka.client import Code, Committed, Ear, Edge, KafkaError, Topic, TopicPartition
from narrowboat_kafka.confluent.admin import Admin, known, packed
from narrowboat_kafka.confluent.errors import told
from narrowboat_kafka.confluent.fetcher import Batch, Fetcher
from narrowboat_kafka.confluent.group import Group, Hear, Hears
from narrowboat_kafka.confluent.loop import Future, Loop
from narrowboat_kafka.confluent.settings import Settings
from narrowboat_kafka.format.stored import Stored

#: Records, and bytes of them, that lie read here before the reader waits; of a paused partition, before it ceases.
_MOST, _MOST_BYTES = 1000, 8 * 1024 * 1024
#: Seconds for which a member that gets partitions waits for the first records of them.
_READING = 2.0
#: Seconds for which what is known of topics is not asked again.
_KNOWN = 30.0
#: The server does not know us, or takes another for us: the group goes on without us.
_GONE = frozenset({25, 82})
#: We are of a time of the group that is over, and soon of the next one, or gone.
_BEFORE = frozenset({Code.ILLEGAL_GENERATION})


class _Stash:
    """What was read of one partition."""

    def __init__(self, order: int, offset: int) -> None:
        self.order = order
        self.end = offset  #: it was read up to there
        self.batches: deque[Batch] = deque()
        self.count = self.size = 0
        self.paused = False
        self.live = False  #: something was read of it
        self.ceased = False  #: the reader does not read it

    @property
    def is_full(self) -> bool:
        """Whether enough of it lies here."""
        return self.count >= _MOST or self.size >= _MOST_BYTES


class Member:
    """See the module's text."""

    def __init__(self, group: str, ear: Ear, settings: Settings, loop: Loop, admin: Admin) -> None:
        self._name = group
        self._ear = ear
        self._loop = loop
        self._admin = admin
        self._timeout = settings.timeout
        self._topics: dict[str, Topic] = {}
        self._wanted: list[str] = []
        self._asked = 0.0  #: when topics were asked about last
        self._asking: Future | None = None
        self._owned: dict[TopicPartition, None] = {}
        self._stashes: dict[TopicPartition, _Stash] = {}
        self._orders = itertools.count(1)
        self._over = False
        hears = Hears(self._assigned, partial(self._gone, ear.revoked), partial(self._gone, ear.lost))
        self._group = Group(settings.member(group), loop, hears)
        self._fetcher = Fetcher(settings.reader(group), loop, arrived=self._arrived, doubt=self._doubt)

    # -- membership -----------------------------------------------------------------------------------------------

    def subscribe(self, topics: Sequence[str]) -> None:
        """Ask for a share of these topics."""
        self._wanted = list(topics)
        self._group.subscribe(self._wanted)

    async def step(self, seconds: float) -> None:
        """Wait until it has joined, which the library does by itself; `KafkaError` where the group was refused to it."""
        until = time.monotonic() + seconds
        while True:
            failure = self._group.failure
            if failure is not None:
                raise failure
            if self._group.joined.is_set() or self._ear.ending:
                break
            if time.monotonic() >= until:
                raise KafkaError(Code.TIMED_OUT_HERE, f"the group {self._name!r} could not be joined in time", retriable=True)
            await self._loop.sleep(0.01)
        if time.monotonic() > self._asked + _KNOWN:
            self._doubt()

    async def _assigned(self, partitions: list[TopicPartition]) -> None:
        self._owned.update(dict.fromkeys(partitions))
        if any(tp.topic not in self._topics for tp in partitions) and not self._over:
            # Who learns only later which topic it is would take it for one that was made anew.
            await self.hear_of_topics(self._timeout)
        if partitions and not self._over:
            await self._ear.assigned(partitions)
            await self._be_reading(partitions)

    async def _be_reading(self, partitions: list[TopicPartition]) -> None:
        """Wait until something is read of each in which there is something: its connections are made by the first fetch."""
        until = time.monotonic() + _READING
        stashes = {tp: self._stashes[tp] for tp in partitions if tp in self._stashes}
        try:
            ends = await self._admin.offsets(list(stashes), Edge.LATEST, _READING)
        except KafkaError:
            return
        waiting = [stash for tp, stash in stashes.items() if ends[tp] > stash.end]
        while not self._over and time.monotonic() < until and not all(stash.live for stash in waiting):
            await self._loop.sleep(0.002)

    async def _gone(self, hear: Hear, partitions: list[TopicPartition]) -> None:
        try:
            if not self._over:
                await hear(partitions)
        finally:
            for tp in partitions:
                self._owned.pop(tp, None)
                if self._stashes.pop(tp, None) is not None:
                    self._fetcher.cease(tp)
            self._make_room()

    def assigned(self) -> Collection[TopicPartition]:
        """The partitions that the group has given us."""
        return list(self._owned)

    async def committed(self, partitions: Collection[TopicPartition], seconds: float) -> dict[TopicPartition, Committed]:
        """What the group has committed of each."""
        if not partitions:
            return {}
        places = packed({tp: Committed(0, "") for tp in partitions})
        return known(await self._group.ask(lambda consumer: consumer.committed(places, seconds)))

    async def commit(self, offsets: Mapping[TopicPartition, Committed], seconds: float) -> None:
        """Commit them, in one request, once."""
        places = packed(offsets)
        try:
            answers = await self._group.ask(lambda consumer: consumer.commit(offsets=places, asynchronous=False))
            for each in answers:
                if each.error is not None:
                    raise told(each.error)
        except KafkaError as error:
            if error.code in _GONE:
                raise KafkaError(Code.NOT_A_MEMBER, str(error)) from error
            if error.code in _BEFORE:
                raise KafkaError(Code.REBALANCE_IN_PROGRESS, str(error), retriable=True) from error
            raise

    # -- reading --------------------------------------------------------------------------------------------------

    async def fetch(self, seconds: float) -> None:
        """Nothing: the reader reads ahead by itself."""

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Read from that offset on; what was fetched of it before is dropped."""
        stash = self._stashes[tp] = _Stash(next(self._orders), offset)
        self._fetcher.begin(tp, stash.order, offset)
        self._make_room()

    def pause(self, tp: TopicPartition) -> None:
        """Fetch no more of it."""
        stash = self._stashes.get(tp)
        if stash is not None:
            stash.paused = True
            self._make_room()

    def resume(self, tp: TopicPartition) -> None:
        """Fetch of it again."""
        stash = self._stashes.get(tp)
        if stash is not None:
            stash.paused = False
            if stash.ceased:
                stash.ceased, stash.order = False, next(self._orders)
                self._fetcher.begin(tp, stash.order, stash.end)
            if stash.batches:
                self._ear.news()

    def _arrived(self, batches: list[Batch]) -> None:
        for batch in batches:
            stash = self._stashes.get(batch.tp)
            if stash is None or stash.order != batch.order or self._over:
                continue
            stash.live = True
            if not batch.records and batch.error is None and batch.end <= stash.end:
                continue  # read to its end, which is where the last record is
            stash.batches.append(batch)
            stash.count += len(batch.records)
            stash.size += batch.size
            stash.end = batch.end
            if batch.error is not None:
                stash.ceased = True
            elif stash.paused and stash.is_full:
                stash.ceased = True
                self._fetcher.cease(batch.tp)
        self._make_room()
        if not self._over:
            self._ear.news()

    def _make_room(self) -> None:
        """Let the reader go on, unless enough lies here of what is not paused."""
        count = size = 0
        for stash in self._stashes.values():
            if not stash.paused:
                count += stash.count
                size += stash.size
        if count < _MOST and size < _MOST_BYTES:
            self._fetcher.go_on()

    def read(self, count: int) -> Mapping[TopicPartition, Sequence[Stored]]:
        """About `count` records that were fetched, by partition."""
        found: dict[TopicPartition, list[Stored]] = {}
        for tp, stash in list(self._stashes.items()):
            while count > 0 and stash.batches and not stash.paused:
                batch = stash.batches.popleft()
                stash.count -= len(batch.records)
                stash.size -= batch.size
                count -= len(batch.records)
                if batch.error is not None:
                    self._ear.unreadable(tp, batch.end, batch.error)
                elif not batch.records:
                    self._ear.passed(tp, batch.end)
                elif tp in found:
                    found[tp] += batch.records
                else:
                    found[tp] = batch.records
        self._make_room()
        return found

    def unread(self) -> Collection[TopicPartition]:
        """Partitions of which something that was fetched lies here and was not read."""
        return [tp for tp, stash in self._stashes.items() if stash.batches and not stash.paused]

    # -- what is known of topics ----------------------------------------------------------------------------------

    def partitions_of(self, topic: str) -> Collection[int]:
        """The numbers of a topic's partitions, as last heard."""
        found = self._topics.get(topic)
        return () if found is None else found.partitions

    def topic_id(self, topic: str) -> object:
        """Which topic of that name it is, as last heard."""
        found = self._topics.get(topic)
        return None if found is None else found.id

    def _doubt(self) -> None:
        """Ask about the topics soon."""
        if self._asking is None and not self._over:
            self._begin_asking()

    def _begin_asking(self) -> Future:
        asking = self._asking = self._loop.future()
        self._asked = time.monotonic()
        self._loop.call_soon(self._ask, asking)
        return asking

    async def _ask(self, asking: Future) -> None:
        names = list(self._wanted)
        try:
            found = {each.name: each for each in await self._admin.metadata(names)}
            for name in names:  # one that is not there now may be another when it comes back
                if name in found:
                    self._topics[name] = found[name]
                else:
                    self._topics.pop(name, None)
            self._ear.news()
        except KafkaError as error:
            asking.failure(error)
        else:
            asking.success(None)
        finally:
            self._asking = None

    async def hear_of_topics(self, seconds: float) -> None:
        """Ask about the topics, and wait so long for the answer at most."""
        asking: Any = self._asking or self._begin_asking()
        timer = self._loop.call_later(seconds, lambda: asking.success(None))
        try:
            await asking
        finally:
            timer.cancel()

    # -- the end --------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Begin to leave. Idempotent, from any thread."""
        self._fetcher.end()
        self._group.end()

    def close(self, seconds: float) -> None:
        """Leave the group and close its connections, within so long."""
        until = time.monotonic() + seconds
        self.end()
        self._group.wait(max(0.0, until - time.monotonic()))
        self._over = True
        self._fetcher.wait(max(0.0, until - time.monotonic()))
