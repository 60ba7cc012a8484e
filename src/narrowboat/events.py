"""What happened, as frozen records, for listeners: logging, metrics and tracing are listeners and nothing else.

Hand listeners over with `narrowboat.locks(url, listeners=[...])` or `narrowboat.broker(url, listeners=[...])`. A listener is
called with one record, in the thread or task in which it happened, so it must be quick and must not call back into
Narrowboat (`NestedCall`). What one raises is logged each time, and changes nothing. An interrupt goes on to the caller when all
listeners have been told. Without listeners nothing is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from narrowboat.errors import InvalidArgument, Reason


@dataclass(frozen=True, slots=True)
class Event:
    """The root: every record names the backend's scheme."""

    backend: str


@dataclass(frozen=True, slots=True)
class ConnectionLost(Event):
    """The backend of `url` (without secrets) cannot be reached, or two calls in a row had no answer. Told once."""

    url: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class ConnectionRegained(Event):
    """It answers again, `away` seconds after the first call that had no answer."""

    url: str
    away: float


@dataclass(frozen=True, slots=True)
class ConnectionClosed(Event):
    """`close()` while the connection was lost, `away` seconds after the first call that had no answer."""

    url: str
    away: float


@dataclass(frozen=True, slots=True)
class LockEvent(Event):
    """Of a lock."""

    name: str


@dataclass(frozen=True, slots=True)
class Acquired(LockEvent):
    """A lock was granted after `waited` seconds."""

    token: int
    waited: float


@dataclass(frozen=True, slots=True)
class NotAcquired(LockEvent):
    """An acquire ended without the lock after `waited` seconds: busy, timed out, failed, cancelled."""

    waited: float
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class Renewed(LockEvent):
    """A lease was started afresh."""

    token: int


@dataclass(frozen=True, slots=True)
class RenewalFailed(LockEvent):
    """One renewal met an error whose outcome is unknown; it is tried again until the deadline."""

    token: int
    error: BaseException


@dataclass(frozen=True, slots=True)
class Released(LockEvent):
    """A lock was released, `held` seconds after it was asked for."""

    token: int
    held: float


@dataclass(frozen=True, slots=True)
class Lost(LockEvent):
    """A lease ended before it was released, `held` seconds after it was asked for."""

    token: int
    reason: Reason
    held: float


@dataclass(frozen=True, slots=True)
class MessageEvent(Event):
    """Of a message. `source` is the queue, topic or subscription as the backend names it."""

    source: str
    id: str


@dataclass(frozen=True, slots=True)
class Published(MessageEvent):
    """The broker confirmed a message; `duplicate`: it dropped it as one it already has."""

    duplicate: bool


@dataclass(frozen=True, slots=True)
class PublishError(MessageEvent):
    """A publish failed, or its outcome is unknown."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Delivered(MessageEvent):
    """A message was handed out for the `attempt`-th time."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Handled(MessageEvent):
    """A handler of `run` or of a worker has ended after `duration` seconds. Each message of a batch is told with its duration.

    `waited`: seconds from the publish, by the publisher's clock, to the handler; None where the publish's time is not known.
    `outcome`: ack, nack or reject, as the message is settled now; settled, where the handler did that itself; lost, where
    its lease ended meanwhile. `error`: what the handler raised.
    """

    attempt: int
    duration: float
    waited: float | None
    outcome: str
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class Settled(MessageEvent):
    """A message was settled: `outcome` is ack, nack or return."""

    outcome: str


@dataclass(frozen=True, slots=True)
class DeadLettered(MessageEvent):
    """A message went to the dead letters."""

    reason: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Malformed(MessageEvent):
    """A message that the driver could not take apart was handed out as it is, or a part of it could not be kept."""

    problem: str


@dataclass(frozen=True, slots=True)
class Expired(MessageEvent):
    """A message's ttl ended before it was handed out."""


@dataclass(frozen=True, slots=True)
class Stale(MessageEvent):
    """A settlement or extension found that the delivery is no longer ours."""


@dataclass(frozen=True, slots=True)
class OutboxMeasured(Event):
    """A relay has counted what its outbox holds. `backend` is the broker's, `table` the outbox's.

    `waiting`: messages that are to be published; `aside`: those that cannot be. `age`: seconds since the oldest of those that
    wait was stored.
    """

    table: str
    waiting: int
    aside: int
    age: float


Listener = Callable[[Any], None]


def check(listeners: object) -> tuple[Listener, ...]:
    """`listeners` as an argument, a sequence of functions; `InvalidArgument` says what is wrong with it."""
    if callable(listeners) or not isinstance(listeners, Iterable):
        raise InvalidArgument(f"listeners={listeners!r}: expected a list of functions of one event, such as [print]")
    found = tuple(listeners)
    for each in found:
        if not callable(each):
            raise InvalidArgument(f"listeners: {each!r} cannot be called; a listener is a function of one event")
    return found


def emit(listeners: Sequence[Listener], event: Event) -> None:
    """Tell each listener. What one raises is logged and goes no further; an interrupt goes on when all have been told."""
    for index, listener in enumerate(listeners):
        try:
            listener(event)
        except (Exception, SystemExit):
            import logging  # a third of the start-up time, needed by no program whose listeners work

            logging.getLogger("narrowboat").exception("a listener raised on %s", type(event).__name__)
        except BaseException:
            emit(listeners[index + 1 :], event)
            raise
