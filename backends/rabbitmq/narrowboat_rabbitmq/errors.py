"""From what pika or the server says to what the caller is told: one clear error, the first kept as the cause."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from pika import exceptions

from narrowboat.contract import Kind, Properties
from narrowboat.driver import tls
from narrowboat.driver.texts import cut
from narrowboat.errors import (
    AccessDenied,
    Conflict,
    NarrowboatError,
    NotFound,
    StaleDelivery,
    Unavailable,
)
from narrowboat_rabbitmq.names import KIND_OF, properties_exchange, read_stored
from narrowboat_rabbitmq.options import SCHEME

if TYPE_CHECKING:
    from narrowboat_rabbitmq.names import Place
    from narrowboat_rabbitmq.options import Site

NOT_FOUND, ACCESS_REFUSED, RESOURCE_LOCKED, PRECONDITION_FAILED, NOT_ALLOWED, INTERNAL_ERROR = 404, 403, 405, 406, 530, 541

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
    place: Place | None = None  #: what it is about
    prepares: bool = False  #: a step on the way to it: while that is under way, nothing of it was sent


def flatten(error: BaseException) -> list[BaseException]:
    """The error and what it was made of: pika wraps the reason for a failed connection several times."""
    found: list[BaseException] = []
    queue: list[object] = [error]
    while queue:
        each = queue.pop(0)
        if not isinstance(each, BaseException) or each in found:
            continue
        found.append(each)
        queue += [getattr(each, "exception", None), *getattr(each, "exceptions", ()), *each.args, each.__cause__]
    return found


def connection_error(error: BaseException, site: Site, operation: Operation) -> NarrowboatError:
    """Why there is no connection."""
    chain = flatten(error)
    text = _shown(chain)
    found = _why(chain, text, site, operation)
    found.__cause__ = error
    return found


def transient(error: BaseException) -> bool:
    """Whether it may pass by itself: the server did not say no."""
    if tls.failure(error, "", plain=SCHEME, backend=SCHEME) is not None:
        return False
    return not any(_said(each) in (ACCESS_REFUSED, NOT_ALLOWED) for each in flatten(error))


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


def crashed(error: NarrowboatError) -> bool:
    """Whether the server met an error of its own and closed the connection for it."""
    chain = flatten(error)
    return any(isinstance(each, exceptions.ConnectionClosedByBroker) and each.reply_code == INTERNAL_ERROR for each in chain)


def _why(chain: list[BaseException], text: str, site: Site, operation: Operation) -> NarrowboatError:
    user = repr(site.username)
    for each in chain:
        if _said(each) == NOT_ALLOWED:
            return AccessDenied(
                f"{site}: the server has no virtual host {site.vhost!r}, or the user {user} must not use it ({text}). Nothing "
                "was changed. Correct the URL's path, or create it: rabbitmqctl add_vhost, set_permissions.",
                backend=SCHEME,
            )
        if _said(each) == ACCESS_REFUSED:
            return AccessDenied(
                f"{site} refused the user {user} or its password ({text}). Nothing was changed. Correct the URL.",
                backend=SCHEME,
            )
    # Pika's "probable" errors only guess from the moment at which the connection broke: a server of today says why.
    refused = tls.failure(chain[0], str(site), plain=SCHEME, backend=site.scheme)
    if refused is not None:
        return refused
    hint = "See whether the server is up and reachable"
    if any(isinstance(each, exceptions.IncompatibleProtocolError) for each in chain):
        hint = "It may be no AMQP server, or want TLS (amqps://)" if not site.tls else "It may be no AMQP server"
    hint += tls.hint(chain[0], plain=SCHEME)
    return Unavailable(
        f"{site}: no connection while {operation.doing} ({text}). {hint}. {_REPEAT}.",
        backend=SCHEME,
        sent=not operation.prepares,
    )


def _shown(chain: list[BaseException]) -> str:
    """The innermost of the texts, which says most. No text of pika has the password in it."""
    said = [f"{type(each).__name__}: {each}" for each in chain if str(each) and not isinstance(each, exceptions.AMQPError)]
    closed = [str(each) for each in chain if isinstance(each, exceptions.ConnectionClosed)]
    plain = [type(each).__name__ for each in chain]
    return cut((closed or said[-1:] or plain[-1:])[0])


def late(site: Site, operation: Operation, timeout: float) -> Unavailable:
    """There was no answer in time."""
    known = "Nothing of it was sent" if operation.prepares else "It may or may not have been done"
    return Unavailable(
        f"{site} did not answer within {timeout:g} s while {operation.doing}. {known}. See whether the server is up and "
        "reachable, or give it longer with timeout=.",
        backend=SCHEME,
        sent=not operation.prepares,
    )


def blocked(site: Site, reason: str) -> str:
    """Why nothing was sent."""
    return (
        f"{site} takes no messages at the moment ({reason or 'connection.blocked'}): an alarm for memory or disk. Free some, "
        "or raise vm_memory_high_watermark or disk_free_limit; consuming goes on meanwhile"
    )


def channel_error(error: BaseException, site: Site, operation: Operation) -> NarrowboatError:
    """Why a channel was closed, as the caller's error."""
    found = _refusal(error, site, operation) if isinstance(error, exceptions.ChannelClosedByBroker) else None
    if found is None:
        return connection_error(error, site, operation)
    found.__cause__ = error
    return found


