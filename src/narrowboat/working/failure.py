"""What a handler's failure means for its messages, and what the log says of it. Without I/O but for the log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from narrowboat._engine.log import log
from narrowboat._messages.handling import after_handler, describe
from narrowboat.capabilities import BrokerCapabilities, Support
from narrowboat.contract.messages import Nack, Outcome, Reject
from narrowboat.errors import NarrowboatError
from narrowboat.working.handlers import Handler


def outcomes(
    handler: Handler, messages: Sequence[Any], error: Exception, claims: BrokerCapabilities, random: Callable[[], float]
) -> dict[Outcome, list[Any]]:
    """How each message is settled: those that are settled alike together, so that a batch stays one exchange."""
    drawn = random()
    found: dict[Outcome, list[Any]] = {}
    for message in messages:
        if not message.settled and not message.lost:
            found.setdefault(outcome(handler, message, error, claims, lambda: drawn), []).append(message)
    return found


def outcome(
    handler: Handler, message: Any, error: Exception, claims: BrokerCapabilities, random: Callable[[], float]
) -> Outcome:
    """How one message is settled: dropped, a dead letter at its last delivery, or back after the delay of its Retry."""
    attempt, retry = message.attempt, handler.retry
    limit = attempt if retry.drops(error) else message.max_deliveries
    made = after_handler(error, attempt=attempt, limit=limit, undecodable=message.undecodable, claims=claims, random=random)
    if not isinstance(made, Nack):
        return made
    longest = 0.0 if claims.delay is Support.ABSENT else claims.delay_max
    return Nack(min(longest, retry.delay(attempt, error, random)))


def is_the_messages(handler: Handler, messages: Sequence[Any], error: Exception) -> bool:
    """Whether the failure says more about the message than about what its handler calls."""
    return handler.retry.drops(error) or any(message.undecodable for message in messages)


def tell(
    handler: Handler, outcome: Outcome | None, messages: Sequence[Any], error: Exception, unsettled: NarrowboatError | None
) -> None:
    """One line for messages that fare alike: a warning for a retry, an error for dead letters, with the traceback.

    Without an outcome the handler had settled them itself, or they were lost meanwhile. What an outage of a backend of ours
    raises is tried again at each message, and its text says all: it has no traceback, or an hour of it fills a disk.
    """
    first, path = messages[0], handler.source
    which = f"message {first.id!r}" if len(messages) == 1 else f"{len(messages)} messages from {first.id!r} on"
    limit = first.max_deliveries or "any number"
    if unsettled is not None:
        then = f"attempt {first.attempt} of {limit}; it could not be given back ({unsettled}) and comes back by itself"
        level = "WARNING"
    elif outcome is None:
        then = f"attempt {first.attempt} of {limit}, after it was {'settled' if first.settled else 'lost'}"
        level = "WARNING"
    elif isinstance(outcome, Reject):
        why = ", which is not tried again" if handler.retry.drops(error) else ""
        why = ", because its body cannot be decoded" if first.undecodable else why
        then = f"dead letter after {first.attempt} of {limit} ({path}.dead){why}"
        level = "ERROR"
    else:
        delay = outcome.delay if isinstance(outcome, Nack) else 0.0
        then = f"attempt {first.attempt} of {limit}, again in {delay:.3g} s"
        level = "WARNING"
    outage = isinstance(error, NarrowboatError) and error.retryable and not isinstance(outcome, Reject)
    log(
        level,
        "the handler %s of %r failed on %s: %s; %s",
        handler.name,
        path,
        which,
        describe(error),
        then,
        error=None if outage else error,
        event="dead_letter" if isinstance(outcome, Reject) and unsettled is None else "handler_failed",
        source=path,
        handler=handler.name,
        message_id=first.id,
        messages=len(messages),
        attempt=first.attempt,
    )


def tell_unacked(handler: Handler, lost: Sequence[Any], met: NarrowboatError | None, failed: int) -> None:
    """One line for messages whose handler has returned and whose ack was lost: what it did will be done again.

    `lost` are those that were not ours any more by then, `failed` how many acks ended with an error, such as `met`.
    """
    why = f"their leases had ended, such as that of {lost[0].id!r}" if lost else ""
    why = "; ".join(filter(None, (why, str(met or ""))))
    text = "the handler %s of %r returned, but %d of its messages could not be acked and may come again: %s"
    say("warning", text, handler.name, handler.source, len(lost) + failed, why)


def say(level: str, text: str, *arguments: object) -> None:
    """One line of the log about a source or the worker, once for each change."""
    if level == "info" and "logging" not in sys.modules:
        return  # whoever would show it has imported that
    log(level.upper(), text, *arguments)
