"""Messages on Redis: a queue is a stream with one group, a topic a stream with a group for each subscription.

Every call is one script, so that nothing is ever half done and time is the server's alone; what is where stands in
`messages.lua`. A batch for several addresses is one pipeline. Claims, settlements and publishes have a connection each,
so that none of them queues behind another; a fourth is a subscription that wakes whoever waits.
"""

from __future__ import annotations

import contextlib
import operator
import os
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

from narrowboat.capabilities import BrokerCapabilities
from narrowboat.contract import Address, Broker, Context, Depth, Feed, Kind, Outgoing, Properties, Receipt, Source
from narrowboat.errors import Closed, NarrowboatError, PublishFailed, PublishUnknown, Unavailable
from narrowboat_redis import entries, refusals
from narrowboat_redis.errors import translate, typed
from narrowboat_redis.feed import RedisFeed
from narrowboat_redis.message_options import Declare, MessageOptions
from narrowboat_redis.mover import Mover
from narrowboat_redis.options import SCHEME
from narrowboat_redis.persistence import check_durability
from narrowboat_redis.places import Place, own_stream_prefix, place_of
from narrowboat_redis.resp import ErrorReply
from narrowboat_redis.scripts import Packed, Script, script
from narrowboat_redis.site import Site, Topology
from narrowboat_redis.waking import Waking
from narrowboat_redis.wire import Wire

_SEND, _DECLARE, _DELETE, _PURGE, _DEPTH, _TICK = (
    script("messages.lua", "upkeep.lua", f"{name}.lua") for name in ("send", "declare", "delete", "purge", "depth", "tick")
)
_COUNT = script("count.lua")

#: Bytes of bodies that one script is given: a larger one would keep the server from others for too long.
_PART = 4 * 1024 * 1024
#: Seconds after which an inbox goes that nobody has shown to be alive.
INBOX_TTL = 60.0
_INBOX = Properties(max_deliveries=0)
#: What the name of an inbox begins with; 32 hexadecimal digits follow.
_INBOX_NAME = "inbox-"


