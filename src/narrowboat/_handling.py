"""What a handler's end means for its message: decided once for both faces of `run`, without I/O."""

from __future__ import annotations

import re
from collections.abc import Callable

from narrowboat._backoff import after_failure
from narrowboat._consume import ACK
from narrowboat._messages import check_reason
from narrowboat.capabilities import BrokerCapabilities, Support
from narrowboat.contract.messages import Nack, Outcome, Reject

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
        return Reject(describe(error), attempt)
    longest = 0.0 if claims.delay is Support.ABSENT else claims.delay_max
    return Nack(after_failure(attempt, random, longest))


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
