"""Messages in a SQLite database: durable queues and topics between the processes of one machine, without a server.

Everything is a row (`messages.sql`) and every call one transaction, so a process may be killed at any point. With
`durability=full` a publish that returned survives a loss of power, with `normal` a crash of any process. Time is the boot
clock (`clocks/schedule.py`): setting the wall clock does nothing.

Consumers in this process are woken by what was committed here, those in other processes by the watcher. Files on network
file systems will not do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TypeVar

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
from narrowboat.driver.sources import has_dead_letters
from narrowboat.dsn import Url
from narrowboat.errors import NarrowboatError
from narrowboat_sqlite.connection.database import prepare
from narrowboat_sqlite.errors import not_sent, refuse
from narrowboat_sqlite.feed import SqliteFeed
from narrowboat_sqlite.messages import Messages
from narrowboat_sqlite.options import SCHEME, Durability, MessageOptions
from narrowboat_sqlite.tables import declared, message_rows
from narrowboat_sqlite.tables.sources import SourceRow
from narrowboat_sqlite.tables.topology import Topology

T = TypeVar("T")


def capabilities(url: Url, options: MessageOptions) -> BrokerCapabilities:
    """What `sqlite:///` claims. Replay only where the URL says for how long topics keep messages."""
    survives = Survives.POWER if options.durability is Durability.FULL else Survives.CRASH
    return keeper(
        Scope.HOST,
        survives,
        work=Support.NATIVE,
        dedup=options.dedup,
        retention=options.retention,
        alter=Support.NATIVE,
        listing=Support.NATIVE,
        oldest=Support.NATIVE,
    )


class SqliteBroker(Broker):
    """One user of one namespace of messages in one file."""

    def __init__(self, url: Url, options: MessageOptions, context: Context) -> None:
        self.capabilities = capabilities(url, options)
        self._options = options
        self._messages = Messages(url, options, context)
        self._feeds: set[SqliteFeed] = set()

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        """Store all in one transaction; they are committed when this returns."""
        self._messages.check_open()

        def store(topology: Topology) -> list[Receipt | NarrowboatError]:
            for feed in self._asking(messages):
                feed.sign(topology, topology.moment)
            return topology.send(
                messages, make=self._messages.auto_declare, window=self._options.dedup, retention=self._options.retention
            )

        try:
            return self._messages.change(store)
        except NarrowboatError as error:
            if not not_sent(error):
                raise
            return [
                refuse.refused(message.id, message.to.path, error, retryable=error.retryable, cause=error)
                for message in messages
            ]

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        """A feed from `source`, which exists from now on."""
        self.declare(source, earliest=earliest)
        return self._feed(source, wake)

    def inbox(self, wake: Callable[[], None]) -> tuple[Address, Feed]:
        """A private address; it goes with the feed, and a minute after its process at the latest."""
        self._messages.check_open()
        inbox = self._messages.change(lambda topology: topology.inbox())
        return inbox.address, self._feed(Source(inbox.address, inbox.properties), wake)

    def declare(self, source: Source, *, earliest: bool) -> None:
        """Make it if it is not there; refuse it when it differs."""
        self._messages.check_open()
        address, properties = source
        make = self._messages.auto_declare
        self._messages.change(lambda topology: _raise(topology.declare(address, properties, make=make, earliest=earliest)))

    def stored(self, address: Address) -> Properties | None:
        """What a consumer declared, or somebody altered since."""
        self._messages.check_open()
        return self._messages.look(lambda topology: _raise(declared.stored(topology, address)))

    def alter(self, address: Address, *, lease: float | None, max_deliveries: int | None) -> Properties:
        """Store another lease or limit."""
        self._messages.check_open()
        return self._messages.change(lambda topology: _raise(declared.alter(topology, address, lease, max_deliveries)))

    def sources(self) -> list[Address]:
        """What there is, without inboxes and dead letters."""
        self._messages.check_open()
        return self._messages.look(declared.listed)

    def delete(self, address: Address) -> bool:
        """Delete a source with all its messages. Deliveries in flight become stale."""
        self._messages.check_open()
        return self._messages.change(lambda topology: _raise(topology.delete(address)))

    def purge(self, address: Address) -> int:
        """Delete ready and delayed messages; of a topic, those that are not due yet."""
        self._messages.check_open()
        return self._messages.change(lambda topology: self._purge(topology, address))

    def depth(self, address: Address) -> Depth:
        """How many messages are ready, in flight, delayed, dead; of a topic, how many are not due yet."""
        self._messages.check_open()
        return self._messages.change(lambda topology: self._depth(topology, address))

    def ping(self) -> None:
        """An empty write transaction: it fails where any call would."""
        self._messages.check_open()
        self._messages.change(lambda topology: None, passing=True)

    def close(self) -> None:
        """Close every feed, the watcher's thread (with the last broker in this process) and the file."""
        if self._messages.closed:
            return
        try:
            for feed in list(self._feeds):
                # What cannot be given back now comes back when its lease ends.
                with contextlib.suppress(NarrowboatError):
                    feed.close()
        finally:
            self._messages.close()

    def _feed(self, source: Source, wake: Callable[[], None]) -> Feed:
        feed = SqliteFeed(self._messages, source, wake, self._feeds.discard)
        self._feeds.add(feed)
        return feed

    def _asking(self, messages: Sequence[Outgoing]) -> list[SqliteFeed]:
        """The inboxes of ours to which these messages want their replies."""
        asked = {message.reply_to for message in messages if message.reply_to is not None}
        return [feed for feed in list(self._feeds) if feed.address in asked] if asked else []

    def _purge(self, topology: Topology, address: Address) -> int:
        found = self._find(topology, address)
        return 0 if found is None else message_rows.purge(topology.connection, found.id)

    def _depth(self, topology: Topology, address: Address) -> Depth:
        found = self._find(topology, address)
        dead = topology.find(address.dead) if has_dead_letters(address) and address.kind is not Kind.TOPIC else None
        none = (0, 0, 0, None)
        ready, out, delayed, place = message_rows.counts(topology.connection, found.id) if found is not None else none
        *letters, _ = message_rows.counts(topology.connection, dead.id) if isinstance(dead, SourceRow) else none
        oldest = None if place is None else max(0.0, topology.moment.place - place)
        return Depth(ready, out, delayed, sum(letters), oldest)

    def _find(self, topology: Topology, address: Address) -> SourceRow | None:
        found = _raise(topology.find(address))
        if found is not None:
            topology.tick(found)
        elif not self._messages.auto_declare and address.kind is not Kind.INBOX:
            raise refuse.missing(address.path, address.kind.value)
        return found


def _raise(answer: T | NarrowboatError) -> T:
    if isinstance(answer, NarrowboatError):
        raise answer
    return answer


broker = BrokerBackend(
    scheme=SCHEME,
    summary="messages in one file, between the processes of one machine",
    options=MessageOptions,
    capabilities=capabilities,
    open=SqliteBroker,
    prepare=prepare,
    example="sqlite:///shop.db",
)
