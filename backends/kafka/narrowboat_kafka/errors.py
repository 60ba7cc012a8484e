"""What the client library raises, in our terms. The client's own error is kept as the cause; no text has a secret."""

from __future__ import annotations

import ssl
from typing import Any

import kafka.errors as client

from narrowboat.errors import (
    AccessDenied,
    Closed,
    ConfigurationError,
    Conflict,
    NarrowboatError,
    NotFound,
    PublishFailed,
    PublishUnknown,
    StaleDelivery,
    Unavailable,
)
from narrowboat_kafka.options import SCHEME

#: The server said no, and will say it again: the message was not stored.
_REFUSED = (
    client.MessageSizeTooLargeError,
    client.RecordListTooLargeError,
    client.InvalidRecordError,
    client.InvalidTopicError,
    client.CorruptRecordError,
    client.InvalidTimestampError,
    client.PolicyViolationError,
    client.UnsupportedForMessageFormatError,
)


def translate(error: BaseException, doing: str) -> NarrowboatError:
    """`error`, met while `doing` something, as one of ours."""
    if isinstance(error, NarrowboatError):
        return error
    text = f"{doing}: {_text(error)}"
    ours: NarrowboatError
    if isinstance(error, client.AuthorizationError | client.SaslAuthenticationFailedError):
        ours = AccessDenied(
            f"{text}. Check the URL's user and password, and the rights that the server gives it", backend=SCHEME
        )
    elif isinstance(error, client.UnsupportedSaslMechanismError):
        ours = ConfigurationError(f"{text}. Ask for one that the server offers with ?sasl=", backend=SCHEME)
    elif isinstance(error, client.UnknownTopicOrPartitionError | client.UnknownTopicIdError):
        ours = NotFound(f"{text}. It was deleted, or never made", backend=SCHEME)
    elif isinstance(error, client.InvalidTopicError):
        ours = Conflict(
            f"{text}. The server takes '.' and '_' in names for the same: another topic has that name already, or the name is "
            "not allowed. Take another name, or a ?prefix=, within which they are kept apart",
            backend=SCHEME,
        )
    elif isinstance(error, client.InvalidReplicationFactorError | client.InvalidPartitionsError | client.PolicyViolationError):
        ours = ConfigurationError(f"{text}. Correct ?partitions= or ?replication=", backend=SCHEME)
    elif isinstance(error, client.InvalidSessionTimeoutError):
        ours = ConfigurationError(f"{text}. The server allows other times for ?session=", backend=SCHEME)
    elif isinstance(error, client.UnsupportedVersionError):
        ours = ConfigurationError(f"{text}. The server is too old; 2.4 or later is needed", backend=SCHEME)
    elif isinstance(error, RuntimeError) and "closed" in str(error):
        ours = Closed(f"{doing}: this broker was closed", backend=SCHEME)
    else:
        ours = Unavailable(
            f"{text}. Check that the server is up and that its advertised addresses can be reached", backend=SCHEME
        )
    ours.__cause__ = error
    return ours


def unpublished(error: BaseException, id: str, path: str, *, left: bool) -> NarrowboatError:
    """Why the message `id` has no receipt. `left`: it may have reached the server."""
    ours: NarrowboatError
    if isinstance(error, _REFUSED):
        ours = PublishFailed(f"message {id!r} to {path!r} was refused: {_text(error)}", id=id, backend=SCHEME)
    elif isinstance(error, client.AuthorizationError):
        return translate(error, f"publishing to {path!r}")
    elif left:
        ours = PublishUnknown(
            f"message {id!r} to {path!r} may or may not be delivered: {_text(error)}. It may be published again with the same "
            "id=, and may then be delivered twice",
            id=id,
            backend=SCHEME,
        )
    else:
        ours = PublishFailed(
            f"message {id!r} to {path!r} was not sent: {_text(error)}. Publish it again when the server answers",
            id=id,
            backend=SCHEME,
            retryable=True,
        )
    ours.__cause__ = error
    return ours


def stale(id: str, path: str) -> StaleDelivery:
    """The answer to whoever settles what is no longer theirs."""
    return StaleDelivery(
        f"the delivery of message {id!r} from {path!r} is no longer ours: its partition went to another consumer, it was "
        "settled before, or its consumer or queue is gone. Nothing was changed",
        id=id,
        backend=SCHEME,
    )


def _text(error: BaseException) -> str:
    """In one line, without what a request contained."""
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or type(error).__name__}"
    text: Any = str(error)
    return str(text).split("\n", maxsplit=1)[0][:300] or type(error).__name__
