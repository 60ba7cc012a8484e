"""Layers that scenarios about messages put in front of a driver: what happens to some backends, on every one of them.

A claim that ends with a connection, an envelope that cannot be read: not every backend has the like, but the core must be
right about them on all. A scenario hands one over as `kit.broker(wrap=...)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from narrowboat.contract.messages import Address, Broker, Delivery, Feed, Kind, Outcome, Received, Source
from narrowboat.errors import NarrowboatError, StaleDelivery
from narrowboat.layers.passing import PassingBroker, PassingFeed


class Ending(PassingBroker):
    """Feeds whose claims all end at `end()`, as those of a connection do: others get the messages, the feed goes on."""

    def __init__(self, inner: Broker) -> None:
        super().__init__(inner)
        self._feeds: list[_EndingFeed] = []

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        """One that can end."""
        feed = _EndingFeed(self.inner, source, wake, earliest=earliest)
        self._feeds.append(feed)
        return feed

    def end(self) -> None:
        """The connection breaks, and stands again."""
        for feed in self._feeds:
            feed.end()


class _EndingFeed(PassingFeed):
    def __init__(self, broker: Broker, source: Source, wake: Callable[[], None], *, earliest: bool) -> None:
        super().__init__(broker.open(source, earliest=earliest, wake=wake))
        self._open: Callable[[], Feed] = lambda: broker.open(source, earliest=False, wake=wake)
        self._generation = object()

    def end(self) -> None:
        """All that was claimed goes back."""
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
        if not all(map(self.current, deliveries)):  # as on one channel: what has ended takes its batch along
            return [StaleDelivery(f"{each.id!r}: its connection has ended", id=each.id) for each in deliveries]
        return ask([each._replace(tag=each.tag[1]) for each in deliveries])  # type: ignore[index]  # made above


class Redirected(PassingBroker):
    """Feeds of queues whose messages ask for their reply at the queue `payroll`, as whoever publishes there may write."""

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        """One that asks so."""
        return _RedirectedFeed(self.inner.open(source, earliest=earliest, wake=wake))


class _RedirectedFeed(PassingFeed):
    def receive(self, limit: int) -> Received:
        received = self.inner.receive(limit)
        payroll = Address(Kind.QUEUE, "payroll")
        changed = [each._replace(reply_to=payroll) if each.reply_to else each for each in received.deliveries]
        return received._replace(deliveries=changed)


class Unreadable(PassingBroker):
    """Feeds that cannot take the envelope of some messages apart: those whose body begins with `MARK`."""

    MARK = b"\xff\x00garbled"
    PROBLEM = "its envelope is cut off at byte 7"

    def feed(self, inner: Feed, wake: Callable[[], None]) -> Feed:
        """One that reads what it can."""
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
