"""One consumer's stream from one queue, subscription or inbox in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

from narrowboat.contract import Ack, Address, Delivery, Feed, Kind, Nack, Outcome, Properties, Received, Reject, Source
from narrowboat.errors import Closed, NarrowboatError
from narrowboat_memory.errors import refuse
from narrowboat_memory.messages import Messages
from narrowboat_memory.options import SCHEME
from narrowboat_memory.source import Entry, MemorySource
from narrowboat_memory.sources import Sources

#: Seconds until an idle feed looks again although nobody woke it. Smaller costs CPU in every idle consumer; larger delays
#: a message whose wake went to a feed on which nobody waits any more.
IDLE = 0.5
#: It looks within this of the end of the shortest lease, so that what a dead consumer had comes back within `lease_lag`.
LAG = 0.4


class Opener(Protocol):
    """The broker that has opened a feed, as far as the feed needs it."""

    messages: Messages
    clock: Callable[[], float]
    makes: bool  #: whether queues and topics are made on the way

    def check_open(self) -> None:
        """Raise `Closed` after its end."""

    def forget(self, feed: MemoryFeed) -> None:
        """That feed was closed."""


class MemoryFeed(Feed):
    """A feed; `tag` of its deliveries is the entry and the token of the claim."""

    def __init__(self, broker: Opener, source: Source, wake: Callable[[], None]) -> None:
        self._broker = broker
        self._messages = broker.messages
        self._bell = broker.messages.bell
        self._source = source
        self._path = source.address.path
        self._wake = wake
        self._idle = _idle(source.properties)
        self._closed = False

    def receive(self, limit: int) -> Received:
        """Claim what is due, in order."""
        self._broker.check_open()
        if self._closed:
            raise Closed(f"this consumer of {self._path!r} was closed", backend=SCHEME)
        now = self._broker.clock()
        self._bell.arm(self._path, self, self._wake, now + self._idle)
        token = object()
        try:
            deliveries, change = self._messages.change(lambda sources: self._claim(sources, limit, now, token), now)
            if deliveries:
                self._bell.disarm(self._path, self)
            pause = self._idle if change is None else min(self._idle, max(0.0, change - now))
            received = Received(deliveries, 0.0 if deliveries else pause)
        except BaseException:
            self._messages.change(lambda sources: self._unclaim(sources, token, now), now)
            raise
        return received  # no call between here and the caller, so no interrupt

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        """Settle each, compared by the token of its claim."""
        self._broker.check_open()
        now = self._broker.clock()
        return self._messages.change(
            lambda sources: [self._settle(sources, delivery, outcome, now) for delivery, outcome in settlements], now
        )

    def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[NarrowboatError | None]:
        """Let each lease end `seconds` from now."""
        self._broker.check_open()
        now = self._broker.clock()
        return self._messages.change(
            lambda sources: [self._extend(sources, delivery, now, seconds) for delivery in deliveries], now
        )

    def use(self, properties: Properties) -> None:
        """Claim with its lease from now on."""
        self._source = self._source._replace(properties=properties)
        self._idle = _idle(properties)

    def close(self) -> None:
        """Give back what is out, counted; an inbox goes with its feed."""
        if self._closed:
            return
        now = self._broker.clock()
        self._messages.change(lambda sources: self._leave(sources, now), now)
        self._bell.disarm(self._path, self)
        self._broker.forget(self)
        self._closed = True  # last: who is interrupted before closes once more

    def _claim(self, sources: Sources, limit: int, now: float, token: object) -> tuple[list[Delivery], float | None]:
        source = self._find(sources, now)
        if source is None:
            return [], None
        sources.tick(source, now)
        entries = source.claim(limit, now, self._source.properties.lease, self, token)
        return [_delivery(entry, now) for entry in entries], sources.next_change(source)

    def _unclaim(self, sources: Sources, token: object, now: float) -> None:
        source = sources.find(self._source.address)
        if isinstance(source, MemorySource):
            sources.ring(self._path, source.unclaim(token, now))

    def _find(self, sources: Sources, now: float) -> MemorySource | None:
        address, properties = self._source
        found: object
        if address.kind is Kind.INBOX:
            found = sources.find(address)
        else:
            # Each time, because it may have been deleted since: then it is made again, or the consumer is told.
            found = sources.declare(address, properties, now, make=self._broker.makes)
        if isinstance(found, NarrowboatError):
            raise found
        return found if isinstance(found, MemorySource) else None

    def _settle(self, sources: Sources, delivery: Delivery, outcome: Outcome, now: float) -> NarrowboatError | None:
        entry, token = cast("tuple[Entry, object]", delivery.tag)
        source = sources.find(self._source.address)
        if not _ours(entry, token, now) or not isinstance(source, MemorySource):
            return refuse.stale(delivery.id, self._path, delivery.attempt)
        key = entry.key
        if isinstance(outcome, Ack):
            source.remove(entry)
        elif isinstance(outcome, Reject):
            refused = sources.bury(source, entry, outcome.reason, outcome.attempts, now)
            if refused is not None:
                return refused
        elif isinstance(outcome, Nack):
            source.nack(entry, now, outcome.delay)
            if outcome.delay < IDLE:
                sources.ring(self._path)  # also for a delay: whoever waits must hear when it ends
        else:
            source.give_back(entry, now, counted=False)
            sources.ring(self._path)
        if key is not None:
            sources.ring(self._path)  # the next of its key
        return None

    def _extend(self, sources: Sources, delivery: Delivery, now: float, seconds: float) -> NarrowboatError | None:
        entry, token = cast("tuple[Entry, object]", delivery.tag)
        source = sources.find(self._source.address)
        if not _ours(entry, token, now) or not isinstance(source, MemorySource):
            return refuse.stale(delivery.id, self._path, delivery.attempt)
        source.extend(entry, now + seconds)
        return None

    def _leave(self, sources: Sources, now: float) -> None:
        address: Address = self._source.address
        if address.kind is Kind.INBOX:
            sources.delete(address)
            return
        source = sources.find(address)
        if isinstance(source, MemorySource):
            for entry in source.of_feed(self):
                source.give_back(entry, now, counted=True)
            # All of it, not only ours: a wake that was meant for somebody may have come to us.
            sources.ring(self._path, source.ready())


def _idle(properties: Properties) -> float:
    return min(IDLE, properties.lease + LAG)


def _ours(entry: Entry, token: object, now: float) -> bool:
    """Whether that claim still stands. It ends by the clock, also when nobody has taken the message yet."""
    return entry.token is token and entry.until is not None and entry.until > now


def _delivery(entry: Entry, now: float) -> Delivery:
    message = entry.message
    return Delivery(
        message.id,
        message.body,
        message.headers,
        message.key,
        entry.attempt,
        message.published_at,
        message.priority,
        None if entry.expires is None else entry.expires - now,
        message.correlation_id,
        message.content_type,
        message.reply_to,
        (entry, entry.token),
    )
