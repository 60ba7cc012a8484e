"""Messages on Redis: a queue is a stream with one group, a topic a stream with a group for each subscription.

Every call is one script. So no call is ever half done, and the server alone keeps the time. `messages.lua` explains the keys.
A batch for several addresses is one pipeline. Claims, settlements and publishes have a connection each, so that none of them
queues behind another. A fourth connection is the subscription that wakes idle feeds.
"""

from __future__ import annotations

import contextlib
import operator
import os
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from narrowboat.capabilities import (
    BrokerCapabilities,
    Kept,
    LeaseNature,
    Scope,
    SettleFencing,
    Settlement,
    Support,
    WakeUp,
)
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
from narrowboat.driver.sources import Declare
from narrowboat.dsn import Url
from narrowboat.errors import Closed, NarrowboatError
from narrowboat_redis.client import RedisClient
from narrowboat_redis.endpoint import Deployment, RedisEndpoint
from narrowboat_redis.errors import translate, typed
from narrowboat_redis.feed import RedisFeed
from narrowboat_redis.mover import Mover
from narrowboat_redis.options import SCHEME, MessageOptions
from narrowboat_redis.persistence import SURVIVES, check_durability
from narrowboat_redis.properties import refusal, texts_of
from narrowboat_redis.publishing import Publishing
from narrowboat_redis.resp import ErrorReply
from narrowboat_redis.scripts import Packed, Script, script
from narrowboat_redis.streams import INBOX_TTL, StreamKeys, own_stream_prefix, stream_keys
from narrowboat_redis.waking import Waking

_DECLARE, _DELETE, _PURGE, _DEPTH, _TICK = (
    script("messages.lua", "upkeep.lua", f"{name}.lua") for name in ("declare", "delete", "purge", "depth", "tick")
)
_COUNT = script("count.lua")

_INBOX = Properties(max_deliveries=0)
#: What the name of an inbox begins with; 32 hexadecimal digits follow.
_INBOX_NAME = "inbox-"


