"""Messages of a `narrowboat serve`: batches travel as batches, and are committed as such.

A consumer that found nothing is woken by a push. After a connection that was lost all consumers look, because a push may have
been lost with it; after a server that began anew they open their feeds again, and what they have taken stays theirs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from narrowboat.capabilities import BrokerCapabilities, Concurrency, Scope, Support
from narrowboat.contract import Address, Broker, BrokerBackend, Context, Depth, Feed, Outgoing, Properties, Receipt, Source
from narrowboat.driver.claims import keeper
from narrowboat.dsn import Url
from narrowboat.errors import NarrowboatError
from narrowboat_zeromq.client import opening
from narrowboat_zeromq.feed import ZeroMQFeed
from narrowboat_zeromq.options import SCHEME, MessageOptions
from narrowboat_zeromq.protocol import fields, message_items
from narrowboat_zeromq.protocol.frames import BODIES_MAX, ITEMS_MAX


class ZeroMQBroker(Broker):
    """One session with the server."""

    def __init__(self, url: Url, options: MessageOptions, context: Context) -> None:
        self.capabilities = capabilities(url, options)
        self._timeout = context.timeout
        self._numbers = itertools.count(1)
        self._feeds: dict[int, ZeroMQFeed] = {}
        self._link = opening.link("messages", url, options, context, self._woken)

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        """Store them in one transaction, or in as many as their bodies need requests."""
        answers: list[Receipt | NarrowboatError] = []
        for part in _parts(messages):
            try:
                found, _ = self._link.ask(
                    "send", [message_items.outgoing(each) for each in part], bodies=[each.body for each in part]
                )
            except NarrowboatError as error:
                if not answers:
                    raise
                answers += [error] * (len(messages) - len(answers))  # what came before it is stored
                break
            answers += [message_items.received(value, each) for value, each in zip(found, part, strict=True)]
        return answers

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        """A feed from `source`, which exists from now on."""
        with self._opening(source, wake) as feed:
            feed.open(earliest=earliest)
        return feed

    def inbox(self, wake: Callable[[], None]) -> tuple[Address, Feed]:
        """A private address; it goes with the feed, or a minute after its server heard of us last."""
        with self._opening(None, wake) as feed:
            found, _ = self._link.ask("inbox", feed.number)
            address = fields.address(found)
        feed.is_from(Source(address, Properties(max_deliveries=0)))
        return address, feed

    def declare(self, source: Source, *, earliest: bool) -> None:
        """Make it if it is not there."""
        self._link.ask("declare", message_items.source(source), earliest)

    def stored(self, address: Address) -> Properties | None:
        """What a consumer declared, or somebody altered since."""
        found, _ = self._link.ask("stored", message_items.named(address))
        return None if found is None else Properties(*found)

    def alter(self, address: Address, *, lease: float | None, max_deliveries: int | None) -> Properties:
        """Store another lease or limit."""
        return Properties(*self._link.ask("alter", message_items.named(address), lease, max_deliveries)[0])

    def sources(self) -> list[Address]:
        """What there is, without inboxes and dead letters."""
        return [fields.address(each) for each in self._link.ask("sources")[0]]

    def delete(self, address: Address) -> bool:
        """Delete a source with all its messages."""
        return bool(self._link.ask("delete", message_items.named(address))[0])

    def purge(self, address: Address) -> int:
        """Delete ready and delayed messages."""
        return int(self._link.ask("purge", message_items.named(address))[0])

    def depth(self, address: Address) -> Depth:
        """How many messages it has. An older server does not tell for how long the oldest has waited."""
        return Depth(*self._link.ask("depth", message_items.named(address))[0][:5])

    def ping(self) -> None:
        """An empty write transaction on the server's file."""
        self._link.ask("ping")

    def close(self) -> None:
        """Close every feed, and end the session."""
        for feed in list(self._feeds.values()):
            with contextlib.suppress(NarrowboatError):
                feed.close()
        self._link.close(self._timeout)

    @contextlib.contextmanager
    def _opening(self, source: Source | None, wake: Callable[[], None]) -> Iterator[ZeroMQFeed]:
        feed = ZeroMQFeed(self._link, next(self._numbers), source, wake, self._feeds)
        self._feeds[feed.number] = feed
        try:
            yield feed
        except BaseException:  # an interrupt as well: it may have been opened
            self._link.tell("close", feed.number)
            self._feeds.pop(feed.number, None)
            raise

    def _woken(self, numbers: Sequence[Any] | None) -> None:
        """On the I/O thread."""
        feeds = list(self._feeds.values()) if numbers is None else [self._feeds.get(number) for number in numbers]
        for feed in feeds:
            if feed is not None:
                feed.wake()


def _parts(messages: Sequence[Outgoing]) -> Iterator[Sequence[Outgoing]]:
    """As many at once as one request may have."""
    start = size = 0
    for index, message in enumerate(messages):
        length = len(message.body) + sum(map(len, message.headers)) + sum(map(len, message.headers.values()))
        if index > start and (size + length > BODIES_MAX or index - start == ITEMS_MAX):
            yield messages[start:index]
            start, size = index, 0
        size += length
    yield messages[start:]


def capabilities(url: Url, options: MessageOptions) -> BrokerCapabilities:
    """What `zmq://` claims: what SQLite does, over the network, and on one node."""
    claims = keeper(
        Scope.NETWORK,
        opening.survives(options),
        work=Support.NATIVE,
        dedup=options.dedup,
        retention=options.retention,
        alter=Support.NATIVE,
        listing=Support.NATIVE,
        oldest=Support.NATIVE,
    )
    return dataclasses.replace(claims, concurrency=Concurrency.MULTIPLEXED)


broker = BrokerBackend(
    scheme=SCHEME,
    summary="of a `narrowboat serve`: one SQLite file behind one port, for machines that have no server",
    options=MessageOptions,
    capabilities=capabilities,
    open=ZeroMQBroker,
    prepare=opening.prepare,
    extra="zeromq",
    example="zmq://127.0.0.1:5555/shop",
)
