"""One member of one group, as coroutines on the I/O thread: joins, fetches, hands out, commits. It needs no lock.

All consumers of one source on one broker share a member, so opening a second one moves no partition. Handlers run
elsewhere and cannot starve it. What it owns is in `parts`: a partition is there from the moment that it was assigned, and
what was committed for it was read, until it is revoked or lost. Only what is there is ever committed (the server does not
check who commits a partition), none of that is under way when the hook of a revocation returns, and whoever settles a
delivery of a partition that has gone since is told that it is stale.

Messages that wait for a time of their own (`levels.py`) lie in a heap until their partition looks at them; then they are
ready, or `forward` takes them on.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import kafka.errors as client
from kafka import TopicPartition
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.future import Future
from kafka.net.wakeup_notifier import WakeupNotifier
from kafka.structs import OffsetAndMetadata

from narrowboat_kafka import ledger as ledgers
from narrowboat_kafka import records
from narrowboat_kafka.client import EARLIEST, LATEST, Clients
from narrowboat_kafka.ledger import CROWDED, Ledger
from narrowboat_kafka.levels import FIRST
from narrowboat_kafka.part import Part, Tag, Taken
from narrowboat_kafka.watch import TopicWatch

#: Seconds between two looks at what changes without telling us (heartbeats that ask for a rebalance).
_LOOK = 0.1
#: A consumer that takes so many at a time is given what was claimed ahead, without a commit to wait for.
_BULK = 256
#: Seconds for which a join waits until its topics are known; between two questions for one that is gone.
_KNOW = 2.0
#: Seconds after which a request that was begun has left this process.
_SENT = 0.001
#: Records that are read ahead for each partition: no more is read where there are so many, none fetched where twice as many.
_AHEAD = 1000
#: Records that are read from what was fetched before somebody else may have the I/O thread, and the rest of their batch.
_CHUNK = 500
#: Milliseconds for which the server keeps a fetch that finds nothing; the short ones are for `_is_pressed`.
_LONG, _SHORT = 500, 5
#: Seconds after which a consumer that asks for nothing more is in no hurry.
_RECENT = 0.1
#: Seconds that a revoked partition may wait for the deliveries that are in handlers' hands.
_DRAIN = 3.0
#: Seconds for which the oldest message of a crowded partition may be in somebody's hands before it is moved out of the way.
_STALL = 30.0


Forward = Callable[[Part, Any, float], None]


class Member(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # the base class has no annotations
    """See the module's text. `retry`: the topic whose partitions are levels. `forward`: what moves a message on."""

    def __init__(
        self,
        clients: Clients,
        watch: TopicWatch,
        group: str,
        topics: Sequence[str],
        retry: str,
        forward: Forward,
        *,
        deliver: bool = True,
    ) -> None:
        self._clients = clients
        self.group = group
        self.retry = retry
        self._forward = forward
        self._deliver = deliver  #: False: what is due is forwarded as well
        self.parts: dict[Any, Part] = {}
        self.joined = threading.Event()
        self.failure: Exception | None = None
        self.feeds: dict[object, Callable[[], None]] = {}  #: consumers, and how to wake each
        self._hungry: set[object] = set()
        self._ending = False
        self._ended = Future()
        self._dirty: set[Any] = set()
        self._asked: Any = None  #: the future of the next commit
        self._committing = False
        self._on_the_wire = False
        self._order = itertools.count()
        self._ahead = 1  #: records that are read and kept for each partition: what consumers last had room for
        self._called = 0.0  #: when a consumer last asked for something
        self._taken = 0.0  #: when one last got something, where that was not all; else 0
        self._pace = math.inf  #: messages a second that consumers took when there were enough
        self._bulk = 0  #: how many the consumer takes at a time, where that is many
        self._asked_again = 0.0
        self._turn = 0
        self._hooked: set[int] = set()
        self._consumer = clients.consumer(group)
        self._coordinator = self._consumer._coordinator
        self._fetcher = self._consumer._fetcher
        self._subscription = self._consumer._subscription
        self._manager = self._consumer._manager
        self._net = clients.net
        self._wakeup = WakeupNotifier(self._net)
        self._watch = watch
        self._topics = list(topics)
        self._consumer.subscribe(self._topics, listener=self)
        if retry not in self._topics:
            watch.want(retry, self, self._retry_is_there)
        self._net.call_soon_threadsafe(self._run)

    # -- the loop -------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        pause = 0.05
        while not self._ending:
            try:
                await self._step()
                self.failure = None
                pause = 0.05
            except Exception as error:  # whatever it is, the loop goes on: the next look may succeed
                self.failure = error
                await self._net.sleep(pause)
                pause = min(1.0, pause * 2)
        self._ended.success(None)

    async def _step(self) -> None:
        coordinator = self._coordinator
        limit = self._clients.timeout * 1000
        if not await coordinator.ensure_coordinator_ready_async(timeout_ms=limit):
            raise client.KafkaTimeoutError(f"no coordinator of the group {self.group!r} was found in time")
        if self._ending:
            return
        if coordinator.need_rejoin():
            await self._know_topics()
            if not await coordinator.ensure_active_group_async(timeout_ms=limit):
                raise client.KafkaTimeoutError(f"the group {self.group!r} could not be joined in time")
        coordinator.poll_heartbeat()
        self._fetcher.reset_offsets_if_needed()
        self._fetcher.maybe_validate_positions()
        self._fetcher.validate_offsets_if_needed()
        self._throttle()
        self._look_for_others()
        found = self._fetcher.fetched_records(_CHUNK)[0] if self._is_wanted() else {}
        for tp, fetched in found.items():
            self._admit(tp, fetched)
        soonest = self._look_at_waiting()
        self.joined.set()
        if found:
            self._wake()
            await self._net.sleep(0)  # whoever waits for a commit goes first
            return
        # Not before what is wanted is read: the next fetch would be without the partitions that are still being read.
        self._fetcher.config["fetch_max_wait_ms"] = _SHORT if self._is_pressed() else _LONG
        await self._fetcher._send_fetches_async()
        for future in list(self._fetcher._fetch_futures):
            if id(future) not in self._hooked and not future.is_done:
                self._hooked.add(id(future))
                future.add_both(self._fetched, id(future))
        await self._wakeup(max(0.0, min(_LOOK, soonest - time.time())))

    async def _know_topics(self) -> None:
        """Whoever joins without knowing its topics is given nothing, and has to join again."""
        until = time.monotonic() + _KNOW
        while self._unknown() and time.monotonic() < until:
            # A request that is under way is shared, and may have been sent before we subscribed: hence the loop.
            await self._manager.cluster.refresh_metadata()
            if self._unknown():
                await self._net.sleep(0.02)

    def _unknown(self) -> bool:
        return not all(self._manager.cluster.partitions_for_topic(topic) for topic in self._topics)

    def _retry_is_there(self) -> None:
        """Somebody has made it: its messages are ours as well."""
        if not self._ending:
            self._topics.append(self.retry)
            self._consumer.subscribe(self._topics, listener=self)
            self._wakeup._wakeup()

    def _fetched(self, key: int, *_: object) -> None:
        self._hooked.discard(key)
        self._wakeup._wakeup()

    def _look_for_others(self) -> None:
        """A topic may have been deleted and made anew: then what we know is about messages that are gone."""
        anew = [tp for tp, part in self.parts.items() if self._manager.cluster.topic_id(tp.topic) not in (part.topic_id, None)]
        if anew:
            self._deleted(anew)
        if self._unknown() and time.monotonic() > self._asked_again + _KNOW:
            self._asked_again = time.monotonic()
            self._manager.cluster.request_update()

    def _is_wanted(self) -> bool:
        """Whether what was fetched is to be read on now, or lies until there is less: a commit would wait for that."""
        unread = self._unread()
        return not unread or not all(tp in self.parts and self._has_enough(self.parts[tp]) for tp in unread)

    def _unread(self) -> list[Any]:
        """Partitions of which something that was fetched has not been read to its end. Nothing more is fetched of them."""
        fetcher = self._fetcher
        unread = [each.topic_partition for each in fetcher._completed_fetches]
        unread += (*fetcher._paused_completed_fetches, *fetcher._paused_partition_records)
        if fetcher._next_partition_records:
            unread.append(fetcher._next_partition_records.topic_partition)
        return unread

    def _has_enough(self, part: Part) -> bool:
        return part.buffered >= self._ahead or part.crowded

    def _throttle(self) -> None:
        """Fetch no further where much is read, or where what is settled cannot be told any more."""
        for tp, part in self.parts.items():
            full = part.buffered >= 2 * self._ahead or part.crowded
            # Paused in the midst of what was fetched, the library would never give the rest.
            if full is not part.paused and self._subscription.is_assigned(tp) and not (full and tp in self._unread()):
                part.paused = full
                (self._subscription.pause if full else self._subscription.resume)(tp)
            if part.crowded:
                self._relieve(part)

    def _relieve(self, part: Part) -> None:
        """The oldest message holds up the rest of its partition: let it go on elsewhere, with the claims that it had."""
        tag = part.out.get(part.ledger.base)
        if tag is not None and tag.since + _STALL < time.time() and tag.offset not in part.moving:
            part.moving.add(tag.offset)
            self._forward(part, tag.record, 0.0)

    def _admit(self, tp: Any, fetched: Sequence[Any]) -> None:
        part = self.parts.get(tp)
        if part is None:
            return
        if fetched[0].offset < part.ledger.next:
            # Its end was cut off, or it is another one by that name: what we know of it is about messages that are gone.
            self._deleted([tp])
            return
        wanted = itertools.compress(fetched, part.ledger.see([record.offset for record in fetched]))
        if tp.topic != self.retry:
            part.admit(wanted)
            return
        for record in wanted:
            look = records.number(record, records.STEP, 0.0)
            heapq.heappush(part.waiting, (look, next(self._order), record))

    def _look_at_waiting(self) -> float:
        """Whatever its partition has kept long enough is ready, or goes on. When to look again."""
        now, soonest, woken = time.time(), float("inf"), False
        for part in self.parts.values():
            waiting = part.waiting
            while waiting and waiting[0][0] <= now:
                _, _, record = heapq.heappop(waiting)
                remaining = records.number(record, records.DUE, 0.0) - now
                if remaining >= FIRST or (remaining <= 0 and not self._deliver):
                    part.moving.add(record.offset)
                    self._forward(part, record, max(0.0, remaining))
                elif remaining > 0:
                    heapq.heappush(waiting, (now + remaining, next(self._order), record))
                else:
                    part.admit([record])
                    woken = True
            if waiting:
                soonest = min(soonest, waiting[0][0])
        if woken:
            self._wake()
        return soonest

    def _wake(self) -> None:
        hungry, self._hungry = self._hungry, set()
        for feed in hungry:
            wake = self.feeds.get(feed)
            if wake is not None:
                wake()

    # -- what moves on --------------------------------------------------------------------------------------------

    async def moved(self, part: Part, record: Any) -> None:
        """It was published elsewhere: here it is done with."""
        part.moving.discard(record.offset)
        if part.owned:
            tag = part.out.pop(record.offset, None)
            if tag is not None:
                tag.done = "moved"
            part.ledger.settle([record.offset])
            await self._commit({part.tp})

    async def not_moved(self, part: Part, record: Any) -> None:
        """It could not be published: look again soon."""
        part.moving.discard(record.offset)
        if part.owned and record.offset not in part.out and record.topic == self.retry:
            heapq.heappush(part.waiting, (time.time() + 0.5, next(self._order), record))

    # -- handing out ----------------------------------------------------------------------------------------------

    async def take(self, feed: object, limit: int, taken: Taken) -> None:
        """Hand out up to `limit` messages, with their claims committed, into `taken`."""
        self._hungry.add(feed)
        self._called = time.monotonic()
        self._ahead = max(min(_AHEAD, limit), self._ahead if len(self.feeds) > 1 else 1)
        self._bulk = limit if limit >= _BULK else 0
        picked = self._pick_claimed(feed, limit)
        if picked:
            taken.extend(picked)
            self._took(len(picked))
            return
        picked = self._pick(feed, limit)
        if not picked:
            await self._look()
            picked = self._pick(feed, limit)
        if not picked:
            if self.failure is not None:
                raise self.failure
            return
        self._took(len(picked))
        try:
            await self._commit({part.tp for part in {tag.part for tag in picked}})
        except BaseException:  # a cancellation included: what was not committed was not handed out
            for tag in picked:
                tag.part.take_back(tag, counted=False)
            raise
        taken.extend([tag for tag in picked if tag.part.owned])
        if taken.left:
            self._untake(taken)
        if any(part.ready or part.again for part in self.parts.values()):
            self._wake()

    def _took(self, count: int) -> None:
        """There is room to read on."""
        if self._taken:
            self._pace = count / max(self._called - self._taken, 0.001)
        self._taken = time.monotonic() if self._ready() else 0.0
        self._wakeup._wakeup()

    def _ready(self) -> int:
        return sum(len(part.ready) + len(part.claimed) for part in self.parts.values())

    def _is_pressed(self) -> bool:
        """Whether what is ready may be gone before a fetch that finds nothing comes back.

        Of a partition that is left out when a fetch is sent, and has room soon after, nothing comes before that.
        """
        if time.monotonic() > self._called + _RECENT:
            return False
        left_out = bool(self._unread()) or any(part.paused for part in self.parts.values())
        return left_out and self._ready() < self._pace * _LONG / 1000

    async def untake(self, taken: Taken) -> None:
        """The caller of `take` was interrupted: nobody has seen what it was given."""
        taken.left = True
        self._untake(taken)

    def _untake(self, taken: Taken) -> None:
        for tag in taken:
            tag.part.take_back(tag, counted=False)
            self._dirty.add(tag.part.tp)
        taken.clear()
        self._wake()

    def _pick_claimed(self, feed: object, limit: int) -> list[Tag]:
        """What was claimed ahead: the last commit has said so."""
        picked: list[Tag] = []
        now = time.time()
        for part in self.parts.values():
            if part.claimed and len(picked) < limit:
                picked += part.hand_out_claimed(limit - len(picked), feed, now)
                self._dirty.add(part.tp)
        return picked

    def _claim_ahead(self, dirty: set[Any]) -> None:
        """Who takes many at a time will ask for more: the commit that is to be made anyway says so already."""
        now, room = time.time(), self._bulk - sum(len(part.claimed) for part in self.parts.values())
        for tp, part in self.parts.items():
            found, expired = part.next(room, now)
            if found or expired:
                part.claim_ahead(found)
                dirty.add(tp)
                room -= len(found)

    def _pick(self, feed: object, limit: int) -> list[Tag]:
        picked: list[Tag] = []
        now = time.time()
        self._turn += 1
        parts = list(self.parts.values())
        first = self._turn % len(parts) if parts else 0
        for part in itertools.islice(itertools.cycle(parts), first, first + len(parts)):
            found, expired = part.next(limit - len(picked), now)
            if expired:
                self._dirty.add(part.tp)
            part.hand_out(found, feed, now)
            picked += found
        return picked

    async def _look(self) -> None:
        """What was published before this began is read when it ends, or a moment has passed."""
        self._wakeup._wakeup()
        parts = {tp: part for tp, part in self.parts.items() if not self._has_enough(part)}
        if not parts:
            return
        ends = await self._clients.offsets(parts, LATEST)
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            if all(not part.owned or self._has_enough(part) or part.ledger.next >= ends[tp] for tp, part in parts.items()):
                return
            await self._net.sleep(0.002)

    # -- settling -------------------------------------------------------------------------------------------------

    async def settle(self, wanted: Sequence[tuple[Tag, str]]) -> list[bool]:
        """Each is "done", goes "back" counted, or "return"s uncounted. Whether it was still ours, once that is committed."""
        ours = []
        touched: set[Part] = set()
        done: defaultdict[Part, list[int]] = defaultdict(list)
        for tag, how in wanted:
            part = tag.part
            mine = part.owned and part.out.get(tag.offset) is tag
            if not mine:
                # The same again, after an answer that was lost, is no other settlement.
                mine = part.owned and tag.done == how
            elif how == "done":
                tag.done = how
                del part.out[tag.offset]
                done[part].append(tag.offset)
            else:
                tag.done = how
                part.take_back(tag, counted=how == "back")
            ours.append(mine)
            if mine:
                touched.add(part)
        for part, offsets in done.items():
            part.ledger.settle(offsets)
        for part in touched:
            part.settling += 1  # a revocation waits for us, or what was just committed would be called stale
        try:
            if touched:
                await self._commit({part.tp for part in touched})
            if any(how != "done" for _, how in wanted):
                self._wake()
            return [mine and tag.part.owned for (tag, _), mine in zip(wanted, ours, strict=True)]
        finally:
            for part in touched:
                part.settling -= 1

    def is_ours(self, tag: Tag) -> bool:
        """Whether it could be settled now. From any thread: it may change at once."""
        return tag.part.owned and (tag.part.out.get(tag.offset) is tag or tag.done is not None)

    def roomy(self, tag: Tag) -> bool:
        """Whether it may wait here for its next try, rather than in the retry topic."""
        return not tag.part.crowded

    async def leave(self, feed: object) -> None:
        """A consumer has gone: what it had goes to the others, counted."""
        self.feeds.pop(feed, None)
        self._hungry.discard(feed)
        self._bulk = 0
        tags = [tag for part in self.parts.values() for tag in part.out.values() if tag.feed is feed]
        unclaimed = {tp for tp, part in self.parts.items() if part.unclaim()}
        await self.settle([(tag, "back") for tag in tags])
        if unclaimed:
            await self._commit(unclaimed)
            self._wake()

    # -- committing -----------------------------------------------------------------------------------------------

    async def _commit(self, dirty: set[Any]) -> None:
        """Make what is known of these partitions durable. Whoever asks while one is under way shares the next."""
        self._dirty |= dirty
        if self._asked is None:
            self._asked = Future()
        asked = self._asked
        if not self._committing:
            self._committing = True
            self._net.call_soon(self._commits)
        await asked

    async def _commits(self) -> None:
        try:
            while self._asked is not None:
                asked, self._asked = self._asked, None
                dirty, self._dirty = self._dirty, set()
                if self._bulk:
                    self._claim_ahead(dirty)
                    self._net.call_later(_SENT, self._read_on)  # there is room, and time until the server answers
                claiming = [self.parts[tp] for tp in dirty if tp in self.parts and self.parts[tp].claiming]
                try:
                    await self._commit_once(dirty)
                except Exception as error:
                    for part in claiming:
                        part.unclaim()
                    self._dirty |= dirty
                    asked.failure(error)
                else:
                    for part in claiming:
                        part.claims_are_kept()
                    asked.success(None)
        finally:
            self._committing = False

    async def _read_on(self) -> None:
        self._wakeup._wakeup()

    async def _commit_once(self, dirty: set[Any]) -> None:
        until = time.monotonic() + self._clients.timeout
        while True:
            offsets = {}
            for tp in dirty:
                part = self.parts.get(tp)
                if part is not None:
                    text = ledgers.encode(part.ledger)
                    part.crowded = len(text) > CROWDED
                    offsets[tp] = OffsetAndMetadata(part.ledger.base, text, -1)
            if not offsets:
                return
            self._on_the_wire = True
            try:
                await self._coordinator._send_offset_commit_request(offsets)
                return
            except client.CommitFailedError:
                if self._coordinator._generation.is_lost():
                    self._lose(list(self.parts))
                    return
            except (client.UnknownTopicOrPartitionError, client.UnknownTopicIdError):
                self._deleted(list(offsets))
                return
            except client.RebalanceInProgressError:
                pass
            except client.KafkaError as error:
                if not getattr(error, "retriable", False):
                    raise
                if time.monotonic() >= until:
                    raise
                await self._coordinator.ensure_coordinator_ready_async(timeout_ms=max(1, (until - time.monotonic()) * 1000))
            finally:
                self._on_the_wire = False
            if time.monotonic() >= until:
                raise client.KafkaTimeoutError("the offsets could not be committed in time")
            await self._net.sleep(0.02)

    # -- ownership ------------------------------------------------------------------------------------------------

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        """Read what was committed, and begin there."""
        await self._begin(list(assigned))

    async def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        """Wait a while for what is in handlers' hands, then give the partitions up; no commit is under way afterwards."""
        gone = list(revoked)
        until = time.monotonic() + (0.0 if self._ending else _DRAIN)
        for tp in gone:
            part = self.parts.get(tp)
            if part is not None:
                part.leaving = True
                if part.unclaim():
                    self._dirty.add(tp)
                part.clear()
        while time.monotonic() < until and any(self.parts[tp].busy for tp in gone if tp in self.parts):
            await self._net.sleep(0.01)
        await self._give_up(gone)

    async def on_partitions_lost(self, lost: Iterable[Any]) -> None:
        """They belong to somebody else already."""
        self._lose(list(lost))
        for assignor in self._coordinator._assignors.values():
            assignor.member_assignment = None  # or it would claim them at the next join, against their owner
        while self._on_the_wire:
            await self._net.sleep(0.002)

    async def _give_up(self, gone: list[Any]) -> None:
        """What is still out is not ours any more, and waits for the next one; the last commit says so."""
        dirty = self._dirty.intersection(gone)
        for tp in gone:
            part = self.parts.get(tp)
            if part is not None and part.out:
                dirty.add(tp)
                for tag in list(part.out.values()):
                    part.take_back(tag, counted=True)
        try:
            if dirty:
                await self._commit(dirty)
        except client.KafkaError:
            pass  # the next one finds them handed out, and counts them
        self._lose(gone)
        while self._on_the_wire:
            await self._net.sleep(0.002)

    def _lose(self, gone: list[Any]) -> None:
        for tp in gone:
            part = self.parts.pop(tp, None)
            if part is not None:
                part.owned = False
            self._dirty.discard(tp)

    async def _begin(self, assigned: list[Any]) -> None:
        limit = self._clients.timeout * 1000
        committed = await self._coordinator.fetch_committed_offsets_async(assigned, timeout_ms=limit)
        unknown = [tp for tp in assigned if tp not in committed or committed[tp].offset < 0]
        first = await self._clients.offsets(unknown, EARLIEST)
        for tp in assigned:
            if tp in first:
                ledger = Ledger(first[tp])
            else:
                ledger = ledgers.decode(committed[tp].offset, committed[tp].metadata)
            for offset, claim in list(ledger.claims.items()):
                ledger.claims[offset] = claim._replace(out=False)  # whoever had it is gone
            self.parts[tp] = Part(tp, ledger, self._manager.cluster.topic_id(tp.topic))
            if self._subscription.is_assigned(tp):
                self._subscription.seek(tp, ledger.base)
                self._subscription.resume(tp)
        self._wakeup._wakeup()

    def _deleted(self, gone: list[Any]) -> None:
        """Their topic is not there any more. Should it be made anew, begin at its beginning."""
        self._lose(gone)
        self._net.call_soon(self._begin_anew)

    async def _begin_anew(self) -> None:
        while not self._ending:
            missing = [tp for tp in self._subscription.assigned_partitions() if tp not in self.parts]
            if not missing:
                return
            try:
                await self._manager.wait_for(self._manager.cluster.request_update(), 1000)
                there = [tp for tp in missing if tp.partition in (self._manager.cluster.partitions_for_topic(tp.topic) or ())]
                if there:
                    await self._begin(there)
            except client.KafkaError as error:
                self.failure = error
            await self._net.sleep(0.1)

    async def purge(self) -> int | None:
        """Drop what is not handed out, of all partitions; how many. None: some of them are somebody else's."""
        tps = [
            TopicPartition(topic, partition)
            for topic in self._subscription.subscription
            for partition in self._manager.cluster.partitions_for_topic(topic) or ()
        ]
        if any(tp not in self.parts for tp in tps):
            return None
        ends = await self._clients.offsets(tps, LATEST)
        dropped = 0
        for tp in tps:
            part = self.parts.get(tp)
            if part is None:
                return None
            part.clear()
            dropped += part.ledger.drop(ends[tp], part.out)
            self._subscription.seek(tp, part.ledger.next)
        await self._commit(set(tps))
        return dropped

    # -- the end --------------------------------------------------------------------------------------------------

    async def _stop(self) -> None:
        self._ending = True
        self._watch.forget(self.retry, self)
        self._wakeup._wakeup()
        try:
            await self._manager.wait_for(self._ended, self._clients.timeout * 1000)
        except client.KafkaTimeoutError:
            pass  # it hangs in a call to a server that does not answer; that call ends by its own time-out

    def close(self) -> None:
        """Give everything back and leave the group. From any thread but the I/O thread."""
        try:
            self._clients.net.run(self._stop)
        finally:
            self._consumer.close(autocommit=False, timeout_ms=int(self._clients.timeout * 1000))


TP = TopicPartition
