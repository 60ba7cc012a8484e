"""Brokers whose queues, topics and groups are not what was declared."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

from mutants import Mutant
from mutants.layers import Installs, Joins, Shared, Sources, named
from narrowboat.contract.messages import Address, Broker, Depth, Feed, Kind, Outgoing, Properties, Receipt, Received, Source
from narrowboat.errors import Conflict, NarrowboatError, NotFound
from narrowboat.layers.passing import PassingBroker, PassingFeed


class QueuesOfNamespacesMeet(Joins, PassingBroker):
    """Keeps the messages of all namespaces in one."""

    _all: Shared[Broker] = Shared()


class QueueNamesFoldCase(Sources):
    """Takes two queues whose names differ in case for one."""

    def kept(self, source: Source) -> Source:
        return source._replace(address=self._folded(source.address))

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        return self.inner.send([message._replace(to=self._folded(message.to)) for message in messages])

    def depth(self, address: Address) -> Depth:
        return self.inner.depth(self._folded(address))

    @staticmethod
    def _folded(address: Address) -> Address:
        return address._replace(name=address.name.lower())


class DeclareDoesNothing(PassingBroker):
    """Makes a group when it is consumed from, and not when it is declared."""

    def declare(self, source: Source, *, earliest: bool) -> None:
        """Do nothing."""


class DeclareNeverDisagrees(PassingBroker):
    """Accepts a declare that disagrees with what is there."""

    def declare(self, source: Source, *, earliest: bool) -> None:
        try:
            self.inner.declare(source, earliest=earliest)
        except Conflict:
            pass


class DeleteDoesNothing(PassingBroker):
    """Says that a queue or group is deleted, and leaves it."""

    def delete(self, address: Address) -> bool:
        return True


class OneGroupOnly(PassingBroker):
    """Gives a topic's messages to the group that was declared first, as if it were a queue."""

    def __init__(self, inner: Broker) -> None:
        super().__init__(inner)
        self._first: dict[str, Source] = {}

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        return super().open(self._only(source), earliest=earliest, wake=wake)

    def declare(self, source: Source, *, earliest: bool) -> None:
        self.inner.declare(self._only(source), earliest=earliest)

    def _only(self, source: Source) -> Source:
        if source.address.kind is not Kind.SUBSCRIPTION:
            return source
        return self._first.setdefault(source.address.name, source)


class OrderIgnored(Sources):
    """Declares an ordered source as one without order."""

    def kept(self, source: Source) -> Source:
        return source._replace(properties=source.properties._replace(ordered=False))


class _Backwards(PassingFeed):
    """Delivers each batch in reverse order."""

    def receive(self, limit: int) -> Received:
        received = self.inner.receive(limit)
        return received._replace(deliveries=received.deliveries[::-1])


class OrderTurnedRound(OrderIgnored):
    """Delivers the messages of a key together, the newest first."""

    def feed(self, inner: Feed, wake: Callable[[], None]) -> Feed:
        return _Backwards(inner)


class OrderForAll(Sources):
    """Keeps the order of each key also in a source without order: an unsettled message holds up those behind it."""

    def kept(self, source: Source) -> Source:
        return source._replace(properties=source.properties._replace(ordered=True))


class LeaseTooShort(Sources):
    """Ends a lease long before its time."""

    def kept(self, source: Source) -> Source:
        # A fiftieth: the stretched lease of a busy machine must end too while the scenario looks.
        return source._replace(properties=source.properties._replace(lease=source.properties.lease / 50))


class DepthForgetsTheDead(PassingBroker):
    """Counts no dead letters and nothing that is in flight."""

    def depth(self, address: Address) -> Depth:
        return dataclasses.replace(self.inner.depth(address), dead=0, in_flight=0)


class OldestOfAll(PassingBroker):
    """Tells how long ago something was published first, and never forgets it."""

    def __init__(self, inner: Broker) -> None:
        super().__init__(inner)
        self._first: float | None = None

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        self._first = self._first or time.monotonic()
        return self.inner.send(messages)

    def depth(self, address: Address) -> Depth:
        age = None if self._first is None else time.monotonic() - self._first
        return dataclasses.replace(self.inner.depth(address), oldest=age)


class OldestByTheNext(PassingBroker):
    """Takes the message that is handed out next for the oldest, as where the first of a stream is looked at alone."""

    def __init__(self, inner: Broker) -> None:
        super().__init__(inner)
        self._highest = (-1, 0.0)

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        for message in messages:
            if message.priority > self._highest[0]:
                self._highest = message.priority, time.monotonic()
        return self.inner.send(messages)

    def depth(self, address: Address) -> Depth:
        found = self.inner.depth(address)
        return found if found.oldest is None else dataclasses.replace(found, oldest=time.monotonic() - self._highest[1])


