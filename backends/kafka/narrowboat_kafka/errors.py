"""What the client library raises, in our terms. The client's own error is kept as the cause; no text has a secret."""

from __future__ import annotations

import errno
import re
import ssl
from typing import Any

import kafka.errors as client

from narrowboat.driver import tls
from narrowboat.driver.sources import Refusals
from narrowboat.driver.texts import cut
from narrowboat.errors import (
    AccessDenied,
    Closed,
    ConfigurationError,
    Conflict,
    NarrowboatError,
    NotFound,
    StaleDelivery,
    Unavailable,
    sentence,
)
from narrowboat_kafka.library.connection import SpeaksTls
from narrowboat_kafka.options import SCHEME, SECURE

REFUSALS = Refusals(SCHEME)
#: Why a delivery is not ours any more, where its lease is the membership in a group.
_MEMBERSHIP = (
    "its partition went to another consumer, it was settled before, or its consumer or queue is gone. Nothing was changed"
)
#: What the server said, in the answer that the library quotes.
_MESSAGE = re.compile(r"error_message=(?P<quote>['\"])(?P<said>.+?)(?P=quote)")
#: The server does not make a topic as it was asked to.
_NOT_MADE = (client.InvalidReplicationFactorError, client.InvalidPartitionsError, client.PolicyViolationError)
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


#: What each kind of error is in our terms, and what to do about it. The first that fits counts.
_MEANING: tuple[tuple[tuple[type[BaseException], ...], type[NarrowboatError], str], ...] = (
    (
        (client.AuthorizationError, client.SaslAuthenticationFailedError),
        AccessDenied,
        "Check the URL's user and password, and the rights that the server gives it",
    ),
    ((client.UnsupportedSaslMechanismError,), ConfigurationError, "Ask for one that the server offers with ?sasl="),
    ((client.UnknownTopicOrPartitionError, client.UnknownTopicIdError), NotFound, "It was deleted, or never made"),
    (
        (client.InvalidTopicError,),
        Conflict,
        "The server takes '.' and '_' in names for the same: another topic has that name already, or the name is not allowed. "
        "Take another name, or a ?prefix=, within which they are kept apart",
    ),
    (_NOT_MADE, ConfigurationError, "Correct ?partitions= or ?replication="),
    ((client.InvalidSessionTimeoutError,), ConfigurationError, "The server allows other times for ?session="),
    ((client.UnsupportedVersionError,), ConfigurationError, "The server is too old; 2.4 or later is needed"),
    ((SpeaksTls,), ConfigurationError, "Write kafkas://, or take a port without TLS"),
)


def translate(error: BaseException, doing: str) -> NarrowboatError:
    """`error`, met while `doing` something, as one of ours."""
    if isinstance(error, NarrowboatError):
        return error
    for kinds, meaning, advice in _MEANING:
        if isinstance(error, kinds):
            met = _told(error) if isinstance(error, _NOT_MADE) else _text(error)
            return _caused(meaning(f"{doing}: {sentence(met)} {advice}", backend=SCHEME), error)
    if isinstance(error, RuntimeError) and "closed" in str(error):
        return _caused(Closed(f"{doing}: this broker was closed", backend=SCHEME), error)
    if _spent(error):
        advice = "Close what this process does not need, or raise its limits"
    else:
        advice = "Check that the server is up and that its advertised addresses can be reached"
    return _caused(Unavailable(f"{doing}: {sentence(_text(error))} {advice}", backend=SCHEME), error)


def unconnected(error: Exception, met: BaseException | None, doing: str, *, secure: bool) -> NarrowboatError:
    """Why there is no connection: `error` as the library says it, and what was `met` at the last try."""
    if met is None:
        return translate(error, doing)
    refused = tls.failure(met, doing, plain=SCHEME, backend=SCHEME) if secure else None
    if refused is not None:
        return refused
    if isinstance(met, SpeaksTls):
        return translate(met, doing)
    no_tls = secure and "handshake" in str(met).lower()
    hint = "check that it is up and can be reached, and is Kafka"
    if no_tls:
        hint = f"if that port has no TLS, write {SCHEME}://"
    elif not secure and "the server closed the connection" in str(met):
        hint += f"; if that port has TLS, write {SECURE}://"
    return _caused(Unavailable(f"{doing}: {_text(error)}; at the last try: {_text(met)}; {hint}", backend=SCHEME), error)


def unsent(error: NarrowboatError, id: str, path: str) -> NarrowboatError:
    """`error`, met before the message `id` was sent, as what a publish raises."""
    return REFUSALS.not_sent(id, path, error, cause=error) if isinstance(error, Unavailable) else error


def unpublished(error: BaseException, id: str, path: str, *, left: bool) -> NarrowboatError:
    """Why the message `id` has no receipt. `left`: it may have reached the server."""
    if isinstance(error, _REFUSED):
        return REFUSALS.refused(id, path, _text(error), cause=error)
    if isinstance(error, client.AuthorizationError):
        return translate(error, f"publishing to {path!r}")
    return (REFUSALS.unknown if left else REFUSALS.not_sent)(id, path, _text(error), cause=error)


def stale(id: str, path: str) -> StaleDelivery:
    """The answer to a settlement of a delivery that is no longer ours."""
    return REFUSALS.stale(id, path, why=_MEMBERSHIP)


#: What is to be installed for each codec.
_LIBRARIES = {"lz4": "lz4", "snappy": "python-snappy", "zstd": "zstandard"}


def unreadable(error: Exception, tp: Any, offset: int) -> NarrowboatError:
    """Why a partition cannot be read on from an offset."""
    where = f"what lies in topic {tp.topic!r}, partition {tp.partition}, from offset {offset} on"
    if isinstance(error, client.AuthorizationError):
        return translate(error, f"reading {where}")
    if isinstance(error, client.UnsupportedCodecError):
        codec = next((codec for codec in _LIBRARIES if codec in str(error)), "")
        needed = f"pip install {_LIBRARIES[codec]}, which comes with narrowboat[kafka]" if codec else "publish it otherwise"
        text = (
            f"{where} is compressed by its program with {codec or 'a codec that nobody here knows'}, whose library is not "
            f"installed: {needed}, and start again"
        )
        return _caused(ConfigurationError(text, backend=SCHEME), error)
    text = (
        f"{where} is damaged: {sentence(_text(error))} It is tried again every few seconds; if the server has no other copy, "
        "move the group behind it (kafka-consumer-groups.sh --reset-offsets)"
    )
    return _caused(Unavailable(text, backend=SCHEME), error)


def too_large(error: BaseException) -> bool:
    """Whether a message was refused for its size, here or by the server."""
    return isinstance(error, client.MessageSizeTooLargeError | client.RecordListTooLargeError)


def _spent(error: BaseException) -> bool:
    """Whether this process or machine has no more files, threads or memory."""
    if isinstance(error, OSError):
        return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "start new thread" in str(error))


def _told(error: BaseException) -> str:
    """What the server says of a topic that it does not make: the library puts the whole request around it."""
    found = _MESSAGE.search(str(error))
    return cut(found["said"]) if found else _text(error)


def _text(error: BaseException) -> str:
    """In one line, without what a request contained."""
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or type(error).__name__}"
    return cut(str(error).split("\n", maxsplit=1)[0], 300) or type(error).__name__


def _caused(ours: NarrowboatError, error: BaseException) -> NarrowboatError:
    ours.__cause__ = error
    return ours
