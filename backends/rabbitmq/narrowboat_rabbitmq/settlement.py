"""Settling deliveries of one source: what is acknowledged, what is given back, and what is published again before that.

A message goes elsewhere (dead letters, the ladder, the end of its queue) by a confirmed publish, and only then is the delivery
acknowledged: a crash in between leaves two messages of one id, never none.
"""

from __future__ import annotations

from collections.abc import Sequence

from narrowboat.contract import Ack, Delivery, Nack, Outcome, Reject, Return, Source
from narrowboat.driver.sources import has_dead_letters
from narrowboat.errors import NarrowboatError, SettleUnknown, Unavailable
from narrowboat_rabbitmq.client import Client
from narrowboat_rabbitmq.connection.publisher import CONFIRMED, Record
from narrowboat_rabbitmq.errors import Operation, channel_error, stale
from narrowboat_rabbitmq.options import SCHEME
from narrowboat_rabbitmq.protocol.envelope import DEAD, Tag, republished
from narrowboat_rabbitmq.protocol.ladder import start
from narrowboat_rabbitmq.stream import Job, Stream

Answers = list[NarrowboatError | None]


class Settlement:
    """See the module's text. `counted`: the queue counts what is given back to it."""

    def __init__(self, client: Client, source: Source, *, counted: bool) -> None:
        self._client = client
        self._address = source.address
        self._counted = counted
        self._route = client.sources.route(source.address)
        self._path = self._route.path

    def settle(self, stream: Stream, settlements: Sequence[tuple[Delivery, Outcome]], deadline: float) -> Answers:
        """Settle each delivery: None where it is settled."""
        answers: Answers = [None] * len(settlements)
        acks: list[int] = []
        given_back: list[int] = []
        freed: list[int] = []
        copies: list[tuple[int, Record]] = []
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
            elif isinstance(outcome, Reject) and not has_dead_letters(self._address):
                acks.append(tag.number)  # dropped
            else:
                copies.append((index, self._copy(delivery, outcome)))
        copied: set[int] = set()
        if copies:
            self._publish(settlements, copies, answers, deadline)
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
        answers: Answers,
        deadline: float,
    ) -> None:
        unknown = self._submit(stream, job, deadline)
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

    def _submit(self, stream: Stream, job: Job, deadline: float) -> NarrowboatError | None:
        """Send the acks of `job` and wait for their answer; why it is not known."""
        client, channel = self._client, stream.channel
        assert channel is not None
        heard = channel.session.heard
        client.loop.post(lambda: stream.submit(job))
        doing = f"settling messages of {self._path!r}"
        if not job.answer.wait(deadline - client.clock()):
            client.link.doubt(channel.session, heard)
            # Who asks again must not hear that nothing was changed, whenever the answer comes.
            client.loop.post(lambda: channel.unanswered.update(job.numbers))
            return Unavailable(
                f"{client.endpoint} did not answer within {client.timeout:g} s while {doing}. They may or may not be settled.",
                backend=SCHEME,
            )
        if job.answer.error is not None:
            return channel_error(job.answer.error, client.endpoint, Operation(doing, deadline, self._route))
        return None

    def _copy(self, delivery: Delivery, outcome: Outcome) -> Record:
        """The message as it is to be published again."""
        tag: Tag = delivery.tag  # type: ignore[assignment]  # this driver's own
        sources, route = self._client.sources, self._route
        if isinstance(outcome, Reject):
            route = sources.route(self._address.dead)
            dead = dict(zip(DEAD, (outcome.reason, str(outcome.attempts), self._path), strict=True))
            properties = republished(tag, dead, attempts=0, mortal=False)
        else:
            # Before 4.3 a server counts whatever is given back: what was not started is published again instead.
            attempts = delivery.attempt if isinstance(outcome, Nack) else delivery.attempt - 1
            properties = republished(tag, {}, attempts=attempts)
            if isinstance(outcome, Nack) and outcome.delay > 0:
                level, key = start(outcome.delay, route.word)
                return Record(sources.ladder.exchange(level), key, delivery.body, properties, True)
        return Record(route.exchange, route.routing_key, delivery.body, properties, route.mandatory)

    def _publish(
        self,
        settlements: Sequence[tuple[Delivery, Outcome]],
        copies: Sequence[tuple[int, Record]],
        answers: Answers,
        deadline: float,
    ) -> None:
        """Publish the copies; a delivery whose copy is not confirmed is not settled."""
        client = self._client
        outcomes = [settlements[index][1] for index, _ in copies]
        delay = max((outcome.delay for outcome in outcomes if isinstance(outcome, Nack)), default=0.0)
        if delay > 0:
            client.sources.ensure_delay(self._address, start(delay, "")[0], deadline)
        if any(isinstance(outcome, Reject) for outcome in outcomes):
            client.sources.ensure_dead(self._address.dead, deadline)
        operation = Operation(f"moving messages of {self._path!r}", deadline)
        batch = client.publisher.publish([record for _, record in copies], operation)
        for (index, _), outcome in zip(copies, batch.results, strict=True):
            if outcome is not CONFIRMED:
                answers[index] = Unavailable(
                    f"message {settlements[index][0].id!r} from {self._path!r}: its copy was not confirmed ({outcome.value}), "
                    "so it was not settled. It comes back, and may come twice.",
                    backend=SCHEME,
                )

    def _gone(self, delivery: Delivery) -> NarrowboatError:
        """The error for what is no longer ours: unknown where we settled it, and the channel ended before that was answered."""
        tag: Tag = delivery.tag  # type: ignore[assignment]  # this driver's own
        if tag.number in tag.channel.unanswered:
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
