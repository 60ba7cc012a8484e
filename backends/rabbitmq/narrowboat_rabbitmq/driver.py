"""Messages on RabbitMQ: one I/O thread, a connection for publishing and one for everything else.

Two connections, because a server that raises an alarm stops reading from those that publish: acks must not wait behind
them. Callers enter side by side from any thread and wait for answers; nothing here waits for anything but the server.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

from pika.exceptions import ChannelClosedByBroker

from narrowboat.capabilities import BrokerCapabilities
from narrowboat.contract import Address, Broker, Context, Depth, Feed, Kind, Outgoing, Properties, Receipt, Source
from narrowboat.errors import Closed, NarrowboatError, PublishFailed, PublishUnknown, Unavailable
from narrowboat_rabbitmq.answer import Answer
from narrowboat_rabbitmq.channel import Channel
from narrowboat_rabbitmq.envelope import properties_of
from narrowboat_rabbitmq.errors import Operation, blocked, missing
from narrowboat_rabbitmq.feed import RabbitFeed
from narrowboat_rabbitmq.ladder import route
from narrowboat_rabbitmq.link import Link, check_certificates
from narrowboat_rabbitmq.loop import Loop
from narrowboat_rabbitmq.options import SCHEME, Options, QueueType, Site
from narrowboat_rabbitmq.publisher import CONFIRMED, NOT_SENT, REFUSED, RETURNED, Batch, Outcome, Publisher, Record
from narrowboat_rabbitmq.topology import Topology

#: Seconds between finding that a queue was deleted and making it again. Made at once, a server takes its old consumers
#: (any process's) for consumers of the new queue, gives them its messages, and their channels drop them (seen with 3.10).
PAUSE = 0.2
#: Seconds for which a server that was silent before, or until now, is waited for when a connection is closed.
_HURRY = 0.1
_INBOX = Properties(max_deliveries=0)
#: Names of inboxes: ours, those of the server's direct reply-to, and those that it made for exclusive queues.
INBOX = re.compile(r"narrowboat\.inbox\.[0-9a-f]{32}|amq\.rabbitmq\.reply-to(\..+)?|amq\.gen-.+")


class RabbitBroker(Broker):
    """One user of one namespace of messages."""

    def __init__(self, site: Site, options: Options, capabilities: BrokerCapabilities, context: Context) -> None:
        wrong = check_certificates(site)
        if wrong is not None:
            raise wrong
        self.capabilities = capabilities
        self.site = site
        self.clock = context.clock
        self.timeout = context.timeout
        self.loop = Loop("narrowboat-rabbitmq-io", options.heartbeat, context.clock)
        self.link = Link(site, self.loop, context.timeout, "narrowboat")
        self.topology = Topology(self.link, options)
        self.publisher = Publisher(Link(site, self.loop, context.timeout, "narrowboat publishing"))
        self._counted = options.queue_type is QueueType.QUORUM
        self._feeds: set[RabbitFeed] = set()
        self._closed = False

    # -- publishing -----------------------------------------------------------------------------------------------

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        """Store each message; the server has confirmed those with a receipt."""
        self.check_open()
        deadline = self.clock() + self.timeout
        answers: list[Any] = [None] * len(messages)
        self._send(messages, range(len(messages)), answers, deadline, again=True)
        return answers

    def _send(
        self, messages: Sequence[Outgoing], indexes: Sequence[int], answers: list[Any], deadline: float, *, again: bool
    ) -> None:
        records: list[Record] = []
        sent: list[int] = []
        self._prepare(messages, indexes, answers, deadline)
        now, place_of, ladder = time.time(), self.topology.place, self.topology.ladder
        for index in indexes:
            message = messages[index]
            if answers[index] is not None:
                continue
            place = place_of(message.to)
            properties = properties_of(message, now)
            if message.delay > 0:
                level, key = route(message.delay, place.word)
                records.append(Record(ladder.exchange(level), key, message.body, properties, True))
            else:
                records.append(Record(place.exchange, place.routing_key, message.body, properties, place.mandatory))
            sent.append(index)
        if not records:
            return
        try:
            batch = self.publisher.publish(records, Operation(f"publishing to {messages[sent[0]].to.path!r}", deadline))
        except Unavailable as error:
            for index in sent:
                answers[index] = _not_sent(messages[index], str(error), error)
            return
        nowhere: list[int] = []
        for index, outcome in zip(sent, batch.results, strict=True):
            if outcome is CONFIRMED:
                answers[index] = Receipt(messages[index].id)
            elif outcome is RETURNED and again and self.topology.makes and messages[index].delay <= 0:
                nowhere.append(index)
            else:
                answers[index] = self._failed(messages[index], outcome, batch)
        if nowhere:  # deleted by somebody since we knew it; what was returned was surely not stored
            for address in {messages[index].to for index in nowhere}:
                self.topology.forget(address)
            Answer[None]().wait(PAUSE)
            self._send(messages, nowhere, answers, deadline, again=False)

    def _prepare(self, messages: Sequence[Outgoing], indexes: Sequence[int], answers: list[Any], deadline: float) -> None:
        """Let there be what is published to; a refusal is the answer for each message that is for it."""
        last: Address | None = None
        targets: dict[Address, float] = {}
        for index in indexes:
            message = messages[index]
            if message.to is not last or message.delay > 0:
                last = message.to
                targets[last] = max(message.delay, targets.get(last, 0.0))
        refused: dict[Address, NarrowboatError] = {}
        for address, delay in targets.items():
            try:
                self.topology.use(address, deadline)
                if delay > 0:
                    self.topology.delay(address, route(delay, "")[0], deadline)
            except NarrowboatError as error:
                refused[address] = error
        for index in indexes if refused else ():
            why = refused.get(messages[index].to)
            if why is not None:
                answers[index] = _not_sent(messages[index], str(why), why) if why.retryable else why

    def _failed(self, message: Outgoing, outcome: Outcome, batch: Batch) -> NarrowboatError:
        path, reason = message.to.path, self.publisher.blocked()
        if outcome is NOT_SENT:
            why = blocked(self.site, reason) if reason is not None else f"{self.site} stopped answering ({batch.error})"
            return _not_sent(message, why, batch.error)
        if outcome is RETURNED:
            self.topology.forget(message.to)
            return missing(self.topology.place(message.to))
        if outcome is REFUSED:
            return PublishFailed(
                f"message {message.id!r} to {path!r} was refused by the server: it could not store it, or the queue has a "
                "limit that is reached. It will not be delivered.",
                id=message.id,
                backend=SCHEME,
            )
        if isinstance(batch.error, ChannelClosedByBroker):  # a topic is gone, which ends the channel for all that is on it
            self.topology.forget(message.to)
        why = (
            blocked(self.site, reason) if reason is not None else f"{self.site} did not confirm it ({batch.error or 'in time'})"
        )
        unknown = PublishUnknown(
            f"message {message.id!r} to {path!r} may or may not be delivered: {why}. Publishing it again may deliver it twice, "
            "with the same id where the program gives one.",
            id=message.id,
            backend=SCHEME,
        )
        unknown.__cause__ = batch.error
        return unknown

    # -- sources --------------------------------------------------------------------------------------------------

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        """A feed from `source`, which exists from now on."""
        self.declare(source, earliest=earliest)
        return self._feed(source, wake, counted=self._counted)

    def inbox(self, wake: Callable[[], None]) -> tuple[Address, Feed]:
        """A queue for replies that belongs to this connection and goes with it."""
        self.check_open()
        address = Address(Kind.INBOX, f"narrowboat.inbox.{secrets.token_hex(16)}")
        self.make_inbox(address.name, self.clock() + self.timeout)
        return address, self._feed(Source(address, _INBOX), wake, counted=False)

    def is_inbox(self, address: Address) -> bool:
        """Whether its name is one that `inbox` makes, or that a server makes for whoever asks over AMQP by itself."""
        return address.kind is Kind.INBOX and INBOX.fullmatch(address.name) is not None

    def make_inbox(self, name: str, deadline: float) -> None:
        """Declare a queue for replies. Idempotent on the connection that it belongs to."""
        operation = Operation("making an inbox", deadline)
        channel = Channel.open(self.link, operation)
        try:
            channel.call([("queue_declare", {"queue": name, "exclusive": True, "auto_delete": False})], operation)
        finally:
            channel.close(0.0)

    def declare(self, source: Source, *, earliest: bool) -> None:
        """Make it if it is not there; refuse it when it differs."""
        self.check_open()
        self.topology.declare(source.address, source.properties, self.clock() + self.timeout)

    def delete(self, address: Address) -> bool:
        """Remove it with all its messages; what is out becomes stale."""
        self.check_open()
        return self.topology.delete(address, self.clock() + self.timeout)

    def purge(self, address: Address) -> int:
        """Drop what is ready."""
        self.check_open()
        return self.topology.purge(address, self.clock() + self.timeout)

    def depth(self, address: Address) -> Depth:
        """How many are ready and dead; the server does not tell what is in others' hands or on the ladder."""
        self.check_open()
        return self.topology.depth(address, self.clock() + self.timeout)

    def ping(self) -> None:
        """One round trip on the connection."""
        self.check_open()
        self.topology.ping(self.clock() + self.timeout)

    # -- the end --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close every feed and both connections, and end the I/O thread."""
        if self._closed:
            return
        ends = self.clock() + self.timeout
        for feed in list(self._feeds):
            feed.close()
        self._closed = True
        links = (self.publisher.link, self.link)
        ends_of = [(link, link.begin_close()) for link in links]
        for link, done in ends_of:
            # Who was waited for in vain a moment ago is not waited for again.
            link.finish_close(done, _HURRY if any(each.silent for each in links) else max(_HURRY, ends - self.clock()))
        self.loop.close(max(0.5, ends - self.clock()))

    def check_open(self) -> None:
        """Raise `Closed` after `close`."""
        if self._closed:
            raise Closed("this RabbitMQ broker was closed; open it again", backend=SCHEME)

    def forget(self, feed: RabbitFeed) -> None:
        """That feed was closed."""
        self._feeds.discard(feed)

    def _feed(self, source: Source, wake: Callable[[], None], *, counted: bool) -> Feed:
        feed = RabbitFeed(self, source, wake, counted=counted)
        self._feeds.add(feed)
        return feed


def _not_sent(message: Outgoing, why: str, cause: BaseException | None) -> PublishFailed:
    failed = PublishFailed(
        f"message {message.id!r} to {message.to.path!r} was not sent: {why.rstrip('.')}. It may be published again.",
        id=message.id,
        backend=SCHEME,
        retryable=True,
    )
    failed.__cause__ = cause
    return failed
