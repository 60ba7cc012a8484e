"""Brokers that settle something else than they are told, or forget it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mutants import Mutant
from mutants.layers import Changed, Out, TellsBroker, TellsFeed, named
from narrowboat.contract.messages import (
    Ack,
    Address,
    Broker,
    Delivery,
    Feed,
    Kind,
    Nack,
    Outcome,
    Outgoing,
    Received,
    Reject,
    Return,
    Source,
)
from narrowboat.errors import NarrowboatError, NotFound, StaleDelivery
from narrowboat.layers.passing import PassingBroker, PassingFeed


class AckOfTheWrongDelivery(Out):
    """Acknowledges the oldest unsettled delivery instead of the one that it is told."""

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        wrong = [(self.out.pop(0) if self.out and isinstance(o, Ack) else d, o) for d, o in settlements]
        return self.inner.settle(wrong)


class AckIsANack(Changed):
    """Returns an acknowledged message."""

    def change(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        return Nack() if isinstance(outcome, Ack) else outcome


class AcksLater(PassingFeed):
    """Answers an ack at once, and makes it together with the next settlement. The last acks are lost."""

    def __init__(self, inner: Feed) -> None:
        super().__init__(inner)
        self._kept: list[tuple[Delivery, Outcome]] = []

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        before, self._kept = self._kept, list(settlements)
        self.inner.settle(before)
        return [None] * len(settlements)


class SettlesOneOfABatch(PassingFeed):
    """Settles the first of a batch, returns the others, and says that all are settled."""

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        first, others = settlements[:1], settlements[1:]
        answers = self.inner.settle([*first, *((delivery, Nack()) for delivery, _ in others)])
        return [*answers[:1], *(None for _ in others)]


class OneAnswerForABatch(PassingFeed):
    """Says of a batch that all of it is settled when its first one is."""

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        return self.inner.settle(settlements)[:1] * len(settlements)


class NackLoses(Changed):
    """Drops a nacked message."""

    def change(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        return Ack() if isinstance(outcome, Nack) else outcome


class NackForgetsItsDelay(Changed):
    """Returns a message at once although a delay was asked for."""

    def change(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        return Nack() if isinstance(outcome, Nack) else outcome


class _Stops(TellsFeed):
    def receive(self, limit: int) -> Received:
        if self._broker.stopped not in (None, self):
            return Received([], 0.5)
        return self.inner.receive(limit)

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        if self._broker.stopped is None and any(isinstance(outcome, Nack) for _, outcome in settlements):
            self._broker.stopped = self
        return self.inner.settle(settlements)


class NackStopsTheOthers(TellsBroker):
    """Delivers nothing more to other consumers once one of them has nacked a message."""

    kind = _Stops
    stopped: Feed | None = None  #: the feed that stopped the others


class RejectDrops(Changed):
    """Drops a rejected message instead of keeping it as a dead letter."""

    def change(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        return Ack() if isinstance(outcome, Reject) else outcome


class RejectForgetsWhy(Changed):
    """Keeps a dead letter without its reason and attempts."""

    def change(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        return Reject("unknown", 0) if isinstance(outcome, Reject) else outcome


class DeadLetterTwice(PassingBroker):
    """Stores each dead letter twice."""

    def feed(self, inner: Feed, wake: Callable[[], None]) -> Feed:
        return _RejectsTwice(inner, self.inner, self._path)

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        self._path = source.address.path
        return super().open(source, earliest=earliest, wake=wake)


class _RejectsTwice(PassingFeed):
    def __init__(self, inner: Feed, broker: Broker, path: str) -> None:
        super().__init__(inner)
        self._broker = broker
        self._dead = Address(Kind.QUEUE, f"{path}.dead")

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        for delivery, outcome in settlements:
            if isinstance(outcome, Reject):
                copy = Outgoing(
                    self._dead, delivery.id, delivery.body, delivery.headers, delivery.key, 0.0, 0.0, 0, None,
                    delivery.correlation_id, delivery.content_type, None, dedup=False,
                )  # fmt: skip
                self._broker.send([copy])
        return self.inner.settle(settlements)


class DeadLettersComeAgain(PassingBroker):
    """Keeps a dead letter that is rejected."""

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        feed = super().open(source, earliest=earliest, wake=wake)
        return _NacksRejected(feed) if source.address.path.endswith(".dead") else feed


class _NacksRejected(Changed):
    def change(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        return Nack() if isinstance(outcome, Reject) else outcome


class ReturnIsCounted(Changed):
    """Counts a message as delivered that was fetched and never started."""

    def change(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        return Nack() if isinstance(outcome, Return) else outcome


class ReturnLoses(Changed):
    """Drops a message that was fetched and never started."""

    def change(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        return Ack() if isinstance(outcome, Return) else outcome


class StaleAccepted(PassingFeed):
    """Says that a stale delivery is settled."""

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        return [None if isinstance(each, StaleDelivery) else each for each in self.inner.settle(settlements)]


class StaleEndsTheFeed(PassingFeed):
    """Ends the consumer that settles a delivery twice, as a protocol does that takes it for a broken client."""

    def __init__(self, inner: Feed) -> None:
        super().__init__(inner)
        self._ended = False

    def receive(self, limit: int) -> Received:
        if self._ended:
            raise NotFound("this channel was closed: unknown delivery tag")
        return self.inner.receive(limit)

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        answers = self.inner.settle(settlements)
        self._ended = self._ended or any(isinstance(answer, StaleDelivery) for answer in answers)
        return answers


class ExtendDoesNothing(PassingFeed):
    """Answers that a lease was extended, and leaves it as it is."""

    def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[NarrowboatError | None]:
        return [None] * len(deliveries)


MUTANTS: list[Mutant] = [
    named(AckOfTheWrongDelivery, "B28", "B39"),
    named(AckIsANack, "B01", "B21"),
    named(AcksLater, "B28", "B39", "B75"),
    named(SettlesOneOfABatch, "B29"),
    named(OneAnswerForABatch, "B29"),
    named(NackLoses, "B23", "B40"),
    named(NackForgetsItsDelay, "B46", "B47", "B55", "B58"),
    named(NackStopsTheOthers, "B99"),
    named(RejectDrops, "B24", "B41", "B43", "B44"),
    named(RejectForgetsWhy, "B24", "B41"),
    named(DeadLetterTwice, "B41"),
    named(DeadLettersComeAgain, "B41"),
    named(ReturnIsCounted, "B34", "B38"),
    named(ReturnLoses, "B33", "B38", "B90", "B93"),
    named(StaleAccepted, "B26", "B80"),
    named(StaleEndsTheFeed, "B26", "B80"),
    named(ExtendDoesNothing, "B30", "B31"),
]