class QueueMadeTwice(Installs, PassingBroker):
    """Makes a queue when it is missing, and fails when another first user was faster."""

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        if self.stumbles():
            return [Conflict("there is such a queue already") for _ in messages]
        return self.inner.send(messages)


class AlterDoesNothing(PassingBroker):
    """Says that a limit was altered, and stores nothing."""

    def alter(self, address: Address, *, lease: float | None, max_deliveries: int | None) -> Properties:
        found = self.inner.alter(address, lease=None, max_deliveries=None)
        return found._replace(
            lease=found.lease if lease is None else lease,
            max_deliveries=found.max_deliveries if max_deliveries is None else max_deliveries,
        )


class AlterMakesItAnew(PassingBroker):
    """Alters a queue as one would by hand: deletes it with its messages, and declares it."""

    def alter(self, address: Address, *, lease: float | None, max_deliveries: int | None) -> Properties:
        altered = self.inner.alter(address, lease=lease, max_deliveries=max_deliveries)
        self.inner.delete(address)
        self.inner.declare(Source(address, altered), earliest=False)
        return altered


class AlterIsSeenByNewcomersOnly(PassingBroker):
    """Tells each connection what was stored when it asked first."""

    def __init__(self, inner: Broker) -> None:
        super().__init__(inner)
        self._first: dict[Address, Properties] = {}

    def stored(self, address: Address) -> Properties | None:
        found = self.inner.stored(address)
        return found if found is None else self._first.setdefault(address, found)


class AlterMakesWhatIsMissing(PassingBroker):
    """Declares what is to be altered and is not there."""

    def alter(self, address: Address, *, lease: float | None, max_deliveries: int | None) -> Properties:
        try:
            return self.inner.alter(address, lease=lease, max_deliveries=max_deliveries)
        except NotFound:
            self.inner.declare(Source(address, Properties()), earliest=False)
            return self.inner.alter(address, lease=lease, max_deliveries=max_deliveries)


class LimitsMustAgree(PassingBroker):
    """Refuses a consumer that asks for another limit than is stored, as it does with the order."""

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        self._agree(source)
        return super().open(source, earliest=earliest, wake=wake)

    def declare(self, source: Source, *, earliest: bool) -> None:
        self._agree(source)
        self.inner.declare(source, earliest=earliest)

    def _agree(self, source: Source) -> None:
        stored = None if source.address.kind is Kind.TOPIC else self.inner.stored(source.address)
        if stored is not None and stored.max_deliveries != source.properties.max_deliveries:
            raise Conflict("it has another limit")


class StoredLeaseForAll(Sources):
    """Claims with the lease that is stored, whatever a consumer asks for."""

    def kept(self, source: Source) -> Source:
        stored = None if source.address.kind is Kind.TOPIC else self.inner.stored(source.address)
        return source if stored is None else source._replace(properties=source.properties._replace(lease=stored.lease))


class ListsDeadLettersToo(PassingBroker):
    """Lists each queue with one for its dead letters."""

    def sources(self) -> list[Address]:
        return [each for found in self.inner.sources() for each in (found, found.dead)]


class ListsQueuesOnly(PassingBroker):
    """Lists no group."""

    def sources(self) -> list[Address]:
        return [found for found in self.inner.sources() if found.kind is not Kind.SUBSCRIPTION]


MUTANTS: list[Mutant] = [
    named(QueuesOfNamespacesMeet, "B106"),
    named(QueueNamesFoldCase, "B11"),
    named(DeclareDoesNothing, "B14"),
    named(DeclareNeverDisagrees, "B16", "B18"),
    named(DeleteDoesNothing, "B18", "B100"),
    named(OneGroupOnly, "B12", "B16"),
    named(OrderIgnored, "B58", "B59"),
    named(OrderTurnedRound, "B56", "B61"),
    named(OrderForAll, "B37"),
    named(LeaseTooShort, "B22", "B26"),
    named(DepthForgetsTheDead, "B102", "B40"),
    named(QueueMadeTwice, "B126"),
    named(AlterDoesNothing, "B128"),
    named(AlterMakesItAnew, "B128"),
    named(AlterIsSeenByNewcomersOnly, "B128"),
    named(AlterMakesWhatIsMissing, "B130"),
    named(LimitsMustAgree, "B129"),
    named(StoredLeaseForAll, "B129"),
    named(ListsDeadLettersToo, "B131"),
    named(ListsQueuesOnly, "B131"),
    named(OldestOfAll, "B132"),
    named(OldestByTheNext, "B132"),
]
