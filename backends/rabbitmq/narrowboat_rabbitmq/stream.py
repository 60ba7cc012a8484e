"""The life of one consumer's channel, on the I/O thread: what was pushed on it, and what is being settled on it.

Acks of several callers share the question to the queue that follows them: while one is under way the next gather.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pika.spec import Basic

from narrowboat_rabbitmq.answer import Answer
from narrowboat_rabbitmq.channel import Channel
from narrowboat_rabbitmq.envelope import Raw
from narrowboat_rabbitmq.settling import coalesce


def _ignore(frame: object) -> None:
    """That answer says nothing new."""


class Job:
    """Settlements of one call that only need the channel."""

    __slots__ = ("acks", "answer", "given_back", "sent")

    def __init__(self, acks: list[int], given_back: list[int]) -> None:
        self.acks = acks
        self.given_back = given_back
        self.answer: Answer[frozenset[int]] = Answer()  #: the numbers that are no longer ours
        self.sent = False


class Stream:
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
        self._jobs: list[Job] = []
        self._barrier: list[Job] = []

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

    def submit(self, job: Job) -> None:
        """Settle, now or behind the barrier that is under way."""
        if not self.alive:
            job.answer.give(frozenset((*job.acks, *job.given_back)))
            return
        self._send(job)
        self._jobs.append(job)
        if not self._barrier:
            self._ask()

    def _send(self, job: Job) -> None:
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
