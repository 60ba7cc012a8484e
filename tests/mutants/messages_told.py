"""Brokers that tell one caller what is true of another, and mix up times, names, and what belongs to what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mutants import Mutant
from mutants.layers import Sends, named
from narrowboat.contract.messages import (
    Address,
    Broker,
    Delivery,
    Depth,
    Feed,
    Kind,
    Outgoing,
    Properties,
    Receipt,
    Source,
)
from narrowboat.errors import NarrowboatError
from narrowboat.layers.passing import PassingBroker, PassingFeed
from narrowboat_memory.broker import MemoryBroker
from narrowboat_memory.messages import Messages
from narrowboat_memory.space import space


class TtlFromWhenItIsDue(Sends):
    """Counts the time to live of a delayed message from when it is due."""

    def change(self, message: Outgoing) -> Outgoing:
        return message if message.ttl is None else message._replace(ttl=message.ttl + message.delay)


class TopicLeavesItsGroups(PassingBroker):
    """Deletes a topic, and leaves its groups with what they have."""

    def __init__(self, inner: Broker) -> None:
        super().__init__(inner)
        self._deleted: set[str] = set()

    def delete(self, address: Address) -> bool:
        if address.kind is not Kind.TOPIC:
            return self.inner.delete(address)
        there = address.name not in self._deleted and address in self.inner.sources()
        self._deleted.add(address.name)
        return there

    def sources(self) -> list[Address]:
        return [each for each in self.inner.sources() if each.kind is Kind.QUEUE or each.name not in self._deleted]


class OneRefusalForTheSend(PassingBroker):
    """Raises the refusal of one message for all that are sent with it."""

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        answers = self.inner.send(messages)
        for answer in answers:
            if isinstance(answer, NarrowboatError):
                raise answer
        return answers


class ExtensionsAddUp(PassingFeed):
    """Adds an extension to those before it."""

    def __init__(self, inner: Feed) -> None:
        super().__init__(inner)
        self._times: dict[Any, int] = {}

    def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[NarrowboatError | None]:
        answers: list[NarrowboatError | None] = []
        for delivery in deliveries:
            times = self._times[delivery.tag] = self._times.get(delivery.tag, 0) + 1
            answers += self.inner.extend([delivery], seconds * times)
        return answers


class PrefixAndNameMeet(PassingBroker):
    """Joins a namespace and a name with a dot, and keeps no other border between them."""

    def __init__(self, inner: MemoryBroker) -> None:
        self._prefix = inner._options.prefix
        inner.messages = space(Messages, "joined", "")
        super().__init__(inner)

    def _there(self, address: Address) -> Address:
        return address if address.kind is Kind.INBOX else address._replace(name=f"{self._prefix}.{address.name}")

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        return self.inner.send([message._replace(to=self._there(message.to)) for message in messages])

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        return super().open(source._replace(address=self._there(source.address)), earliest=earliest, wake=wake)

    def declare(self, source: Source, *, earliest: bool) -> None:
        self.inner.declare(source._replace(address=self._there(source.address)), earliest=earliest)

    def stored(self, address: Address) -> Properties | None:
        return self.inner.stored(self._there(address))

    def alter(self, address: Address, *, lease: float | None, max_deliveries: int | None) -> Properties:
        return self.inner.alter(self._there(address), lease=lease, max_deliveries=max_deliveries)

    def sources(self) -> list[Address]:
        mine = f"{self._prefix}."
        return [each._replace(name=each.name.removeprefix(mine)) for each in self.inner.sources() if each.name.startswith(mine)]

    def delete(self, address: Address) -> bool:
        return self.inner.delete(self._there(address))

    def purge(self, address: Address) -> int:
        return self.inner.purge(self._there(address))

    def depth(self, address: Address) -> Depth:
        return self.inner.depth(self._there(address))


MUTANTS: list[Mutant] = [
    named(TtlFromWhenItIsDue, "B52"),
    named(TopicLeavesItsGroups, "B100"),
    named(OneRefusalForTheSend, "B07"),
    named(ExtensionsAddUp, "B30"),
    named(PrefixAndNameMeet, "B106"),
]
