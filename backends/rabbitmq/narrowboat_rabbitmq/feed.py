"""One consumer's stream from one queue, subscription or inbox: a channel of its own, made again when it ended.

The server pushes, up to as many messages as the core has asked for and not settled. An empty buffer does not prove an
empty queue, so before "nothing" is answered the queue is asked how much is ready, by a call on the same channel: what was
on its way to us arrives before that answer does.

A settlement is an ack on the channel, then the same question to the queue as barrier: its answer says that the server has
had the ack. Deliveries are numbered within one channel's life. What came on a channel that is gone is stale; nothing is
sent for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pika.spec import Basic

from narrowboat.contract import Ack, Delivery, Feed, Kind, Nack, Outcome, Received, Reject, Source
from narrowboat.errors import Closed, NarrowboatError, Unavailable
from narrowboat_rabbitmq import ladder
from narrowboat_rabbitmq.answer import Answer
from narrowboat_rabbitmq.channel import Channel, Step
from narrowboat_rabbitmq.envelope import DEAD, Raw, Tag, again, delivery_of
from narrowboat_rabbitmq.errors import channel_error, stale
from narrowboat_rabbitmq.options import SCHEME
from narrowboat_rabbitmq.publisher import CONFIRMED, Record
from narrowboat_rabbitmq.settling import coalesce

if TYPE_CHECKING:
    from narrowboat_rabbitmq.driver import RabbitBroker

#: Seconds until an idle feed looks again although nobody woke it. The server pushes: this is a net.
IDLE = 5.0
#: Seconds that a look waits for what the queue says is ready, while a settlement makes room for it.
GRACE = 0.25
#: Seconds for which a consumer that leaves waits at most for what is on its way.
CALM = 0.1
#: The most that a consumer of AMQP can be given ahead.
_PREFETCH_MAX = 65_535


def _ignore(frame: object) -> None:
    """That answer says nothing new."""


class _Job:
    """Settlements of one call that only need the channel."""

    __slots__ = ("acks", "answer", "given_back", "sent")

    def __init__(self, acks: list[int], given_back: list[int]) -> None:
        self.acks = acks
        self.given_back = given_back
        self.answer: Answer[frozenset[int]] = Answer()  #: the numbers that are no longer ours
        self.sent = False


class _Stream:
    """The life of one channel. What has no other remark belongs to the I/O thread."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.channel: Channel | None = None
        self.queue = ""
        self.buffer: list[Raw] = []  # appended to here, taken from by receivers
        self.outstanding: dict[int, None] = {}
        self.credit = 0  # what the server may push, settled or not; written by whoever sets the stream up
        self.armed = True
        self.arrived: Answer[None] | None = None
        self.tags: list[str] = []
        self._jobs: list[_Job] = []
        self._barrier: list[_Job] = []

    @property
    def alive(self) -> bool:
        """Whether its channel is."""
        return self.channel is not None and self.channel.alive

    def on_message(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        """The server pushed one."""
        number = method.delivery_tag
        self.outstanding[number] = None
        self.buffer.append(Raw(number, method.redelivered, properties, body))
        self.ring()

    def ring(self) -> None:
        """Tell whoever waits."""
        if self.arrived is not None:
            self.arrived.give(None)
        if self.armed:
            self.armed = False
            self.wake()

    def on_cancel(self, frame: Any) -> None:
        """The server ended the consumer: the queue was deleted, or its node is gone."""
        assert self.channel is not None
        self.channel.drop(RuntimeError("the server cancelled the consumer: its queue was deleted or moved"))

    def cancel(self, answer: Answer[None]) -> None:
        """Let the server push no more; given once everything that it had pushed is here."""
        channel = self.channel
        if channel is None or not channel.expect(answer):
            return
        for tag in self.tags:
            # Pika's own basic_cancel would reject what is still on its way, and so have it counted.
            channel.raw._rpc(Basic.Cancel(consumer_tag=tag), _ignore, [Basic.CancelOk])
        channel.raw.queue_declare(self.queue, passive=True, callback=lambda _: channel.settle(answer, None))

    def on_end(self, error: BaseException) -> None:
        """The channel is gone, and with it whatever came on it."""
        self.buffer = []
        self.outstanding.clear()
        for job in (*self._jobs, *self._barrier):
            if job.sent:
                job.answer.fail(error)
            else:
                job.answer.give(frozenset((*job.acks, *job.given_back)))
        self._jobs, self._barrier = [], []
        self.armed = True
        self.ring()

    def submit(self, job: _Job) -> None:
        """Settle, now or behind the barrier that is under way."""
        if not self.alive:
            job.answer.give(frozenset((*job.acks, *job.given_back)))
            return
        self._send(job)
        self._jobs.append(job)
        if not self._barrier:
            self._ask()

    def _send(self, job: _Job) -> None:
        assert self.channel is not None
        raw, outstanding = self.channel.raw, self.outstanding
        job.sent = True
        missing = [number for number in (*job.acks, *job.given_back) if number not in outstanding]
        if missing:
            gone = frozenset(missing)
            job.acks = [number for number in job.acks if number not in gone]
            job.given_back = [number for number in job.given_back if number not in gone]
        if job.acks:
            settled = set(job.acks)
            last, rest = coalesce(outstanding, settled)
            if last:
                raw.basic_ack(last, multiple=True)
            for number in rest:
                raw.basic_ack(number)
        for number in job.given_back:
            raw.basic_nack(number, requeue=True)
        for number in (*job.acks, *job.given_back):
            outstanding.pop(number, None)
        job.acks = missing

    def _ask(self) -> None:
        assert self.channel is not None
        self._barrier, self._jobs = self._jobs, []
        try:
            self.channel.raw.queue_declare(self.queue, passive=True, callback=self._answered)
        except Exception as error:
            self.channel.drop(error)

    def _answered(self, frame: Any) -> None:
        done, self._barrier = self._barrier, []
        if self._jobs:
            self._ask()
        for job in done:
            job.answer.give(frozenset(job.acks))


class RabbitFeed(Feed):
    """See the module's text."""

    def __init__(self, broker: RabbitBroker, source: Source, wake: Callable[[], None], *, counted: bool) -> None:
        self._broker = broker
        self._source = source
        self._place = broker.topology.place(source.address)
        self._path = self._place.path
        self._wake = wake
        self._counted = counted
        self._mutex = threading.Lock()  # between receivers that take
        self._setup = threading.Lock()  # between those that make a stream
        self._stream = _Stream(wake)
        self._credit = 0
        self._leaving = False
        self._closed = False

    # -- receiving ------------------------------------------------------------------------------------------------

    def receive(self, limit: int) -> Received:
        """What was pushed; where that is nothing, the queue is asked."""
        broker = self._broker
        broker.check_open()
        if self._closed:
            raise Closed(f"this consumer of {self._path!r} was closed", backend=SCHEME)
        deadline = broker.clock() + broker.timeout
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

    def _take(self, stream: _Stream, limit: int, taken: list[Raw]) -> list[Delivery]:
        """Up to `limit` of the buffer that have not expired. `taken` is what an interrupted caller has to put back."""
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
                job = _Job(late, [])
                self._broker.loop.post(lambda job=job: stream.submit(job))  # type: ignore[misc]  # bound now
        if not stream.buffer:
            stream.armed = True
            if stream.buffer:
                stream.armed = False
        return deliveries

    def _put_back(self, stream: _Stream, taken: list[Raw]) -> None:
        with self._mutex:
            known = set(map(id, stream.buffer))
            ours = stream.outstanding
            stream.buffer[:0] = [raw for raw in taken if id(raw) not in known and raw.number in ours]

    def _ready(self, limit: int, deadline: float) -> _Stream:
        """A stream that may be pushed as much as is asked for, beside what is unsettled."""
        stream = self._stream
        if stream.alive:
            wanted = limit + len(stream.outstanding) - len(stream.buffer)
            if wanted <= stream.credit or stream.credit >= _PREFETCH_MAX:
                return stream
        with self._setup:
            stream = self._stream
            if self._leaving:
                return stream
            if not stream.alive:
                stream = self._subscribe(limit, deadline)
            wanted = min(limit + len(stream.outstanding) - len(stream.buffer), _PREFETCH_MAX)
            if wanted > stream.credit:
                self._consume(stream, wanted - stream.credit, deadline)
            return stream

    def _subscribe(self, limit: int, deadline: float) -> _Stream:
        """A new channel. Where the last one ended because the queue was deleted, that is made again, if it may be."""
        broker, address = self._broker, self._source.address
        if address.kind is Kind.INBOX:
            broker.make_inbox(self._path, deadline)
        elif not broker.topology.known(address) or self._stream.channel is not None:
            broker.topology.declare(address, self._source.properties, deadline)
        stream = _Stream(self._wake)
        stream.queue = self._place.name
        stream.channel = Channel.open(broker.link, deadline, f"consuming from {self._path!r}", stream.on_end)
        broker.loop.post(lambda: self._watch(stream))
        self._consume(stream, max(min(limit, _PREFETCH_MAX), self._credit), deadline)
        self._stream = stream
        return stream

    def _watch(self, stream: _Stream) -> None:
        channel = stream.channel
        if channel is not None and channel.alive:
            channel.raw.add_on_cancel_callback(stream.on_cancel)

    def _consume(self, stream: _Stream, credit: int, deadline: float) -> None:
        """One more consumer on the channel: a prefetch counts for the consumers that come after it."""
        assert stream.channel is not None
        tag = f"nb{len(stream.tags)}"
        consume = {"queue": stream.queue, "on_message_callback": stream.on_message, "consumer_tag": tag}
        stream.tags.append(tag)
        stream.channel.call(
            [("basic_qos", {"prefetch_count": credit}), ("basic_consume", consume)],
            deadline,
            f"consuming from {self._path!r}",
            self._place,
        )
        stream.credit += credit
        self._credit = max(self._credit, stream.credit)

    def _look(self, stream: _Stream, limit: int, deadline: float) -> bool:
        """Whether something is there now. What was ready when this began has come when it ends, unless others had it."""
        ends = min(deadline, self._broker.clock() + GRACE)
        pause = 0.01
        while True:
            channel = stream.channel
            if channel is None or not channel.alive:
                return False  # it ended just now, and woke somebody
            stream.arrived = arrived = Answer[None]()
            (method, _) = channel.call(
                [("queue_declare", {"queue": stream.queue, "passive": True}), ("basic_qos", {"prefetch_count": 0})],
                deadline,
                f"looking into {self._path!r}",
                self._place,
            )
            if stream.buffer:
                return True
            if not method.message_count or self._broker.clock() >= ends:
                return False
            arrived.wait(pause)
            pause *= 2

    # -- settling -------------------------------------------------------------------------------------------------

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        """What goes elsewhere is published and confirmed first, then acknowledged; the rest is acknowledged at once."""
        broker = self._broker
        broker.check_open()
        deadline = broker.clock() + broker.timeout
        stream = self._stream
        answers: list[NarrowboatError | None] = [None] * len(settlements)
        acks: list[int] = []
        given_back: list[int] = []
        copies: list[tuple[int, Record]] = []
        rungs: set[int] = set()
        for index, (delivery, outcome) in enumerate(settlements):
            tag: Tag = delivery.tag  # type: ignore[assignment]  # this driver's own
            if tag.channel is not stream.channel or not stream.alive:
                answers[index] = self._stale(delivery)
            elif outcome.__class__ is Ack:
                acks.append(tag.number)
            elif outcome.__class__ is Nack and self._counted and not outcome.delay:
                given_back.append(tag.number)
            elif tag.number not in stream.outstanding:
                answers[index] = self._stale(delivery)
            else:
                record = self._copy(delivery, outcome, rungs)
                if record is None:
                    acks.append(tag.number)
                else:
                    copies.append((index, record))
        copied: set[int] = set()
        if copies:
            if not self._leaving and any(not isinstance(settlements[index][1], Nack | Reject) for index, _ in copies):
                self._leave(stream, deadline)
            self._publish(settlements, copies, rungs, answers, deadline)
            copied = {index for index, _ in copies if answers[index] is None}
            acks += [settlements[index][0].tag.number for index in copied]  # type: ignore[attr-defined]  # a Tag
        if acks or given_back:
            self._acknowledge(stream, _Job(acks, given_back), settlements, copied, answers, deadline)
        return answers

    def _acknowledge(
        self,
        stream: _Stream,
        job: _Job,
        settlements: Sequence[tuple[Delivery, Outcome]],
        copied: set[int],
        answers: list[NarrowboatError | None],
        deadline: float,
    ) -> None:
        broker, channel = self._broker, stream.channel
        assert channel is not None
        heard = channel.session.heard
        broker.loop.post(lambda: stream.submit(job))
        doing = f"settling messages of {self._path!r}"
        if not job.answer.wait(deadline - broker.clock()):
            broker.link.doubt(channel.session, heard)
            unknown: NarrowboatError | None = Unavailable(
                f"{broker.site} did not answer within {broker.timeout:g} s while {doing}. They may or may not be settled.",
                backend=SCHEME,
            )
        elif job.answer.error is not None:
            unknown = channel_error(job.answer.error, broker.site, self._place, doing)
        else:
            unknown = None
        gone = job.answer.value or frozenset()
        if unknown is None and not gone:
            return
        for index, (delivery, _) in enumerate(settlements):
            if answers[index] is not None:
                continue
            if unknown is not None:
                answers[index] = unknown
            elif delivery.tag.number in gone:  # type: ignore[attr-defined]  # a Tag
                # What was copied already comes back as well: that is no "nothing was changed".
                answers[index] = self._doubled(delivery) if index in copied else self._stale(delivery)

    def _copy(self, delivery: Delivery, outcome: Outcome, rungs: set[int]) -> Record | None:
        """The message as it is to be published again; None where it is simply dropped."""
        tag: Tag = delivery.tag  # type: ignore[assignment]  # this driver's own
        topology = self._broker.topology
        if isinstance(outcome, Reject):
            if self._place.address.kind is Kind.INBOX or self._path.endswith(".dead"):
                return None
            place = topology.place(self._source.address.dead)
            dead = dict(zip(DEAD, (outcome.reason, str(outcome.attempts), self._path), strict=True))
            properties = again(tag, dead, attempts=0, mortal=False)
        elif isinstance(outcome, Nack):
            place = self._place
            properties = again(tag, {}, attempts=delivery.attempt)
            if outcome.delay > 0:
                level, key = ladder.route(outcome.delay, place.word)
                rungs.add(level)
                return Record(ladder.exchange(level), key, delivery.body, properties, True)
        else:
            place = self._place
            properties = again(tag, {}, attempts=delivery.attempt - 1)
        return Record(place.exchange, place.routing_key, delivery.body, properties, place.mandatory)

    def _publish(
        self,
        settlements: Sequence[tuple[Delivery, Outcome]],
        copies: Sequence[tuple[int, Record]],
        rungs: set[int],
        answers: list[NarrowboatError | None],
        deadline: float,
    ) -> None:
        """Publish the copies; whoever's is not confirmed is not settled."""
        broker, source = self._broker, self._source.address
        if rungs:
            broker.topology.delay(source, max(rungs), deadline)
        if any(isinstance(settlements[index][1], Reject) for index, _ in copies):
            broker.topology.bury(source.dead, deadline)
        batch = broker.publisher.publish([record for _, record in copies], deadline, f"moving messages of {self._path!r}")
        for (index, _), outcome in zip(copies, batch.results, strict=True):
            if outcome is not CONFIRMED:
                answers[index] = Unavailable(
                    f"message {settlements[index][0].id!r} from {self._path!r}: its copy was not confirmed ({outcome.value}), "
                    "so it was not settled. It comes back, and may come twice.",
                    backend=SCHEME,
                )

    def _stale(self, delivery: Delivery) -> NarrowboatError:
        return stale(delivery.id, delivery.attempt, self._path)

    def _doubled(self, delivery: Delivery) -> NarrowboatError:
        return Unavailable(
            f"message {delivery.id!r} from {self._path!r}: its copy was published and the connection broke before it could be "
            "acknowledged. It comes twice, with the same id.",
            backend=SCHEME,
        )

    def extend(self, deliveries: Sequence[Delivery], seconds: float) -> list[NarrowboatError | None]:
        """Never asked for: the lease is the connection's."""
        return [None if self._ours(delivery) else self._stale(delivery) for delivery in deliveries]

    def _ours(self, delivery: Delivery) -> bool:
        tag: Tag = delivery.tag  # type: ignore[assignment]  # this driver's own
        return tag.channel is self._stream.channel and tag.number in self._stream.outstanding

    # -- the end --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give back what was pushed and never handed out, uncounted; the rest goes back with the channel, counted."""
        if self._closed:
            return
        broker = self._broker
        deadline = broker.clock() + broker.timeout
        stream = self._stream
        try:
            if stream.alive:
                self._leave(stream, deadline)
                self._return(stream, deadline)
        except NarrowboatError:
            pass  # then they come back counted
        finally:
            self._closed = True
            if stream.channel is not None:
                stream.channel.close(max(0.05, deadline - broker.clock()))
            broker.forget(self)

    def _leave(self, stream: _Stream, deadline: float) -> None:
        """Nothing more is pushed: what is sent back must not come to us again."""
        with self._setup:
            if self._leaving or not stream.alive or stream.channel is None:
                return
            self._leaving = True
            self._settle_down(stream, deadline)
            answer: Answer[None] = Answer()
            self._broker.loop.post(lambda: stream.cancel(answer))
            stream.channel.wait(answer, deadline, f"leaving {self._path!r}", self._place)

    def _settle_down(self, stream: _Stream, deadline: float) -> None:
        """Wait for what the last settlements set moving: what is pushed while a consumer ends is lost to it, and counted."""
        ends = min(deadline, self._broker.clock() + CALM)
        before, calm = -1, 0
        while calm < 2 and len(stream.outstanding) < stream.credit and self._broker.clock() < ends:
            stream.arrived = Answer[None]()
            (method,) = self._ask(stream, deadline)
            now = len(stream.outstanding)
            calm = calm + 1 if now == before and not method.message_count else 0
            before = now
            Answer[None]().wait(CALM / 10)

    def _ask(self, stream: _Stream, deadline: float) -> list[Any]:
        assert stream.channel is not None
        steps: list[Step] = [("queue_declare", {"queue": stream.queue, "passive": True})]
        return stream.channel.call(steps, deadline, f"looking into {self._path!r}", self._place)

    def _return(self, stream: _Stream, deadline: float) -> None:
        raws = stream.buffer
        if not raws or self._place.address.kind is Kind.INBOX:
            return
        records = []
        for raw in raws:
            delivery = delivery_of(raw, stream.channel, 0.0, counted=self._counted)
            record = Record(
                self._place.exchange,
                self._place.routing_key,
                raw.body,
                again(delivery.tag, {}, attempts=delivery.attempt - 1),  # type: ignore[arg-type]  # a Tag
                self._place.mandatory,
            )
            records.append(record)
        batch = self._broker.publisher.publish(records, deadline, f"giving back messages of {self._path!r}")
        confirmed = [raw.number for raw, outcome in zip(raws, batch.results, strict=True) if outcome is CONFIRMED]
        job = _Job(confirmed, [])
        self._broker.loop.post(lambda: stream.submit(job))
        job.answer.wait(max(0.0, deadline - self._broker.clock()))
