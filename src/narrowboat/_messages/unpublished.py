"""What a failed exchange means for a message that was to be published: it surely was not sent, or nobody knows.

What it does not do: decide whether to publish again. That is the caller's.
"""

from __future__ import annotations

from narrowboat.contract.messages import Outgoing
from narrowboat.errors import BrokerError, NarrowboatError, PublishFailed, PublishUnknown, Unavailable, sentence


def unpublished(message: Outgoing, backend: str, error: Exception) -> Exception:
    """What a failed exchange means for one of its messages: unknown, unless the error itself is a refusal or says more."""
    if isinstance(error, Unavailable) and not error.sent:
        return not_sent(message, backend, error)
    if isinstance(error, NarrowboatError) and not error.retryable:
        return error
    unknown = PublishUnknown(
        f"message {message.id!r} to {message.to.path!r} may or may not be delivered: {sentence(error)} "
        "Publish it again with the same id=, which is delivered once where the backend claims dedup",
        id=message.id,
        backend=backend,
    )
    unknown.__cause__ = error
    return unknown


def not_sent(message: Outgoing, backend: str, error: Exception) -> BrokerError:
    """The error where it is known that it was not sent, and why."""
    failed = PublishFailed(
        f"message {message.id!r} to {message.to.path!r} was not sent and will not be delivered, because the backend cannot be "
        f"reached: {sentence(error)} Publish it again later",
        id=message.id,
        backend=backend,
        retryable=True,
    )
    failed.__cause__ = error
    return failed
