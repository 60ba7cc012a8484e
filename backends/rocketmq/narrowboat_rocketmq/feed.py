"""One consumer of one queue or subscription: what its polls have brought, and how it is settled.

What came and is not taken within a few seconds goes back: its lease is counted from when it came, and another consumer may have
time for it. What the server gets back it hands out again two to four seconds later, counted as one more attempt.
"""

from __future__ import annotations

import math
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from narrowboat.contract import Delivery, Feed, Outcome, Received, Source
from narrowboat.errors import Closed, NarrowboatError
from narrowboat_rocketmq.claim import Claim, claim_of
from narrowboat_rocketmq.envelope import ONLY, Tag, delivery
from narrowboat_rocketmq.errors import refused
from narrowboat_rocketmq.library import definition_pb2 as said
from narrowboat_rocketmq.link import Link
from narrowboat_rocketmq.polling import Poll, Wanted
from narrowboat_rocketmq.publishing import Publisher
from narrowboat_rocketmq.sessions import Session
from narrowboat_rocketmq.settlement import Settlement
from narrowboat_rocketmq.sources import Sources

#: Seconds until a consumer that found nothing looks again, which tells the polls that it still waits.
IDLE = 1.0
#: Seconds for which it is believed that it does.
_ASKED = 5.0
#: Seconds that a held call has for what is there, and the least that a look takes.
_LOOK, _LEAST = 0.25, 0.1
#: Seconds for which a message lies here before it goes back; after the first of them its lease is begun anew when it is taken.
_KEPT, _FRESH = 5.0, 1.0
#: Seconds for which a topic that was not there is not asked for.
_ABSENT = 30.0
_MISSING = (said.TOPIC_NOT_FOUND, said.CONSUMER_GROUP_NOT_FOUND, said.NOT_FOUND)


