"""Messages on RabbitMQ: the calls of the contract. Any number of threads enter side by side, and wait for the server alone."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

from pika.exceptions import ChannelClosedByBroker

from narrowboat.capabilities import BrokerCapabilities
from narrowboat.contract import Address, Broker, Context, Depth, Feed, Kind, Outgoing, Properties, Receipt, Source
from narrowboat.driver.endpoint import Endpoint
from narrowboat.errors import Closed, NarrowboatError, Unavailable
from narrowboat_rabbitmq.client import Client
from narrowboat_rabbitmq.connection.loop import pause
from narrowboat_rabbitmq.connection.publisher import CONFIRMED, NOT_SENT, REFUSED, RETURNED, Batch, Outcome, Record
from narrowboat_rabbitmq.errors import Operation, blocked, missing, refusals
from narrowboat_rabbitmq.feed import RabbitFeed
from narrowboat_rabbitmq.options import Options
from narrowboat_rabbitmq.protocol.envelope import properties_of
from narrowboat_rabbitmq.protocol.ladder import start

#: Seconds between finding that a queue was deleted and making it again. Made at once, a server takes its old consumers
#: (any process's) for consumers of the new queue, gives them its messages, and their channels drop them (seen with 3.10).
_PAUSE = 0.2
_INBOX = Properties(max_deliveries=0)
#: Names of inboxes: ours, those of the server's direct reply-to, and those that it made for exclusive queues.
INBOX = re.compile(r"narrowboat\.inbox\.[0-9a-f]{32}|amq\.rabbitmq\.reply-to(\..+)?|amq\.gen-.+")


class RabbitBroker(Broker):
    """One user of one namespace of messages."""

    def __init__(self, endpoint: Endpoint, options: Options, capabilities: BrokerCapabilities, context: Context) -> None:
        if endpoint.tls:
            options.context(backend=endpoint.scheme)  # a file that is not what it should be is told before anything is sent
        self.capabilities = capabilities
        self._client = Client(endpoint, options, context)
        self._feeds: set[RabbitFeed] = set()

    # -- publishing -----------------------------------------------------------------------------------------------

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        """Store each message; the server has confirmed those with a receipt."""
        answers: list[Any] = [None] * len(messages)
        self._send(messages, range(len(messages)), answers, self._client.deadline(), again=True)
        return answers

    def _send(
        self, messages: Sequence[Outgoing], indexes: Sequence[int], answers: list[Any], deadline: float, *, again: bool
    ) -> None:
        self._prepare(messages, indexes, answers, deadline)
        sources, now = self._client.sources, time.time()
        sent = [index for index in indexes if answers[index] is None]
        records = [self._record(messages[index], now) for index in sent]
        if not records:
            return
        operation = Operation(f"publishing to {messages[sent[0]].to.path!r}", deadline)
        try:
            batch = self._client.publisher.publish(records, operation)
        except Unavailable as error:
            cause = error.with_traceback(None)  # as in `_prepare`
            for index in sent:
                answers[index] = _not_sent(messages[index], cause, cause)
            return
        nowhere: list[int] = []
        for index, outcome in zip(sent, batch.results, strict=True):
            message = messages[index]
            if outcome is CONFIRMED:
                answers[index] = Receipt(message.id)
            elif outcome is RETURNED and again and sources.auto_declare and message.delay <= 0:
                nowhere.append(index)
            else:
                answers[index] = self._failed(message, outcome, batch)
        if nowhere:  # somebody deleted it since we knew it; what was returned was surely not stored
            for address in {messages[index].to for index in nowhere}:
                sources.forget(address)
            pause(_PAUSE)
            self._send(messages, nowhere, answers, deadline, again=False)

    def _record(self, message: Outgoing, now: float) -> Record:
        route, properties = self._client.sources.route(message.to), properties_of(message, now)
        if message.delay > 0:
            level, key = start(message.delay, route.word)
            return Record(self._client.sources.ladder.exchange(level), key, message.body, properties, True)
        return Record(route.exchange, route.routing_key, message.body, properties, route.mandatory)

    def _prepare(self, messages: Sequence[Outgoing], indexes: Sequence[int], answers: list[Any], deadline: float) -> None:
        """Let there be what is published to; a refusal is the answer for each message that is for it."""
        sources = self._client.sources
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
                sources.ensure(address, deadline)
                if delay > 0:
                    sources.ensure_delay(address, start(delay, "")[0], deadline)
            except NarrowboatError as error:
                # Its frames have the answers, which have it: they would keep each other, and what the caller holds.
                refused[address] = error.with_traceback(None)
        for index in indexes if refused else ():
            why = refused.get(messages[index].to)
            if why is not None:
                answers[index] = _not_sent(messages[index], why, why) if why.retryable else why

    def _failed(self, message: Outgoing, outcome: Outcome, batch: Batch) -> NarrowboatError:
        client, reason = self._client, self._client.publisher.blocked()
        alarm = None if reason is None else blocked(client.endpoint, reason)
        if outcome is NOT_SENT:
            return _not_sent(message, alarm or f"{client.endpoint} stopped answering ({batch.error})", batch.error)
        if outcome is RETURNED:
            client.sources.forget(message.to)
            return missing(client.sources.route(message.to))
        if outcome is REFUSED:
            why = "the server could not store it, or the queue has a limit that is reached. It will not be delivered."
            return refusals.refused(message.id, message.to.path, why)
        if isinstance(batch.error, ChannelClosedByBroker):  # a topic is gone, which ends the channel for all that is on it
            client.sources.forget(message.to)
        why = alarm or f"{client.endpoint} did not confirm it ({batch.error or 'in time'})"
        return refusals.unknown(message.id, message.to.path, why, cause=batch.error)

    # -- sources --------------------------------------------------------------------------------------------------

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        """A feed from `source`, which exists from now on."""
        self.declare(source, earliest=earliest)
        return self._feed(source, wake, counted=self._client.counted)

    def inbox(self, wake: Callable[[], None]) -> tuple[Address, Feed]:
        """A queue for replies that belongs to this connection and goes with it."""
        address = Address(Kind.INBOX, f"narrowboat.inbox.{secrets.token_hex(16)}")
        self._client.make_inbox(address.name, self._client.deadline())
        return address, self._feed(Source(address, _INBOX), wake, counted=False)

    def is_inbox(self, address: Address) -> bool:
        """Whether its name is one that `inbox` makes, or that a server makes for whoever asks over AMQP by itself."""
        return address.kind is Kind.INBOX and INBOX.fullmatch(address.name) is not None

    def declare(self, source: Source, *, earliest: bool) -> None:
        """Make it if it is not there; refuse it when it differs."""
        self._client.sources.declare(source.address, source.properties, self._client.deadline())

    def stored(self, address: Address) -> Properties | None:
        """What a consumer declared, or somebody altered since, as far as the server's text has room for it."""
        return self._client.sources.stored(address, self._client.deadline())

    def alter(self, address: Address, *, lease: float | None, max_deliveries: int | None) -> Properties:
        """Store another lease or limit: what keeps them is made anew, and no queue is touched."""
        return self._client.sources.alter(address, lease, max_deliveries, self._client.deadline())

    def delete(self, address: Address) -> bool:
        """Remove it with all its messages; deliveries that are out become stale."""
        return self._client.sources.delete(address, self._client.deadline())

    def purge(self, address: Address) -> int:
        """Drop what is ready."""
        return self._client.sources.purge(address, self._client.deadline())

    def depth(self, address: Address) -> Depth:
        """How many are ready and dead; the server does not tell what consumers hold, or what is on the ladder."""
        return self._client.sources.depth(address, self._client.deadline())

    def ping(self) -> None:
        """One round trip on the connection that does not publish."""
        self._client.sources.ping(self._client.deadline())

    # -- the end --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close every feed and both connections, and end the I/O thread."""
        try:
            deadline = self._client.deadline()
        except Closed:
            return
        for feed in list(self._feeds):
            feed.close()
        self._client.close(deadline)

    def _feed(self, source: Source, wake: Callable[[], None], *, counted: bool) -> Feed:
        feed = RabbitFeed(self._client, source, wake, self._feeds.discard, counted=counted)
        self._feeds.add(feed)
        return feed


def _not_sent(message: Outgoing, why: object, cause: BaseException | None) -> NarrowboatError:
    return refusals.not_sent(message.id, message.to.path, why, cause=cause)
