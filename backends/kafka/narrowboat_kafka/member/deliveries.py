"""What one member hands out to its consumers, and what comes back from them. Coroutines on the loop; it needs no lock.

A consumer (`feed.py`) calls `take`, and `settle` for what it was given. Both return when a commit has made their part of the
ledger durable: what was not committed was not handed out, and what was not committed is not settled. A settlement
of a partition that has gone since is stale.

It does not read (where nothing is ready it waits a moment for the `Reader`), does not publish, and knows neither the group
nor who else is in it.
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from narrowboat_kafka.client import Loop, Wakeup
from narrowboat_kafka.member.commits import Commits
from narrowboat_kafka.member.demand import Demand
from narrowboat_kafka.member.partition import Partition, Tag, Taken
from narrowboat_kafka.member.parts import Parts
from narrowboat_kafka.member.reader import Reader

#: Seconds in which a consumer that was woken asks. Longer delays the next one, where the first does not want anything.
_ANSWER = 0.005


class Deliveries:
    """See the module's text.

    `parts`: what is ours, as it is at any time. `wakeup`: lets the member read on. `failure`: why there may be nothing.
    """

    def __init__(
        self,
        parts: Parts,
        commits: Commits,
        demand: Demand,
        reader: Reader,
        loop: Loop,
        wakeup: Wakeup,
        *,
        failure: Callable[[], Exception | None],
    ) -> None:
        self.feeds: dict[object, Callable[[], None]] = {}  #: consumers, and how to wake each
        self._parts = parts
        self._commits = commits
        self._demand = demand
        self._reader = reader
        self._wakeup = wakeup
        self._failure = failure
        self._starved: dict[object, None] = {}  #: who asked and was not woken since, in their order
        self._asked = 0  #: how often a consumer asked
        self._turn = 0
        self._calling = False
        self._loop = loop

    def wake(self) -> None:
        """Wake as many consumers as there are messages, those that asked first. Where they do not ask again, wake others.

        Two hundred idle consumers that all asked for one message would keep a core busy.
        """
        self._rouse(self._parts.waiting_for_us or 1)
        if self._starved and not self._calling:
            self._calling = True
            self._loop.call_soon(self._call)

    def _rouse(self, count: int) -> None:
        for feed in list(itertools.islice(self._starved, count)):
            del self._starved[feed]
            wake = self.feeds.get(feed)
            if wake is not None:
                wake()

    async def _call(self) -> None:
        """Wake further consumers while messages are ready: those that were woken may not want anything any more."""
        count = 1
        try:
            while self._starved:
                before = self._asked
                await self._loop.sleep(_ANSWER)
                if not self._parts.waiting_for_us:
                    return
                count = count * 2 if self._asked == before else 1
                self._rouse(count)
        finally:
            self._calling = False

    # -- handing out ----------------------------------------------------------------------------------------------

    async def take(self, feed: object, limit: int, taken: Taken) -> None:
        """Hand out up to `limit` messages, with their claims committed, into `taken`."""
        self._starved[feed] = None
        self._asked += 1
        self._demand.asked(limit, time.monotonic(), alone=len(self.feeds) <= 1)
        picked = self._pick_claimed(feed, limit)
        if picked:
            taken.extend(picked)
            self._took(len(picked))
            return
        picked = self._pick(feed, limit)
        if not picked:
            await self._reader.catch_up()
            picked = self._pick(feed, limit)
        if not picked:
            failure = self._failure()
            if failure is not None:
                raise failure
            return
        self._took(len(picked))
        try:
            await self._commits.commit({part.tp for part in {tag.part for tag in picked}})
        except BaseException:  # a cancellation included: what was not committed was not handed out
            for tag in picked:
                tag.part.take_back(tag, counted=False)
            raise
        taken.extend([tag for tag in picked if tag.part.owned])
        if taken.abandoned:
            self._untake(taken)
        if self._parts.waiting_for_us:
            self.wake()

    def _took(self, count: int) -> None:
        """Note what was taken, and read on: there is room."""
        self._demand.took(count, self._parts.ready, time.monotonic())
        self._wakeup.now()

    async def untake(self, taken: Taken) -> None:
        """Take back what an interrupted caller of `take` was given, uncounted: no handler has seen it."""
        taken.abandoned = True
        self._untake(taken)

    def _untake(self, taken: Taken) -> None:
        for tag in taken:
            tag.part.take_back(tag, counted=False)
            self._commits.dirty.add(tag.part.tp)
        taken.clear()
        self.wake()

    def _pick_claimed(self, feed: object, limit: int) -> list[Tag]:
        """Messages that were claimed ahead: their claims are committed already."""
        picked: list[Tag] = []
        now = time.time()
        for part in self._parts.values():
            if part.claimed and len(picked) < limit:
                picked += part.hand_out_claimed(limit - len(picked), feed, now)
                self._commits.dirty.add(part.tp)
        return picked

    def _pick(self, feed: object, limit: int) -> list[Tag]:
        picked: list[Tag] = []
        now = time.time()
        self._turn += 1
        parts = list(self._parts.values())
        first = self._turn % len(parts) if parts else 0
        for part in itertools.islice(itertools.cycle(parts), first, first + len(parts)):
            found, expired = part.next(limit - len(picked), now)
            if expired:
                self._commits.dirty.add(part.tp)
            part.hand_out(found, feed, now)
            picked += found
        return picked

    # -- settling -------------------------------------------------------------------------------------------------

    async def settle(self, wanted: Sequence[tuple[Tag, str]]) -> list[bool]:
        """Each is "done", goes "back" counted, or "return"s uncounted. Whether it was still ours, once that is committed."""
        ours = []
        touched: set[Partition] = set()
        done: defaultdict[Partition, list[int]] = defaultdict(list)
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
                await self._commits.commit({part.tp for part in touched})
            if any(how != "done" for _, how in wanted):
                self.wake()
            return [mine and tag.part.owned for (tag, _), mine in zip(wanted, ours, strict=True)]
        finally:
            for part in touched:
                part.settling -= 1

    def is_ours(self, tag: Tag) -> bool:
        """Whether it could be settled now. From any thread: it may change at once."""
        return tag.part.owned and (tag.part.out.get(tag.offset) is tag or tag.done is not None)

    def has_metadata_room(self, tag: Tag) -> bool:
        """Whether it may wait here for its next try, rather than in the retry topic."""
        return not tag.part.crowded

    async def leave(self, feed: object) -> None:
        """Remove a consumer. Its deliveries go to the others, counted."""
        self.feeds.pop(feed, None)
        self._starved.pop(feed, None)
        self._demand.gone()
        tags = [tag for part in self._parts.values() for tag in part.out.values() if tag.feed is feed]
        unclaimed = {tp for tp, part in self._parts.items() if part.unclaim()}
        await self.settle([(tag, "back") for tag in tags])
        if unclaimed:
            await self._commits.commit(unclaimed)
            self.wake()
