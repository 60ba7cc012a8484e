"""The consume loop: all callers that wait for one consumer's messages, and the fetches that they make. Once for both
faces.

It fetches in large batches and hands out from the buffer, so a message costs little more than its share of a batch.
It never waits inside the driver: the driver's `wake` sets the signal of a waiting caller, and `retry_after` bounds
the wait in any case. Many threads or tasks may receive from one consumer at once.

Each part of its state has one owner. The `Window` owns what is fetched and not settled, the `Polling` who fetches
next, the `Lifetime` whether the consumer is open, the `Terms` its lease and limit, and the `Extending` when leases are
extended. `settle.py` settles, `close.py` ends it.

A fetched message belongs to no caller until it is handed out. A fetch puts what it brings into the buffer, on
whichever thread it runs, so a caller that is cancelled or interrupted meanwhile swallows nothing.

While the backend does not answer, callers keep waiting and the loop polls again with a growing pause. A caller whose
wait ends meanwhile gets the error, because "no message" would be a guess.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from narrowboat._engine.backoff import after_error
from narrowboat._engine.exchange import Call
from narrowboat._engine.later_events import events
from narrowboat._messages.close import Closing
from narrowboat._messages.core import BrokerCore
from narrowboat._messages.delivery import TrackedDelivery, too_often
from narrowboat._messages.extension import Extending
from narrowboat._messages.lifetime import Lifetime
from narrowboat._messages.polling import Polling, Visit
from narrowboat._messages.settle import Settlement
from narrowboat._messages.terms import OWN, Terms
from narrowboat._messages.window import Window
from narrowboat.capabilities import Support
from narrowboat.codecs import Codec
from narrowboat.contract.messages import Broker, Delivery, Feed, Outcome, Received, Reject, Source
from narrowboat.errors import NarrowboatError, Unavailable

M = TypeVar("M", bound=TrackedDelivery[Any])


class Consumer(Generic[M]):
    """See the module's text. `make` builds the face's own kind of message."""

    unclosed: object = None  #: the mark of the face that it comes from

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
        own: frozenset[str] = OWN,
    ) -> None:
        """`own`: the names of the properties that the program asked for; see `terms`."""
        self.core = core
        self.runtime = core.runtime  #: what a caller waits by; a test may have one of its own
        self.address = source.address
        self.path = path = self.address.path
        self.backend = core.backend
        self.codec = codec
        self.window: Window[M] = Window(prefetch, core.capabilities.batch_max)
        self.polling = Polling(self.window, core.timeout)
        self.life = Lifetime(core, path)
        self.terms = Terms(source, own, core.capabilities)
        self.settlement = Settlement(core, path, self.terms, self.life, self.window, self.polling)
        self.extending = Extending(core, self.life, self.window, self.settlement, self.terms)
        self.closing = Closing(core, path, self.life, self.window, self.polling, self.settlement, self.extending)
        self.max_extend = max_extend
        self._auto_extend = auto_extend and core.capabilities.extension is not Support.ABSENT
        self._make = make

    @property
    def used(self) -> bool:
        """Whether anybody has asked it for a message."""
        return self.polling.begun > 0

    @property
    def limit(self) -> int:
        """How often a message is handed out before it becomes a dead letter; 0: always."""
        return self.terms.limit

    def has_ended(self, delivery: Delivery) -> bool:
        """Whether the claim of `delivery` has ended with what it was made under, as far as the feed has heard."""
        current = self.window.current
        return current is not None and not current(delivery)

    # -- opening and fetching, on the lane of fetches -------------------------------------------------------------

    def open(self, driver: Broker, *, earliest: bool) -> None:
        """Open the feed of its source."""
        # `extend(map(...))` leaves no point for an interrupt between the driver's return and the storing of what it returned.
        opening = functools.partial(driver.open, earliest=earliest, wake=self.polling.wake)
        begun = self.core.clock()
        source = self.terms.begin(driver, begun)
        self._check_time(begun)
        self.life.opened.extend(map(opening, (source,)))
        self.adopt(self.life.opened[0])

    def adopt(self, feed: Feed) -> None:
        """Consume from `feed`. Raises `Closed` where the broker was closed meanwhile."""
        self.life.feed = feed
        if type(feed).current is not Feed.current:
            self.window.current = feed.current
        self.core.register(self.closing)

    def fetch(self, limit: int) -> int:
        """Claim up to `limit` messages and put them into the buffer. Returns how many came."""
        if self.life.closed:
            return 0
        since = self.core.clock()
        terms = self.terms
        if terms.due(since):
            if terms.follow(self.core.driver.get(), self.life.feed, since):
                self.extending.hasten(since)
            self._check_time(since)
            since = self.core.clock()
        lease = terms.lease
        answer: list[Received] = []
        try:
            answer.extend(map(self.life.feed.receive, (limit,)))  # as in `open`
            self._admit(answer[0], since, lease)
        except BaseException:
            if answer:
                self._admit_rest(answer[0], since, lease)
            raise
        return len(answer[0].deliveries)

    def _check_time(self, begun: float) -> None:
        """Raise `Unavailable` where looking up what is stored has used up the call's time: what follows may take as long."""
        if self.core.silent(begun):
            raise Unavailable(
                f"consumer of {self.path!r}: looking up what is stored took {self.core.clock() - begun:.1f} s of an operation "
                "timeout, so nothing was sent after it. The call may be repeated",
                backend=self.backend,
                sent=False,
            )

    def _admit(self, received: Received, since: float, lease: float) -> None:
        """Put the deliveries of a fetch that was sent at `since`, under that lease, into the window."""
        make, limit, cap = self._make, self.terms.limit, since + self.max_extend
        # The shorter one, where another fetch of ours has found the lease altered meanwhile.
        until = self.core.deadline(since, min(lease, self.terms.lease))
        fresh: list[M] = []
        condemned: dict[M, Outcome] = {}
        malformed: list[Delivery] = []
        for delivery in received.deliveries:
            if delivery.malformed:
                malformed.append(delivery)
            expires = delivery.expires_in
            entry = make(self, delivery, until, cap, expires if expires is None else since + expires)
            if delivery.refused:
                reject: Reject | None = Reject(delivery.refused, 0)
            else:
                reject = None if delivery.attempt <= limit else too_often(delivery.attempt, limit, delivery.malformed)
            if reject is None:
                fresh.append(entry)
            else:
                condemned[entry] = reject
        window = self.window
        with window.mutex:
            window.admit(fresh, condemned)
            self.polling.pause(0.0 if received.deliveries else self.core.clock() + received.retry_after)
            ring = self._auto_extend and bool(window.unsettled) and self.extending.keep(since)
        if ring:
            self.core.timer.ring()
        for delivery in malformed:
            self.core.tell(self.path, delivery.id, delivery.malformed)

    def _admit_rest(self, received: Received, since: float, lease: float) -> None:
        """Put in what an interrupt left out."""
        with self.window.mutex:
            rest = self.window.missing(received.deliveries)
            self.extending.forget()  # the timer may not have been rung
        self._admit(Received(rest, received.retry_after), since, lease)

    # -- waiting for a message ------------------------------------------------------------------------------------

    def take_buffered_one(self, got: list[M]) -> None:
        """Put one message into `got` in the common case that the buffer has one and there is nothing else to do."""
        window, core = self.window, self.core
        if not window.buffer or window.condemned or self.life.stopped or core.closed or core.listeners:
            return
        window.take(1, got, core.clock())

    async def receive(self, count: int, deadline: float, got: list[M], linger: float = 0.0) -> None:
        """Fill `got` up to `count`; it stays empty only when `deadline` came or the consumer was stopped.

        Once there is one, it waits up to `linger` seconds for more, unless the window is full.
        """
        core, life, window = self.core, self.life, self.window
        visit, full_at = self.polling.enter(), math.inf
        failure: Exception | None = None
        try:
            while True:
                if window.condemned:
                    await self._settle_condemned()
                now = core.clock()
                if window.buffer and not life.stopped:
                    window.take(count, got, now)
                if len(got) >= count or life.check():
                    again = visit.signal is not None and not window.still_ours(got) and not life.stopped
                else:
                    if got and full_at is math.inf:
                        full_at = now + linger
                    ends = min(deadline, full_at) if got else deadline
                    if not (got and window.full) and await self.advance(visit, now, ends):
                        continue
                    if not got:
                        failure = self.polling.failure  # looked at once: another caller's fetch may be answered now
                        if failure is not None:
                            raise failure
                        return
                    again = not window.still_ours(got)
                if not again:
                    self.post_condemned()
                    self._emit_delivered(got)
                    return
        except BaseException:
            window.put_back(got)
            raise
        finally:
            failure = None  # an error's traceback leads here: the two would keep each other
            self.polling.leave(visit, core.clock)

    async def advance(self, visit: Visit, now: float, ends: float) -> bool:
        """Fetch if it is this caller's turn, or wait for what others fetch. False: `ends` has come, and nothing was done."""
        limit, again = self.polling.reserve(visit, now, ends)
        if limit:
            await self._fetch(visit, limit)
        elif now >= ends:
            return False
        elif visit.signal is None:
            visit.signal = self.core.runtime.signal()
            self.polling.waiting[visit.signal] = None  # then look once more: a wake before this line reached no caller
        else:
            await self.runtime.wait(visit.signal, min(ends, again))
        return True

    async def _fetch(self, visit: Visit, limit: int) -> None:
        core, polling = self.core, self.polling
        try:
            (answer,) = await core.runtime.call(core.fetches, Call(core.RECEIVE, ((self, limit),)))
        except BaseException:
            polling.unseen()
            raise
        finally:
            polling.fetched(visit)
        if not isinstance(answer, Exception):
            polling.answered()
            # As many callers as there are messages; or all of them, because there is none and they must plan the next poll.
            polling.rouse(answer or len(polling.waiting))
            return
        polling.pause(core.clock() + after_error(polling.failed(answer), core.random))
        polling.rouse_all()
        if not (isinstance(answer, NarrowboatError) and answer.retryable):
            raise answer

    # -- what is not handed out -----------------------------------------------------------------------------------

    async def _settle_condemned(self) -> None:
        """Settle what was never handed out: delivered too often, or expired."""
        condemned = self.window.condemned.copy()
        for outcome in dict.fromkeys(condemned.values()):
            alike = [entry for entry, other in condemned.items() if other == outcome]
            await self.settlement.settle(alike, outcome)
            for entry in alike:  # afterwards: an interrupted caller leaves it to the next one
                self.window.condemned.pop(entry, None)

    def post_condemned(self) -> None:
        """Post the settlements of what was never handed out."""
        for entry, outcome in tuple(self.window.condemned.items()) if self.window.condemned else ():
            self.settlement.post([entry], outcome)
            self.window.condemned.pop(entry, None)  # afterwards, as above

    def _emit_delivered(self, got: list[M]) -> None:
        if self.core.listeners:
            for entry in got:
                events.emit(self.core.listeners, events.Delivered(self.backend, self.path, entry.id, entry.attempt))
