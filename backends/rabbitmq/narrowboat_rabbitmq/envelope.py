"""A message as AMQP properties and headers, and back. Pure.

Whatever AMQP has a field for goes into that field, so that other programs read it: `message_id`, `timestamp`,
`correlation_id`, `content_type`, `reply_to`, `priority`. A message without options has no headers at all. The rest:

    narrowboat-key        the key
    narrowboat-expires    seconds since the epoch when its ttl ends. Never AMQP's own `expiration`: on the ladder's queues it
                          would end the delay early
    narrowboat-attempts   how often it was handed out before it was published again (a retry with a delay)
    narrowboat-id, narrowboat-correlation-id, narrowboat-content-type
                          what is longer than the 255 bytes of an AMQP field
    narrowboat-headers    as JSON, headers that AMQP cannot carry: names over 255 bytes, or with a meaning to the server

A message not written by Narrowboat has none of this: it is delivered as it is, at attempt 1.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

from pika.spec import BasicProperties

from narrowboat.contract import Address, Delivery, Kind, Outgoing

KEY, EXPIRES, ATTEMPTS = "narrowboat-key", "narrowboat-expires", "narrowboat-attempts"
ID, CORRELATION, CONTENT = "narrowboat-id", "narrowboat-correlation-id", "narrowboat-content-type"
HEADERS = "narrowboat-headers"
DEAD = ("narrowboat-dead-reason", "narrowboat-dead-attempts", "narrowboat-dead-origin")

#: Ours, which no user sees. Those of a dead letter are seen: the core reads them.
_OURS = frozenset({KEY, EXPIRES, ATTEMPTS, ID, CORRELATION, CONTENT, HEADERS})
#: The server's own, which must not be published again: with them the second pass of the ladder is dropped as a cycle.
_SERVERS = re.compile(r"x-(death|first-death-.*|last-death-.*|delivery-count|acquired-count)\Z")
#: Headers that route copies elsewhere.
_ROUTING = frozenset({"CC", "BCC"})
#: Bytes of an AMQP field of text.
_SHORT = 255
_PERSISTENT = 2


class Tag:
    """What the driver needs to settle one delivery and no other: its number counts within one channel."""

    __slots__ = ("channel", "expires", "number", "properties")

    def __init__(self, channel: object, number: int, properties: BasicProperties, expires: float | None) -> None:
        self.channel = channel
        self.number = number
        self.properties = properties
        self.expires = expires


class Raw(NamedTuple):
    """A delivery as it came."""

    number: int
    redelivered: bool
    properties: BasicProperties
    body: bytes


def properties_of(message: Outgoing, now: float) -> BasicProperties:
    """The properties of a message that is published at `now`, in seconds since the epoch."""
    headers: dict[str, object] | None = None
    if message.headers:
        headers = _carried(message.headers)
    if message.key is not None:
        headers = headers or {}
        headers[KEY] = message.key
    if message.ttl is not None:
        headers = headers or {}
        headers[EXPIRES] = repr(now + message.ttl)
    id, correlation, content = message.id, message.correlation_id, message.content_type
    if len(id) > 60 or correlation is not None or content is not None:  # a character has up to four bytes
        headers = headers or {}
        id = _short(ID, id, headers) or uuid.uuid5(uuid.NAMESPACE_OID, id).hex
        correlation = _short(CORRELATION, correlation, headers)
        content = _short(CONTENT, content, headers)
    return BasicProperties(
        message_id=id,
        timestamp=int(message.published_at),
        delivery_mode=_PERSISTENT,
        headers=headers or None,
        correlation_id=correlation,
        content_type=content,
        priority=message.priority or None,
        reply_to=message.reply_to.name if message.reply_to is not None else None,
    )


def again(tag: Tag, extra: Mapping[str, str], *, attempts: int, mortal: bool = True) -> BasicProperties:
    """The properties of a delivery that is published again, which begins with so many attempts.

    `extra` headers are added. `mortal`: its ttl goes on.
    """
    was = tag.properties
    headers = {name: value for name, value in (was.headers or {}).items() if not _SERVERS.match(name)}
    headers.pop(ATTEMPTS, None)
    if attempts:
        headers[ATTEMPTS] = str(attempts)
    if not mortal:
        headers.pop(EXPIRES, None)
    headers.update(extra)
    return BasicProperties(
        content_type=was.content_type,
        content_encoding=was.content_encoding,
        headers=headers or None,
        delivery_mode=_PERSISTENT,
        priority=was.priority,
        correlation_id=was.correlation_id,
        reply_to=was.reply_to,
        message_id=was.message_id,
        timestamp=was.timestamp,
        type=was.type,
        app_id=was.app_id,
    )


def delivery_of(raw: Raw, channel: object, now: float, *, counted: bool) -> Delivery:
    """What was received at `now`. `counted`: the queue counts how often it gave a message out, as quorum queues do."""
    number, redelivered, properties, body = raw
    table = properties.headers
    attempt, key, expires = 1, None, None
    headers: dict[str, str] = {}
    id: Any = properties.message_id
    correlation: Any = properties.correlation_id
    content: Any = properties.content_type
    reply_to: Any = properties.reply_to
    if bytes in (id.__class__, correlation.__class__, content.__class__, reply_to.__class__):  # no UTF-8: another program's
        id, correlation, content, reply_to = (
            _text(each) if each is not None else None for each in (id, correlation, content, reply_to)
        )
    if table:
        count = table.get("x-delivery-count")
        if count.__class__ is not int and count is not None:
            count = _int(count)
        attempt += count or 0
        if len(table) > (count is not None):
            attempt += _int(table.get(ATTEMPTS))
            key = _text_or_none(table.get(KEY))
            expires = _float(table.get(EXPIRES))
            id = _text_or_none(table.get(ID)) or id
            correlation = _text_or_none(table.get(CORRELATION)) or correlation
            content = _text_or_none(table.get(CONTENT)) or content
            headers = _visible(table)
    if redelivered and not counted:
        attempt += 1
    return Delivery(
        id if id is not None else _made_up(properties, body),
        body,
        headers,
        key,
        attempt,
        float(properties.timestamp) if properties.timestamp is not None else None,
        properties.priority or 0,
        None if expires is None else expires - now,
        correlation,
        content,
        None if reply_to is None else Address(Kind.INBOX, reply_to),
        Tag(channel, number, properties, expires),
    )


def _made_up(properties: BasicProperties, body: bytes) -> str:
    """The id of a message that has none: the same at each delivery, so that its copies are known as such."""
    return uuid.uuid5(uuid.NAMESPACE_OID, repr((properties.timestamp, properties.correlation_id, body))).hex


def _carried(headers: Mapping[str, str]) -> dict[str, object]:
    """Headers as the server can carry them."""
    carried: dict[str, object] = {}
    odd: dict[str, str] = {}
    for name, value in headers.items():
        if len(name.encode()) > _SHORT or name in _ROUTING or _SERVERS.match(name):
            odd[name] = value
        else:
            carried[name] = value
    if odd:
        carried[HEADERS] = json.dumps(odd, ensure_ascii=False)
    return carried


def _visible(table: Mapping[str, Any]) -> dict[str, str]:
    """Headers as they were given, without the server's and ours."""
    headers = {
        name: value if value.__class__ is str else _text(value)
        for name, value in table.items()
        if name not in _OURS and not _SERVERS.match(name)
    }
    odd = table.get(HEADERS)
    if isinstance(odd, str):
        try:
            found = json.loads(odd)
        except ValueError:
            return headers  # another program's
        if isinstance(found, dict):
            headers.update((str(name), _text(value)) for name, value in found.items())
    return headers


def _short(name: str, value: str | None, headers: dict[str, object]) -> str | None:
    """`value` where it fits into a field of AMQP; else it goes into the header `name`."""
    if value is None or len(value.encode()) <= _SHORT:
        return value
    headers[name] = value
    return None


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _int(value: object) -> int:
    """What another program may have written as well: never an error."""
    try:
        return max(0, int(value))  # type: ignore[call-overload, no-any-return]  # whatever it is, it is tried
    except (TypeError, ValueError):
        return 0


def _float(value: object) -> float | None:
    try:
        return None if value is None else float(value)  # type: ignore[arg-type]  # whatever it is, it is tried
    except (TypeError, ValueError):
        return None