class RedisBroker(Broker):
    """One user of one namespace of messages."""

    def __init__(
        self, endpoint: RedisEndpoint, options: MessageOptions, capabilities: BrokerCapabilities, context: Context
    ) -> None:
        self.capabilities = capabilities
        self.endpoint = endpoint
        self.clock = context.clock
        #: Whether a script may make a queue or topic that is missing, as its argument.
        self.auto_declare = b"1" if options.declare is Declare.AUTO else b""
        #: Bytes of messages in one answer. The other half is left for the names and sizes of their fields.
        self.most = b"%d" % (options.max_reply // 2)
        self._cluster = endpoint.deployment is Deployment.CLUSTER
        self._prefix = options.prefix
        self._keys: dict[Address, StreamKeys] = {}
        self._feeds: set[RedisFeed] = set()
        self._closed = False
        self._pid = os.getpid()
        self.taking, self.freeing, sending = (RedisClient(endpoint, context.timeout) for _ in range(3))
        try:
            check_durability(self.taking, endpoint, options.durability, self.taking.ends())
        except BaseException:
            self.taking.close()
            raise
        self.waking = Waking(endpoint, context.timeout, context.clock)
        self.mover = Mover(RedisClient(endpoint, context.timeout), _tick)
        self._publishing = Publishing(sending, self.mover, self.auto_declare, options.dedup)

    @typed
    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        """Store each message; the server has them when this returns."""
        self.check_open()
        signs = [(feed.keys, self._keep(feed.keys)) for feed in self._asking(messages)]
        return self._publishing.send(messages, self.keys, signs)

    @typed
    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        """A feed from `source`, which exists from now on."""
        self.declare(source, earliest=earliest)
        return self._feed(source, wake)

    @typed
    def inbox(self, wake: Callable[[], None]) -> tuple[Address, Feed]:
        """A private address. It ends with the feed, and at the latest a minute after its process."""
        self.check_open()
        address = Address(Kind.INBOX, f"{_INBOX_NAME}{secrets.token_hex(16)}")
        keys = self.keys(address)
        self.ask(self.taking, self._keep(keys), "making an inbox")
        return address, self._feed(Source(address, _INBOX), wake)

    def is_inbox(self, address: Address) -> bool:
        """Whether `inbox` could have made that address."""
        digits = address.name.removeprefix(_INBOX_NAME)
        ours = address.name.startswith(_INBOX_NAME) and len(digits) == 32 and not address.group
        return ours and address.kind is Kind.INBOX and set(digits) <= set("0123456789abcdef")

    @typed
    def declare(self, source: Source, *, earliest: bool) -> None:
        """Make the source if it is missing; `Conflict` where it is declared otherwise."""
        self.check_open()
        keys = self.keys(source.address)
        answer = self.ask(
            self.taking,
            self.call(_DECLARE, keys, self.auto_declare, *texts_of(source.properties), b""),
            f"declaring {keys.path!r}",
        )
        self._raise(answer, keys, source.properties)

    @typed
    def delete(self, address: Address) -> bool:
        """Remove the source with all its messages. Deliveries in flight become stale."""
        self.check_open()
        keys = self.keys(address)
        own = own_stream_prefix(keys, cluster=self._cluster)
        answer = self.ask(self.taking, self.call(_DELETE, keys, own), f"deleting {keys.path!r}")
        self._raise(answer, keys)
        return bool(answer[1])

    @typed
    def purge(self, address: Address) -> int:
        """Drop the messages that are ready or delayed; of a topic, those that are not due yet."""
        self.check_open()
        keys = self.keys(address)
        dropped, more = 0, True
        while more:
            answer = self.ask(self.taking, self.call(_PURGE, keys), f"purging {keys.path!r}")
            if answer[0] == b"missing" and self.auto_declare:
                return 0
            self._raise(answer, keys)
            dropped += answer[1]
            more = bool(answer[2])
        return dropped

    @typed
    def depth(self, address: Address) -> Depth:
        """How many messages are ready, in flight, delayed, dead; of a topic, how many are not due yet."""
        self.check_open()
        keys = self.keys(address)
        answer = self.ask(
            self.taking,
            _DEPTH((*keys.all, keys.dead_stream), (keys.kind.value.encode(), keys.group)),
            f"counting {keys.path!r}",
        )
        if answer[0] != b"missing" or (not self.auto_declare and address.kind is not Kind.INBOX):
            self._raise(answer, keys)
        ready, out, delayed, dead = map(operator.index, answer[1:5])
        for which, stream, begin in zip(answer[5::3], answer[6::3], answer[7::3], strict=True):
            last, more = begin, 1
            while more:
                counted, last, more = self.ask(self.taking, _COUNT([stream], [last]), f"counting {keys.path!r}")
                ready, dead = (ready + counted, dead) if which == b"ready" else (ready, dead + counted)
        return Depth(ready, out, delayed, dead)

    def ping(self) -> None:
        """One round trip."""
        self.check_open()
        self.ask(self.taking, Packed(b"*1\r\n$4\r\nPING\r\n", None), "answering a ping")

    def close(self) -> None:
        """Close every feed, the threads and the connections."""
        if self._closed:
            return
        try:
            self.mover.close()
            ends = self.taking.ends()
            for feed in list(self._feeds):
                # Deliveries that cannot be returned now come back when their leases end.
                with contextlib.suppress(NarrowboatError):
                    feed.close(ends)
        finally:
            self._closed = True
            self.waking.close()
            for client in (self.taking, self.freeing, self._publishing.client):
                client.close()

    def check_open(self) -> None:
        """Raise `Closed` after `close`, and in a forked child, where the connections are the parent's."""
        if os.getpid() != self._pid:
            raise Closed(
                f"this consumer or broker on {self.endpoint} is the parent's; open a new one after a fork", backend=SCHEME
            )
        if self._closed:
            raise Closed(f"this broker on {self.endpoint} was closed; open it again", backend=SCHEME)

    def keys(self, address: Address) -> StreamKeys:
        """The keys of `address`."""
        keys = self._keys.get(address)
        if keys is None:
            if len(self._keys) >= 4096:  # every request of another process brings a new inbox: the cache would only grow
                self._keys.clear()
            keys = self._keys[address] = stream_keys(address, self._prefix, cluster=self._cluster)
        return keys

    def call(self, what: Script, keys: StreamKeys, *arguments: bytes) -> Packed:
        """A call of `script` for the source at `keys`."""
        return what(keys.all, (keys.kind.value.encode(), keys.group, *arguments))

    def ask(self, client: RedisClient, call: Packed, doing: str, ends: float | None = None) -> Any:
        """The reply to one call; raises the call's error."""
        (reply,) = client.run([call], doing=doing, ends=ends)
        if isinstance(reply, ErrorReply):
            raise translate(reply, self.endpoint, doing=doing)
        if isinstance(reply, NarrowboatError):
            raise reply
        return reply

    def forget(self, feed: RedisFeed) -> None:
        """Drop a feed that was closed."""
        self._feeds.discard(feed)

    def drop(self, keys: StreamKeys) -> None:
        """Delete an inbox and its keys."""
        self._keys.pop(Address(Kind.INBOX, keys.path), None)
        self.ask(self.taking, self.call(_DELETE, keys, keys.stream), "closing an inbox")

    def _feed(self, source: Source, wake: Callable[[], None]) -> Feed:
        feed = RedisFeed(self, self.keys(source.address), source, wake)
        self._feeds.add(feed)
        return feed

    def _keep(self, keys: StreamKeys) -> Packed:
        """Make an inbox, or extend its life."""
        return self.call(_DECLARE, keys, b"1", *texts_of(_INBOX), b"%d" % round(INBOX_TTL * 1000))

    def _asking(self, messages: Sequence[Outgoing]) -> list[RedisFeed]:
        """Our inboxes that these messages name for their replies, as far as they need a heartbeat."""
        asked = {message.reply_to.path for message in messages if message.reply_to is not None}
        return [feed for feed in list(self._feeds) if feed.keys.path in asked and feed.needs_sign()] if asked else []

    def _raise(self, answer: Sequence[Any], keys: StreamKeys, asked: Properties = _INBOX) -> None:
        refused = refusal(answer, keys, asked)
        if refused is not None:
            raise refused


def _tick(keys: StreamKeys) -> Packed:
    return _TICK(keys.all, (keys.kind.value.encode(), keys.group))


def capabilities(url: Url, options: MessageOptions) -> BrokerCapabilities:
    """What `redis://` claims. The server's settings decide how durable it is; the URL says what they have to be."""
    RedisEndpoint.of(url, options)  # refuses what cannot work before anything is sent
    return BrokerCapabilities(
        scope=Scope.NETWORK,
        survives=SURVIVES[options.durability],
        settlement=Settlement.DURABLE,
        settle_fencing=SettleFencing.SERVER,
        kept=Kept.UNTIL_CONSUMED,
        lease=LeaseNature.MESSAGE,
        wake=WakeUp.NOTIFIED,
        topics=Support.NATIVE,
        order=Support.EMULATED,
        delay=Support.EMULATED,
        priority=Support.EMULATED,
        ttl=Support.EMULATED,
        dedup=Support.EMULATED if options.dedup > 0 else Support.ABSENT,
        replay=Support.ABSENT,
        dead_letters=Support.EMULATED,
        request_reply=Support.EMULATED,
        depth=Support.NATIVE,
        uncounted_release=Support.EMULATED,
        body_max=16 * 1024 * 1024,
        headers_max=64 * 1024,
        batch_max=1000,
        priorities_max=9,
        delay_max=30 * 86400.0,
        dedup_window=options.dedup,
    )


def _open(url: Url, options: MessageOptions, context: Context) -> Broker:
    endpoint = RedisEndpoint.of(url, options)
    try:
        return RedisBroker(endpoint, options, capabilities(url, options), context)
    except OSError as error:  # no more descriptors
        raise translate(error, endpoint, doing="opening") from error


broker = BrokerBackend(
    scheme=SCHEME,
    summary="messages in the streams of a Redis server, sentinel set-up or cluster",
    example="redis://:password@localhost:6379/0",
    options=MessageOptions,
    capabilities=capabilities,
    open=_open,
)
