"""Brokers that store something else than they are told, confirm what they have not stored, or deliver it at another time."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Sequence

from mutants import Mutant
from mutants.layers import Sends, named
from narrowboat.contract.messages import Address, Broker, Feed, Kind, Outgoing, Receipt, Source
from narrowboat.errors import NarrowboatError, Unavailable
from narrowboat.layers.passing import PassingBroker


class BodyCut(Sends):
    """Cuts a body at its first zero byte."""

    def change(self, message: Outgoing) -> Outgoing:
        return message._replace(body=message.body.split(b"\0")[0])


class BodyIsText(Sends):
    """Keeps a body as text, with a mark in place of bytes that are no text."""

    def change(self, message: Outgoing) -> Outgoing:
        return message._replace(body=message.body.decode(errors="replace").encode())


class KeyForgotten(Sends):
    """Does not keep a message's key."""

    def change(self, message: Outgoing) -> Outgoing:
        return message._replace(key=None)


class HeadersLost(Sends):
    """Drops headers that are not ASCII."""

    def change(self, message: Outgoing) -> Outgoing:
        return message._replace(headers={k: v for k, v in message.headers.items() if (k + v).isascii()})


class PropertiesLost(Sends):
    """Keeps neither the correlation id nor the content type."""

    def change(self, message: Outgoing) -> Outgoing:
        return message._replace(correlation_id=None, content_type=None)


class TtlIgnored(Sends):
    """Never lets a message expire."""

    def change(self, message: Outgoing) -> Outgoing:
        return message._replace(ttl=None)


class DedupNever(Sends):
    """Stores a message with an id that it has seen."""

    def change(self, message: Outgoing) -> Outgoing:
        return message._replace(dedup=False)


class PriorityIgnored(Sends):
    """Treats all priorities alike."""

    def change(self, message: Outgoing) -> Outgoing:
        return message._replace(priority=0)


class SendsTwice(PassingBroker):
    """Stores each message without a given id twice, as a client does that retries by itself."""

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        self.inner.send([message for message in messages if not message.dedup])
        return self.inner.send(messages)


class ConfirmsTooEarly(PassingBroker):
    """Gives receipts for all of a batch, and stores all but every eleventh."""

    def __init__(self, inner: Broker) -> None:
        super().__init__(inner)
        self._number = itertools.count()

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        kept = [message for message in messages if next(self._number) % 11 != 10]
        if kept:
            self.inner.send(kept)
        return [Receipt(message.id) for message in messages]


class DropsWithoutAConsumer(PassingBroker):
    """Drops what is published to a queue that the same connection does not consume from, and gives a receipt for it."""

    def __init__(self, inner: Broker) -> None:
        super().__init__(inner)
        self._consumed: set[Address] = set()

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        self._consumed.add(source.address)
        return super().open(source, earliest=earliest, wake=wake)

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        kept = [each for each in messages if each.to.kind is not Kind.QUEUE or each.to in self._consumed]
        answers = dict(zip((id(each) for each in kept), self.inner.send(kept), strict=True))
        return [answers.get(id(message), Receipt(message.id)) for message in messages]


# -- at another time ------------------------------------------------------------------------------------------------


class DelayTooShort(Sends):
    """Delivers a delayed message after half its delay."""

    def change(self, message: Outgoing) -> Outgoing:
        return message._replace(delay=message.delay / 2)


class DelaysInLine(Sends):
    """Delivers no delayed message before those that were delayed earlier."""

    def __init__(self, inner: Broker) -> None:
        super().__init__(inner)
        self._last = 0.0  # the time at which the last one is due

    def change(self, message: Outgoing) -> Outgoing:
        if not message.delay:
            return message
        now = time.monotonic()
        self._last = max(self._last, now + message.delay)
        return message._replace(delay=self._last - now)


class DelaysEndWithTheConnection(PassingBroker):
    """Keeps a delayed message in the client until it is due, and forgets it when the client closes before."""

    def __init__(self, inner: Broker) -> None:
        super().__init__(inner)
        self._later: list[threading.Timer] = []

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        now = [message for message in messages if not message.delay]
        answers = dict(zip((id(each) for each in now), self.inner.send(now), strict=True))
        for message in messages:
            if message.delay:
                timer = threading.Timer(message.delay, self._due, (message,))
                timer.daemon = True
                self._later.append(timer)
                timer.start()
        return [answers.get(id(message), Receipt(message.id)) for message in messages]

    def _due(self, message: Outgoing) -> None:
        with contextlib.suppress(NarrowboatError):  # closed at this moment
            self.inner.send([message._replace(delay=0.0)])

    def close(self) -> None:
        for timer in self._later:
            timer.cancel()
        self.inner.close()


class StoresWhatItSaysItDidNotSend(PassingBroker):
    """Stores the first message, and says that nothing of it was sent."""

    def __init__(self, inner: Broker) -> None:
        super().__init__(inner)
        self._number = itertools.count()

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        answers = self.inner.send(messages)
        if next(self._number) == 0:
            raise Unavailable("connection refused", sent=False)
        return answers


class AnyAddressIsAnInbox(PassingBroker):
    """Takes any address for that of an inbox."""

    def is_inbox(self, address: Address) -> bool:
        return True


class NeverLooksAgain(Sends):
    """Confirms what it sends to a queue that it has once found, although the queue was deleted since."""

    def __init__(self, inner: Broker) -> None:
        super().__init__(inner)
        self._found: set[Address] = set()

    def change(self, message: Outgoing) -> Outgoing:
        """To where nobody looks, if it is gone."""
        if message.to in self._found and message.to not in self.inner.sources():
            return message._replace(to=message.to._replace(name=f"{message.to.name} gone"))
        self._found.add(message.to)
        return message


MUTANTS: list[Mutant] = [
    named(StoresWhatItSaysItDidNotSend, "B122"),
    named(AnyAddressIsAnInbox, "B123"),
    named(BodyCut, "B02"),
    named(BodyIsText, "B02", "B42"),
    named(KeyForgotten, "B01", "B57", "B58", "B59"),
    named(HeadersLost, "B03"),
    named(PropertiesLost, "B04", "B05", "B107"),
    named(TtlIgnored, "B51", "B52"),
    named(DedupNever, "B54", "B73"),
    named(PriorityIgnored, "B53"),
    named(SendsTwice, "B01", "B07", "B13", "B19", "B86", "B98"),
    named(ConfirmsTooEarly, "B01", "B20", "B62", "B79", "B87", "B95"),
    named(DropsWithoutAConsumer, "B06", "B15", "B95"),
    named(DelayTooShort, "B47"),
    named(DelaysInLine, "B48"),
    named(DelaysEndWithTheConnection, "B49"),
    named(NeverLooksAgain, "B18"),
]
