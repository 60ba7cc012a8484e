"""The consume loop: one consumer's window, its buffer, and everybody who waits for it. Once for both faces.

It fetches in large batches and hands out from the buffer, so a message costs little more than its share of a batch. The
window (`prefetch`) bounds what is unsettled: buffered, handed out or just being fetched. It never waits inside the
driver: `wake` sets the signal of somebody who waits, `retry_after` bounds the wait in any case. Many threads or tasks may
receive from one consumer at once; one of them fetches, the others wait for what it brings.

Nothing that was fetched belongs to a caller until it is handed out: a fetch puts what it brings into the buffer, on
whichever thread it runs, so a caller that is cancelled or interrupted meanwhile swallows nothing.

While the backend does not answer, who waits keeps waiting and the loop looks again with a growing pause; when the wait
ends meanwhile, the caller gets the error, because "no message" would be a guess.
"""

from __future__ import annotations

import contextlib
import functools
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from narrowboat import events
from narrowboat._engine.backoff import after_error
from narrowboat._engine.exchange import DONE, Call, may_have_happened
from narrowboat._messages.entry import HELD, LOST, SETTLED, SETTLING, Entry, final, too_often
from narrowboat._messages.extension import extended
from narrowboat.capabilities import LeaseNature
from narrowboat.codecs import Codec
from narrowboat.contract.messages import Ack, Broker, Delivery, Feed, Nack, Outcome, Received, Reject, Return, Source
from narrowboat.errors import Closed, NarrowboatError, SettleUnknown, StaleDelivery, Unavailable

if TYPE_CHECKING:
    from narrowboat._messages.core import BrokerCore

M = TypeVar("M", bound=Entry[Any])

ACK = Ack()
EXPIRED = Ack()  #: known by identity: settled because its ttl ended, not because anybody was done with it
RETURN = Return()


def window(prefetch: int, unsettled: int, requested: int, batch_max: int) -> int:
    """How many messages may be fetched now, in one call.

    >>> window(100, 30, 0, 1000), window(100, 30, 70, 1000), window(5000, 0, 0, 1000)
    (70, 0, 1000)
    """
    return max(0, min(prefetch - unsettled - requested, batch_max))