class RocketFeed(Feed):
    """See the module's text."""

    def __init__(
        self,
        link: Link,
        sources: Sources,
        publisher: Publisher,
        source: Source,
        wake: Callable[[], None],
        on_close: Callable[[RocketFeed], object],
    ) -> None:
        self._link = link
        self._sources = sources
        self._source = source
        self._place = sources.place(source.address)
        self._wake = wake
        self._on_close = on_close
        client = uuid.uuid4().hex
        self._session = Session(link, self._place, client)
        wanted = Wanted(self._place.group, source.properties.lease, source.properties.ordered, client)
        self._polls = [Poll(link, wanted, topic, self._demand, self._take) for topic in self._place.topics]
        self._changed = threading.Condition()
        self._settlement = Settlement(link, self._place, source.address, publisher, client, self._lingering)
        self._buffer: deque[Claim] = deque()
        self._wants = 0
        self._asked = 0.0  #: when it was last said
        self._error: NarrowboatError | None = None
        self._leaving = False
        self._closed = False

    # -- the polls' side ------------------------------------------------------------------------------------------

    def _demand(self, poll: Poll) -> int:
        """How much `poll` is to ask for; it waits a second at most for there to be something."""
        now = self._link.clock()
        with self._changed:
            if not self._wants or poll.idle_until > now:
                self._changed.wait(1.0)
            if self._link.clock() - self._asked > _ASKED:  # nobody waits any more, and nobody said so
                self._wants = 0
            wants = 0 if self._leaving or poll.idle_until > self._link.clock() else self._wants
            old = [claim for claim in self._buffer if now - claim.came > _KEPT]
            for claim in old:
                self._buffer.remove(claim)
        try:
            if old:
                self._settlement.give_back([(claim, 0.0) for claim in old])
            if wants:
                self._session.keep()
            else:
                self._session.beat()
        except NarrowboatError as error:
            self._fail(error)
            return 0
        return wants

    def _take(self, poll: Poll, claims: list[Claim], problem: Any) -> None:
        """What a poll brought."""
        if claims:
            with self._changed:
                self._buffer.extend(claims)
                self._wants = max(0, self._wants - len(claims))
                self._changed.notify_all()
            self._wake()
        if isinstance(problem, NarrowboatError):
            self._session.drop()
            self._fail(problem)
        elif problem is not None:
            self._refused(poll, problem)

    def _refused(self, poll: Poll, status: Any) -> None:
        if status.code in _MISSING:
            if poll.topic == self._place.later:
                poll.idle_until = self._link.clock() + _ABSENT
                return
            self._sources.forget(self._source.address)
            try:
                self._sources.declare(self._source)  # somebody deleted it: made anew, unless declare=never
            except NarrowboatError as error:
                self._fail(error)
                return
        self._session.drop()
        self._fail(refused(status, self._link.endpoint, f"receiving from {self._place.path!r}", self._place))

    def _fail(self, error: NarrowboatError) -> None:
        """Let the next `receive` raise it; nothing is asked for until then."""
        with self._changed:
            self._error = error.with_traceback(None)
            self._wants = 0
            self._changed.notify_all()
        self._wake()

    # -- the core's side ------------------------------------------------------------------------------------------

    def receive(self, limit: int) -> Received:
        """Take what has come; where that is nothing, let the polls ask for it."""
        self._link.check_open()
        if self._closed:
            raise Closed(f"this consumer of {self._place.path!r} was closed", backend=self._link.endpoint.scheme)
        taken: list[Claim] = []
        try:
            with self._changed:
                while self._buffer and len(taken) < limit:
                    taken.append(self._buffer.popleft())
                error, self._error = self._error, None
                if not taken:
                    self._wants = 0 if error is not None or self._leaving else limit
                    self._asked = self._link.clock()
                    self._changed.notify_all()
            for poll in self._polls if not self._leaving else ():
                poll.thread.start()
            if error is None and not taken and not self._leaving:
                error = self._look(limit, taken)
            if error is not None and not taken:
                raise error
            deliveries = self._fresh(taken)
            received = Received(deliveries, 0.0 if deliveries else IDLE)
        except BaseException:  # an interrupt as well
            with self._changed:
                self._settlement.out.difference_update(taken)  # the caller has none of it
                self._buffer.extendleft(claim for claim in reversed(taken) if not claim.settled)
            raise
        return received

    def _look(self, limit: int, taken: list[Claim]) -> NarrowboatError | None:
        """Give the polls the time in which they would bring what is there; move it to `taken`, or return what they met instead.

        A server says within milliseconds what it has, and nothing at all where it has nothing.
        """
        begun = self._link.clock()
        with self._changed:
            while not self._buffer and self._error is None and not self._leaving:
                now = self._link.clock()
                left = max(max(poll.begun for poll in self._polls[:1]) + _LOOK, begun + _LEAST) - now
                if left <= 0 or now - begun > self._link.timeout:
                    return None
                self._changed.wait(min(left, 1.0))  # it is infinite while no call is held
            while self._buffer and len(taken) < limit:
                taken.append(self._buffer.popleft())
            error, self._error = (None if taken else self._error), None
            return error

    def _fresh(self, taken: list[Claim]) -> list[Delivery]:
        """What of it is to be handed out: neither expired, nor for another group, nor long here."""
        now, clock = time.time(), self._link.clock()
        old = [claim for claim in taken if clock - claim.came > _FRESH]
        changed = self._settlement.change(old, self._source.properties.lease)
        gone = {id(claim) for claim, error in zip(old, changed, strict=True) if error is not None}
        deliveries: list[Delivery] = []
        useless: list[Claim] = []
        for claim in taken:
            if id(claim) in gone:
                continue  # its lease has ended, or is going to: it comes again
            found = delivery(claim.message, claim, now)
            tag = found.tag
            assert isinstance(tag, Tag)
            if tag.expires <= now or tag.properties.get(ONLY, self._place.group) != self._place.group:
                useless.append(claim)
            else:
                deliveries.append(found)
                self._settlement.out.add(claim)
        if useless:
            self._settlement.acknowledge(useless)
        return deliveries

    def current(self, delivery: Delivery) -> bool:
        """Whether its lease can still stand."""
        return claim_of(delivery).current(self._link.clock())

    # -- settling -------------------------------------------------------------------------------------------------

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        """Settle each delivery: None where the server has answered that it is."""
        self._link.check_open()
        return self._settlement.settle(settlements)

    def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[NarrowboatError | None]:
        """Let each lease end `seconds` from now."""
        self._link.check_open()
        return self._settlement.extend(deliveries, seconds)

    # -- the end --------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Ask for nothing more, and give back what came and was never received."""
        with self._changed:
            self._leaving = True
            self._wants = 0
            self._changed.notify_all()
            # What a call that has just begun brings would be lost on its way for the whole lease, if it were cancelled now.
            self._changed.wait_for(lambda: not any(poll.begun + _LOOK > self._link.clock() for poll in self._begun()), _LOOK)
        for poll in self._polls:
            poll.thread.end()
        with self._changed:
            kept, self._buffer = list(self._buffer), deque()
        self._settlement.keep_back()
        if kept:
            self._settlement.give_back([(claim, 0.0) for claim in kept])

    def _begun(self) -> list[Poll]:
        return [poll for poll in self._polls if poll.begun < math.inf]

    def _lingering(self, topic: str) -> float:
        return max(poll.lingering() for poll in self._polls if poll.topic == topic)

    def close(self) -> None:
        """`leave`; what was received and not settled goes back, counted."""
        if self._closed:
            return
        try:
            self.leave()
            now = self._link.clock()
            mine = [claim for claim in self._settlement.out if claim.current(now)]
            if mine:
                self._settlement.give_back([(claim, 0.0) for claim in mine])
        except NarrowboatError:
            pass  # then they come back when their leases end
        finally:
            self._closed = True
            self._session.close()
            self._on_close(self)
