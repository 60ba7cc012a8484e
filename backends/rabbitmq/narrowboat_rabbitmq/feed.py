"""One consumer's feed from one queue, subscription or inbox: a channel of its own, made again after it ended.

The server pushes, up to as many messages as the core has asked for and not settled. An empty buffer does not prove an empty
queue, so before "nothing" is answered the queue is asked how much is ready, by a call on the same channel: what was on its way
to us arrives before that answer does.

A settlement is an ack on the channel, then the same question to the queue as barrier: its answer says that the queue has had
the ack (for quorum queues `protocol.acks` says how). Deliveries are numbered within one channel's life. What came on a channel
that is gone is stale, or of unknown outcome where it was settled and not answered; nothing is sent for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pika.exceptions import ChannelClosedByBroker

from narrowboat.contract import Delivery, Feed, Kind, Outcome, Received, Return, Source
from narrowboat.errors import Closed, NarrowboatError, Unsupported
from narrowboat_rabbitmq.client import Client
from narrowboat_rabbitmq.connection.channel import Channel, Step, retry_crashed
from narrowboat_rabbitmq.connection.loop import Answer, pause
from narrowboat_rabbitmq.errors import RESOURCE_LOCKED, Operation
from narrowboat_rabbitmq.options import SCHEME
from narrowboat_rabbitmq.protocol.envelope import Raw, delivery_of
from narrowboat_rabbitmq.settlement import Settlement
from narrowboat_rabbitmq.stream import Job, Stream

#: Seconds until an idle feed looks again although nobody woke it. The server pushes, so this only catches what was missed.
IDLE = 5.0
#: Seconds that a look waits for what the queue says is ready, while a settlement makes room for it.
GRACE = 0.25
#: The most seconds for which a consumer that leaves waits for what is on its way.
CALM = 0.1
#: The most that a consumer of AMQP can be given ahead.
_PREFETCH_MAX = 65_535


class RabbitFeed(Feed):
    """See the module's text."""

    def __init__(
        self,
        client: Client,
        source: Source,
        wake: Callable[[], None],
        on_close: Callable[[RabbitFeed], object],
        *,
        counted: bool,
    ) -> None:
        self._client = client
        self._source = source
        self._route = client.sources.route(source.address)
        self._path = self._route.path
        self._wake = wake
        self._on_close = on_close
        self._counted = counted
        self._settlement = Settlement(client, source, counted=counted)
        self._mutex = threading.Lock()  # between receivers that take
        self._setup = threading.Lock()  # between those that make a stream
        self._stream = Stream(wake)
        self._asks = True  #: the queue can be asked for a message
        self._credit = 0
        self._leaving = False
        self._closed = False

    # -- receiving ------------------------------------------------------------------------------------------------

    def receive(self, limit: int) -> Received:
        """Take what was pushed; where that is nothing, ask the queue."""
        deadline = self._client.deadline()
        if self._closed:
            raise Closed(f"this consumer of {self._path!r} was closed", backend=SCHEME)
        taken: list[Raw] = []
        stream = self._stream
        try:
            if not stream.buffer:
                stream = self._ready(limit, deadline)
            deliveries = self._take(stream, limit, taken)
            if not deliveries and self._look(stream, limit, deadline):
                deliveries = self._take(stream, limit, taken)
            received = Received(deliveries, 0.0 if deliveries else IDLE)
        except BaseException:
            self._put_back(stream, taken)
            raise
        return received  # no call between here and the caller, so no interrupt

    def _take(self, stream: Stream, limit: int, taken: list[Raw]) -> list[Delivery]:
        """Take up to `limit` messages that have not expired. `taken` is what an interrupted caller has to put back."""
        deliveries: list[Delivery] = []
        while stream.buffer and len(deliveries) < limit:
            with self._mutex:
                room = limit - len(deliveries)
                part = stream.buffer[:room]
                taken += part
                del stream.buffer[:room]
            now, channel, counted = time.time(), stream.channel, self._counted
            late: list[int] = []
            for raw in part:
                delivery = delivery_of(raw, channel, now, counted=counted)
                if delivery.expires_in is not None and delivery.expires_in <= 0:
                    late.append(raw.number)
                else:
                    deliveries.append(delivery)
            if late:
                self._client.loop.post(partial(stream.submit, Job(late)))
        if not stream.buffer:
            stream.armed = True
            if stream.buffer:
                stream.armed = False
        return deliveries

    def _put_back(self, stream: Stream, taken: list[Raw]) -> None:
        with self._mutex:
            known = set(map(id, stream.buffer))
            ours = stream.outstanding
            stream.buffer[:0] = [raw for raw in taken if id(raw) not in known and raw.number in ours]

    def _ready(self, limit: int, deadline: float) -> Stream:
        """A stream to which as much may be pushed as is asked for, beside what is unsettled."""
        stream = self._stream
        if stream.alive:
            wanted = limit + len(stream.outstanding) - len(stream.buffer)
            if wanted <= stream.credit or stream.credit >= _PREFETCH_MAX:
                return stream
        with self._client.link.alone(self._setup, self._operation("consuming from", deadline)):
            stream = self._stream
            if self._leaving:
                return stream
            if not stream.alive:
                stream = retry_crashed(lambda: self._subscribe(limit, deadline), self._client.clock, deadline)
            wanted = min(limit + len(stream.outstanding) - len(stream.buffer), _PREFETCH_MAX)
            if wanted > stream.credit:
                self._consume(stream, wanted - stream.credit, deadline)
            return stream

    def _subscribe(self, limit: int, deadline: float) -> Stream:
        """Consume on a new channel. A queue whose deletion ended the last one is declared again, unless declare=never."""
        client, address = self._client, self._source.address
        if address.kind is Kind.INBOX:
            client.make_inbox(self._path, deadline)
        elif not client.sources.known(address) or self._stream.channel is not None:
            client.sources.declare(address, self._source.properties, deadline)
        if isinstance(self._stream.error, ChannelClosedByBroker) and self._stream.error.reply_code == RESOURCE_LOCKED:
            self._asks = False  # another program's queue, with a single active consumer: nobody may ask it
        stream = Stream(self._wake, paced=self._counted and self._asks)
        stream.queue = self._route.name
        stream.channel = Channel.open(client.link, self._operation("consuming from", deadline), stream.on_end)
        client.loop.post(stream.watch)
        self._consume(stream, max(min(limit, _PREFETCH_MAX), self._credit), deadline)
        self._stream = stream
        if self._closed:  # by a caller that an interrupt kept from waiting for this: it has not seen this stream
            stream.channel.close(max(0.05, deadline - client.clock()))
        return stream

    def _consume(self, stream: Stream, credit: int, deadline: float) -> None:
        """Add a consumer to the channel: a prefetch counts for the consumers that come after it."""
        assert stream.channel is not None
        tag = f"nb{len(stream.tags)}"
        consume = {"queue": stream.queue, "on_message_callback": stream.on_message, "consumer_tag": tag}
        stream.tags.append(tag)
        stream.grant(credit)
        stream.channel.call(
            [("basic_qos", {"prefetch_count": credit}), ("basic_consume", consume)],
            self._operation("consuming from", deadline),
        )
        stream.credit += credit
        self._credit = max(self._credit, stream.credit)

    def _look(self, stream: Stream, limit: int, deadline: float) -> bool:
        """Whether something is there now. What was ready when this began has come when it ends, unless others had it."""
        ends = min(deadline, self._client.clock() + GRACE)
        pause = 0.01
        while True:
            channel = stream.channel
            if channel is None or not channel.alive:
                return False  # it ended just now, and woke somebody
            stream.arrived = arrived = Answer[None]()
            (method, _) = self._ask(stream, deadline, ("basic_qos", {"prefetch_count": 0}))
            if stream.buffer:
                return True
            if not method.message_count or self._client.clock() >= ends:
                return False
            arrived.wait(pause)
            pause *= 2

    def current(self, delivery: Delivery) -> bool:
        """Whether the channel that it came on is still there."""
        return delivery.tag.channel.alive  # type: ignore[attr-defined, no-any-return]  # a Tag

    def _operation(self, doing: str, deadline: float) -> Operation:
        return Operation(f"{doing} {self._path!r}", deadline, self._route)

    # -- settling -------------------------------------------------------------------------------------------------

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        """Publish what goes elsewhere, then acknowledge it; the rest is acknowledged at once."""
        deadline, stream = self._client.deadline(), self._stream
        if not self._leaving and stream.alive and any(outcome.__class__ is Return for _, outcome in settlements):
            self._leave(deadline)  # or what is given back would be pushed to us again
        return self._settlement.settle(stream, settlements, deadline)

    def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[NarrowboatError | None]:
        """Never asked for: the lease is the connection's."""
        raise Unsupported("a delivery's lease is the connection's and cannot be extended on its own", backend=SCHEME)

    # -- the end --------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Give back what was pushed and never received, uncounted. The channel stays, for the rest to be settled on."""
        if self._closed:
            return
        deadline = self._client.clock() + self._client.timeout
        self._leave(deadline)
        if self._stream.alive:
            self._return(self._stream, deadline)

    def close(self) -> None:
        """`leave`; what was received and not settled goes back with the channel, counted."""
        if self._closed:
            return
        clock = self._client.clock
        deadline = clock() + self._client.timeout
        try:
            self.leave()
        except NarrowboatError:
            pass  # then they come back counted
        finally:
            self._closed = True
            channel = self._stream.channel  # read behind the flag: `_subscribe` does the two the other way round
            if channel is not None:
                channel.close(max(0.05, deadline - clock()))
            self._on_close(self)

    def _leave(self, deadline: float) -> None:
        """Let nothing more be pushed: what is given back must not come to us again.

        It waits for a receiver that is making a stream, which would be consumed from for as long as the connection lives.
        """
        with self._client.link.alone(self._setup, self._operation("leaving", deadline)):
            if self._leaving:
                return
            self._leaving = True  # also where there is no stream: none is made any more
            stream = self._stream
            if not stream.alive or stream.channel is None:
                return
            self._settle_down(stream, deadline)
            answer: Answer[None] = Answer()
            self._client.loop.post(lambda: stream.cancel(answer))
            stream.channel.wait(answer, self._operation("leaving", deadline))

    def _settle_down(self, stream: Stream, deadline: float) -> None:
        """Wait for what the last settlements set moving: what is pushed while a consumer ends counts as an attempt."""
        ends = min(deadline, self._client.clock() + CALM)
        before, calm = -1, 0
        while calm < 2 and len(stream.outstanding) < stream.credit and self._client.clock() < ends:
            stream.arrived = Answer[None]()
            (method,) = self._ask(stream, deadline)
            now = len(stream.outstanding)
            calm = calm + 1 if now == before and not method.message_count else 0
            before = now
            pause(CALM / 10)

    def _ask(self, stream: Stream, deadline: float, *more: Step) -> list[Any]:
        """Ask the queue how much is ready, and make further calls behind that."""
        assert stream.channel is not None
        steps: list[Step] = [("queue_declare", {"queue": stream.queue, "passive": True}), *more]
        return stream.channel.call(steps, self._operation("looking into", deadline))

    def _return(self, stream: Stream, deadline: float) -> None:
        if self._route.address.kind is Kind.INBOX:
            return
        with self._mutex:
            raws = stream.buffer[:]
            del stream.buffer[: len(raws)]
        returned = [(delivery_of(raw, stream.channel, 0.0, counted=self._counted), Return()) for raw in raws]
        if returned:
            self._settlement.settle(stream, returned, deadline)
