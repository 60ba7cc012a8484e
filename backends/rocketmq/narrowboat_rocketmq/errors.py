"""From what grpc, the proxy or a name server says to what the caller is told: one clear error, the first one as its cause."""

from __future__ import annotations

from typing import Any

import grpc

from narrowboat.driver import tls
from narrowboat.driver.endpoint import Endpoint
from narrowboat.driver.sources import Refusals
from narrowboat.driver.texts import cut
from narrowboat.errors import AccessDenied, NarrowboatError, NotFound, Unavailable
from narrowboat_rocketmq.library import definition_pb2 as said
from narrowboat_rocketmq.names import Place
from narrowboat_rocketmq.options import SCHEME

refusals = Refusals(SCHEME)

_REPEAT = "The call may be repeated"
_UP = "See whether the proxy is up and reachable"
_RIGHTS = (
    "Nothing was changed. Correct the URL's access key and secret, or give that user the rights that the backend's page lists"
)
#: What the proxy says where something is not there.
_MISSING = frozenset({said.NOT_FOUND, said.TOPIC_NOT_FOUND, said.CONSUMER_GROUP_NOT_FOUND})
_DENIED = frozenset({said.UNAUTHORIZED, said.FORBIDDEN})
#: What it says to a message that will never be taken as it is.
_BAD = range(40000, 40100)
_LARGE = frozenset({said.PAYLOAD_TOO_LARGE, said.MESSAGE_BODY_TOO_LARGE, said.MESSAGE_PROPERTIES_TOO_LARGE})
#: What a proxy says of a message that its broker refused at once, for now.
_BUSY = frozenset({said.TOO_MANY_REQUESTS})


def broken(error: BaseException, endpoint: Endpoint, doing: str, timeout: float) -> NarrowboatError:
    """Why a call had no answer. `error`: grpc's, or a socket's."""
    found = tls.failure(error, str(endpoint), plain=SCHEME, backend=endpoint.scheme) or _broken(error, endpoint, doing, timeout)
    found.__cause__ = error
    return found


def _broken(error: BaseException, endpoint: Endpoint, doing: str, timeout: float) -> NarrowboatError:
    if not isinstance(error, grpc.RpcError):
        text = cut(f"{type(error).__name__}: {error}")
        return Unavailable(f"{endpoint}: no connection while {doing} ({text}). {_UP}. {_REPEAT}.", backend=SCHEME, sent=False)
    code, details = error.code(), cut(error.details() or "")
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return AccessDenied(f"{endpoint} refused us while {doing} ({details}). {_RIGHTS}.", backend=SCHEME)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unavailable(
            f"{endpoint} did not answer within {timeout:g} s while {doing}. It may or may not have been done. {_UP}, or "
            "give it longer with timeout=.",
            backend=SCHEME,
        )
    connecting = code is grpc.StatusCode.UNAVAILABLE and "failed to connect" in details.lower()
    hint = _UP
    if code is grpc.StatusCode.UNIMPLEMENTED or "http" in details.lower():
        hint = "It may be no proxy of RocketMQ 5, or want TLS" if not endpoint.tls else "It may be no proxy of RocketMQ 5"
    return Unavailable(
        f"{endpoint}: no answer while {doing} ({code.name.lower()}: {details}). {hint}. {_REPEAT}.",
        backend=SCHEME,
        sent=not connecting,
    )


def refused(status: Any, endpoint: Endpoint, doing: str, place: Place | None = None) -> NarrowboatError:
    """What a status other than OK means."""
    code, text = status.code, cut(status.message or f"code {status.code}")
    if code in _MISSING:
        if place is not None:
            return missing(place, f" on the server ({text})")
        return NotFound(f"{endpoint}: not found while {doing} ({text})", backend=SCHEME)
    if code in _DENIED:
        return AccessDenied(f"{endpoint} refused us while {doing} ({text}). {_RIGHTS}.", backend=SCHEME)
    return Unavailable(f"{endpoint} refused while {doing} ({text}). {_REPEAT}.", backend=SCHEME)


def other_type(status: Any) -> bool:
    """Whether a topic is there, and of another type than the message."""
    return bool(status.code == said.MESSAGE_PROPERTY_CONFLICT_WITH_TYPE) and not _nowhere(status)


def _nowhere(status: Any) -> bool:
    """A topic that is not there has no type: a proxy says that before it says anything else."""
    return status.code in _MISSING or "expected type is UNSPECIFIED" in status.message


def unpublished(status: Any, endpoint: Endpoint, id: str, place: Place) -> NarrowboatError:
    """What a status other than OK means for a message that was sent."""
    code, text = status.code, cut(status.message or f"code {status.code}")
    if _nowhere(status):
        return missing(place, f" on the server ({text})")
    if code in _DENIED:
        return refused(status, endpoint, f"publishing to {place.path!r}", place)
    if code in _LARGE or code in _BAD:
        return refusals.refused(id, place.path, f"{text}. Sent again as it is, it will be refused again.")
    if code in _BUSY:
        return refusals.refused(id, place.path, f"{text}. It may be published again later.", retryable=True)
    return refusals.unknown(id, place.path, f"{endpoint} says {text}")


def missing(place: Place, found: str = " on the server") -> NotFound:
    """The error where a queue, topic or subscription is not there."""
    return refusals.missing(place.path, place.address.kind.value, found=found)
