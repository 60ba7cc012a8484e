"""What a client raises, in our terms. The client's own error is kept as the cause; no text has a secret."""

from __future__ import annotations

import errno
import ssl

from narrowboat.driver import tls
from narrowboat.driver.endpoint import Endpoint
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
from narrowboat_kafka.client import Code, KafkaError, TopicPartition, Unconnected
from narrowboat_kafka.options import SCHEME

REFUSALS = Refusals(SCHEME)
#: Why a delivery is not ours any more, where its lease is the membership in a group.
_MEMBERSHIP = (
    "its partition went to another consumer, it was settled before, or its consumer or queue is gone. Nothing was changed"
)
#: The user has not the right to do that.
_FORBIDDEN = frozenset(
    {
        Code.TOPIC_AUTHORIZATION_FAILED,
        Code.GROUP_AUTHORIZATION_FAILED,
        Code.CLUSTER_AUTHORIZATION_FAILED,
        Code.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
#: The server said no, and will say it again: the message was not stored.
_REFUSED = frozenset(
    {
        Code.MESSAGE_TOO_LARGE,
        Code.RECORD_LIST_TOO_LARGE,
        Code.INVALID_RECORD,
        Code.INVALID_TOPIC,
        Code.CORRUPT_MESSAGE,
        Code.INVALID_TIMESTAMP,
        Code.POLICY_VIOLATION,
        Code.UNSUPPORTED_FOR_MESSAGE_FORMAT,
    }
)

#: What a cluster says that has just been started: no broker may be given a partition yet. Its number is that of a wrong option.
_FENCED = "All brokers are currently fenced"

#: What each kind of error is in our terms, and what to do about it.
_MEANING: tuple[tuple[frozenset[Code], type[NarrowboatError], str], ...] = (
    (
        _FORBIDDEN | {Code.SASL_AUTHENTICATION_FAILED},
        AccessDenied,
        "Check the URL's user and password, and the rights that the server gives it",
    ),
    (frozenset({Code.UNSUPPORTED_SASL_MECHANISM}), ConfigurationError, "Ask for one that the server offers with ?sasl="),
    (frozenset({Code.UNKNOWN_TOPIC_OR_PARTITION, Code.UNKNOWN_TOPIC_ID}), NotFound, "It was deleted, or never made"),
    (
        frozenset({Code.INVALID_TOPIC}),
        Conflict,
        "The server takes '.' and '_' in names for the same: another topic has that name already, or the name is not allowed. "
        "Take another name, or a ?prefix=, within which they are kept apart",
    ),
    (
        frozenset({Code.INVALID_REPLICATION_FACTOR, Code.INVALID_PARTITIONS, Code.POLICY_VIOLATION}),
        ConfigurationError,
        "Correct ?partitions= or ?replication=",
    ),
    (frozenset({Code.INVALID_SESSION_TIMEOUT}), ConfigurationError, "The server allows other times for ?session="),
    (frozenset({Code.UNSUPPORTED_VERSION}), ConfigurationError, "The server is too old; 2.4 or later is needed"),
    (frozenset({Code.SPEAKS_TLS}), ConfigurationError, "Write the scheme that means TLS, or take a port without TLS"),
)


def code_of(error: BaseException) -> int | None:
    """The number of a client's error; None of any other."""
    return error.code if isinstance(error, KafkaError) else None


def translate(error: BaseException, doing: str) -> NarrowboatError:
    """`error`, met while `doing` something, as one of ours."""
    if isinstance(error, NarrowboatError):
        return error
    code = None if _FENCED in str(error) else code_of(error)
    for codes, meaning, advice in _MEANING:
        if code in codes:
            return _caused(meaning(f"{doing}: {sentence(line(error))} {advice}", backend=SCHEME), error)
    if isinstance(error, RuntimeError) and "closed" in str(error):
        return _caused(Closed(f"{doing}: this broker was closed", backend=SCHEME), error)
    if _spent(error):
        advice = "Close what this process does not need, or raise its limits"
    else:
        advice = "Check that the server is up and that its advertised addresses can be reached"
    return _caused(Unavailable(f"{doing}: {sentence(line(error))} {advice}", backend=SCHEME), error)


def behind(doing: str, place: str) -> Unavailable:
    """The error of a call whose time was over, or for which another one has found out that the server does not answer."""
    text = f"{doing}: a call before this one waits, or has waited in vain, for an answer of {place}. Nothing was sent. "
    return Unavailable(
        text + "Check that the server is up and that its advertised addresses can be reached", backend=SCHEME, sent=False
    )


def unconnected(error: Unconnected, doing: str, endpoint: Endpoint) -> NarrowboatError:
    """Why there is no connection to `endpoint`."""
    met, error.met = error.met, None  # the frames of a login have the password: no error that is raised leads there
    if endpoint.secret is not None and error.turned_away:
        text = (
            f"{doing}: the server closed the connection when user and password were shown to it. "
            "Check them, and that ?sasl= is a mechanism that it offers"
        )
        return _caused(AccessDenied(text, backend=SCHEME), error)
    if met is None:
        return translate(error, doing)
    refused = tls.failure(met, doing, plain=endpoint.plain, backend=SCHEME) if endpoint.tls else None
    if refused is not None:
        return refused
    if code_of(met) == Code.SPEAKS_TLS:
        text = f"{doing}: {sentence(line(met))} Write {endpoint.secure}://, or take a port without TLS"
        return _caused(ConfigurationError(text, backend=SCHEME), met)
    no_tls = endpoint.tls and "handshake" in str(met).lower()
    hint = "check that it is up and can be reached, and is Kafka"
    if no_tls:
        hint = f"if that port has no TLS, write {endpoint.plain}://"
    elif not endpoint.tls and "the server closed the connection" in str(met):
        hint += f"; if that port has TLS, write {endpoint.secure}://"
    return _caused(Unavailable(f"{doing}: {line(error)}; at the last try: {line(met)}; {hint}", backend=SCHEME), error)


def unsent(error: NarrowboatError, id: str, path: str) -> NarrowboatError:
    """`error`, met before the message `id` was sent, as what a publish raises."""
    return REFUSALS.not_sent(id, path, error, cause=error) if isinstance(error, Unavailable) else error


def unpublished(error: BaseException, id: str, path: str, *, left: bool) -> NarrowboatError:
    """Why the message `id` has no receipt. `left`: it may have reached the server."""
    code = code_of(error)
    if code in _REFUSED:
        return REFUSALS.refused(id, path, line(error), cause=error)
    if code in _FORBIDDEN:
        return translate(error, f"publishing to {path!r}")
    return (REFUSALS.unknown if left else REFUSALS.not_sent)(id, path, line(error), cause=error)


def stale(id: str, path: str, *, locked: bool = False) -> StaleDelivery:
    """The answer to a settlement of a delivery that is no longer ours. `locked`: its lease was a lock of its own."""
    return REFUSALS.stale(id, path) if locked else REFUSALS.stale(id, path, why=_MEMBERSHIP)


#: What is to be installed for each codec.
_LIBRARIES = {"lz4": "lz4", "snappy": "python-snappy", "zstd": "zstandard"}


def unreadable(error: KafkaError, tp: TopicPartition, offset: int) -> NarrowboatError:
    """Why a partition cannot be read on from an offset."""
    where = f"what lies in topic {tp.topic!r}, partition {tp.partition}, from offset {offset} on"
    if error.code in _FORBIDDEN:
        return translate(error, f"reading {where}")
    if error.code == Code.CODEC_MISSING:
        codec = next((codec for codec in _LIBRARIES if codec in str(error)), "")
        needed = f"pip install {_LIBRARIES[codec]}, which comes with narrowboat[kafka]" if codec else "publish it otherwise"
        text = (
            f"{where} is compressed by its program with {codec or 'a codec that nobody here knows'}, whose library is not "
            f"installed: {needed}, and start again"
        )
        return _caused(ConfigurationError(text, backend=SCHEME), error)
    text = (
        f"{where} is damaged: {sentence(line(error))} It is tried again every few seconds; if the server has no other copy, "
        "move the group behind it (kafka-consumer-groups.sh --reset-offsets)"
    )
    return _caused(Unavailable(text, backend=SCHEME), error)


def too_large(error: BaseException) -> bool:
    """Whether a message was refused for its size, here or by the server."""
    return code_of(error) in (Code.MESSAGE_TOO_LARGE, Code.RECORD_LIST_TOO_LARGE)


def _spent(error: BaseException) -> bool:
    """Whether this process or machine has no more files, threads or memory."""
    if isinstance(error, OSError):
        return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "start new thread" in str(error))


def line(error: BaseException) -> str:
    """What it says in one line, without what a request contained."""
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or type(error).__name__}"
    return cut(str(error).split("\n", maxsplit=1)[0], 300) or type(error).__name__


def _caused(ours: NarrowboatError, error: BaseException) -> NarrowboatError:
    ours.__cause__ = error
    return ours
