"""Messages in memory: the reference for every other backend, and the broker of tests and of single processes.

`memory://name` is one namespace for everybody in this process who opens that name. Nothing survives the process. The clock
is the caller's, so a test that owns it sees a week's delay in a millisecond. Bodies are not copied.

The semantics are in `source.py` (one source) and `sources.py` (all of them); here is what the contract calls.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

from narrowboat.capabilities import BrokerCapabilities, Scope, Support, Survives
from narrowboat.contract import (
    Address,
    Broker,
    BrokerBackend,
    Context,
    Depth,
    Feed,
    Kind,
    Outgoing,
    Properties,
    Receipt,
    Source,
)
from narrowboat.driver.claims import keeper
from narrowboat.driver.sources import Declare, has_dead_letters
from narrowboat.dsn import Url
from narrowboat.errors import Closed, NarrowboatError
from narrowboat_memory.errors import refuse
from narrowboat_memory.feed import MemoryFeed
from narrowboat_memory.messages import Messages
from narrowboat_memory.options import SCHEME, MessageOptions, space_name
from narrowboat_memory.source import MemorySource
from narrowboat_memory.sources import MemoryTopic, Sources
from narrowboat_memory.space import space


def capabilities(url: Url, options: MessageOptions) -> BrokerCapabilities:
    """What `memory://` claims. Replay only where the URL says for how long topics keep messages."""
    return keeper(
        Scope.PROCESS,
        Survives.NOTHING,
        work=Support.NATIVE,
        dedup=options.dedup,
        retention=options.retention,
        alter=Support.NATIVE,
        listing=Support.NATIVE,
        oldest=Support.NATIVE,
    )


class MemoryBroker(Broker):
    """One user of one namespace of messages in this process."""

    def __init__(self, url: Url, options: MessageOptions, context: Context) -> None:
        self.capabilities = capabilities(url, options)
        self.messages = space(Messages, space_name(url), options.prefix)
        self.clock = context.clock
        #: Whether queues and topics are made on the way.
        self.makes = options.declare is Declare.AUTO
        self._options = options
        self._feeds: weakref.WeakSet[MemoryFeed] = weakref.WeakSet()  # an interrupted caller lets go of one that nobody gets
        self._closed = False
        context.watch(self._clock_moved)

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        """Store each message; it is there when this returns."""
        self.check_open()
        now = self.clock()
        make, window, retention = self.makes, self._options.dedup, self._options.retention

        def store(sources: Sources) -> list[Receipt | NarrowboatError]:
            return [sources.send(message, now, make=make, window=window, retention=retention) for message in messages]

        return self.messages.change(store, now)

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        """A feed from `source`, which exists from now on."""
        self.declare(source, earliest=earliest)
        return self._feed(source, wake)

    def inbox(self, wake: Callable[[], None]) -> tuple[Address, Feed]:
        """A private address; it goes with the feed, and with the process at the latest."""
        self.check_open()
        inbox = self.messages.change(lambda sources: sources.inbox(), self.clock())
        return inbox.address, self._feed(Source(inbox.address, inbox.properties), wake)

    def declare(self, source: Source, *, earliest: bool) -> None:
        """Make it if it is not there; refuse it when it differs."""
        self.check_open()
        now = self.clock()
        address, properties = source
        self.messages.change(lambda sources: sources.declare(address, properties, now, make=self.makes, earliest=earliest), now)

    def stored(self, address: Address) -> Properties | None:
        """What a consumer declared, or somebody altered since."""
        self.check_open()
        return self.messages.change(lambda sources: sources.stored(address), self.clock())

    def alter(self, address: Address, *, lease: float | None, max_deliveries: int | None) -> Properties:
        """Store another lease or limit."""
        self.check_open()
        return self.messages.change(lambda sources: sources.alter(address, lease, max_deliveries), self.clock())

    def sources(self) -> list[Address]:
        """What there is, without inboxes and dead letters."""
        self.check_open()
        return self.messages.change(lambda sources: sources.listed(), self.clock())

    def delete(self, address: Address) -> bool:
        """Remove it with all its messages; what is out becomes stale."""
        self.check_open()
        return self.messages.change(lambda sources: sources.delete(address), self.clock())

    def purge(self, address: Address) -> int:
        """Drop what is ready or delayed; of a topic, what is not due yet."""
        self.check_open()
        now = self.clock()
        return self.messages.change(lambda sources: self._purge(sources, address, now), now)

    def depth(self, address: Address) -> Depth:
        """How many messages are ready, in flight, delayed, dead; of a topic, how many are not due yet."""
        self.check_open()
        now = self.clock()
        return self.messages.change(lambda sources: self._depth(sources, address, now), now)

    def ping(self) -> None:
        """It is there, unless it was closed."""
        self.check_open()

    def close(self) -> None:
        """Close every feed. The messages stay, for whoever opens the same name in this process."""
        for feed in list(self._feeds):
            feed.close()
        self._closed = True

    def check_open(self) -> None:
        """Raise `Closed` after `close`."""
        if self._closed:
            raise Closed("this memory broker was closed; open it again", backend=SCHEME)

    def forget(self, feed: MemoryFeed) -> None:
        """That feed was closed."""
        self._feeds.discard(feed)

    def _feed(self, source: Source, wake: Callable[[], None]) -> Feed:
        feed = MemoryFeed(self, source, wake)
        self._feeds.add(feed)
        return feed

    def _clock_moved(self) -> None:
        self.messages.bell.ring_all()

    def _purge(self, sources: Sources, address: Address, now: float) -> int | NarrowboatError:
        found = self._find(sources, address, now)
        if isinstance(found, MemorySource):
            return found.purge()
        if isinstance(found, MemoryTopic):
            dropped = len(found.pending)
            found.pending.clear()
            return dropped
        return found or 0

    def _depth(self, sources: Sources, address: Address, now: float) -> Depth | NarrowboatError:
        found = self._find(sources, address, now)
        if isinstance(found, NarrowboatError):
            return found
        if isinstance(found, MemoryTopic):
            return Depth(0, 0, len(found.pending), 0)
        if address.kind is Kind.TOPIC:
            return Depth(0, 0, 0, 0)  # what died in a queue of that name is none of its own
        letters = sources.find(address.dead) if has_dead_letters(address) else None
        dead = sum(letters.counts()) if isinstance(letters, MemorySource) else 0
        if found is None:
            return Depth(0, 0, 0, dead)
        since = found.oldest()
        return Depth(*found.counts(), dead, None if since is None else max(0.0, now - since))

    def _find(self, sources: Sources, address: Address, now: float) -> MemorySource | MemoryTopic | NarrowboatError | None:
        found = sources.find(address)
        if isinstance(found, MemorySource | MemoryTopic):
            sources.tick(found, now)
        if found is None and not self.makes and address.kind is not Kind.INBOX:
            return refuse.missing(address.path, address.kind.value)
        return found


broker = BrokerBackend(
    scheme=SCHEME,
    summary="messages within one process, for tests and small programs",
    options=MessageOptions,
    capabilities=capabilities,
    open=MemoryBroker,
    example="memory://shop",
)
