"""Messages on Redis: a queue is a stream with one group, a topic a stream with a group for each subscription.

Every call is one script. So no call is ever half done, and the server alone keeps the time. `messages.lua` explains the keys.
A batch for several addresses is one pipeline. Claims, settlements and publishes have a connection each, so that none of them
queues behind another. A fourth connection is the subscription that wakes idle feeds.
"""

from __future__ import annotations

import contextlib
import operator
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from narrowboat.capabilities import BrokerCapabilities, Scope, Support
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
from narrowboat.dsn import Url
from narrowboat.errors import NarrowboatError
from narrowboat_redis.calls import Calls, call, source_script
from narrowboat_redis.endpoint import Deployment, RedisEndpoint
from narrowboat_redis.errors import typed
from narrowboat_redis.feed import RedisFeed
from narrowboat_redis.listing import listed
from narrowboat_redis.options import SCHEME, MessageOptions
from narrowboat_redis.persistence import SURVIVES
from narrowboat_redis.properties import properties_of, refusal, texts_of
from narrowboat_redis.publishing import Publishing
from narrowboat_redis.scripts import Packed, script
from narrowboat_redis.streams import INBOX_TTL, StreamKeys, own_stream_prefix, stream_keys

_DECLARE, _STORED, _DELETE, _PURGE, _DEPTH, _TICK = map(
    source_script, ("declare", "stored", "delete", "purge", "depth", "tick")
)
_COUNT = script("count.lua")

_INBOX = Properties(max_deliveries=0)
#: What the name of an inbox begins with; 32 hexadecimal digits follow.
_INBOX_NAME = "inbox-"


