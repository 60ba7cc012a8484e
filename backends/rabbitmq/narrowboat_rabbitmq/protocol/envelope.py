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

A message not written by Narrowboat has none of this: it is delivered as it is, at attempt 1. Whatever another program wrote,
reading it raises nothing: what cannot be read is left as it is, and `Delivery.malformed` says so.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from narrowboat.contract import Address, Delivery, Kind, Outgoing
from narrowboat.contract.messages import DEAD_ATTEMPTS, DEAD_ORIGIN, DEAD_REASON
from narrowboat_rabbitmq.protocol.content import Content, read
from narrowboat_rabbitmq.protocol.table import DEEPEST, Entry, Unreadable, data_of, entry, is_too_deep, shown, text

KEY, EXPIRES, ATTEMPTS = "narrowboat-key", "narrowboat-expires", "narrowboat-attempts"
ID, CORRELATION, CONTENT = "narrowboat-id", "narrowboat-correlation-id", "narrowboat-content-type"
HEADERS = "narrowboat-headers"
DEAD = (DEAD_REASON, DEAD_ATTEMPTS, DEAD_ORIGIN)
#: Names of headers that were too large to be published again together with what we add.
CUT = "narrowboat-cut"
COUNT = "x-delivery-count"

#: Headers of ours that no user sees. Those of a dead letter are seen: the core reads them.
_OURS = frozenset({KEY, EXPIRES, ATTEMPTS, ID, CORRELATION, CONTENT, HEADERS})
#: Headers of the server, which must not be published again: with them it drops the second pass of the ladder as a cycle.
_SERVERS = re.compile(rb"x-(death|first-death-.*|last-death-.*|delivery-count|acquired-count)\Z", re.DOTALL)
#: Headers that route copies elsewhere: each publish of ours would send one more.
_ROUTING = frozenset({b"CC", b"BCC"})
#: Bytes of an AMQP field of text.
_SHORT = 255
_PERSISTENT = 2
#: Bytes of headers that are published again. One frame of 128 KiB has to hold them, the other fields, and what the server adds.
_ROOM = 120 * 1024
#: What a table begins with that has nothing in it but the server's count, a long number.
_COUNTED = b"\x10x-delivery-countl"
#: Types of values that have others in them.
_NESTED = b"AF"
#: The highest count of attempts that a header is believed.
_MOST = 10**9


class Tag:
    """What the driver needs to settle one delivery and no other: its number counts within one channel."""

    __slots__ = ("channel", "content", "expires", "number")

    def __init__(self, channel: Any, number: int, content: Content, expires: float | None) -> None:
        self.channel = channel  #: a Channel; nothing here uses it
        self.number = number
        self.content = content
        self.expires = expires


class Raw(NamedTuple):
    """A delivery as it came in its frames."""

    number: int
    redelivered: bool
    properties: bytes  #: as they stood in the frame
    body: bytes


def properties_of(message: Outgoing, now: float) -> Content:
    """The properties of a message that is published at `now`, in seconds since the epoch."""
    if message.origin.__class__ is Tag:  # a redrive: as it was, without what was added when it died
        return republished(message.origin, {}, attempts=0, mortal=False, without=DEAD)
    headers = _carried(message.headers) if message.headers else []
    if message.key is not None:
        headers.append(entry(KEY, message.key))
    if message.ttl is not None:
        headers.append(entry(EXPIRES, repr(now + message.ttl)))
    id, correlation, content = message.id, message.correlation_id, message.content_type
    if len(id) > 60 or correlation is not None or content is not None:  # a character has up to four bytes
        id = _short(ID, id, headers) or uuid.uuid5(uuid.NAMESPACE_OID, id).hex
        correlation = _short(CORRELATION, correlation, headers)
        content = _short(CONTENT, content, headers)
    made = Content(message_id=id, timestamp=int(message.published_at), delivery_mode=_PERSISTENT, headers=headers or None)
    if correlation is not None:
        made.correlation_id = correlation
    if content is not None:
        made.content_type = content
    if message.priority:
        made.priority = message.priority
    if message.reply_to is not None:
        made.reply_to = message.reply_to.name
    return made


def republished(
    tag: Tag, extra: Mapping[str, str], *, attempts: int, mortal: bool = True, without: Collection[str] = ()
) -> Content:
    """The properties of a delivery that is published again, and that begins with `attempts` attempts.

    Its headers keep their types and bytes, but for those in `without`; those in `extra` are added. `mortal`: its ttl goes on.
    """
    was = tag.content
    added = dict(extra)
    if attempts:
        added[ATTEMPTS] = str(attempts)
    left_out = {data_of(name) for name in (ATTEMPTS, *added, *without)} | _ROUTING
    if not mortal:
        left_out.add(data_of(EXPIRES))
    kept = [each for each in was.headers if each[0] not in left_out and not _SERVERS.match(each[0])]
    return Content(
        content_type=was.content_type,
        content_encoding=was.content_encoding,
        headers=_fitting(kept, [entry(name, value) for name, value in added.items()]) or None,
        delivery_mode=_PERSISTENT,
        priority=was.priority,
        correlation_id=was.correlation_id,
        reply_to=was.reply_to,
        message_id=was.message_id,
        timestamp=was.timestamp,
        type=was.type,
        app_id=was.app_id,
    )


