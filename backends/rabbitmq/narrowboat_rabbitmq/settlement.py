"""Settling deliveries of one source: what is acknowledged, what is given back, and what is published again before that.

A message goes elsewhere (dead letters, the ladder, the end of its queue) by a confirmed publish, and only then is the
delivery acknowledged: a crash in between leaves two of one id, never none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from narrowboat.contract import Ack, Delivery, Kind, Nack, Outcome, Reject, Return, Source
from narrowboat.errors import NarrowboatError, SettleUnknown, Unavailable
from narrowboat_rabbitmq.channel import Channel
from narrowboat_rabbitmq.envelope import DEAD, Tag, again
from narrowboat_rabbitmq.errors import Operation, channel_error, stale
from narrowboat_rabbitmq.ladder import route
from narrowboat_rabbitmq.options import SCHEME
from narrowboat_rabbitmq.publisher import CONFIRMED, Record
from narrowboat_rabbitmq.stream import Job, Stream

if TYPE_CHECKING:
    from narrowboat_rabbitmq.driver import RabbitBroker


class Settlement:
    """See the module's text. `counted`: the queue counts what is given back to it."""

    def __init__(self, broker: RabbitBroker, source: Source, *, counted: bool) -> None:
        self._broker = broker
        self._source = source
        self._counted = counted
        self._place = broker.topology.place(source.address)
        self._path = self._place.path

    def settle(
        self, stream: Stream, settlements: Sequence[tuple[Delivery, Outcome]], deadline: float
    ) -> list[NarrowboatError | None]:
        """Settle each: None where it is."""
        answers: list[NarrowboatError | None] = [None] * len(settlements)
        acks: list[int] = []
        given_back: list[int] = []
        freed: list[int] = []
        copies: list[tuple[int, Record]] = []
        rungs: set[int] = set()
        for index, (delivery, outcome) in enumerate(settlements):
            tag: Tag = delivery.tag  # type: ignore[assignment]  # this driver's own
            if tag.channel is not stream.channel or not stream.alive:
                answers[index] = self._gone(delivery)
            elif outcome.__class__ is Ack:
                acks.append(tag.number)
            elif outcome.__class__ is Nack and self._counted and not outcome.delay:
                given_back.append(tag.number)
            elif outcome.__class__ is Return and stream.frees:
                freed.append(tag.number)
            elif tag.number not in stream.outstanding:
                answers[index] = self._gone(delivery)
            else:
                record = self._copy(delivery, outcome, rungs)
                if record is None:
                    acks.append(tag.number)
                else:
                    copies.append((index, record))
        copied: set[int] = set()
        if copies:
            self._publish(settlements, copies, rungs, answers, deadline)
            copied = {index for index, _ in copies if answers[index] is None}
            acks += [settlements[index][0].tag.number for index in copied]  # type: ignore[attr-defined]  # a Tag
        if acks or given_back or freed:
            self._acknowledge(stream, Job(acks, given_back, freed), settlements, copied, answers, deadline)
        return answers

    def _acknowledge(
        self,
        stream: Stream,
        job: Job,
        settlements: Sequence[tuple[Delivery, Outcome]],
        copied: set[int],
        answers: list[NarrowboatError | None],
        deadline: float,
    ) -> None:
        broker, channel = self._broker, stream.channel
        assert channel is not None
        heard = channel.session.heard
        broker.loop.post(lambda: stream.submit(job))
        doing = f"settling messages of {self._path!r}"
        if not job.answer.wait(deadline - broker.clock()):
            broker.link.doubt(channel.session, heard)
            # Whoever asks again must not hear that nothing was changed, whenever the answer comes.
            broker.loop.post(lambda: channel.unanswered.update(job.numbers))
            unknown: NarrowboatError | None = Unavailable(
                f"{broker.site} did not answer within {broker.timeout:g} s while {doing}. They may or may not be settled.",
                backend=SCHEME,
            )
        elif job.answer.error is not None:
            unknown = channel_error(job.answer.error, broker.site, Operation(doing, deadline, self._place))
        else:
            unknown = None
        gone = job.answer.value or frozenset()
        if unknown is None and not gone:
            return
        for index, (delivery, _) in enumerate(settlements):
            if answers[index] is not None:
                continue
            if unknown is not None:
                answers[index] = unknown
            elif delivery.tag.number in gone:  # type: ignore[attr-defined]  # a Tag
                # What was copied already comes back as well: that is no "nothing was changed".
                answers[index] = self._doubled(delivery) if index in copied else self._gone(delivery)

    def _copy(self, delivery: Delivery, outcome: Outcome, rungs: set[int]) -> Record | None:
        """The message as it is to be published again; None where it is simply dropped."""
        tag: Tag = delivery.tag  # type: ignore[assignment]  # this driver's own
        topology = self._broker.topology
        if isinstance(outcome, Reject):
            if self._place.address.kind is Kind.INBOX or self._path.endswith(".dead"):
                return None
            place = topology.place(self._source.address.dead)
            dead = dict(zip(DEAD, (outcome.reason, str(outcome.attempts), self._path), strict=True))
            properties = again(tag, dead, attempts=0, mortal=False)
        elif isinstance(outcome, Nack):
            place = self._place
            properties = again(tag, {}, attempts=delivery.attempt)
            if outcome.delay > 0:
                level, key = route(outcome.delay, place.word)
                rungs.add(level)
                return Record(topology.ladder.exchange(level), key, delivery.body, properties, True)
        else:
            place = self._place
            properties = again(tag, {}, attempts=delivery.attempt - 1)
        return Record(place.exchange, place.routing_key, delivery.body, properties, place.mandatory)

    def _publish(
        self,
        settlements: Sequence[tuple[Delivery, Outcome]],
        copies: Sequence[tuple[int, Record]],
        rungs: set[int],
        answers: list[NarrowboatError | None],
        deadline: float,
    ) -> None:
        """Publish the copies; whoever's is not confirmed is not settled."""
        broker, source = self._broker, self._source.address
        if rungs:
            broker.topology.delay(source, max(rungs), deadline)
        if any(isinstance(settlements[index][1], Reject) for index, _ in copies):
            broker.topology.bury(source.dead, deadline)
        operation = Operation(f"moving messages of {self._path!r}", deadline)
        batch = broker.publisher.publish([record for _, record in copies], operation)
        for (index, _), outcome in zip(copies, batch.results, strict=True):
            if outcome is not CONFIRMED:
                answers[index] = Unavailable(
                    f"message {settlements[index][0].id!r} from {self._path!r}: its copy was not confirmed ({outcome.value}), "
                    "so it was not settled. It comes back, and may come twice.",
                    backend=SCHEME,
                )

    def _gone(self, delivery: Delivery) -> NarrowboatError:
        """It is no longer ours; unless it was settled by us, and the channel ended before that was answered."""
        tag: Tag = delivery.tag  # type: ignore[assignment]  # this driver's own
        channel: Channel = tag.channel  # type: ignore[assignment]  # as its feed made it
        if tag.number in channel.unanswered:
            return SettleUnknown(
                f"message {delivery.id!r} from {self._path!r} was settled before, and the connection ended without an answer: "
                "it may be settled, or it comes back by itself.",
                id=delivery.id,
                backend=SCHEME,
            )
        return stale(delivery.id, delivery.attempt, self._path)

    def _doubled(self, delivery: Delivery) -> NarrowboatError:
        return Unavailable(
            f"message {delivery.id!r} from {self._path!r}: its copy was published and the connection broke before it could be "
            "acknowledged. It comes twice, with the same id.",
            backend=SCHEME,
        )