class RedisBroker(Broker):
    """One user of one namespace of messages."""

    def __init__(self, url: Url, options: MessageOptions, context: Context) -> None:
        self.capabilities = capabilities(url, options)
        self.endpoint = endpoint = RedisEndpoint.of(url, options)
        self._cluster = endpoint.deployment is Deployment.CLUSTER
        self._prefix = options.prefix
        self._keys: dict[Address, StreamKeys] = {}
        self._feeds: set[RedisFeed] = set()
        self._calls = calls = Calls(endpoint, options, context, lambda keys: call(_TICK, keys))
        self._publishing = Publishing(calls.sending, calls.mover, calls.auto_declare, options.dedup)

    @typed
    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        """Store each message; the server has them when this returns."""
        self._calls.check_open()
        signs = [(feed.keys, self._keep(feed.keys)) for feed in self._asking(messages)]
        return self._publishing.send(messages, self._keys_of, signs)

    @typed
    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        """A feed from `source`, which exists from now on."""
        self.declare(source, earliest=earliest)
        return self._feed(source, wake)

    @typed
    def inbox(self, wake: Callable[[], None]) -> tuple[Address, Feed]:
        """A private address. It ends with the feed, and at the latest a minute after its process."""
        self._calls.check_open()
        address = Address(Kind.INBOX, f"{_INBOX_NAME}{secrets.token_hex(16)}")
        keys = self._keys_of(address)
        self._calls.taking.ask(self._keep(keys), "making an inbox")
        return address, self._feed(Source(address, _INBOX), wake)

    def is_inbox(self, address: Address) -> bool:
        """Whether `inbox` could have made that address."""
        digits = address.name.removeprefix(_INBOX_NAME)
        ours = address.name.startswith(_INBOX_NAME) and len(digits) == 32 and not address.group
        return ours and address.kind is Kind.INBOX and set(digits) <= set("0123456789abcdef")

    @typed
    def declare(self, source: Source, *, earliest: bool) -> None:
        """Make the source if it is missing; `Conflict` where it is declared otherwise."""
        self._calls.check_open()
        keys = self._keys_of(source.address)
        answer = self._calls.taking.ask(
            call(_DECLARE, keys, self._calls.auto_declare, *texts_of(source.properties), b""),
            f"declaring {keys.path!r}",
        )
        self._raise(answer, keys, source.properties)

    @typed
    def stored(self, address: Address) -> Properties | None:
        """What a consumer declared, or somebody altered since."""
        return self._stored(address)

    @typed
    def alter(self, address: Address, *, lease: float | None, max_deliveries: int | None) -> Properties:
        """Store another lease or limit, in one script."""
        limit = b"" if max_deliveries is None else b"%d" % max_deliveries
        found = self._stored(address, b"" if lease is None else repr(float(lease)).encode(), limit)
        if found is None:
            raise self.endpoint.refuse.undeclared(address.path, address.kind.value)
        return found

    def _stored(self, address: Address, *change: bytes) -> Properties | None:
        self._calls.check_open()
        keys = self._keys_of(address)
        doing = "altering" if change else "looking up"
        answer = self._calls.taking.ask(call(_STORED, keys, *change), f"{doing} {keys.path!r}")
        if answer[0] == b"missing":
            return None
        self._raise(answer, keys)
        return properties_of(answer[1:5])

    @typed
    def sources(self) -> list[Address]:
        """What there is, by a scan of all keys; a name that is too long for a key cannot be told."""
        self._calls.check_open()
        return listed(self._calls.taking, self._prefix)

    @typed
    def delete(self, address: Address) -> bool:
        """Remove the source with all its messages. Deliveries in flight become stale."""
        self._calls.check_open()
        keys = self._keys_of(address)
        own = own_stream_prefix(keys, cluster=self._cluster)
        answer = self._calls.taking.ask(call(_DELETE, keys, own), f"deleting {keys.path!r}")
        self._raise(answer, keys)
        return bool(answer[1])

    @typed
    def purge(self, address: Address) -> int:
        """Drop the messages that are ready or delayed; of a topic, those that are not due yet."""
        self._calls.check_open()
        keys = self._keys_of(address)
        dropped, more = 0, True
        while more:
            answer = self._calls.taking.ask(call(_PURGE, keys), f"purging {keys.path!r}")
            if answer[0] == b"missing" and self._calls.auto_declare:
                return 0
            self._raise(answer, keys)
            dropped += answer[1]
            more = bool(answer[2])
        return dropped

    @typed
    def depth(self, address: Address) -> Depth:
        """How many messages are ready, in flight, delayed, dead; of a topic, how many are not due yet."""
        self._calls.check_open()
        keys = self._keys_of(address)
        answer = self._calls.taking.ask(
            _DEPTH((*keys.all, keys.dead_stream), (keys.kind.value.encode(), keys.group)),
            f"counting {keys.path!r}",
        )
        if answer[0] != b"missing" or (not self._calls.auto_declare and address.kind is not Kind.INBOX):
            self._raise(answer, keys)
        ready, out, delayed, dead, oldest = map(operator.index, answer[1:6])
        for which, stream, begin in zip(answer[6::3], answer[7::3], answer[8::3], strict=True):
            last, more = begin, 1
            while more:
                counted, last, more = self._calls.taking.ask(_COUNT([stream], [last]), f"counting {keys.path!r}")
                ready, dead = (ready + counted, dead) if which == b"ready" else (ready, dead + counted)
        return Depth(ready, out, delayed, dead, oldest / 1000 if oldest >= 0 else None)

    def ping(self) -> None:
        """One round trip."""
        self._calls.check_open()
        self._calls.taking.ask(Packed(b"*1\r\n$4\r\nPING\r\n", None), "answering a ping")

    def close(self) -> None:
        """Close every feed, the threads and the connections."""
        if self._calls.closed:
            return
        try:
            self._calls.mover.close()
            ends = self._calls.leaving(waited=True)
            for feed in list(self._feeds):
                # Deliveries that cannot be returned now come back when their leases end.
                with contextlib.suppress(NarrowboatError):
                    feed.close(ends)
        finally:
            self._calls.close()

    def _keys_of(self, address: Address) -> StreamKeys:
        """The keys of `address`."""
        keys = self._keys.get(address)
        if keys is None:
            if len(self._keys) >= 4096:  # every request of another process brings a new inbox: the cache would only grow
                self._keys.clear()
            keys = self._keys[address] = stream_keys(address, self._prefix, cluster=self._cluster)
        return keys

    def _left(self, feed: RedisFeed) -> None:
        """A feed is closed; an inbox is never asked for again."""
        self._feeds.discard(feed)
        self._keys.pop(Address(Kind.INBOX, feed.keys.path), None)

    def _feed(self, source: Source, wake: Callable[[], None]) -> Feed:
        feed = RedisFeed(self._calls, self._keys_of(source.address), source, wake, self._left)
        self._feeds.add(feed)
        return feed

    def _keep(self, keys: StreamKeys) -> Packed:
        """Make an inbox, or extend its life."""
        return call(_DECLARE, keys, b"1", *texts_of(_INBOX), b"%d" % round(INBOX_TTL * 1000))

    def _asking(self, messages: Sequence[Outgoing]) -> list[RedisFeed]:
        """Our inboxes that these messages name for their replies, as far as they need a heartbeat."""
        asked = {message.reply_to.path for message in messages if message.reply_to is not None}
        return [feed for feed in list(self._feeds) if feed.keys.path in asked and feed.needs_sign()] if asked else []

    def _raise(self, answer: Sequence[Any], keys: StreamKeys, asked: Properties = _INBOX) -> None:
        refused = refusal(answer, keys, asked, self.endpoint)
        if refused is not None:
            raise refused


def capabilities(url: Url, options: MessageOptions) -> BrokerCapabilities:
    """What `redis://` claims. The server's settings decide how durable it is; the URL says what they have to be."""
    RedisEndpoint.of(url, options)  # refuses what cannot work before anything is sent
    return keeper(
        Scope.NETWORK,
        SURVIVES[options.durability],
        work=Support.EMULATED,
        dedup=options.dedup,
        alter=Support.NATIVE,
        listing=Support.EMULATED,
        oldest=Support.NATIVE,
    )


broker = BrokerBackend(
    scheme=SCHEME,
    summary="messages in the streams of a Redis or Valkey server, sentinel set-up or cluster",
    example="redis://:password@localhost:6379/0",
    options=MessageOptions,
    capabilities=capabilities,
    open=RedisBroker,
)