class Consumer(Generic[M]):
    """See the module's text. `make` builds the face's own kind of message."""

    feed: Feed

    def __init__(
        self,
        core: BrokerCore,
        source: Source,
        codec: Codec[Any] | None,
        make: Callable[[Consumer[Any], Delivery, float, float, float | None], M],
        *,
        prefetch: int,
        auto_extend: bool,
        max_extend: float,
    ) -> None:
        self.core = core
        self.source = source
        self.path = source.address.path
        self.backend = core.backend
        self.codec = codec
        self.lease = source.properties.lease
        self.auto_extend = auto_extend and core.capabilities.lease is LeaseNature.MESSAGE
        self.look_at = 0.0  #: when the extension looks at this consumer next
        self.extending = False  #: an extension is under way
        self.kept = False  #: the extension has this consumer in view
        self.closed = False
        self.stopped = False
        self.mutex = threading.Lock()
        self.unsettled: set[M] = set()
        self._limit = source.properties.max_deliveries
        self._max_extend = max_extend
        self._make = make
        self._prefetch = prefetch
        self._buffer: deque[M] = deque()
        self._condemned: dict[M, Outcome] = {}  # not to be handed out, and not settled yet
        self._requests: dict[object, int] = {}  # fetches under way, by whoever makes them
        self._waiters: dict[Any, None] = {}  # signals, in order of arrival
        self._stirred = True  # something may have come since the last look
        self._look_again = 0.0  # when to look although nothing stirred
        self._looks = 0  # fetches begun so far
        self._failures = 0
        self._failure: Exception | None = None
        self._forked = False
        self._opened: list[Feed] = []  # the feed, once there is one
        self._feed_closed = False
        self._posted = False  # something was settled without waiting for it
        self._current: Callable[[Delivery], bool] | None = None  # asked only where the feed has something to say

    # -- waking: lock-free, since it comes from drivers' threads and from signal handlers ---------------------------

    def wake(self) -> None:
        """Something may have come: somebody look."""
        self._stirred = True
        self.rouse(1)

    def rouse(self, count: int) -> None:
        """Wake up to `count` of those who wait."""
        if self._waiters:
            for signal in tuple(self._waiters)[:count]:
                signal.set()

    def wake_all(self) -> None:
        """Everybody look whether it is still worth waiting."""
        for signal in tuple(self._waiters):
            signal.set()

    def stop(self) -> None:
        """Hand out nothing more. Safe in a signal handler."""
        self.stopped = True
        self.wake_all()

    # -- fetching, on the take lane -------------------------------------------------------------------------------

    def fetch(self, limit: int) -> int:
        """Claim up to `limit` messages and put them where the next taker finds them; how many came."""
        if self.closed:
            return 0
        since = self.core.clock()
        answer: list[Received] = []
        try:
            # No interrupt can come between the driver's return and the storing of what it returned: there is no call between.
            answer.extend(map(self.feed.receive, (limit,)))
            self._admit(answer[0], since)
        except BaseException:
            if answer:
                self._admit_rest(answer[0], since)
            raise
        return len(answer[0].deliveries)

    def _admit(self, received: Received, since: float) -> None:
        """Take in what was fetched by a call that was sent at `since`."""
        make, limit, cap = self._make, self._limit, since + self._max_extend
        until = self.core.deadline(since, self.lease)
        entries, fresh, condemned, malformed = [], [], {}, []
        for delivery in received.deliveries:
            if delivery.malformed:
                malformed.append(delivery)
            expires = delivery.expires_in
            entry = make(self, delivery, until, cap, expires if expires is None else since + expires)
            entries.append(entry)
            if limit and delivery.attempt > limit:
                reject = too_often(delivery.attempt, limit, delivery.malformed)
                assert reject is not None
                condemned[entry] = reject
            else:
                fresh.append(entry)
        with self.mutex:
            # First: what an interrupt keeps out of the buffer must not be extended, or it would never come back.
            self._buffer.extend(fresh)
            self._condemned.update(condemned)
            self.unsettled.update(entries)
            self._look_again = 0.0 if entries else self.core.clock() + received.retry_after
            keep = bool(self.unsettled) and self.auto_extend and not self.kept
            if keep:
                self.kept = True
                self.look_at = since + self.lease / 3
        if keep:
            self.core.extension.ring()
        for delivery in malformed:
            self.core.tell(self.path, delivery.id, delivery.malformed)

    def _admit_rest(self, received: Received, since: float) -> None:
        """Take in what an interrupt kept out."""
        with self.mutex:
            self.unsettled.update(self._buffer, self._condemned)
            self.kept = False  # it may not have rung
            known = {id(entry._delivery) for entry in self.unsettled}
        rest = [delivery for delivery in received.deliveries if id(delivery) not in known]
        self._admit(Received(rest, received.retry_after), since)

    def _plan(self, token: object, now: float, looked: bool, hurry: bool) -> tuple[int, float]:
        """How many to fetch now, noted under `token`; or 0 and when to look again."""
        with self.mutex:
            requested = sum(self._requests.values())
            free = window(self._prefetch, len(self.unsettled), requested, self.core.capabilities.batch_max)
            if free <= 0 and not requested:
                first = self._sweep(now)
                free = window(self._prefetch, len(self.unsettled), 0, self.core.capabilities.batch_max)
                if free <= 0:
                    return 0, first
            if free <= 0 or (requested and not hurry):
                return 0, now + self.core.timeout  # whoever fetches wakes us; this is a net under it
            if looked and not self._stirred and now < self._look_again:
                return 0, self._look_again
            self._requests[token] = free
            self._stirred = False
            self._looks += 1
            return free, now

    def _sweep(self, now: float) -> float:
        """Forget what is no longer ours, so that it does not fill the window; when the next one ends. Under the mutex."""
        current = self._current
        over = [e for e in self.unsettled if e._until <= now or (current is not None and not current(e._delivery))]
        self.unsettled.difference_update(over)
        return min((entry._until for entry in self.unsettled), default=now)

    # -- handing out ----------------------------------------------------------------------------------------------

    # What is handed out goes into a list of the caller's, `got`: an interrupt can strike between a return and the storing
    # of what was returned, and a message that neither the caller nor the buffer knows would be extended for ever.

    def take(self, count: int, got: list[M]) -> None:
        """Fill `got` up to `count` with messages from the buffer that are still ours and have not expired. Never waits."""
        if not self._buffer:
            return
        with self.mutex:
            try:
                buffer, now, current = self._buffer, self.core.clock(), self._current
                while buffer and len(got) < count:
                    entry = buffer[0]
                    if (
                        entry._until <= now
                        or entry._state is not HELD
                        or (current is not None and not current(entry._delivery))
                    ):
                        self._drop(entry)
                    elif entry._expires is not None and entry._expires <= now:
                        self._condemned[entry] = EXPIRED
                    else:
                        got.append(entry)
                    del buffer[0]
            except BaseException:
                self.put_back(got)  # before anybody else can take the first one, which may be in both
                raise

    def _drop(self, entry: M) -> None:
        """What is no longer ours is handed to nobody; silently, because whoever has it by now tells. Under the mutex."""
        self.unsettled.discard(entry)
        if entry._state is HELD:
            entry._state = LOST

    def _still_ours(self, got: list[M]) -> bool:
        """Whether what was gathered while we waited for more may be handed out; what may not is dropped from `got`."""
        current = self._current
        if current is None:
            return True
        gone = [entry for entry in got if not current(entry._delivery)]
        with self.mutex:
            for entry in gone:
                self._drop(entry)
                got.remove(entry)
        return bool(got)

    def gone(self, delivery: Delivery) -> bool:
        """Whether the claim of `delivery` has ended with what it was made under, as far as the feed has heard."""
        return self._current is not None and not self._current(delivery)

    def put_back(self, got: list[M]) -> None:
        """Take back what was not handed out after all, and empty `got`. Repeating it does nothing."""
        buffer = self._buffer
        if got and buffer and buffer[0] is got[-1]:
            del got[-1]  # the interrupt came before it left the buffer
        buffer.extendleft(reversed(got))
        got.clear()

    def quick(self, got: list[M]) -> None:
        """Put one message into `got` in the common case that the buffer has one and there is nothing else to do."""
        if self._condemned or self.stopped or self.closed or self._forked or self.core.closed or self.core.listeners:
            return
        self.take(1, got)

    async def receive(self, count: int, deadline: float, got: list[M], linger: float = 0.0) -> None:
        """Fill `got` up to `count`; it stays empty only when `deadline` came or the consumer was stopped.

        Once there is one, it waits up to `linger` seconds for more, unless the window is full.
        """
        core, runtime = self.core, self.core.runtime
        token, signal = object(), None
        begun, full_at = self._looks, math.inf
        try:
            while True:
                if self._condemned:
                    await self._flush()
                if not self.stopped:
                    self.take(count, got)
                if len(got) >= count or self._over():
                    if signal is not None and not self._still_ours(got) and not self.stopped:
                        continue
                    self._told(got)
                    return
                now = core.clock()
                if got and full_at is math.inf:
                    full_at = now + linger
                ends = min(deadline, full_at) if got else deadline
                looked = self._looks > begun
                limit, again = self._plan(token, now, looked, hurry=now >= ends and not looked)
                if limit:
                    await self._fetch(token, limit)
                    continue
                if got and (now >= ends or self._is_full()):
                    if not self._still_ours(got):
                        continue
                    self._told(got)
                    return
                if now >= ends:
                    if self._failure is not None:
                        raise self._failure
                    return
                if signal is None:
                    signal = runtime.signal()
                    self._waiters[signal] = None
                    continue  # what came before it was registered woke nobody
                await runtime.wait(signal, min(ends, again))
        except BaseException:
            self.put_back(got)
            raise
        finally:
            self._leave(token, signal)

    def _over(self) -> bool:
        """Whether there is nothing more to hand out; raises what says why, where that is not the caller's own doing."""
        if self._forked:
            raise Closed(
                f"consumer of {self.path!r}: it is the parent's; open a new one in the forked child", backend=self.backend
            )
        if self.closed or self.core.closed:
            raise Closed(f"consumer of {self.path!r}: closed", backend=self.backend)
        return self.stopped

    def _is_full(self) -> bool:
        return len(self.unsettled) >= self._prefetch

    def _told(self, got: list[M]) -> None:
        for entry, outcome in tuple(self._condemned.items()) if self._condemned else ():
            self.post([entry], outcome)
            self._condemned.pop(entry, None)  # afterwards: whoever is interrupted leaves it to the next
        if self.core.listeners:
            for entry in got:
                events.emit(self.core.listeners, events.Delivered(self.backend, self.path, entry.id, entry.attempt))

    async def _fetch(self, token: object, limit: int) -> None:
        core = self.core
        try:
            (answer,) = await core.runtime.call(core.take, Call(core.RECEIVE, ((self, limit),)))
        except BaseException:
            self._stirred = True  # nobody has seen what it found
            raise
        finally:
            self._requests.pop(token, None)
        if isinstance(answer, Exception):
            self._failures += 1
            self._failure = answer
            self._look_again = core.clock() + after_error(self._failures, core.random)
        else:
            self._failures, self._failure = 0, None
        self._fetched()
        if isinstance(answer, Exception) and not (isinstance(answer, NarrowboatError) and answer.retryable):
            raise answer

    def _fetched(self) -> None:
        """Tell the others what they wait for: a message, or that there was none and when to look again."""
        self.rouse(len(self._buffer) if self._buffer else len(self._waiters))

    def _leave(self, token: object, signal: Any) -> None:
        """A caller goes, from whichever point: somebody else looks where it would have."""
        self._requests.pop(token, None)
        if signal is not None:
            self._waiters.pop(signal, None)
        if self._waiters and (self._buffer or self._stirred or self._look_again <= self.core.clock()):
            self.rouse(1)

    async def _flush(self) -> None:
        """Settle what was never handed out: delivered too often, or expired."""
        condemned = self._condemned.copy()
        for outcome in dict.fromkeys(condemned.values()):
            alike = [entry for entry, other in condemned.items() if other == outcome]
            await self.settle(alike, outcome)
            for entry in alike:  # afterwards, as above
                self._condemned.pop(entry, None)

    # -- settling, on the free lane -------------------------------------------------------------------------------

    async def settle(self, entries: Sequence[M], outcome: Outcome) -> list[NarrowboatError | None]:
        """Settle each; None for each that is settled. The first settlement of a message wins."""
        if self.closed or self._forked:
            return self._not_ours(entries)
        mine = self._begin(entries)
        if not mine:
            return [entry._stale() for entry in entries]
        call = Call(self.core.SETTLE, self._items(mine, outcome), undo=_later(self._finish, mine, outcome))
        results = await self.core.runtime.call(self.core.free, call)
        answers = self._finish(mine, call, outcome, results)
        if len(mine) == len(entries):
            return answers
        found = dict(zip(mine, answers, strict=True))
        return [found[entry] if entry in found else entry._stale() for entry in entries]

    def post(self, entries: Sequence[M], outcome: Outcome) -> bool:
        """The same, without waiting: what it comes to is told to the listeners. False: none of them is ours to settle."""
        mine = self._begin(entries) if not (self.closed or self._forked) else []
        if mine:
            self._posted = True
            call = Call(self.core.SETTLE, self._items(mine, outcome), sink=_later(self._finish, mine, outcome))
            self.core.free.submit([call])
        return bool(mine)

    def _not_ours(self, entries: Sequence[M]) -> list[NarrowboatError | None]:
        """After the consumer's end all it had has gone back, and in a forked child it is the parent's. No driver is asked."""
        self.core.check_open()
        if self._forked:
            text = "its consumer is the parent's, and so is the message; nothing was changed"
            return [Closed(f"message {each.id!r} from {self.path!r}: {text}", backend=self.backend) for each in entries]
        with self.mutex:
            for entry in entries:
                self._drop(entry)
        return [entry._stale() for entry in entries]

    def _begin(self, entries: Sequence[M]) -> list[M]:
        """Those of `entries` that are ours to settle, from now on by nobody else."""
        mine: list[M] = []
        try:
            with self.mutex:
                for entry in entries:
                    if entry._state is HELD:
                        entry._state = SETTLING
                        mine.append(entry)
        except BaseException:
            for entry in entries:
                if entry in mine:
                    entry._state = HELD
            raise
        return mine

    def _items(self, mine: Sequence[M], outcome: Outcome) -> list[tuple[Feed, Delivery, Outcome]]:
        feed, limit = self.feed, self._limit
        if limit and isinstance(outcome, Nack):
            return [(feed, e._delivery, final(outcome, e._delivery.attempt, limit, e._delivery.malformed)) for e in mine]
        if isinstance(outcome, Reject) and not outcome.attempts:
            return [(feed, e._delivery, Reject(outcome.reason, e._delivery.attempt)) for e in mine]
        return [(feed, entry._delivery, outcome) for entry in mine]

    def _finish(
        self, mine: list[M], call: Call, outcome: Outcome, results: list[NarrowboatError | None]
    ) -> list[NarrowboatError | None]:
        """Take in what the settlement came to. Without an answer they can be settled again."""
        if len(results) != len(mine):
            with self.mutex:
                for entry in mine:
                    entry._state = HELD
                    if call.state == DONE:  # its answer went with whoever was interrupted
                        entry._doubtful = True
            return []
        answers = results
        full = len(self.unsettled) >= self._prefetch
        with self.mutex:
            if any(answers):
                answers = [self._one(entry, answer) for entry, answer in zip(mine, answers, strict=True)]
            else:
                for entry in mine:
                    entry._state = SETTLED
            self.unsettled.difference_update(mine)
        if full:
            self.rouse(1)
        if self.core.listeners:
            self._tell_settled(mine, call, answers, outcome)
        return answers

    def _one(self, entry: M, answer: Any) -> NarrowboatError | None:
        """One answer; under the mutex."""
        if answer is None:
            entry._state = SETTLED
            return None
        if isinstance(answer, StaleDelivery):
            entry._state = LOST
            # Nobody's, or somebody else's: but an earlier call, whose answer was lost, may have settled it.
            return entry._stale() if hasattr(entry, "_doubtful") else answer
        # Out of the window, because nobody may come back for it; still ours to settle, because that may help.
        entry._state = HELD
        if isinstance(answer, NarrowboatError) and not answer.retryable and not hasattr(entry, "_doubtful"):
            return answer
        if may_have_happened(answer):
            entry._doubtful = True
        unknown = SettleUnknown(
            f"message {entry.id!r} from {self.path!r} may or may not be settled: {answer}. "
            "Settle it again, or expect it to come back",
            id=entry.id,
            backend=self.backend,
        )
        unknown.__cause__ = answer
        return unknown

    def _tell_settled(self, mine: Sequence[M], call: Call, answers: Sequence[Any], outcome: Outcome) -> None:
        listeners, backend, path = self.core.listeners, self.backend, self.path
        for entry, item, answer in zip(mine, call.items, answers, strict=True):
            done = item[2]
            if isinstance(answer, StaleDelivery):
                events.emit(listeners, events.Stale(backend, path, entry.id))
            elif answer is not None:
                continue  # unknown: it will be told when it is settled, here or by whoever gets it next
            elif isinstance(done, Reject):
                events.emit(listeners, events.DeadLettered(backend, path, entry.id, done.reason, done.attempts))
            elif outcome is EXPIRED:
                events.emit(listeners, events.Expired(backend, path, entry.id))
            else:
                events.emit(listeners, events.Settled(backend, path, entry.id, type(done).__name__.lower()))

    async def extend(self, entries: Sequence[M], seconds: float) -> list[NarrowboatError | None]:
        """Let each lease end `seconds` from now."""
        if self.closed or self._forked:
            return self._not_ours(entries)
        mine = [entry for entry in entries if entry._state is HELD]
        sent = self.core.clock()
        found: dict[M, Any] = {}
        if mine:
            key = (self.feed, seconds)
            call = Call(self.core.EXTEND, [(key, entry._delivery) for entry in mine])
            answers = await self.core.runtime.call(self.core.free, call)
            extended(self, mine, answers, sent, seconds)
            found = dict(zip(mine, answers, strict=True))
        return [found[entry] if entry in found else entry._stale() for entry in entries]

    # -- the end --------------------------------------------------------------------------------------------------

    async def give_back(self) -> None:
        """Return what was not started, at once, and uncounted where that is claimed. Nothing more is handed out."""
        self.stop()
        core = self.core
        if core.closed:
            return
        begun = core.clock()
        # Through the take lane: behind a fetch that is under way, whose messages are to go back as well.
        entries = await core.ask(lambda driver: self._depart())
        if entries and core.silent(begun):
            self.post(entries, RETURN)
        elif entries:
            await self.settle(entries, RETURN)

    async def _flush_posted(self) -> None:
        """Wait, for one operation timeout at most, until what was settled without waiting is settled."""
        if not self._posted:
            return
        core, runtime = self.core, self.core.runtime
        signal, ends = runtime.signal(), core.clock() + core.timeout
        call = Call(core.SETTLE, (), sink=lambda call: signal.set())  # behind all of them
        core.free.submit([call])
        while call.state != DONE and core.clock() < ends:
            await runtime.wait(signal, ends)

    def _depart(self) -> list[M]:
        """Let the feed take nothing more; what is to go back of what it gave."""
        with contextlib.suppress(NarrowboatError):  # then what it holds back comes back with its end, counted
            self.feed.leave()
        return self._drain()

    def _drain(self) -> list[M]:
        with self.mutex:
            entries = list(self._buffer)
            self._buffer.clear()
        return entries

    def post_return(self) -> None:
        """The same for a broker that is being closed: no receive is under way, and nobody waits."""
        entries = self._drain()
        if entries:
            self.post(entries, RETURN)

    async def close(self) -> None:
        """Return what was not started, then close the feed: what is unsettled goes back at once. Idempotent."""
        try:
            if self.closed or self._forked or self.core.closed:
                return
            begun = self.core.clock()
            try:
                await self.give_back()
                if not self.core.silent(begun):
                    await self._flush_posted()  # or the feed's end would give those messages back
            finally:
                if not self.core.silent(begun):
                    await self._close_feed()
            if not self.closed:
                self.abandon()
                raise Unavailable(
                    f"consumer of {self.path!r}: the backend does not answer, so it was left without waiting for it. What is "
                    "unsettled comes back with its lease or its connection",
                    backend=self.backend,
                )
        except Exception:
            if not self.closed:
                self.abandon()
            raise
        except BaseException:
            self.abandon()
            raise

    async def _close_feed(self) -> None:
        core, feed = self.core, self.feed
        self._ends()
        (answer,) = await core.runtime.call(core.take, Call(core.CALL, (lambda driver: feed.close(),)))
        self._feed_closed = True
        if isinstance(answer, Exception) and not isinstance(answer, Closed):
            raise answer

    def _ends(self) -> None:
        self.closed = True
        self.core.consumers.discard(self)
        self.wake_all()

    @property
    def used(self) -> bool:
        """Whether anybody has asked it for a message."""
        return self._looks > 0

    def abandon(self) -> None:
        """The same for a caller that goes, from any point: posted, never waited for. Idempotent, as closing a feed is."""
        self.stopped = True
        self._ends()
        if self._opened and not self._feed_closed and not self._forked and not self.core.closed:
            feed = self._opened[0]
            self.core.take.post(self.core.CALL, (lambda driver: feed.close(),))
            self._feed_closed = True

    def forked(self) -> None:
        """In a forked child: the deliveries are the parent's."""
        self._forked = True
        self.mutex = threading.Lock()
        self.unsettled.clear()
        self._buffer.clear()
        self._condemned.clear()
        self._waiters.clear()

    def open(self, driver: Broker, *, earliest: bool) -> None:
        """Open the feed; on the take lane."""
        # As in `fetch`: whatever the driver has opened is kept, wherever an interrupt comes.
        self._opened.extend(map(functools.partial(driver.open, earliest=earliest, wake=self.wake), (self.source,)))
        self.feed = feed = self._opened[0]
        if type(feed).current is not Feed.current:
            self._current = feed.current
        with self.core.mutex:
            if self.core.closed:
                raise Closed(f"{self.backend} broker: closed while opening a consumer", backend=self.backend)
            self.core.consumers.add(self)


def _later(finish: Callable[[Any, Call, Outcome, Any], object], mine: Any, outcome: Outcome) -> Callable[[Call], None]:
    """`finish` as a call's sink or undo."""

    def told(call: Call) -> None:
        finish(mine, call, outcome, call.results)

    return told
