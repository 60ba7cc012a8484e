"""Drivers that change each message on its way out, and change it back on its way in: the base of `sealed` and `compressed`.

A layer says how to change one (`outgoing`) and how to change it back (`incoming`). This file keeps what all such layers owe:

- A driver settles the delivery that it handed out itself. Some publish its body again, which must not be the changed one.
- What cannot be changed back is handed to no handler. It is rejected, with a reason that says nothing to its publisher, and the
  core tells listeners what was found. Among dead letters, which would be dropped, it stays as it is and has a header
  (`UNOPENED`).
- A redrive of what could not be changed back publishes it as it was. A seal of ours would make it genuine. So does one of a
  message that the server moved among the dead letters of another address (`is_of`).
"""

# ruff: noqa: D102  # each method's docstring is the contract's

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from narrowboat.contract import Address, Delivery, Feed, Kind, Outcome, Outgoing, Receipt, Received, Source
from narrowboat.contract.messages import DEAD_PREFIX
from narrowboat.errors import NarrowboatError
from narrowboat.layers.passing import PassingBroker, PassingFeed

#: What a dead letter that cannot be changed back has among its headers, with what was found.
UNOPENED = "narrowboat-unopened"
_ENDING = ".dead"
_TAG = Delivery._fields.index("tag")
_delivery: Callable[[tuple[Any, ...]], Delivery] = partial(tuple.__new__, Delivery)


class Unopened(Exception):
    """A delivery that cannot be changed back; the text says what was found, for listeners and the log."""


class Changed:
    """The tag of a delivery that a layer hands on. `opened`: whether it could be changed back."""

    __slots__ = ("delivery", "opened")

    def __init__(self, delivery: Delivery, opened: bool) -> None:
        self.delivery = delivery  #: as the driver handed it out
        self.opened = opened


class ChangingBroker(PassingBroker):
    """A message driver in front of `inner` that changes messages."""

    #: The constant reason of the dead letters that this layer makes.
    REASON = "it cannot be opened"

    @abstractmethod
    def outgoing(self, messages: Sequence[Outgoing]) -> list[Outgoing | NarrowboatError]:
        """Each message as it goes out, or why it cannot."""

    @abstractmethod
    def incoming(self, source: Address, delivery: Delivery) -> Delivery:
        """`delivery` from `source` as it was published. Raises `Unopened`; any other exception counts as that."""

    def is_of(self, to: Address, delivery: Delivery) -> bool:
        """Whether a redrive of a dead letter that could be changed back goes out anew to `to`. False: it goes as it was."""
        return True

    def settled(
        self, source: Address, settlements: Sequence[tuple[Delivery, Outcome]], answers: Sequence[NarrowboatError | None]
    ) -> None:
        """The backend has answered to these settlements."""

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        answers: list[Any] = self._outgoing(messages)
        sent = [each for each in answers if isinstance(each, Outgoing)]
        found = iter(self.inner.send(sent) if sent else ())
        return [next(found) if isinstance(each, Outgoing) else each for each in answers]

    def enlist(self, connection: Any, message: Outgoing) -> Awaitable[object] | None:
        (changed,) = self._outgoing((message,))
        if isinstance(changed, Exception):
            raise changed
        return self.inner.enlist(connection, changed)

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        return ChangingFeed(self.inner.open(source, earliest=earliest, wake=wake), self, source.address)

    def inbox(self, wake: Callable[[], None]) -> tuple[Address, Feed]:
        address, feed = self.inner.inbox(wake)
        return address, ChangingFeed(feed, self, address)

    def _outgoing(self, messages: Sequence[Outgoing]) -> list[Outgoing | NarrowboatError]:
        if not any([each.origin.__class__ is Changed for each in messages]):  # noqa: C419  # a list is twice as fast
            return self.outgoing(messages)
        return [self._as_it_was(each) or self.outgoing((_without_driver(each),))[0] for each in messages]

    def _as_it_was(self, message: Outgoing) -> Outgoing | None:
        """A redrive of what could not be changed back, or is of another address; None for any other message."""
        origin = message.origin
        if not isinstance(origin, Changed) or (origin.opened and self.is_of(message.to, origin.delivery)):
            return None
        was = origin.delivery
        headers = {name: value for name, value in was.headers.items() if not name.startswith(DEAD_PREFIX)}
        return message._replace(body=was.body, headers=headers, reply_to=was.reply_to, origin=was.tag)

    def arrived(self, source: Address, delivery: Delivery) -> Delivery:
        """`delivery` for the core: as it was published, or refused."""
        try:
            if delivery.tag.__class__ is Changed and not delivery.tag.opened:
                return delivery._replace(tag=Changed(delivery, False))  # the layer behind this one has said why
            opened = self.incoming(source, delivery)
            return _delivery((*opened[:_TAG], Changed(delivery, True), *opened[_TAG + 1 :]))  # `_replace` takes thrice the time
        except Unopened as error:
            found = str(error)
        except Exception as error:  # whatever another program wrote costs its own message alone
            found = f"it cannot be taken apart ({type(error).__name__})"
        left = delivery._replace(tag=Changed(delivery, False), malformed=found)
        if origin_of(source) is None:
            return left._replace(refused=self.REASON)
        return left._replace(headers={**delivery.headers, UNOPENED: found})


class ChangingFeed(PassingFeed):
    """A feed whose deliveries are changed back by `broker`."""

    def __init__(self, inner: Feed, broker: ChangingBroker, source: Address) -> None:
        super().__init__(inner)
        self._broker = broker
        self._source = source

    def receive(self, limit: int) -> Received:
        came: list[Received] = []
        try:
            received = self._take(limit, came)
            arrived, source = self._broker.arrived, self._source
            received = received._replace(deliveries=[arrived(source, each) for each in received.deliveries])
        except BaseException:
            self._keep(came)
            raise
        return received

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        answers = self.inner.settle([(_inner(delivery), outcome) for delivery, outcome in settlements])
        self._broker.settled(self._source, settlements, answers)
        return answers

    def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[NarrowboatError | None]:
        return self.inner.extend([_inner(each) for each in deliveries], seconds)

    def current(self, delivery: Delivery) -> bool:
        return self.inner.current(_inner(delivery))


def origin_of(source: Address) -> str | None:
    """The path of the source whose dead letters `source` is; None where it is none.

    >>> origin_of(Address(Kind.QUEUE, "prices.g.dead")), origin_of(Address(Kind.QUEUE, "prices"))
    ('prices.g', None)
    """
    return source.name.removesuffix(_ENDING) if source.kind is Kind.QUEUE and source.name.endswith(_ENDING) else None


def _inner(delivery: Delivery) -> Delivery:
    tag = delivery.tag
    assert isinstance(tag, Changed)
    return tag.delivery


def _without_driver(message: Outgoing) -> Outgoing:
    """A redrive whose driver keeps nothing of the dead letter: it would keep our own headers as they were."""
    origin = message.origin
    if not isinstance(origin, Changed):
        return message
    behind = origin.delivery.tag
    return message._replace(origin=behind if isinstance(behind, Changed) else None)
