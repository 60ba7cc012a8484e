"""The life of one consumer's channel, on the I/O thread: what was pushed on it, and what is being settled on it.

Acks of several callers share the question that follows them: while one is under way the next acks gather. A quorum queue is
sent no more acks at a time than `Pace` allows; then the question is one that goes through the queue's own log (basic.get), and
what it brings is one more message that was given to us.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from pika.spec import Basic

from narrowboat_rabbitmq.connection.channel import Channel
from narrowboat_rabbitmq.connection.loop import Answer
from narrowboat_rabbitmq.errors import ConsumerCancelled
from narrowboat_rabbitmq.library import cancel
from narrowboat_rabbitmq.protocol.acks import Pace, coalesce
from narrowboat_rabbitmq.protocol.envelope import Raw

#: A server that pushes so many more messages than it may is refused: they take our memory.
_TOO_MANY = 1000


class _Frame(NamedTuple):
    """One frame that settles."""

    send: Callable[..., None]
    number: int
    flags: dict[str, bool]
    numbers: Collection[int]  #: all that it settles


class Job:
    """Settlements of one call that only need the channel."""

    __slots__ = ("acks", "answer", "frames", "freed", "given_back", "gone", "sent")

    def __init__(self, acks: list[int], given_back: Sequence[int] = (), freed: Sequence[int] = ()) -> None:
        self.acks = acks
        self.given_back = given_back  #: to their queue, which counts them
        self.freed = freed  #: to their queue, which does not
        self.answer: Answer[frozenset[int]] = Answer()  #: the numbers that are no longer ours
        self.gone: frozenset[int] = frozenset()
        self.frames: deque[_Frame] | None = None  #: what is still to be sent
        self.sent = False

    @property
    def numbers(self) -> frozenset[int]:
        """All that it settles."""
        return frozenset((*self.acks, *self.given_back, *self.freed))


class Stream:
    """The life of one channel. What has no other remark belongs to the I/O thread.

    `paced`: its queue is a quorum queue, from which can be asked.
    """

    def __init__(self, wake: Callable[[], None], *, paced: bool = False) -> None:
        self.wake = wake
        self.channel: Channel | None = None
        self.queue = ""
        self.buffer: list[Raw] = []  # appended to here, taken from by receivers
        self.outstanding: dict[int, None] = {}
        self.credit = 0  # what the server may push, settled or not; written by whoever sets the stream up
        self.armed = True
        self.arrived: Answer[None] | None = None
        self.tags: list[str] = []
        self.pace = Pace() if paced else None
        self._granted = 0
        self._got: set[int] = set()  # which of the outstanding were asked for and not pushed
        self._waiting: deque[Job] = deque()  # not sent, or not all of it
        self._jobs: list[Job] = []
        self._barrier: list[Job] | None = None
        self._proving = False  #: the question that is under way proves that all has arrived

    @property
    def error(self) -> BaseException | None:
        """Why its channel ended."""
        return self.channel.error if self.channel is not None else None

    @property
    def frees(self) -> bool:
        """Whether the queue can be given back a message without counting that."""
        return self.pace is not None and self.channel is not None and self.channel.session.frees

    @property
    def alive(self) -> bool:
        """Whether its channel is."""
        return self.channel is not None and self.channel.alive

    def watch(self) -> None:
        """Listen to what the server says of this channel by itself."""
        if self.channel is not None and self.channel.alive:
            self.channel.raw.add_on_cancel_callback(self.on_cancel)
            self.channel.raw.add_callback(self._answered, [Basic.GetEmpty], one_shot=False)

    def grant(self, credit: int) -> None:
        """Count what the server is about to be allowed to push. By the thread that sets the stream up."""
        self._granted += credit
        if self.pace is not None:
            self.pace.grant(credit)

    def on_message(self, channel: Any, method: Any, properties: bytes, body: bytes) -> None:
        """Take a message that the server pushed."""
        if self.pace is not None:
            self.pace.push()
        self._arrive(method, properties, body)
        if self._waiting:
            self._go_on()

    def _arrive(self, method: Any, properties: bytes, body: bytes) -> None:
        number = method.delivery_tag
        self.outstanding[number] = None
        if len(self.outstanding) > self._granted + _TOO_MANY:
            raise RuntimeError(f"the server pushed {len(self.outstanding)} messages where it may push {self._granted}")
        self.buffer.append(Raw(number, method.redelivered, properties, body))
        self.ring()

    def ring(self) -> None:
        """Wake the receiver that waits."""
        if self.arrived is not None:
            self.arrived.give(None)
        if self.armed:
            self.armed = False
            self.wake()

    def on_cancel(self, frame: Any) -> None:
        """End the channel when the server ended the consumer: the queue was deleted, or its node is gone."""
        assert self.channel is not None
        self.channel.drop(ConsumerCancelled())

    def cancel(self, answer: Answer[None]) -> None:
        """Let the server push no more; `answer` is given once everything that it had pushed is here."""
        channel = self.channel
        if channel is None or not channel.expect(answer):
            return
        for tag in self.tags:
            cancel(channel.raw, tag)
        channel.raw.queue_declare(self.queue, passive=True, callback=lambda _: channel.resolve(answer, None))

    def on_end(self, error: BaseException) -> None:
        """Drop what came on the channel, which is gone, and answer the settlements that wait."""
        self.buffer = []
        self.outstanding.clear()
        jobs, self._jobs, self._barrier, self._waiting = (
            [*(self._barrier or ()), *self._jobs, *self._waiting],
            [],
            None,
            deque(),
        )
        for job in jobs:
            if job.sent:
                job.answer.fail(error)  # the channel knows which of them had left
            else:
                job.answer.give(job.numbers)
        self.armed = True
        self.ring()

    # -- settling -------------------------------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Settle now, or behind the question that is under way."""
        if not self.alive:
            job.answer.give(job.numbers)
            return
        self._waiting.append(job)
        self._go_on()

    def _go_on(self) -> None:
        """Send what may be sent, then ask."""
        while self._waiting and not self._proving:
            job = self._waiting[0]
            if job.frames is None:
                job.frames = self._frames(job)
            while job.frames and (self.pace is None or self.pace.room > 0):
                self._send(job, job.frames.popleft())
            if job.frames:
                break
            self._jobs.append(self._waiting.popleft())
        if self._barrier is None and (self._jobs or self._waiting):
            self._ask()

    def _frames(self, job: Job) -> deque[_Frame]:
        assert self.channel is not None
        raw, outstanding, under_way = self.channel.raw, self.outstanding, self.channel.unanswered
        # What was sent before and had no answer yet is answered with this job: it is not sent again.
        job.gone = frozenset(number for number in job.numbers if number not in outstanding and number not in under_way)
        acks = {number for number in job.acks if number in outstanding}
        frames: deque[_Frame] = deque()
        if acks:
            last, rest = coalesce(outstanding, acks)
            if last:
                frames.append(_Frame(raw.basic_ack, last, {"multiple": True}, acks.difference(rest)))
            frames.extend(_Frame(raw.basic_ack, number, {}, (number,)) for number in rest)
        # From 4.3 on a server counts what is rejected, and does not count what is "nacked"; before, it counts both.
        for send, numbers in ((raw.basic_reject, job.given_back), (raw.basic_nack, job.freed)):
            frames.extend(_Frame(send, number, {"requeue": True}, (number,)) for number in numbers if number in outstanding)
        return frames

    def _send(self, job: Job, frame: _Frame) -> None:
        assert self.channel is not None
        frame.send(frame.number, **frame.flags)
        job.sent = True
        for number in frame.numbers:
            self.outstanding.pop(number, None)
        self.channel.unanswered.update(frame.numbers)
        if self.pace is not None:
            got = self._got.intersection(frame.numbers) if self._got else ()
            self._got.difference_update(got)
            self.pace.sent(len(frame.numbers) - len(got))

    def _ask(self) -> None:
        assert self.channel is not None
        self._barrier, self._jobs = self._jobs, []
        raw = self.channel.raw
        try:
            if self.pace is not None and self._waiting:
                self._proving = True
                raw.basic_get(self.queue, self._given)
            else:
                raw.queue_declare(self.queue, passive=True, callback=self._answered)
        except Exception as error:
            self.channel.drop(error)

    def _given(self, channel: Any, method: Any, properties: bytes, body: bytes) -> None:
        """Take the message that the question through the log has brought."""
        self._got.add(method.delivery_tag)
        self._arrive(method, properties, body)
        self._answered(method)

    def _answered(self, frame: Any) -> None:
        done, self._barrier = self._barrier or (), None
        if self._proving and self.pace is not None:
            self.pace.proven()
        self._proving = False
        self._go_on()
        for job in done:
            if self.channel is not None:
                self.channel.unanswered -= job.numbers
            job.answer.give(job.gone)
