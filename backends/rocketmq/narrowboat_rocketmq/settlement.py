"""Settling deliveries of one consumer: what is acknowledged, given back, kept longer, or a dead letter before that.

Settlements and extensions go one after the other: an extension replaces the handle, and the server answers OK to an ack by the
old one and hands the message out again.

What is given back while a call of a consumer that has left goes on at the broker stays out of sight until that has ended: such
a call would take it, and count it once more. So what is given back before stays where that can still be changed, for a second.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from narrowboat.contract import Ack, Address, Delivery, Nack, Outcome, Outgoing, Reject
from narrowboat.driver.sources import dead_headers, has_dead_letters
from narrowboat.errors import NarrowboatError, NotFound, SettleUnknown, Unavailable
from narrowboat_rocketmq.claim import MARGIN, Claim, claim_of
from narrowboat_rocketmq.envelope import dead
from narrowboat_rocketmq.errors import refusals, refused
from narrowboat_rocketmq.library import definition_pb2 as said
from narrowboat_rocketmq.library import service_pb2 as service
from narrowboat_rocketmq.library.calls import resource
from narrowboat_rocketmq.link import Link
from narrowboat_rocketmq.names import Place
from narrowboat_rocketmq.polling import HELD
from narrowboat_rocketmq.publishing import Publisher

#: Seconds for which a broker keeps out of sight what it got back, at least, beyond what it was told.
_HIDDEN = 2.0
#: Seconds for which a consumer that goes on receiving gives back, at least: a handle is worth nothing once they are over.
_LEAST = 1.0
#: Seconds that the way to the proxy may take.
_WAY = 0.1

Answers = list[NarrowboatError | None]


class Settlement:
    """See the module's text.

    Args:
        link, place, address, publisher: the consumer's.
        client: under which the proxy knows the consumer.
        lingering: for how many seconds a call of its on a topic may go on, to which nobody listens.
    """

    def __init__(
        self,
        link: Link,
        place: Place,
        address: Address,
        publisher: Publisher,
        client: str,
        lingering: Callable[[str], float],
    ) -> None:
        self.out: set[Claim] = set()  #: what was handed out and is not settled
        self._link = link
        self._place = place
        self._address = address
        self._publisher = publisher
        self._client = client
        self._lingering = lingering
        self._returned: dict[Claim, float] = {}  #: what was given back just now, and for when
        self._left = False
        self._alone = threading.Lock()

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        """Settle each delivery: None where the server has answered that it is."""
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
            elif isinstance(outcome, Reject) and has_dead_letters(self._address):
                rejects.append(index)
            elif isinstance(outcome, (Ack, Reject)):
                acks.append(index)
            else:
                back.append((index, outcome.delay if isinstance(outcome, Nack) else 0.0))
        acks += self._bury(settlements, rejects, answers) if rejects else []
        if acks:
            for index, error in zip(acks, self.acknowledge([claim_of(settlements[index][0]) for index in acks]), strict=True):
                answers[index] = error
        if back:
            given = self.give_back([(claim_of(settlements[index][0]), delay) for index, delay in back])
            for (index, _), error in zip(back, given, strict=True):
                answers[index] = error
        for index, (each, _) in enumerate(settlements):
            claim = claim_of(each)
            if answers[index] is None:
                self.out.discard(claim)
                if claim.doubtful:
                    answers[index] = SettleUnknown(
                        f"message {each.id!r} from {self._place.path!r}: an extension of its lease was not answered, so the "
                        "server may know it by another handle than ours: it may be settled, or it comes back by itself.",
                        id=each.id,
                        backend=self._link.endpoint.scheme,
                    )
        return answers

    def _is_ours(self, claim: Claim, now: float) -> bool:
        return claim in self.out and claim.current(now)

    def _stale(self, each: Delivery) -> NarrowboatError:
        self.out.discard(claim_of(each))
        return refusals.stale(each.id, self._place.path, each.attempt)

    def acknowledge(self, claims: Sequence[Claim]) -> Answers:
        """Let the server forget them."""
        link = self._link
        found: Answers = [None] * len(claims)
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

    def give_back(self, given: Sequence[tuple[Claim, float]]) -> Answers:
        """Let the server hand each out again, after its delay."""
        now, group = self._link.clock(), self._place.group
        least = 0.0 if self._left else _LEAST
        given = [(claim, max(delay, least, self._lingering(claim.topic) - _HIDDEN)) for claim, delay in given]
        requests = [claim.change(group, self._link.namespace, delay) for claim, delay in given]
        found: Answers = []
        doing = f"giving messages of {self._place.path!r} back"
        for (claim, _), reply in zip(given, self._link.together("change", requests, doing, self._client), strict=True):
            if isinstance(reply, NarrowboatError):
                claim.doubtful = True
                found.append(reply)
            elif reply.status.code == said.OK:
                claim.settled = True
                claim.handle = reply.receipt_handle or claim.handle
                found.append(None)
            else:
                found.append(self._unsettled(claim, reply.status, doing))
        kept = {claim: due for claim, due in self._returned.items() if due > now}
        self._returned = kept | {claim: now + delay for claim, delay in given if claim.settled and delay < HELD}
        return found

    def keep_back(self) -> None:
        """The consumer has left: what it gave back just now stays out of sight as well, until its last call has ended."""
        with self._alone:
            self._left, soon = True, self._link.clock() + _WAY
            fresh = [(claim, due - soon) for claim, due in self._returned.items() if due > soon]
            self.give_back([(claim, left) for claim, left in fresh if left < self._lingering(claim.topic) - _HIDDEN])

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
        address = self._address
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
        """Let each lease end `seconds` from now; `StaleDelivery` for what is no longer ours."""
        with self._alone:
            return self._extend(deliveries, seconds)

    def _extend(self, deliveries: Sequence[Delivery], seconds: float) -> Answers:
        now = self._link.clock()
        ours = [each for each in deliveries if self._is_ours(claim_of(each), now)]
        found = dict(zip(map(id, ours), self.change([claim_of(each) for each in ours], seconds), strict=True))
        return [found[id(each)] if id(each) in found else self._stale(each) for each in deliveries]

    def change(self, claims: Sequence[Claim], seconds: float) -> Answers:
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
                claim.handle, claim.until = reply.receipt_handle or claim.handle, now + seconds
                found.append(None)
            else:
                found.append(self._unsettled(claim, reply.status, doing))
        return found
