"""Confirmed publishing: callers on any thread hand over batches, and the I/O thread keeps a window of messages in flight.

No batch waits for another's confirms. What the server has not confirmed when the operation timeout ends, or when the connection
breaks, is unknown; what was not sent until then is never sent. Nothing is sent twice here.
"""

from __future__ import annotations

import enum
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from narrowboat_rabbitmq.connection.channel import Channel
from narrowboat_rabbitmq.connection.link import Link
from narrowboat_rabbitmq.connection.loop import Answer
from narrowboat_rabbitmq.errors import Operation
from narrowboat_rabbitmq.protocol.content import Content
from narrowboat_rabbitmq.protocol.envelope import message_id

#: Messages that are sent and not confirmed. Fewer leave the server idle between confirms; more gain little and let
#: pika's buffers grow.
WINDOW = 2000
#: Bytes of bodies that are sent and not confirmed, whatever their number.
WINDOW_BYTES = 32 * 1024 * 1024


class Outcome(enum.Enum):
    """What became of one published message."""

    CONFIRMED = "confirmed"
    RETURNED = "returned"  #: it reached no queue
    REFUSED = "refused"  #: the server could not store it
    UNKNOWN = "unknown"
    NOT_SENT = "not sent"


CONFIRMED, RETURNED, REFUSED, UNKNOWN, NOT_SENT = Outcome


class Record(NamedTuple):
    """A message as it is published."""

    exchange: str
    routing_key: str
    body: bytes
    properties: Content
    mandatory: bool


class Batch:
    """The messages of one caller, and what became of each."""

    __slots__ = ("answer", "error", "left", "over", "records", "results")

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self.results: list[Outcome] = [NOT_SENT] * len(records)
        self.left = len(records)
        self.answer: Answer[None] = Answer()
        self.error: BaseException | None = None  #: why some are unknown or not sent
        self.over = False  #: nobody waits any more: what was not sent must not be sent


class _Confirms:
    """The state of one channel in confirm mode. On the I/O thread."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.session = channel.session
        self._backlog: deque[tuple[Batch, int]] = deque()  # a batch, and where in it to go on
        self._pending: dict[int, tuple[Batch, int]] = {}  # by the server's number
        self._sent = 0
        self._bytes = 0
        self._oldest = 1
        self._returned: set[tuple[str, object]] = set()

    def submit(self, batch: Batch) -> None:
        """Send a batch as the window allows."""
        if not self.channel.alive:
            batch.error = self.channel.error
            batch.over = True
            batch.answer.give(None)
            return
        self._backlog.append((batch, 0))
        self.pump()

    def pump(self) -> None:
        """Send on while the window has room and the server takes messages."""
        backlog, pending = self._backlog, self._pending
        if not backlog or self.session.blocked is not None or not self.channel.alive:
            return
        publish, channel = self.session.connection.publish, self.channel.raw.channel_number
        while backlog:
            batch, index = backlog[0]
            records = batch.records
            if batch.over:
                backlog.popleft()
                continue
            while index < len(records):
                if len(pending) >= WINDOW or (self._bytes > WINDOW_BYTES and pending):
                    backlog[0] = batch, index
                    return
                exchange, routing_key, body, properties, mandatory = records[index]
                self._sent += 1
                pending[self._sent] = batch, index
                batch.results[index] = UNKNOWN
                self._bytes += len(body)
                index += 1
                publish(channel, exchange, routing_key, body, properties, mandatory)
            backlog.popleft()

    def confirmed(self, frame: Any) -> None:
        """The server has confirmed or refused one message, or all up to one."""
        method = frame.method
        number, outcome = method.delivery_tag, CONFIRMED if method.NAME == "Basic.Ack" else REFUSED
        if method.multiple:
            for each in range(self._oldest, number + 1):
                self._resolve(each, outcome)
            self._oldest = max(self._oldest, number + 1)
        else:
            self._resolve(number, outcome)
            if number == self._oldest:
                self._oldest += 1
        if self._backlog and len(self._pending) <= WINDOW // 2:
            self.pump()

    def returned(self, channel: Any, method: Any, properties: bytes, body: bytes) -> None:
        """A mandatory message reached no queue; its confirm follows."""
        self._returned.add((method.routing_key, message_id(properties)))

    def _resolve(self, number: int, outcome: Outcome) -> None:
        found = self._pending.pop(number, None)
        if found is None:
            return
        batch, index = found
        record = batch.records[index]
        self._bytes -= len(record.body)
        if self._returned:
            mark = record.routing_key, record.properties.message_id
            if mark in self._returned:
                self._returned.discard(mark)
                outcome = RETURNED
        batch.results[index] = outcome
        batch.left -= 1
        if batch.left == 0:
            batch.answer.give(None)

    def abandon(self, batch: Batch, error: BaseException | None) -> None:
        """The caller of `batch` stops waiting. What was sent stays unknown, the rest is never sent."""
        if not batch.answer.given:
            batch.over = True
            batch.error = batch.error or error
            batch.answer.give(None)

    def end(self, error: BaseException) -> None:
        """Abandon every batch: the channel is gone."""
        batches = {id(batch): batch for batch, _ in (*self._backlog, *self._pending.values())}
        self._backlog.clear()
        self._pending.clear()
        for batch in batches.values():
            self.abandon(batch, error)


class Publisher:
    """See the module's text."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._mutex = threading.Lock()
        self._confirms: _Confirms | None = None

    def publish(self, records: Sequence[Record], operation: Operation) -> Batch:
        """Send them and wait until each is confirmed or `deadline` has come; the batch has the outcomes.

        Raises only where nothing at all was sent.
        """
        confirms = self._ready(operation._replace(prepares=True))
        heard = confirms.session.heard
        batch = Batch(records)
        post = self.link.loop.post
        post(lambda: confirms.submit(batch))
        if not batch.answer.wait(operation.deadline - self.link.loop.clock()):
            post(lambda: confirms.abandon(batch, None))
            self.link.doubt(confirms.session, heard)
            batch.answer.wait(1.0)  # the I/O thread never blocks
        return batch

    def blocked(self) -> str | None:
        """Why the server takes no messages; None while it does."""
        confirms = self._confirms
        return confirms.session.blocked if confirms is not None and confirms.session.alive else None

    def _ready(self, operation: Operation) -> _Confirms:
        confirms = self._confirms
        if confirms is not None and confirms.channel.alive:
            return confirms
        with self.link.alone(self._mutex, operation):
            confirms = self._confirms
            if confirms is None or not confirms.channel.alive:
                confirms = self._confirms = self._open(operation)
            return confirms

    def _open(self, operation: Operation) -> _Confirms:
        channel = Channel.open(self.link, operation)
        confirms = _Confirms(channel)
        answer: Answer[list[Any]] = Answer()

        def start() -> None:
            if channel.alive:
                channel.raw.add_on_return_callback(confirms.returned)
                channel.session.on_block.append(confirms.pump)
                channel.on_end = confirms.end
            channel.start([("confirm_delivery", {"ack_nack_callback": confirms.confirmed})], answer)

        self.link.loop.post(start)
        channel.wait(answer, operation)
        return confirms
