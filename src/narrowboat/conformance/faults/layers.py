"""Layers that scenarios about messages put in front of a driver, to make on every backend what happens on some.

A claim that ends with a connection, or an envelope that cannot be decoded: not every backend has these, and the core must be
right about them. A scenario passes a layer as `kit.broker(wrap=...)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from narrowboat.contract.messages import Address, Broker, Delivery, Feed, Kind, Outcome, Received, Source
from narrowboat.errors import NarrowboatError, StaleDelivery
from narrowboat.layers.passing import PassingBroker, PassingFeed


class Ending(PassingBroker):
    """A broker whose feeds lose all claims at `end()`, as with a connection. Others get the messages; the feeds go on."""

    def __init__(self, inner: Broker) -> None:
        super().__init__(inner)
        self._feeds: list[_EndingFeed] = []

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        """A feed whose claims can end."""
        feed = _EndingFeed(self.inner, source, wake, earliest=earliest)
        self._feeds.append(feed)
        return feed

    def end(self) -> None:
        """Break the connection, and make it again."""
        for feed in self._feeds:
            feed.end()


class _EndingFeed(PassingFeed):
    def __init__(self, broker: Broker, source: Source, wake: Callable[[], None], *, earliest: bool) -> None:
        super().__init__(broker.open(source, earliest=earliest, wake=wake))
        self._open: Callable[[], Feed] = lambda: broker.open(source, earliest=False, wake=wake)
        self._generation = object()

    def end(self) -> None:
        """Return all that was claimed."""
        self._generation = object()
        self.inner.close()
        self.inner = self._open()

    def receive(self, limit: int) -> Received:
        generation = self._generation
        received = self.inner.receive(limit)
        return received._replace(deliveries=[each._replace(tag=(generation, each.tag)) for each in received.deliveries])

    def current(self, delivery: Delivery) -> bool:
        return delivery.tag[0] is self._generation  # type: ignore[index]  # made above

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        return self._those_of_now(
            [delivery for delivery, _ in settlements],
            lambda whole: self.inner.settle([(each, outcome) for each, (_, outcome) in zip(whole, settlements, strict=True)]),
        )

    def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[NarrowboatError | None]:
        return self._those_of_now(deliveries, lambda whole: self.inner.extend(whole, seconds))

    def _those_of_now(
        self, deliveries: Sequence[Delivery], ask: Callable[[list[Delivery]], list[NarrowboatError | None]]
    ) -> list[NarrowboatError | None]:
        if not all(map(self.current, deliveries)):  # as on one channel: a claim that has ended fails its whole batch
            return [StaleDelivery(f"{each.id!r}: its connection has ended", id=each.id) for each in deliveries]
        return ask([each._replace(tag=each.tag[1]) for each in deliveries])  # type: ignore[index]  # made above


class Redirected(PassingBroker):
    """A broker whose requests ask for their reply at the queue `payroll`, as any publisher may write."""

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        """A feed of such requests."""
        return _RedirectedFeed(self.inner.open(source, earliest=earliest, wake=wake))


class _RedirectedFeed(PassingFeed):
    def receive(self, limit: int) -> Received:
        received = self.inner.receive(limit)
        payroll = Address(Kind.QUEUE, "payroll")
        changed = [each._replace(reply_to=payroll) if each.reply_to else each for each in received.deliveries]
        return received._replace(deliveries=changed)


class Unreadable(PassingBroker):
    """A broker whose feeds cannot decode the envelope of a message whose body begins with `MARK`."""

    MARK = b"\xff\x00garbled"
    PROBLEM = "its envelope is cut off at byte 7"

    def feed(self, inner: Feed, wake: Callable[[], None]) -> Feed:
        """A feed that decodes what it can."""
        return _UnreadableFeed(inner)


class _UnreadableFeed(PassingFeed):
    def receive(self, limit: int) -> Received:
        received = self.inner.receive(limit)
        return received._replace(deliveries=[self._as_it_is(each) for each in received.deliveries])

    @staticmethod
    def _as_it_is(delivery: Delivery) -> Delivery:
        if not delivery.body.startswith(Unreadable.MARK):
            return delivery
        return delivery._replace(key=None, published_at=None, malformed=Unreadable.PROBLEM)
