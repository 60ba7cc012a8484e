"""A message of ours as one of RocketMQ's, and back. Pure functions over the protocol's classes.

The body is the body, and headers are user properties under their own names: programs without Narrowboat read and write them.
What the server does not take goes another way. Names and values that it refuses, more than it allows, and an empty body are
packed in front of the body, as JSON whose length is in the property `narrowboat-packed`. An id or key of other than plain
characters is in a property beside what stands for it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

from narrowboat.contract import Delivery, Outgoing
from narrowboat_rocketmq.library import definition_pb2 as said
from narrowboat_rocketmq.library.calls import resource

PREFIX = "narrowboat-"
ID, KEY, EXPIRES, TYPE, CORRELATION = (PREFIX + word for word in ("id", "key", "expires", "type", "correlation"))
PRIORITY, PACKED, ONLY = (PREFIX + word for word in ("priority", "packed", "only"))
_OURS = frozenset({ID, KEY, EXPIRES, TYPE, CORRELATION, PRIORITY, PACKED, ONLY})
#: Ids and keys that the server takes as they are. It splits keys at spaces, and its tools find ids by their text.
_PLAIN = re.compile(r"[A-Za-z0-9_.:-]{1,60}")
#: Names of headers that are carried as they are: the server has names of its own, in capitals and with underscores before them.
_NAME = re.compile(r"(?!narrowboat-)(?=[^A-Z]*[a-z-])[A-Za-z0-9-]+([_.][A-Za-z0-9-]+)*")
#: Bytes of all properties together, and how many: the server takes 16 KiB and 128, with its own among them.
_ROOM, _MOST = 12 * 1024, 100


class Tag(NamedTuple):
    """What a delivery of ours is settled by, and what a copy of it is made from."""

    claim: object  #: the feed's
    properties: Mapping[str, str]  #: ours among the message's, for a copy
    expires: float  #: seconds since the epoch; infinite where it has no end


def outgoing(message: Outgoing, topic: str, namespace: str, *, now: float, grouped: bool, only: str = "") -> Any:
    """`message` as it is sent at `now`.

    Args:
        message: ours.
        topic: where it goes.
        namespace: of the server's.
        now: seconds since the epoch.
        grouped: to an ordered queue, where each message is of a group: that of its key, or its own.
        only: the group that it is for, of all that read the topic.
    """
    properties: dict[str, str] = {}
    if message.key is not None:
        properties[KEY] = message.key
    if message.ttl is not None:
        properties[EXPIRES] = repr(now + message.ttl)
    if message.content_type is not None:
        properties[TYPE] = message.content_type
    if message.correlation_id is not None:
        properties[CORRELATION] = message.correlation_id
    if message.priority:
        properties[PRIORITY] = str(message.priority)
    if only:
        properties[ONLY] = only
    id = message.id
    if not _PLAIN.fullmatch(id):
        properties[ID] = id
        id = uuid.uuid5(uuid.NAMESPACE_OID, id).hex
    body = _pack(properties, message.headers, message.body)
    made = said.Message(topic=resource(topic, namespace), user_properties=properties, body=body)
    system = made.system_properties
    system.message_id = id
    system.message_type = said.NORMAL
    system.born_timestamp.FromMilliseconds(max(0, int(message.published_at * 1000)))
    system.born_host = "narrowboat"
    if message.delay > 0:
        system.message_type = said.DELAY
        system.delivery_timestamp.FromMilliseconds(int((now + message.delay) * 1000) + 1)
    elif grouped:
        system.message_type = said.FIFO
        system.message_group = group_of(message.key if message.key is not None else message.id)
    return made


def group_of(key: str) -> str:
    """The server's group of messages for a key: one key always has the same, and few keys share one."""
    return key if _PLAIN.fullmatch(key) else hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _pack(properties: dict[str, str], headers: Mapping[str, str], body: bytes) -> bytes:
    """Put the headers into `properties`, or what the server would not take of all that into what is returned."""
    odd: dict[str, str] = {}
    for name, value in headers.items():
        if _NAME.fullmatch(name) and value and value.isprintable() and len(name) < 128:
            properties[name] = value
        else:
            odd[name] = value
    for name in (KEY, TYPE, CORRELATION, ID):
        value = properties.get(name, "-")
        if not value or not value.isprintable():
            odd[name] = properties.pop(name)
    size = sum(4 * len(name) + 4 * len(value) for name, value in properties.items())  # characters of up to four bytes
    if len(properties) > _MOST or size > _ROOM:
        odd.update(properties)
        properties.clear()
    if not odd and body:
        return body
    packed = json.dumps(odd).encode()
    properties[PACKED] = str(len(packed))
    return packed + body


def delivery(message: Any, claim: object, now: float) -> Delivery:
    """What was received at `now`, in seconds since the epoch. Another program may have written it: never an error."""
    system = message.system_properties
    properties: dict[str, str] = dict(message.user_properties)
    body: bytes = message.body
    wrong = ""
    packed = properties.pop(PACKED, None)
    if packed is not None:
        body, wrong = _unpack(properties, packed, body)
    ours = {name: properties.pop(name) for name in _OURS & properties.keys()}
    expires = _number(ours.get(EXPIRES), math.inf)
    priority = _number(ours.get(PRIORITY), 0.0)
    if wrong == "" and (expires is None or priority is None):
        wrong = f"what its property {EXPIRES} or {PRIORITY} says is no number of ours, and is not taken for one"
    until = math.inf if expires is None else expires
    born = system.born_timestamp
    return Delivery(
        ours.get(ID) or system.message_id or f"{system.store_host}-{system.queue_id}-{system.queue_offset}",
        body,
        properties,
        ours.get(KEY) or system.message_group or None,
        max(1, system.delivery_attempt),
        born.seconds + born.nanos / 1e9 if system.HasField("born_timestamp") else None,
        int(min(max(priority or 0.0, 0.0), 1000.0)),
        None if until == math.inf else until - now,
        ours.get(CORRELATION),
        ours.get(TYPE),
        None,
        Tag(claim, ours, until),
        wrong,
    )


def _unpack(properties: dict[str, str], packed: str, body: bytes) -> tuple[bytes, str]:
    """Add what was in front of the body to `properties`. Returns the rest of the body, and what is wrong."""
    size = int(packed) if packed.isdecimal() and packed.isascii() and len(packed) < 10 else -1
    try:
        found = json.loads(body[:size]) if 0 <= size <= len(body) else None
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict) and all(isinstance(value, str) for value in found.values()):
        properties.update(found)
        return body[size:], ""
    properties[PACKED] = packed
    return body, f"its property {PACKED} does not say where its headers end"


def _number(text: str | None, default: float) -> float | None:
    """The number in a property; None where it is none."""
    if text is None:
        return default
    try:
        found = float(text) if len(text) < 40 else math.nan
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def dead(origin: Delivery, copy: Outgoing) -> Outgoing:
    """`copy` as a dead letter: without an end, and published when the message was."""
    return copy._replace(ttl=None, delay=0.0, published_at=origin.published_at or time.time())