class RedisBroker(Broker):
    """One user of one namespace of messages."""

    def __init__(self, site: Site, options: MessageOptions, capabilities: BrokerCapabilities, context: Context) -> None:
        self.capabilities = capabilities
        self.site = site
        self.clock = context.clock
        #: Whether queues and topics are made on the way, as scripts are told.
        self.makes = b"1" if options.declare is Declare.AUTO else b""
        #: Bytes of messages that one answer may have: another half is left for their fields' names and sizes.
        self.most = b"%d" % (options.max_reply // 2)
        self._cluster = site.topology is Topology.CLUSTER
        self._prefix = options.prefix
        self._window = b"%d" % round(options.dedup * 1e6)
        self._places: dict[Address, Place] = {}
        self._feeds: set[RedisFeed] = set()
        self._closed = False
        self._pid = os.getpid()
        self.taking, self.freeing, self._sending = (Wire(site, context.timeout) for _ in range(3))
        try:
            check_durability(self.taking, site, options.durability, self.taking.ends())
        except BaseException:
            self.taking.close()
            raise
        self.waking = Waking(site, context.timeout, context.clock)
        self.mover = Mover(Wire(site, context.timeout), _tick)

    @typed
    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        """Store each message; the server has them when this returns."""
        self.check_open()
        groups: dict[Address, list[int]] = {}
        for index, message in enumerate(messages):
            group = groups.get(message.to)
            if group is None:
                groups[message.to] = [index]
            else:
                group.append(index)
        now = time.time()
        calls: list[Packed] = []
        parts: list[tuple[Place, list[int]]] = []
        for feed in self._asking(messages):
            calls.append(self._keep(feed.place))
            parts.append((feed.place, []))
        for address, indexes in groups.items():
            place = self.place(address)
            for part in _parts(messages, indexes):
                calls.append(self._send_call(place, [messages[index] for index in part], now))
                parts.append((place, part))
        replies = self._sending.run(calls, doing=f"publishing to {parts[-1][0].path!r}")
        answers: list[Any] = [None] * len(messages)
        for reply, (place, part) in zip(replies, parts, strict=True):
            found = self._sent(reply, place, [messages[index] for index in part])
            for index, answer in zip(part, found, strict=True):
                answers[index] = answer
        return answers

    @typed
    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        """A feed from `source`, which exists from now on."""
        self.declare(source, earliest=earliest)
        return self._feed(source, wake)

    @typed
    def inbox(self, wake: Callable[[], None]) -> tuple[Address, Feed]:
        """A private address; it goes with the feed, and a minute after its process at the latest."""
        self.check_open()
        address = Address(Kind.INBOX, f"{_INBOX_NAME}{secrets.token_hex(16)}")
        place = self.place(address)
        self.ask(self.taking, self._keep(place), "making an inbox")
        return address, self._feed(Source(address, _INBOX), wake)

    def is_inbox(self, address: Address) -> bool:
        """Whether `inbox` could have made that address."""
        digits = address.name.removeprefix(_INBOX_NAME)
        ours = address.name.startswith(_INBOX_NAME) and len(digits) == 32 and not address.group
        return ours and address.kind is Kind.INBOX and set(digits) <= set("0123456789abcdef")

    @typed
    def declare(self, source: Source, *, earliest: bool) -> None:
        """Make it if it is not there; refuse it when it differs."""
        self.check_open()
        place = self.place(source.address)
        answer = self.ask(
            self.taking,
            self.call(_DECLARE, place, self.makes, *refusals.texts_of(source.properties), b""),
            f"declaring {place.path!r}",
        )
        self._raise(answer, place, source.properties)

    @typed
    def delete(self, address: Address) -> bool:
        """Remove it with all its messages; what is out becomes stale."""
        self.check_open()
        place = self.place(address)
        own = own_stream_prefix(place, cluster=self._cluster)
        answer = self.ask(self.taking, self.call(_DELETE, place, own), f"deleting {place.path!r}")
        self._raise(answer, place)
        return bool(answer[1])

    @typed
    def purge(self, address: Address) -> int:
        """Drop what is ready or delayed; of a topic, what is not due yet."""
        self.check_open()
        place = self.place(address)
        dropped, more = 0, True
        while more:
            answer = self.ask(self.taking, self.call(_PURGE, place), f"purging {place.path!r}")
            if answer[0] == b"missing" and self.makes:
                return 0
            self._raise(answer, place)
            dropped += answer[1]
            more = bool(answer[2])
        return dropped

    @typed
    def depth(self, address: Address) -> Depth:
        """How many messages are ready, in flight, delayed, dead; of a topic, how many are not due yet."""
        self.check_open()
        place = self.place(address)
        answer = self.ask(
            self.taking,
            _DEPTH((*place.keys, place.dead_stream), (place.kind.value.encode(), place.group)),
            f"counting {place.path!r}",
        )
        if answer[0] != b"missing" or (not self.makes and address.kind is not Kind.INBOX):
            self._raise(answer, place)
        ready, out, delayed, dead = map(operator.index, answer[1:5])
        for which, stream, begin in zip(answer[5::3], answer[6::3], answer[7::3], strict=True):
            last, more = begin, 1
            while more:
                counted, last, more = self.ask(self.taking, _COUNT([stream], [last]), f"counting {place.path!r}")
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
                # What cannot be given back now comes back when its lease ends.
                with contextlib.suppress(NarrowboatError):
                    feed.close(ends)
        finally:
            self._closed = True
            self.waking.close()
            for wire in (self.taking, self.freeing, self._sending):
                wire.close()

    def check_open(self) -> None:
        """Raise `Closed` after `close`, and in a forked child, where the connections are the parent's."""
        if os.getpid() != self._pid:
            raise Closed(f"this consumer or broker on {self.site} is the parent's; open a new one after a fork", backend=SCHEME)
        if self._closed:
            raise Closed(f"this broker on {self.site} was closed; open it again", backend=SCHEME)

    def place(self, address: Address) -> Place:
        """Where `address` lies."""
        place = self._places.get(address)
        if place is None:
            if len(self._places) >= 4096:  # addresses of inboxes come and go
                self._places.clear()
            place = self._places[address] = place_of(address, self._prefix, cluster=self._cluster)
        return place

    def call(self, what: Script, place: Place, *arguments: bytes) -> Packed:
        """A script's call for one place."""
        return what(place.keys, (place.kind.value.encode(), place.group, *arguments))

    def ask(self, wire: Wire, call: Packed, doing: str, ends: float | None = None) -> Any:
        """The reply to one call; raises what it met."""
        (reply,) = wire.run([call], doing=doing, ends=ends)
        if isinstance(reply, ErrorReply):
            raise translate(reply, self.site, doing=doing)
        if isinstance(reply, NarrowboatError):
            raise reply
        return reply

    def forget(self, feed: RedisFeed) -> None:
        """That feed was closed."""
        self._feeds.discard(feed)

    def drop(self, place: Place) -> None:
        """An inbox goes."""
        self._places.pop(Address(Kind.INBOX, place.path), None)
        self.ask(self.taking, self.call(_DELETE, place, place.stream), "closing an inbox")

    def _feed(self, source: Source, wake: Callable[[], None]) -> Feed:
        feed = RedisFeed(self, self.place(source.address), source, wake)
        self._feeds.add(feed)
        return feed

    def _keep(self, place: Place) -> Packed:
        """Make an inbox, or show that it is alive."""
        return self.call(_DECLARE, place, b"1", *refusals.texts_of(_INBOX), b"%d" % round(INBOX_TTL * 1000))

    def _asking(self, messages: Sequence[Outgoing]) -> list[RedisFeed]:
        """The inboxes of ours to which these messages want their replies, where they need a sign of life."""
        asked = {message.reply_to.path for message in messages if message.reply_to is not None}
        return [feed for feed in list(self._feeds) if feed.place.path in asked and feed.needs_sign()] if asked else []

    def _send_call(self, place: Place, messages: Sequence[Outgoing], now: float) -> Packed:
        arguments = [place.kind.value.encode(), place.group, self.makes, self._window, b"1", b"%d" % len(messages)]
        if all([entries.is_plain(message, now) for message in messages]):  # noqa: C419  # a list is faster
            for message in messages:
                arguments += (message.id.encode(), message.body)
            return _SEND(place.keys, arguments)
        arguments[4] = b""
        for message in messages:
            fields = entries.fields_of(message)
            arguments += (
                b"%d" % len(fields),
                b"%d" % message.priority,
                b"%d" % -(-message.delay * 1e6 // 1),  # rounded up: never early
                b"%d" % (0 if message.ttl is None else max(1, round(message.ttl * 1e6))),
                b"1" if message.dedup else b"",
                message.id.encode(),
                *fields,
            )
            if message.delay:
                self.mover.note(place, message.delay)
        return _SEND(place.keys, arguments)

    def _sent(self, reply: Any, place: Place, messages: Sequence[Outgoing]) -> Sequence[Receipt | NarrowboatError]:
        """What a script's reply means for each of its messages."""
        if isinstance(reply, ErrorReply | NarrowboatError):
            return [_publish_error(reply, self.site, place, message) for message in messages]
        refused = refusals.refusal(reply, place, _INBOX)
        if refused is not None:
            return [refused] * len(messages)
        if len(reply) == 1:
            return [Receipt(message.id) for message in messages]
        return [Receipt(message.id, letter == 100) for message, letter in zip(messages, bytes(reply[1]), strict=True)]

    def _raise(self, answer: Sequence[Any], place: Place, asked: Properties = _INBOX) -> None:
        refused = refusals.refusal(answer, place, asked)
        if refused is not None:
            raise refused


def _tick(place: Place) -> Packed:
    return _TICK(place.keys, (place.kind.value.encode(), place.group))


def _parts(messages: Sequence[Outgoing], indexes: list[int]) -> list[list[int]]:
    """`indexes` in parts whose bodies are not too much for one script."""
    if sum([len(messages[index].body) for index in indexes]) <= _PART:
        return [indexes]
    parts: list[list[int]] = [[]]
    size = 0
    for index in indexes:
        size += len(messages[index].body)
        if size > _PART and parts[-1]:
            parts.append([])
            size = len(messages[index].body)
        parts[-1].append(index)
    return parts


def _publish_error(reply: ErrorReply | NarrowboatError, site: Site, place: Place, message: Outgoing) -> NarrowboatError:
    """What an error means for one message: refused, or unknown where no answer came."""
    found = translate(reply, site, doing=f"publishing to {place.path!r}")
    if not isinstance(found, Unavailable):
        return found
    error: NarrowboatError
    if isinstance(reply, ErrorReply) or not found.sent:
        error = PublishFailed(
            f"message {message.id!r} to {place.path!r} was refused: {found}", id=message.id, backend=SCHEME, retryable=True
        )
    else:
        error = PublishUnknown(
            f"message {message.id!r} to {place.path!r} may or may not be delivered: {found} "
            "Publish it again with the same id=, which is delivered once within the dedup window.",
            id=message.id,
            backend=SCHEME,
        )
    error.__cause__ = found
    return error
