"""Brokers that are broken on purpose: each breaks one promise, and names the ids that must catch it, each of them.

A kit that no mutant can make fail proves nothing. Each of these is a layer in front of a driver that works, so it breaks
any backend in the same way.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from narrowboat.conformance.mutants import Mutant
from narrowboat.contract.messages import (
    Ack,
    Address,
    Broker,
    Delivery,
    Depth,
    Feed,
    Kind,
    Nack,
    Outcome,
    Outgoing,
    Receipt,
    Received,
    Reject,
    Return,
    Source,
)
from narrowboat.errors import NarrowboatError, StaleDelivery
from narrowboat.layers.passing import PassingBroker, PassingFeed


class _Feeds(PassingBroker):
    """A broker whose feeds are of `kind`."""

    kind: type[PassingFeed]

    def feed(self, inner: Feed, wake: Callable[[], None]) -> Feed:
        """Behind the broken one."""
        return self.kind(inner)


def _feeds(broken: type[PassingFeed]) -> Callable[[Broker], Broker]:
    return type(f"{broken.__name__}Broker", (_Feeds,), {"kind": broken})


class _Changed(PassingFeed):
    """Settles something else than what was asked for."""

    def change(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        """What is done instead."""
        return outcome

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        """Changed."""
        return self.inner.settle([(delivery, self.change(delivery, outcome)) for delivery, outcome in settlements])


class AckOfTheWrongDelivery(PassingFeed):
    """Acknowledges the oldest delivery that is out instead of the one it is told."""

    def __init__(self, inner: Feed) -> None:
        super().__init__(inner)
        self._out: list[Delivery] = []

    def receive(self, limit: int) -> Received:
        """Noted."""
        received = self.inner.receive(limit)
        self._out += received.deliveries
        return received

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        """The wrong one."""
        wrong = [(self._out.pop(0) if self._out and isinstance(o, Ack) else d, o) for d, o in settlements]
        return self.inner.settle(wrong)


class AckIsANack(_Changed):
    """Gives an acknowledged message back."""

    def change(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        """A nack."""
        return Nack() if isinstance(outcome, Ack) else outcome


class NackLoses(_Changed):
    """Drops a nacked message."""

    def change(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        """An ack."""
        return Ack() if isinstance(outcome, Nack) else outcome


class NackForgetsItsDelay(_Changed):
    """Gives a message back at once although a delay was asked for."""

    def change(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        """Without a delay."""
        return Nack() if isinstance(outcome, Nack) else outcome


class RejectDrops(_Changed):
    """Drops a rejected message instead of keeping it as a dead letter."""

    def change(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        """An ack."""
        return Ack() if isinstance(outcome, Reject) else outcome


class RejectForgetsWhy(_Changed):
    """Keeps a dead letter without its reason and attempts."""

    def change(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        """Another reason."""
        return Reject("unknown", 0) if isinstance(outcome, Reject) else outcome


class ReturnIsCounted(_Changed):
    """Counts what was fetched and never started."""

    def change(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        """A nack."""
        return Nack() if isinstance(outcome, Return) else outcome


class ReturnLoses(_Changed):
    """Drops what was fetched and never started."""

    def change(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        """An ack."""
        return Ack() if isinstance(outcome, Return) else outcome


class AttemptsNotCounted(PassingFeed):
    """Says at each delivery that it is the first."""

    def receive(self, limit: int) -> Received:
        """Attempt 1."""
        received = self.inner.receive(limit)
        return received._replace(deliveries=[each._replace(attempt=1) for each in received.deliveries])


class ReceiveIgnoresItsLimit(PassingFeed):
    """Claims more messages than it was asked for."""

    def receive(self, limit: int) -> Received:
        """Five more."""
        return self.inner.receive(limit + 5)


class StaleAccepted(PassingFeed):
    """Says that a delivery which is no longer ours is settled."""

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        """No complaint."""
        return [None if isinstance(each, StaleDelivery) else each for each in self.inner.settle(settlements)]


class ExtendDoesNothing(PassingFeed):
    """Answers that a lease was extended, and leaves it as it is."""

    def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[NarrowboatError | None]:
        """Nothing."""
        return [None] * len(deliveries)


class SwallowsOne(PassingFeed):
    """Keeps every ninth message that it fetched to itself, as if it had been acknowledged."""

    def __init__(self, inner: Feed) -> None:
        super().__init__(inner)
        self._number = itertools.count()

    def receive(self, limit: int) -> Received:
        """Without some."""
        received = self.inner.receive(limit)
        swallowed = [each for each in received.deliveries if next(self._number) % 9 == 8]
        if swallowed:
            self.inner.settle([(each, Ack()) for each in swallowed])
        return received._replace(deliveries=[each for each in received.deliveries if each not in swallowed])


class _Backwards(PassingFeed):
    """Hands out each batch in the wrong order."""

    def receive(self, limit: int) -> Received:
        """Turned round."""
        received = self.inner.receive(limit)
        return received._replace(deliveries=received.deliveries[::-1])


class _Sends(PassingBroker):
    """Stores something else than it is told."""

    def change(self, message: Outgoing) -> Outgoing:
        """What is stored instead."""
        return message

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        """Changed."""
        return self.inner.send([self.change(message) for message in messages])


class DelayTooShort(_Sends):
    """Lets a delayed message out too early."""

    def change(self, message: Outgoing) -> Outgoing:
        """Half the delay."""
        return message._replace(delay=message.delay / 2)


class TtlIgnored(_Sends):
    """Never lets a message expire."""

    def change(self, message: Outgoing) -> Outgoing:
        """Without a ttl."""
        return message._replace(ttl=None)


class DedupNever(_Sends):
    """Stores a message of an id that it has seen."""

    def change(self, message: Outgoing) -> Outgoing:
        """Without deduplication."""
        return message._replace(dedup=False)


class PriorityIgnored(_Sends):
    """Treats all priorities alike."""

    def change(self, message: Outgoing) -> Outgoing:
        """The lowest."""
        return message._replace(priority=0)


class HeadersLost(_Sends):
    """Drops headers that are not ASCII."""

    def change(self, message: Outgoing) -> Outgoing:
        """Without some."""
        return message._replace(headers={k: v for k, v in message.headers.items() if (k + v).isascii()})


class SendsTwice(PassingBroker):
    """Stores each message without an id of its caller's twice, as a client that retries behind one's back does."""

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        """Twice."""
        self.inner.send([message for message in messages if not message.dedup])
        return self.inner.send(messages)


class ConfirmsTooEarly(PassingBroker):
    """Gives receipts for all of a batch, and stores all but every eleventh."""

    def __init__(self, inner: Broker) -> None:
        super().__init__(inner)
        self._number = itertools.count()

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        """Some are forgotten."""
        kept = [message for message in messages if next(self._number) % 11 != 10]
        if kept:
            self.inner.send(kept)
        return [Receipt(message.id) for message in messages]


class DeadLetterTwice(PassingBroker):
    """Stores each dead letter twice."""

    def feed(self, inner: Feed, wake: Callable[[], None]) -> Feed:
        """Its feeds reject twice."""
        return _RejectsTwice(inner, self.inner, self._path)

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        """Remembered."""
        self._path = source.address.path
        return super().open(source, earliest=earliest, wake=wake)


class _RejectsTwice(PassingFeed):
    def __init__(self, inner: Feed, broker: Broker, path: str) -> None:
        super().__init__(inner)
        self._broker = broker
        self._dead = Address(Kind.QUEUE, f"{path}.dead")

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        """A second copy first."""
        for delivery, outcome in settlements:
            if isinstance(outcome, Reject):
                copy = Outgoing(
                    self._dead, delivery.id, delivery.body, delivery.headers, delivery.key, 0.0, 0.0, 0, None,
                    delivery.correlation_id, delivery.content_type, None, dedup=False,
                )  # fmt: skip
                self._broker.send([copy])
        return self.inner.settle(settlements)


class OneGroupOnly(PassingBroker):
    """Gives a topic's messages to the group that was declared first, as if it were a queue."""

    def __init__(self, inner: Broker) -> None:
        super().__init__(inner)
        self._first: dict[str, Source] = {}

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        """The first group's feed."""
        return super().open(self._only(source), earliest=earliest, wake=wake)

    def declare(self, source: Source, *, earliest: bool) -> None:
        """The first group."""
        self.inner.declare(self._only(source), earliest=earliest)

    def _only(self, source: Source) -> Source:
        if source.address.kind is not Kind.SUBSCRIPTION:
            return source
        return self._first.setdefault(source.address.name, source)