def _refusal(error: exceptions.ChannelClosedByBroker, site: Site, operation: Operation) -> NarrowboatError | None:
    code, text = error.reply_code, error.reply_text
    doing, place = operation.doing, operation.place
    if code == NOT_FOUND:
        return missing(place, text) if place is not None else NotFound(f"{site}: {text}", backend=SCHEME)
    if code == ACCESS_REFUSED:
        return AccessDenied(
            f"{site} does not allow the user {site.username!r} what is needed for {doing} ({text}). Nothing was changed. Give "
            "it the rights that the backend's page lists (rabbitmqctl set_permissions).",
            backend=SCHEME,
        )
    if code == RESOURCE_LOCKED:
        return Unavailable(
            f"{site}: another connection has that name for itself while {doing} ({text}). {_REPEAT}.", backend=SCHEME
        )
    if code == PRECONDITION_FAILED:
        return conflict(text, place)
    return Unavailable(f"{site} closed the channel while {doing} ({code} {text}). {_REPEAT}.", backend=SCHEME)


def conflict(text: str, place: Place | None) -> Conflict:
    """What differs between what is asked and what is there, as the server says it."""
    path = place.path if place is not None else "it"
    found = _DIFFERS.search(text)
    if found is None or place is None:
        return Conflict(f"{path!r} cannot be declared like that: {text}", backend=SCHEME)
    argument, stored = found["argument"], _value(found["stored"])
    if found["what"] == "exchange" and argument == "type":
        return _another_kind(place, found["name"], stored)
    return Conflict(
        f"the {found['what']} {found['name']!r} is there already and differs: {argument} is {stored or 'not set'} and was "
        f"asked as {_value(found['asked']) or 'not set'}. Nothing was changed. Say what it is in the URL (queue_type=), "
        "consume it as it is with declare=never, or delete it (with its messages) and declare it anew.",
        backend=SCHEME,
    )


def concerns_properties(error: Conflict) -> bool:
    """Whether it is about what a source was declared with. A server cuts its text after 255 bytes, and so the values off."""
    return _PROPERTIES in str(error)


def other_properties(place: Place, asked: Properties, answer: Conflict) -> Conflict:
    """What differs; `answer` is the server's to a declaration that asked for nothing, and leaves room for what is stored."""
    stored, whole = read_stored(str(answer.__cause__))
    wanted = asked._asdict().items()
    wrong = [f"{name} is {stored[name]:g} and was asked as {want:g}" for name, want in wanted if stored.get(name, want) != want]
    if not whole:
        rest = ", ".join(f"{name}={want:g}" for name, want in wanted if name not in stored)
        wrong.append(f"{rest} was asked, and the server's text has no room for what it has")
    found = Conflict(
        f"{place.path!r} is already declared otherwise: {', '.join(wrong)}. Nothing was changed. Ask for what is stored, or "
        "consume what is there until it is empty, delete it (with its messages) and declare it anew.",
        backend=SCHEME,
    )
    found.stored = stored
    return found


def _another_kind(place: Place, name: str, stored: str | None) -> Conflict:
    kind = KIND_OF.get(stored or "")
    is_topic = place.address.kind is Kind.SUBSCRIPTION and name == place.topic and name != place.name
    path, asked = (place.address.name, "topic") if is_topic else (place.path, place.address.kind.value)
    what = kind.value if kind is not None else f"{stored} exchange"
    return Conflict(
        f"{path!r} is a {what} and cannot be a {asked} as well: queues, topics and subscriptions share one namespace, in which "
        "the subscription g of the topic prices is 'prices.g'. Take another name, or delete the first.",
        backend=SCHEME,
    )


def _value(text: str) -> str | None:
    """The value in "the value 'x' of type 'longstr'", "'x'" or "none"."""
    found = re.search(r"'([^']*)'", text)
    return found[1] if found is not None else None


def missing(place: Place, why: str = "") -> NotFound:
    """What was named is not there."""
    kind = place.address.kind.value
    return NotFound(
        f"there is no {kind} {place.path!r} on the server{f' ({why})' if why else ''}. Declare it with a URL that says "
        "declare=auto, or correct the name.",
        backend=SCHEME,
    )


def stale(id: str, attempt: int, path: str) -> StaleDelivery:
    """The answer to whoever settles what is no longer theirs."""
    return StaleDelivery(
        f"delivery {attempt} of the message {id!r} from {path!r} is no longer ours: the channel that it came on is gone (the "
        "connection broke, the queue was deleted, or the server's consumer_timeout was over), or it was settled before. "
        "Nothing was changed; it comes back by itself.",
        id=id,
        backend=SCHEME,
    )
