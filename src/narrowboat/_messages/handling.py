"""What a handler's end means for its message: decided once for both faces of `run`, without I/O."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

from narrowboat._engine.backoff import after_failure
from narrowboat._engine.later import unrun
from narrowboat._engine.later_events import events
from narrowboat._engine.log import log
from narrowboat._messages.checks import check_reason
from narrowboat._messages.consumer import Consumer
from narrowboat._messages.settle import ACK
from narrowboat.capabilities import BrokerCapabilities, Support
from narrowboat.contract.messages import Nack, Outcome, Reject
from narrowboat.errors import NarrowboatError

H = TypeVar("H", bound=Callable[..., Any])

#: The mark of a handler that tells listeners by itself how its messages were handled.
_TELLS = "tells_how_it_handled"

#: Messages that `run` fetches ahead for each handler. Fewer means more calls, more means that peers see less of a backlog.
AHEAD = 10
#: How much of an exception's text goes into a dead letter's reason, in characters.
REASON_MAX = 500
#: What looks like a URL with a password.
_USERINFO = re.compile(r"(?<=://)[^/\s@]*:[^/\s]*@")


def prefetch(concurrency: int) -> int:
    """The window of a `run`.

    >>> prefetch(1), prefetch(8), prefetch(1000)
    (10, 80, 1000)
    """
    return max(concurrency, min(1000, concurrency * AHEAD))


def after_handler(
    error: Exception | None,
    *,
    attempt: int,
    limit: int,
    undecodable: bool,
    claims: BrokerCapabilities,
    random: Callable[[], float],
) -> Outcome:
    """How a message is settled whose handler returned (`error` is None) or raised.

    It is nacked with a growing delay, and rejected at its last delivery. What the codec cannot decode is rejected at
    once: it would not decode the next time either, and the consumer lives on.
    """
    if error is None:
        return ACK
    if claims.dead_letters is not Support.ABSENT and (undecodable or (limit and attempt >= limit)):
        cause = error.__cause__ if undecodable else None  # the codec's own error says which field is wrong
        return Reject(describe(error) if cause is None else check_reason(f"{describe(error)}: {describe(cause)}"), attempt)
    longest = 0.0 if claims.delay is Support.ABSENT else claims.delay_max
    return Nack(after_failure(attempt, random, longest))


def telling(handle: H) -> H:
    """Mark a handler that calls `tell_handled` itself, because it knows more of the outcome than `run` does."""
    vars(handle)[_TELLS] = True
    return handle


def is_telling(handle: object) -> bool:
    """Whether it is marked so."""
    return getattr(handle, _TELLS, False) is True


def tell_handled(message: Any, duration: float, error: BaseException | None, outcome: Outcome | None) -> None:
    """Tell listeners that the handler of `message` has ended, before it is settled. None: it is settled already, or lost."""
    core, path = message._consumer.core, message._consumer.path
    if not core.listeners:
        return
    published, now = message.published_at, time.time()
    waited = None if published is None else max(0.0, now - duration - published)
    name = type(outcome).__name__.lower() if outcome is not None else "lost" if message.lost else "settled"
    record = events.Handled(core.backend, path, message.id, message.attempt, duration, waited, name, error)
    events.emit(core.listeners, record)


def describe(error: BaseException) -> str:
    """An exception's type and text, short, without the user part of URLs.

    >>> describe(ValueError("no route to amqp://shop:hunter2@broker/"))
    'ValueError: no route to amqp://***@broker/'
    """
    try:
        said = str(error)
    except Exception:  # whatever a handler raises, its message is settled
        said = "its text cannot be had"
    text = _USERINFO.sub("***@", f"{type(error).__name__}: {said}".rstrip(": "))
    return check_reason(text if len(text) <= REASON_MAX else text[: REASON_MAX - 3] + "...")


class drained:  # reads as what it says
    """The end of a run: its consumer is closed. Where it cannot be because the backend is away, a warning says so.

    The run has drained, and unsettled messages come back with their connection or lease. An error would only make a supervisor
    believe that a worker crashed which was asked to stop during an outage. Whatever else has ended the run reaches its caller.
    """

    def __init__(self, messages: Any) -> None:
        self._messages = messages  # of either face
        self._consumer: Consumer[Any] = messages._consumer
        self._told = False

    def __enter__(self) -> drained:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        try:
            self._messages.close()
        except NarrowboatError as failed:
            if not self._is_away(failed):
                raise
        return self._is_away(error)

    async def __aenter__(self) -> drained:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        try:
            await self._messages.close()
        except NarrowboatError as failed:
            if not self._is_away(failed):
                raise
        return self._is_away(error)

    def _is_away(self, error: BaseException | None) -> bool:
        """Whether `error` says only that the backend is away while the run ends; that is told once."""
        consumer = self._consumer
        if not (isinstance(error, NarrowboatError) and error.retryable and consumer.life.stopped and consumer.life.closed):
            return False
        if not self._told:
            self._told = True
            log(
                "WARNING",
                "run of %r has ended; its consumer could not be closed (%s), so what was not settled comes back when the "
                "backend has noticed",
                consumer.path,
                error,
                event="close_failed",
                backend=consumer.backend,
                source=consumer.path,
            )
        return True


def check_result(handler: object, result: object) -> None:
    """Raise where a plain handler gave something that has not run yet: acked for that, its message would be lost."""
    if unrun(result):
        raise TypeError(
            f"{getattr(handler, '__name__', handler)} returned a {type(result).__name__}, which has not run: coroutines are "
            "for narrowboat.aio"
        )