class OrderIgnored(PassingBroker):
    """Declares an ordered source as one without order."""

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        """Unordered."""
        return super().open(_unordered(source), earliest=earliest, wake=wake)

    def declare(self, source: Source, *, earliest: bool) -> None:
        """Unordered."""
        self.inner.declare(_unordered(source), earliest=earliest)


class OrderTurnedRound(OrderIgnored):
    """Hands out what it has of a key together, the newest first."""

    def feed(self, inner: Feed, wake: Callable[[], None]) -> Feed:
        """Backwards."""
        return _Backwards(inner)


def _unordered(source: Source) -> Source:
    return source._replace(properties=source.properties._replace(ordered=False))


class LeaseTooShort(PassingBroker):
    """Takes a delivery away long before its lease ends."""

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        """A fifth of it."""
        return super().open(_short(source), earliest=earliest, wake=wake)

    def declare(self, source: Source, *, earliest: bool) -> None:
        """A fifth of it."""
        self.inner.declare(_short(source), earliest=earliest)


def _short(source: Source) -> Source:
    return source._replace(properties=source.properties._replace(lease=source.properties.lease / 5))


class DepthForgetsTheDead(PassingBroker):
    """Counts no dead letters and nothing that is in flight."""

    def depth(self, address: Address) -> Depth:
        """Zero."""
        return self.inner.depth(address)._replace(dead=0, in_flight=0)


