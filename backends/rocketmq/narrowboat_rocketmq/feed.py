"""One consumer of one queue or subscription: what its polls have brought, and how it is settled.

What came and is not taken within a few seconds goes back: its lease is counted from when it came, and another consumer may have
time for it. What the server gets back it hands out again two to four seconds later, counted as one more attempt.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from narrowboat.contract import Ack, Context, Delivery, Feed, Nack, Outcome, Outgoing, Received, Reject, Source
from narrowboat.driver.sources import dead_headers, has_dead_letters
from narrowboat.errors import Closed, NarrowboatError, NotFound, SettleUnknown, Unavailable
from narrowboat_rocketmq.claim import MARGIN, Claim, claim_of
from narrowboat_rocketmq.envelope import ONLY, Tag, dead, delivery
from narrowboat_rocketmq.errors import refusals, refused
from narrowboat_rocketmq.library import definition_pb2 as said
from narrowboat_rocketmq.library import service_pb2 as service
from narrowboat_rocketmq.library.calls import resource
from narrowboat_rocketmq.link import Link
from narrowboat_rocketmq.polling import Poll, Wanted
from narrowboat_rocketmq.publishing import Publisher
from narrowboat_rocketmq.sessions import Session
from narrowboat_rocketmq.sources import Sources

#: Seconds until a consumer that found nothing looks again, which tells the polls that it still waits.
IDLE = 1.0
#: Seconds that a held call has for what is there, and the least that a look takes.
_LOOK, _LEAST = 0.25, 0.1
#: Seconds for which a message lies here before it goes back; after the first of them its lease is begun anew when it is taken.
_KEPT, _FRESH = 5.0, 1.0
#: Seconds for which a topic that was not there is not asked for.
_ABSENT = 30.0
_MISSING = (said.TOPIC_NOT_FOUND, said.CONSUMER_GROUP_NOT_FOUND, said.NOT_FOUND)

Answers = list[NarrowboatError | None]


class RocketFeed(Feed):
    """See the module's text."""

    def __init__(
        self,
        link: Link,
        sources: Sources,
        publisher: Publisher,
        source: Source,
        wake: Callable[[], None],
        context: Context,
        on_close: Callable[[RocketFeed], object],
    ) -> None:
        self._link = link
        self._sources = sources
        self._publisher = publisher
        self._source = source
        self._place = sources.place(source.address)
        self._wake = wake
        self._context = context
        self._on_close = on_close
        self._client = client = uuid.uuid4().hex
        self._session = Session(link, self._place, client)
        wanted = Wanted(self._place.group, source.properties.lease, source.properties.ordered, client)
        self._polls = [Poll(link, wanted, topic, self._demand, self._take) for topic in self._place.topics]
        self._changed = threading.Condition()
        self._alone = (
            threading.Lock()
        )  # around what changes claims: an extension beside an ack would leave the ack an old handle
        self._buffer: deque[Claim] = deque()
        self._out: set[Claim] = set()
        self._wants = 0
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
            wants = 0 if self._leaving or poll.idle_until > self._link.clock() else self._wants
            old = [claim for claim in self._buffer if now - claim.came > _KEPT]
            for claim in old:
                self._buffer.remove(claim)
        try:
            if old:
                self._give_back([(claim, 0.0) for claim in old])
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
        if isinstance(problem, NarrowboatError):
            self._session.drop()
            self._fail(problem)
        elif problem is not None:
            self._refused(poll, problem)
        elif claims:
            with self._changed:
                self._buffer.extend(claims)
                self._wants = max(0, self._wants - len(claims))
                self._changed.notify_all()
            self._wake()

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
                    self._changed.notify_all()
            for poll in self._polls if not self._leaving else ():
                poll.thread.start()
            if error is None and not taken and not self._leaving:
                error = self._look(limit, taken)
            if error is not None and not taken:
                raise error
            deliveries = self._fresh(taken)
            received = Received(deliveries, 0.0 if deliveries else IDLE)
        except BaseException:
            with self._changed:
                self._buffer.extendleft(claim for claim in reversed(taken) if claim not in self._out)
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
        gone = (
            {id(claim) for claim, error in zip(old, self._change(old, self._source.properties.lease), strict=True) if error}
            if old
            else ()
        )
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
                self._out.add(claim)
        if useless:
            self._acknowledge(useless)
        return deliveries

    def current(self, delivery: Delivery) -> bool:
        """Whether its lease can still stand."""
        return claim_of(delivery).current(self._link.clock())

    # -- settling -------------------------------------------------------------------------------------------------

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        """Settle each delivery: None where the server has answered that it is."""
        self._link.check_open()
        with self._alone:
            return self._settle(settlements)

    def _settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> Answers:
        answers: Answers = [None] * len(settlements)
        acks: list[int] = []
        back: list[tuple[int, float]] = []
        rejects: list[int] = []
        now = self._link.clock()
        for index, (each, outcome) in enumerate(settlements):
            if not self._is_ours(claim_of(each), now):
                answers[index] = self._stale(each)
            elif isinstance(outcome, Reject) and has_dead_letters(self._source.address):
                rejects.append(index)
            elif isinstance(outcome, (Ack, Reject)):
                acks.append(index)
            else:
                back.append((index, outcome.delay if isinstance(outcome, Nack) else 0.0))
        acks += self._bury(settlements, rejects, answers) if rejects else []
        if acks:
            for index, error in zip(acks, self._acknowledge([claim_of(settlements[index][0]) for index in acks]), strict=True):
                answers[index] = error
        if back:
            given = self._give_back([(claim_of(settlements[index][0]), delay) for index, delay in back])
            for (index, _), error in zip(back, given, strict=True):
                answers[index] = error
        for index, (each, _) in enumerate(settlements):
            claim = claim_of(each)
            if answers[index] is None:
                self._out.discard(claim)
                if claim.doubtful:
                    answers[index] = SettleUnknown(
                        f"message {each.id!r} from {self._place.path!r}: an extension of its lease was not answered, so the "
                        "server may know it by another handle than ours: it may be settled, or it comes back by itself.",
                        id=each.id,
                        backend=self._link.endpoint.scheme,
                    )
        return answers

    def _is_ours(self, claim: Claim, now: float) -> bool:
        return claim in self._out and claim.current(now)

    def _stale(self, each: Delivery) -> NarrowboatError:
        self._out.discard(claim_of(each))
        return refusals.stale(each.id, self._place.path, each.attempt)

    def _acknowledge(self, claims: Sequence[Claim]) -> Answers:
        link, answers = self._link, [None] * len(claims)
        found: Answers = list(answers)
        doing = f"settling messages of {self._place.path!r}"
        for topic in self._place.topics:
            some = [index for index, claim in enumerate(claims) if claim.topic == topic]
            if not some:
                continue
            entries = [claims[index].entry() for index in some]
            group = resource(self._place.group, link.namespace)
            request = service.AckMessageRequest(group=group, topic=resource(topic, link.namespace), entries=entries)
            try:
                reply = link.call("ack", request, doing, self._client)
            except NarrowboatError as error:
                for index in some:
                    found[index] = error.with_traceback(None)
                continue
            results = {entry.receipt_handle: entry.status for entry in reply.entries}
            for index in some:
                status = results.get(claims[index].handle, reply.status)
                if status.code == said.OK:
                    claims[index].settled = True
                else:
                    found[index] = self._unsettled(claims[index], status, doing)
        return found

    def _unsettled(self, claim: Claim, status: Any, doing: str) -> NarrowboatError:
        if status.code == said.INVALID_RECEIPT_HANDLE:
            claim.settled = True
            system = claim.message.system_properties
            return refusals.stale(system.message_id, self._place.path, system.delivery_attempt)
        return refused(status, self._link.endpoint, doing, self._place)

    def _give_back(self, given: Sequence[tuple[Claim, float]]) -> Answers:
        """Let the server hand each out again, after its delay."""
        requests = [claim.change(self._place.group, self._link.namespace, delay) for claim, delay in given]
        found: Answers = []
        doing = f"giving messages of {self._place.path!r} back"
        for (claim, _), reply in zip(given, self._link.together("change", requests, doing, self._client), strict=True):
            if isinstance(reply, NarrowboatError):
                claim.doubtful = True
                found.append(reply)
            elif reply.status.code == said.OK:
                claim.settled = True
                found.append(None)
            else:
                found.append(self._unsettled(claim, reply.status, doing))
        return found

    def _bury(self, settlements: Sequence[tuple[Delivery, Outcome]], rejects: list[int], answers: Answers) -> list[int]:
        """Publish the dead letters; those that are confirmed, to be acknowledged: a crash in between leaves two, never none."""
        copies = [self._copy(*settlements[index]) for index in rejects]
        buried: list[int] = []
        for index, answer in zip(rejects, self._publisher.send(copies, dead=True), strict=True):
            if isinstance(answer, NotFound):
                answers[index] = answer
            elif isinstance(answer, NarrowboatError):
                answers[index] = Unavailable(
                    f"message {settlements[index][0].id!r} from {self._place.path!r}: its dead letter was not confirmed "
                    f"({answer}), so it was not settled. It comes back, and may come twice.",
                    backend=self._link.endpoint.scheme,
                )
            else:
                buried.append(index)
        return buried

    def _copy(self, each: Delivery, outcome: Outcome) -> Outgoing:
        assert isinstance(outcome, Reject)
        address = self._source.address
        headers = dead_headers(each.headers, reason=outcome.reason, attempts=outcome.attempts, origin=address.path)
        whole = Outgoing(
            address.dead,
            each.id,
            each.body,
            headers,
            each.key,
            each.published_at or 0.0,
            0.0,
            each.priority,
            None,
            each.correlation_id,
            each.content_type,
            None,
            False,
        )
        return dead(each, whole)

    def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[NarrowboatError | None]:
        """Let each lease end `seconds` from now."""
        self._link.check_open()
        with self._alone:
            return self._extend(deliveries, seconds)

    def _extend(self, deliveries: Sequence[Delivery], seconds: float) -> Answers:
        now = self._link.clock()
        ours = [each for each in deliveries if self._is_ours(claim_of(each), now)]
        found = dict(zip(map(id, ours), self._change([claim_of(each) for each in ours], seconds), strict=True))
        return [found[id(each)] if id(each) in found else self._stale(each) for each in deliveries]

    def _change(self, claims: Sequence[Claim], seconds: float) -> Answers:
        """Begin the leases anew; each gets a new handle, and the old one is worth nothing."""
        link, now = self._link, self._link.clock()
        requests = [claim.change(self._place.group, link.namespace, seconds + MARGIN) for claim in claims]
        found: Answers = []
        doing = f"extending the leases of messages of {self._place.path!r}"
        for claim, reply in zip(claims, link.together("change", requests, doing, self._client), strict=True):
            if isinstance(reply, NarrowboatError):
                claim.doubtful = True
                found.append(reply)
            elif reply.status.code == said.OK:
                claim.handle, claim.until, claim.doubtful = reply.receipt_handle or claim.handle, now + seconds, False
                found.append(None)
            else:
                found.append(self._unsettled(claim, reply.status, doing))
        return found

    # -- the end --------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Ask for nothing more, and give back what came and was never received."""
        with self._changed:
            self._leaving = True
            self._wants = 0
            self._changed.notify_all()
        for poll in self._polls:
            poll.thread.end()
        with self._changed:
            kept, self._buffer = list(self._buffer), deque()
        if kept:
            self._give_back([(claim, 0.0) for claim in kept])

    def close(self) -> None:
        """`leave`; what was received and not settled goes back, counted."""
        if self._closed:
            return
        try:
            self.leave()
            now = self._link.clock()
            mine = [claim for claim in self._out if claim.current(now)]
            if mine:
                self._give_back([(claim, 0.0) for claim in mine])
        except NarrowboatError:
            pass  # then they come back when their leases end
        finally:
            self._closed = True
            self._session.close()
            self._on_close(self)