def _fitting(kept: list[Entry], added: list[Entry]) -> list[Entry]:
    """Both lists, without the largest of `kept` where one frame has no room for all: a server would close the connection."""
    size = sum(len(name) + len(value) + 1 for name, value in (*kept, *added))
    cut: list[str] = []
    if size > _ROOM:
        left_out: set[int] = set()
        # Sorted once: another program's frame may have tens of thousands of them.
        for index in sorted(range(len(kept)), key=lambda each: len(kept[each][1]), reverse=True):
            if size <= _ROOM:
                break
            name, value = kept[index]
            size -= len(name) + len(value) + 1
            left_out.add(index)
            cut.append(text(name))
        kept = [each for index, each in enumerate(kept) if index not in left_out]
    return [*kept, *added, *([entry(CUT, ", ".join(cut)[:1000])] if cut else ())]


def delivery_of(raw: Raw, channel: object, now: float, *, counted: bool) -> Delivery:
    """What was received at `now`. `counted`: the queue counts how often it gave a message out, as quorum queues do."""
    try:
        content, wrong = read(raw.properties), ""
    except Unreadable as error:
        content, wrong = Content(), f"its properties cannot be read: {error}"
    attempt, key, expires = 1, None, None
    headers: dict[str, str] = {}
    id, correlation, kind, reply_to = content.message_id, content.correlation_id, content.content_type, content.reply_to
    table = content.table
    if table is not None and len(table) == len(_COUNTED) + 8 and table.startswith(_COUNTED):
        attempt += min(int.from_bytes(table[-8:]), _MOST)  # the common case
    elif table:
        ours: dict[str, str] = {}
        try:
            wrong = _sort(content.headers, ours, headers)
        except Unreadable as error:
            content.table, wrong = None, f"its headers cannot be read: {error}"
        attempt += _count(ours.get(COUNT)) + _count(ours.get(ATTEMPTS))
        if len(ours) > (COUNT in ours):
            key = ours.get(KEY) or None
            expires = _moment(ours.get(EXPIRES))
            id, correlation, kind = ours.get(ID) or id, ours.get(CORRELATION) or correlation, ours.get(CONTENT) or kind
            wrong = _unpack(ours.get(HEADERS), headers) or wrong
    if raw.redelivered and not counted:
        attempt += 1
    return Delivery(
        id if id is not None else _made_up(content, raw.body),
        raw.body,
        headers,
        key,
        attempt,
        float(content.timestamp) if content.timestamp is not None else None,
        content.priority or 0,
        None if expires is None else expires - now,
        correlation,
        kind,
        None if reply_to is None else Address(Kind.INBOX, reply_to),
        Tag(channel, raw.number, content, expires),
        wrong,
    )


def _sort(table: list[Entry], ours: dict[str, str], headers: dict[str, str]) -> str:
    """Put what is ours into `ours` and what users see into `headers`, as text. Returns what is wrong."""
    wrong = ""
    for name, data in table:
        called = text(name)
        try:
            value = shown(data)
            if data[0] in _NESTED and is_too_deep(data):
                wrong = f"its header {called[:60]!r} is nested more than {DEEPEST} deep"
        except (ValueError, ArithmeticError) as error:
            value, wrong = text(data), f"its header {called[:60]!r} cannot be read: {error}"
        if called in _OURS or called == COUNT:
            ours[called] = value
        elif not _SERVERS.match(name):
            headers[called] = value
    return wrong


def _unpack(packed: str | None, headers: dict[str, str]) -> str:
    """Add the headers that AMQP could not carry. Returns what is wrong."""
    if packed is None:
        return ""
    try:
        found = json.loads(packed)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict) and all(value.__class__ is str for value in found.values()):
        headers.update(found)
        return ""
    headers[HEADERS] = packed
    return f"its header {HEADERS} is no JSON object of texts"


def message_id(properties: bytes) -> str | None:
    """The id in the properties of a frame, and nothing else of them."""
    try:
        return read(properties).message_id
    except Unreadable:
        return None


def _made_up(content: Content, body: bytes) -> str:
    """The id of a message that has none: the same at each delivery, so that its copies are known as such."""
    return uuid.uuid5(uuid.NAMESPACE_OID, repr((content.timestamp, content.correlation_id, body))).hex


def _carried(headers: Mapping[str, str]) -> list[Entry]:
    """Headers as the server can carry them."""
    carried: list[Entry] = []
    odd: dict[str, str] = {}
    for name, value in headers.items():
        data = data_of(name)
        if len(data) > _SHORT or data in _ROUTING or _SERVERS.match(data):
            odd[name] = value
        else:
            carried.append(entry(name, value))
    if odd:
        carried.append(entry(HEADERS, json.dumps(odd, ensure_ascii=False)))
    return carried


def _short(name: str, value: str | None, headers: list[Entry]) -> str | None:
    """`value` where it fits into a field of AMQP; else it goes into the header `name`."""
    if value is None or len(data_of(value)) <= _SHORT:
        return value
    headers.append(entry(name, value))
    return None


def _count(value: str | None) -> int:
    """The number in a header, which another program may have written: never an error."""
    try:
        return 0 if value is None else min(max(0, int(value)), _MOST)
    except ValueError:
        return 0


def _moment(value: str | None) -> float | None:
    try:
        moment = None if value is None else float(value)
    except ValueError:
        return None
    return moment if moment is None or math.isfinite(moment) else None
