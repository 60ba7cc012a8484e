"""Messages on the wire: arrays in a fixed order. A body stands behind the head; here is its length.

an address     [kind, name, group]
a source       [address, lease, max_deliveries, ordered, priorities]
a message      [address, id, length, headers, key, published_at, delay, priority, ttl, correlation_id, content_type,
                reply_to, dedup, origin]; without what follows published_at, where all of that is as usual
a delivery     [id, length, headers, key, attempt, published_at, priority, expires_in, correlation_id, content_type,
                reply_to, tag, malformed]
a settlement   [id, attempt, tag, outcome], with an outcome of ["ack"], ["nack", delay], ["return"] or
               ["reject", reason, attempts]
answers        to a message: true, false (a duplicate) or ["error", ...]; to a settlement: null or ["error", ...]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from narrowboat.capabilities import BrokerCapabilities
from narrowboat.contract.messages import (
    Ack,
    Address,
    Delivery,
    Kind,
    Nack,
    Outcome,
    Outgoing,
    Properties,
    Receipt,
    Reject,
    Return,
    Source,
)
from narrowboat.errors import NarrowboatError
from narrowboat_zeromq.protocol import fields
from narrowboat_zeromq.protocol.faults import from_wire, to_wire
from narrowboat_zeromq.protocol.frames import Bodies, Malformed

#: Seconds: longer is a mistake in units.
_LONG = 10 * 365 * 86400.0
_ACK, _RETURN = ["ack"], ["return"]
#: What most messages have from `delay` on. Left off, a message costs both sides a third less.
_USUAL = (0.0, 0, None, None, None, None, False, None)
_new = tuple.__new__


def named(to: Address | None) -> list[str] | None:
    """An address, for the wire."""
    return None if to is None else [to.kind.value, to.name, to.group]


def outgoing(message: Outgoing) -> list[Any]:
    """A message to be sent, for the wire."""
    to, id, body, headers, key, published, delay, priority, ttl, correlation, kind, reply, dedup, origin = message
    row = [named(to), id, len(body), headers if type(headers) is dict else dict(headers), key, published]
    if message[6:] != _USUAL:
        tag = list(origin) if isinstance(origin, tuple) else None
        row += [delay, priority, ttl, correlation, kind, named(reply), dedup, tag]
    return row


def message(value: object, bodies: Bodies, claims: BrokerCapabilities) -> Outgoing:
    """A message to be sent, off the wire."""
    few = type(value) is list and len(value) == 6
    to, id, length, headers, key, published, *rest = fields.row("message", value, 6 if few else 14)
    body = bodies.take(length)
    if len(body) > claims.body_max:
        raise Malformed(f"body: up to {claims.body_max} bytes are allowed")
    # This runs for every message: what most of them lack is not looked at by a call, and `Outgoing(...)` is one more.
    first = (
        fields.address(to),
        fields.text("id", id),
        body,
        _headers(headers, claims.headers_max),
        None if key is None else fields.text("key", key),
        fields.finite("published_at", published),
    )
    return _new(Outgoing, first + (_USUAL if few else _unusual(rest, claims)))


def _unusual(rest: Sequence[Any], claims: BrokerCapabilities) -> tuple[Any, ...]:
    delay, priority, ttl, correlation, kind, reply, dedup, origin = rest
    return (
        fields.number("delay", delay, 0.0, claims.delay_max),
        fields.whole("priority", priority, 0, claims.priorities_max),
        None if ttl is None else fields.number("ttl", ttl, 0.0, _LONG),
        None if correlation is None else fields.text("correlation_id", correlation),
        None if kind is None else fields.text("content_type", kind),
        None if reply is None else fields.address(reply),
        fields.flag("dedup", dedup),
        None if origin is None else fields.tag(origin),
    )


def _headers(value: object, most: int) -> dict[str, str]:
    if type(value) is not dict:
        raise Malformed("headers: an object is allowed")
    if value:
        size = 0
        for name, text in value.items():
            size += len(name) + len(fields.words("header", text))
        # As the claims have it, in bytes; the marks of a dead letter that is sent again come on top.
        if size > 2 * most:
            raise Malformed(f"headers: up to {most} bytes are allowed")
    return value


def delivery(found: Delivery) -> list[Any]:
    """A message handed out, for the wire."""
    id, body, headers, key, attempt, published, priority, expires, correlation, kind, reply, tag, malformed, _ = found
    return [
        id,
        len(body),
        headers if type(headers) is dict else dict(headers),
        key,
        attempt,
        published,
        priority,
        expires,
        correlation,
        kind,
        named(reply),
        tag,
        malformed,
    ]


def delivered(value: Sequence[Any], bodies: Bodies) -> Delivery:
    """A message handed out, off the wire: from a server that this client has chosen, and checked for its shape alone."""
    id, length, headers, key, attempt, published, priority, expires, correlation, kind, reply, tag, malformed = value
    answer = None if reply is None else fields.address(reply)
    body = bodies.take(length)
    return _new(
        Delivery,
        (id, body, headers, key, attempt, published, priority, expires, correlation, kind, answer, tuple(tag), malformed, ""),
    )


def settlement(found: tuple[Delivery, Outcome]) -> list[Any]:
    """A settlement, for the wire."""
    what, outcome = found
    how: list[Any]
    if outcome.__class__ is Ack:
        how = _ACK
    elif isinstance(outcome, Nack):
        how = ["nack", outcome.delay]
    elif isinstance(outcome, Reject):
        how = ["reject", outcome.reason, outcome.attempts]
    else:
        how = _RETURN
    return [what.id, what.attempt, what.tag, how]


def settled(value: object) -> tuple[Delivery, Outcome]:
    """A settlement, off the wire. Its delivery has what a driver needs to settle it, and nothing else."""
    id, attempt, tag, outcome = fields.row("settlement", value, 4)
    return claimed([id, attempt, tag]), _outcome(outcome)


def claimed(value: object) -> Delivery:
    """The delivery that a settlement or an extension speaks of: `[id, attempt, tag]`."""
    id, attempt, tag = fields.row("delivery", value, 3)
    name = fields.words("id", id, 1000)
    known, number = fields.tag(tag), fields.whole("attempt", attempt)
    return _new(Delivery, (name, b"", {}, None, number, None, 0, None, None, None, None, known, "", ""))


def _outcome(value: object) -> Outcome:
    if value == _ACK:  # most
        return Ack()
    match value:
        case ["return"]:
            return Return()
        case ["nack", delay]:
            return Nack(fields.number("delay", delay, 0.0, _LONG))
        case ["reject", reason, attempts]:
            return Reject(fields.words("reason", reason), fields.whole("attempts", attempts))
    raise Malformed("outcome: ack, nack, reject or return is allowed")


def source(value: Source) -> list[Any]:
    """A source, for the wire."""
    return [named(value.address), *value.properties]


def sourced(value: object, claims: BrokerCapabilities) -> Source:
    """A source, off the wire."""
    to, lease, deliveries, ordered, priorities = fields.row("source", value, 5)
    where = fields.address(to)
    low, high = (0.0, _LONG) if where.kind is Kind.INBOX else (claims.lease_min, claims.lease_max)
    properties = Properties(
        fields.number("lease", lease, low, high),
        fields.whole("max_deliveries", deliveries),
        fields.flag("ordered", ordered),
        fields.whole("priorities", priorities, 0, claims.priorities_max),
    )
    return Source(where, properties)


def receipt(found: Receipt | NarrowboatError) -> Any:
    """What became of a message, for the wire."""
    return not found.duplicate if found.__class__ is Receipt else to_wire(found)


def received(value: object, sent: Outgoing) -> Receipt | NarrowboatError:
    """What became of a message, off the wire."""
    return Receipt(sent.id, not value) if type(value) is bool else from_wire(value)
