"""From what pika or the server says to what the caller is told: one clear error, the first one kept as its cause."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from pika import exceptions

from narrowboat.contract import Kind
from narrowboat.driver import tls
from narrowboat.driver.endpoint import Endpoint
from narrowboat.driver.sources import Refusals
from narrowboat.driver.texts import cut
from narrowboat.errors import AccessDenied, Conflict, NarrowboatError, NotFound, StaleDelivery, Unavailable
from narrowboat_rabbitmq.options import SCHEME
from narrowboat_rabbitmq.protocol.names import KIND_OF, Route, properties_exchange

NOT_FOUND, ACCESS_REFUSED, RESOURCE_LOCKED, PRECONDITION_FAILED, NOT_ALLOWED, INTERNAL_ERROR = 404, 403, 405, 406, 530, 541

refusals = Refusals(SCHEME)

#: How a server names the exchange that keeps what a source was declared with.
_PROPERTIES = f"arg 'alternate-exchange' for exchange '{properties_exchange('')}"
_REPEAT = "The call may be repeated"
_DIFFERS = re.compile(
    r"inequivalent arg '(?P<argument>[^']+)' for (?P<what>queue|exchange) '(?P<name>[^']*)' in vhost '[^']*': "
    r"received (?P<asked>none|the value '[^']*' of type '[^']*'|'[^']*') but current is "
    r"(?P<stored>none|the value '[^']*' of type '[^']*'|'[^']*')"
)


class Operation(NamedTuple):
    """What a caller is doing, for the text of an error, and until when."""

    doing: str  #: "declaring 'orders'"
    deadline: float  #: on the broker's clock
    route: Route | None = None  #: what it is about
    prepares: bool = False  #: a step on the way to it: while that is under way, nothing of it was sent


# -- connections ------------------------------------------------------------------------------------------------------


def connection_error(error: BaseException, endpoint: Endpoint, operation: Operation) -> NarrowboatError:
    """Why there is no connection."""
    found = _why(list(tls.chain(error)), endpoint, operation)
    found.__cause__ = error
    return found


def transient(error: BaseException) -> bool:
    """Whether it may pass by itself: the server did not refuse us."""
    if tls.failure(error, "", plain=SCHEME, backend=SCHEME) is not None:
        return False
    return not any(_said(each) in (ACCESS_REFUSED, NOT_ALLOWED) for each in tls.chain(error))


def crashed(error: NarrowboatError) -> bool:
    """Whether the server met an error of its own and closed the connection for it."""
    return any(_said(each) == INTERNAL_ERROR for each in tls.chain(error))


def _said(error: BaseException) -> int | None:
    """The code with which the server closed the connection; None when it did not, or did not say.

    Where a login was refused pika 1.4 gives only the text of that error, within one of its own.
    """
    if isinstance(error, exceptions.ConnectionClosedByBroker):
        return int(error.reply_code)
    if isinstance(error, (exceptions.ProbableAuthenticationError, exceptions.ProbableAccessDeniedError)):
        found = re.match(r"ConnectionClosedByBroker: \((?P<code>\d+)\)", str(error.args[0]) if error.args else "")
        return int(found["code"]) if found else None
    return None


def _why(chain: Sequence[BaseException], endpoint: Endpoint, operation: Operation) -> NarrowboatError:
    user, text = repr(endpoint.user), _shown(chain)
    for each in chain:
        if _said(each) == NOT_ALLOWED:
            return AccessDenied(
                f"{endpoint}: the server has no virtual host {endpoint.database!r}, or the user {user} must not use it "
                f"({text}). Nothing was changed. Correct the URL's path, or create it: rabbitmqctl add_vhost, set_permissions.",
                backend=SCHEME,
            )
        if _said(each) == ACCESS_REFUSED:
            return AccessDenied(
                f"{endpoint} refused the user {user} or its password ({text}). Nothing was changed. Correct the URL.",
                backend=SCHEME,
            )
    # Pika's "probable" errors only guess from the moment at which the connection broke: a server of today says why.
    refused = tls.failure(chain[0], str(endpoint), plain=SCHEME, backend=endpoint.scheme)
    if refused is not None:
        return refused
    hint = "See whether the server is up and reachable"
    if any(isinstance(each, exceptions.IncompatibleProtocolError) for each in chain):
        hint = "It may be no AMQP server, or want TLS (amqps://)" if not endpoint.tls else "It may be no AMQP server"
    hint += tls.hint(chain[0], plain=SCHEME)
    return Unavailable(
        f"{endpoint}: no connection while {operation.doing} ({text}). {hint}. {_REPEAT}.",
        backend=SCHEME,
        sent=not operation.prepares,
    )


def _shown(chain: Sequence[BaseException]) -> str:
    """The innermost of the texts, which says most. No text of pika has the password in it."""
    said = [f"{type(each).__name__}: {each}" for each in chain if str(each) and not isinstance(each, exceptions.AMQPError)]
    closed = [str(each) for each in chain if isinstance(each, exceptions.ConnectionClosed)]
    plain = [type(each).__name__ for each in chain]
    return cut((closed or said[-1:] or plain[-1:])[0])


def late(endpoint: Endpoint, operation: Operation, timeout: float) -> Unavailable:
    """The error where no answer came in time."""
    known = "Nothing of it was sent" if operation.prepares else "It may or may not have been done"
    return Unavailable(
        f"{endpoint} did not answer within {timeout:g} s while {operation.doing}. {known}. See whether the server is up and "
        "reachable, or give it longer with timeout=.",
        backend=SCHEME,
        sent=not operation.prepares,
    )


def blocked(endpoint: Endpoint, reason: str) -> str:
    """Why nothing was sent."""
    return (
        f"{endpoint} takes no messages at the moment ({reason or 'connection.blocked'}): an alarm for memory or disk. Free "
        "some, or raise vm_memory_high_watermark or disk_free_limit; consuming goes on meanwhile"
    )


# -- channels ---------------------------------------------------------------------------------------------------------


class ConsumerCancelled(Exception):
    """The server ended a consumer by itself, and with it we end its channel."""


def channel_error(error: BaseException, endpoint: Endpoint, operation: Operation) -> NarrowboatError:
    """Why a channel was closed: what the server refused, that it ended the consumer, or that the connection is gone."""
    if isinstance(error, ConsumerCancelled):
        found: NarrowboatError = Unavailable(
            f"{endpoint} ended the consumer while {operation.doing}: its queue was deleted, or has moved to another node. What "
            "a deleted queue held is gone; a queue that has moved hands it out again",
            backend=SCHEME,
        )
    elif isinstance(error, exceptions.ChannelClosedByBroker):
        found = _refusal(error, endpoint, operation)
    else:
        return connection_error(error, endpoint, operation)
    found.__cause__ = error
    return found


def _refusal(error: exceptions.ChannelClosedByBroker, endpoint: Endpoint, operation: Operation) -> NarrowboatError:
    code, text, doing, route = error.reply_code, error.reply_text, operation.doing, operation.route
    if code == NOT_FOUND:
        return missing(route, text) if route is not None else NotFound(f"{endpoint}: {text}", backend=SCHEME)
    if code == ACCESS_REFUSED:
        return AccessDenied(
            f"{endpoint} does not allow the user {endpoint.user!r} what is needed for {doing} ({text}). Nothing was changed. "
            "Give it the rights that the backend's page lists (rabbitmqctl set_permissions).",
            backend=SCHEME,
        )
    if code == RESOURCE_LOCKED:
        return Unavailable(
            f"{endpoint}: another connection has that name for itself while {doing} ({text}). {_REPEAT}.", backend=SCHEME
        )
    if code == PRECONDITION_FAILED:
        return conflict(text, route)
    return Unavailable(f"{endpoint} closed the channel while {doing} ({code} {text}). {_REPEAT}.", backend=SCHEME)


# -- sources ----------------------------------------------------------------------------------------------------------


def conflict(text: str, route: Route | None) -> Conflict:
    """What differs between what is asked and what is there, as the server says it."""
    found = _DIFFERS.search(text)
    if found is None or route is None:
        path = route.path if route is not None else "it"
        return Conflict(
            f"{path!r} cannot be declared like that: the server says {text!r}. Nothing was changed. Consume it as it is with "
            "declare=never, or correct what differs.",
            backend=SCHEME,
        )
    argument, stored = found["argument"], _value(found["stored"])
    if found["what"] == "exchange" and argument == "type":
        return _another_kind(route, found["name"], stored)
    return Conflict(
        f"the {found['what']} {found['name']!r} is there already and differs: {argument} is {stored or 'not set'} and was "
        f"asked as {_value(found['asked']) or 'not set'}. Nothing was changed. Say what it is in the URL (queue_type=), "
        "consume it as it is with declare=never, or delete it (with its messages) and declare it anew.",
        backend=SCHEME,
    )


def concerns_properties(error: Conflict) -> bool:
    """Whether it is about what a source was declared with. A server cuts its text after 255 bytes, and so the values off.

    It is looked for in the server's own text: ours has other words where that was whole, so with a short name.
    """
    return _PROPERTIES in str(error.__cause__ or error)


def unread(path: str) -> Conflict:
    """The error where a server's text has no room for what is stored, and half of it is to stay."""
    return Conflict(
        f"altering {path!r}: its name leaves no room in the server's text for what is stored, so what is to stay cannot be "
        "told. Nothing was changed. Alter both, max_deliveries= and lease=",
        backend=SCHEME,
    )


def _another_kind(route: Route, name: str, stored: str | None) -> Conflict:
    kind = KIND_OF.get(stored or "")
    is_topic = route.address.kind is Kind.SUBSCRIPTION and name == route.topic and name != route.name
    path, asked = (route.address.name, "topic") if is_topic else (route.path, route.address.kind.value)
    return refusals.taken(path, kind.value if kind is not None else f"{stored} exchange", asked)


def _value(text: str) -> str | None:
    """The value in "the value 'x' of type 'longstr'", "'x'" or "none"."""
    found = re.search(r"'([^']*)'", text)
    return found[1] if found is not None else None


def missing(route: Route, why: str = "") -> NotFound:
    """The error where a queue, topic or subscription is not there."""
    return refusals.missing(route.path, route.address.kind.value, found=f" on the server{f' ({why})' if why else ''}")


def stale(id: str, attempt: int, path: str) -> StaleDelivery:
    """The error for a settlement of what is no longer ours."""
    return refusals.stale(
        id,
        path,
        attempt,
        why="the channel that it came on is gone (the connection broke, the queue was deleted, or the server's "
        "consumer_timeout was over), or it was settled before. Nothing was changed; it comes back by itself.",
    )
