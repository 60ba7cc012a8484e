"""What happened while a worker was tested: a layer in front of the driver that writes down what is sent and what is settled."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from narrowboat.clock import Clock
from narrowboat.contract.messages import Ack, Broker, Delivery, Feed, Nack, Outcome, Outgoing, Receipt, Reject, Source
from narrowboat.errors import NarrowboatError
from narrowboat.layers.passing import PassingBroker, PassingFeed


@dataclass(frozen=True, slots=True)
class Published:
    """A message that was published."""

    to: str
    id: str
    body: bytes
    key: str | None
    headers: Mapping[str, str]
    delay: float


@dataclass(frozen=True, slots=True)
class Handled:
    """A message that was acked."""

    source: str
    id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Retried:
    """A message that comes back after `delay` seconds."""

    source: str
    id: str
    attempt: int
    delay: float


@dataclass(frozen=True, slots=True)
class Died:
    """A message that became a dead letter."""

    source: str
    id: str
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class Told:
    """What a drain did, each in order."""

    published: list[Published] = field(default_factory=list)  #: by handlers
    handled: list[Handled] = field(default_factory=list)
    retried: list[Retried] = field(default_factory=list)
    dead: list[Died] = field(default_factory=list)


def fresh_url() -> str:
    """Where a worker is tested: a space of its own in this process."""
    return f"memory://worker-{uuid.uuid4().hex}"


class Recorder:
    """The records of one test. `wrap` is for `narrowboat.broker`."""

    def __init__(self, clock: Clock) -> None:
        self.told = Told()
        self._clock = clock
        self._due: set[float] = set()

    def wrap(self, driver: Broker) -> Broker:
        """`driver`, with everything written down."""
        return _RecordingBroker(driver, self)

    def next_due(self) -> float | None:
        """When the next message is due that was delayed; None: there is none."""
        now = self._clock()
        self._due = {due for due in self._due if due > now}
        return min(self._due, default=None)

    def sent(self, message: Outgoing) -> None:
        """It was published."""
        self._delayed(message.delay)
        self.told.published.append(
            Published(message.to.path, message.id, message.body, message.key, dict(message.headers), message.delay)
        )

    def settled(self, source: str, delivery: Delivery, outcome: Outcome) -> None:
        """It was settled."""
        match outcome:
            case Ack():
                self.told.handled.append(Handled(source, delivery.id, delivery.attempt))
            case Nack(delay=delay):
                self._delayed(delay)
                self.told.retried.append(Retried(source, delivery.id, delivery.attempt, delay))
            case Reject(reason=reason):
                self.told.dead.append(Died(source, delivery.id, delivery.attempt, reason))

    def _delayed(self, delay: float) -> None:
        if delay > 0:
            self._due.add(self._clock() + delay)


class _RecordingBroker(PassingBroker):
    def __init__(self, inner: Broker, recorder: Recorder) -> None:
        super().__init__(inner)
        self._recorder = recorder

    def send(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        answers = super().send(messages)
        for message, answer in zip(messages, answers, strict=True):
            if isinstance(answer, Receipt):
                self._recorder.sent(message)
        return answers

    def open(self, source: Source, *, earliest: bool, wake: Callable[[], None]) -> Feed:
        return _RecordingFeed(self.inner.open(source, earliest=earliest, wake=wake), source.address.path, self._recorder)


class _RecordingFeed(PassingFeed):
    def __init__(self, inner: Feed, source: str, recorder: Recorder) -> None:
        super().__init__(inner)
        self._source = source
        self._recorder = recorder

    def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> list[NarrowboatError | None]:
        answers = super().settle(settlements)
        for (delivery, outcome), answer in zip(settlements, answers, strict=True):
            if answer is None:
                self._recorder.settled(self._source, delivery, outcome)
        return answers