class BodyCut(_Sends):
    """Cuts a body at its first zero byte."""

    def change(self, message: Outgoing) -> Outgoing:
        """Cut."""
        return message._replace(body=message.body.split(b"\0")[0])


class PropertiesLost(_Sends):
    """Keeps neither the correlation id nor the content type."""

    def change(self, message: Outgoing) -> Outgoing:
        """Without."""
        return message._replace(correlation_id=None, content_type=None)


def _mutant(wrap: Callable[[Broker], Broker] | type[PassingFeed], *ids: str) -> Mutant:
    """Named after its class, described by its docstring."""
    made = _feeds(wrap) if isinstance(wrap, type) and issubclass(wrap, PassingFeed) else wrap
    name = "".join(f" {c.lower()}" if c.isupper() else c for c in getattr(wrap, "__name__", "")).strip()
    return Mutant(name, (wrap.__doc__ or "").strip(), made, ids=ids)


MUTANTS: list[Mutant] = [
    _mutant(AckOfTheWrongDelivery, "B28"),
    _mutant(AckIsANack, "B01", "B21"),
    _mutant(NackLoses, "B23", "B40"),
    _mutant(NackForgetsItsDelay, "B47", "B58"),
    _mutant(RejectDrops, "B24", "B41", "B43", "B44"),
    _mutant(RejectForgetsWhy, "B24", "B41"),
    _mutant(ReturnIsCounted, "B34", "B38"),
    _mutant(ReturnLoses, "B33", "B38", "B93"),
    _mutant(AttemptsNotCounted, "B22", "B32", "B34"),
    _mutant(ReceiveIgnoresItsLimit, "B35", "B36"),
    _mutant(StaleAccepted, "B26", "B27", "B80"),
    _mutant(ExtendDoesNothing, "B30", "B31"),
    _mutant(SwallowsOne, "B01", "B62"),
    _mutant(DelayTooShort, "B47"),
    _mutant(TtlIgnored, "B51", "B52"),
    _mutant(DedupNever, "B54", "B73"),
    _mutant(PriorityIgnored, "B53"),
    _mutant(HeadersLost, "B03"),
    _mutant(PropertiesLost, "B05", "B107"),
    _mutant(SendsTwice, "B01", "B07", "B13", "B86", "B98"),
    _mutant(ConfirmsTooEarly, "B01", "B20", "B62", "B95"),
    _mutant(DeadLetterTwice, "B41"),
    _mutant(OneGroupOnly, "B12", "B16"),
    _mutant(OrderIgnored, "B58", "B59"),
    _mutant(OrderTurnedRound, "B56", "B61"),
    _mutant(LeaseTooShort, "B22", "B26"),
    _mutant(DepthForgetsTheDead, "B102", "B40"),
    _mutant(BodyCut, "B02"),
]
