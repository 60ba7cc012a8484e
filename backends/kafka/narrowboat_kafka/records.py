"""Messages as records of the server and back. Pure functions.

A record's value is the body, its key the key, its timestamp the time of publishing; the user's headers are its headers.
What is ours travels in headers that begin with `narrowboat-`. A record without them is somebody else's and delivered as it
is: its id is made of where it lies, so that it stays the same when it comes again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from narrowboat.contract import Delivery, Outgoing

ID = "narrowboat-id"
CORRELATION = "narrowboat-correlation-id"
TYPE = "narrowboat-content-type"
PRIORITY = "narrowboat-priority"
#: Seconds since the epoch after which nobody shall get it.
EXPIRES = "narrowboat-expires"
#: Claims before it was published again.
ATTEMPTS = "narrowboat-attempts"
#: Seconds since the epoch before which nobody shall get it, and when its partition looks at it next.
DUE, STEP = "narrowboat-due", "narrowboat-step"
DEAD_REASON, DEAD_ATTEMPTS, DEAD_ORIGIN = "narrowboat-dead-reason", "narrowboat-dead-attempts", "narrowboat-dead-origin"

#: Ours, and not for the user to see.
_HIDDEN = frozenset({ID, CORRELATION, TYPE, PRIORITY, EXPIRES, ATTEMPTS, DUE, STEP})

Headers = list[tuple[str, bytes]]


class Record(NamedTuple):
    """What the producer is given."""

    topic: str
    partition: int | None  #: None: the key decides
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp: int  #: milliseconds since the epoch


def text(data: bytes | None) -> str:
    """Bytes of somebody else's as text that becomes the same bytes again."""
    return "" if data is None else data.decode("utf-8", "surrogateescape")


def data(text: str) -> bytes:
    """The reverse of `text`."""
    return text.encode("utf-8", "surrogateescape")


def outgoing(message: Outgoing, topic: str, partition: int | None, now: float, *, stay: float = 0.0) -> Record:
    """`message` for `topic`, published at `now`. `stay`: seconds for which its level keeps it, where it is delayed."""
    headers = [(name, data(value)) for name, value in message.headers.items()]
    headers.append((ID, data(message.id)))
    if message.correlation_id is not None:
        headers.append((CORRELATION, data(message.correlation_id)))
    if message.content_type is not None:
        headers.append((TYPE, data(message.content_type)))
    if message.priority:
        headers.append((PRIORITY, b"%d" % message.priority))
    if message.ttl is not None:
        headers.append((EXPIRES, b"%r" % (now + message.ttl)))
    if partition is not None:
        headers += [(DUE, b"%r" % (now + message.delay)), (STEP, b"%r" % (now + stay))]
    key = None if message.key is None else data(message.key)
    return Record(topic, partition, key, message.body, headers, int(message.published_at * 1000))


def again(record: Any, topic: str, partition: int | None, changes: Mapping[str, str]) -> Record:
    """A record that was read, published again with `changes` in its headers; whoever wrote it, it keeps its id."""
    headers = [(name, value or b"") for name, value in record.headers if name not in changes and name not in (DUE, STEP)]
    if not any(name == ID for name, _ in headers):
        headers.append((ID, data(foreign_id(record))))
    headers += [(name, data(value)) for name, value in changes.items()]
    return Record(topic, partition, record.key, record.value, headers, max(0, record.timestamp))


def foreign_id(record: Any) -> str:
    """The id of a record that has none."""
    return f"{record.topic}-{record.partition}-{record.offset}"


def header(record: Any, name: str) -> str | None:
    """The last header of that name."""
    found: str | None = None
    for each, value in record.headers:
        if each == name:
            found = text(value)
    return found


def number(record: Any, name: str, default: float) -> float:
    """A header of ours as a number; somebody else's text is none."""
    value = header(record, name)
    try:
        return default if value is None else float(value)
    except ValueError:
        return default


def identity(record: Any) -> str:
    """Its id."""
    return header(record, ID) or foreign_id(record)


def expired(record: Any, now: float) -> bool:
    """Whether its time to live is over."""
    # Beside the id of ours: one header alone, the common case, is no time to live.
    return len(record.headers) > 1 and number(record, EXPIRES, now + 1) <= now


def delivery(record: Any, claims: int, now: float, tag: object) -> Delivery:
    """`record` handed out for the `claims`-th time since it was last published."""
    ours: dict[str, str] = {}
    headers: dict[str, str] = {}
    if len(record.headers) == 1 and record.headers[0][0] == ID:  # the common case, at a third of the cost
        key = record.key
        return Delivery(
            record.headers[0][1].decode("utf-8", "surrogateescape"),
            record.value if record.value is not None else b"",
            headers,
            None if key is None else text(key),
            claims,
            record.timestamp / 1000,
            0,
            None,
            None,
            None,
            None,
            tag,
        )
    for name, value in record.headers:
        (ours if name in _HIDDEN else headers)[name] = text(value)
    expires: float | None = None
    if EXPIRES in ours:
        expires = max(0.0, number(record, EXPIRES, now) - now)
    attempts = int(number(record, ATTEMPTS, 0)) if ATTEMPTS in ours else 0
    return Delivery(
        ours.get(ID) or foreign_id(record),
        record.value if record.value is not None else b"",
        headers,
        None if record.key is None else text(record.key),
        attempts + claims,
        record.timestamp / 1000 if record.timestamp >= 0 else None,
        int(number(record, PRIORITY, 0)) if PRIORITY in ours else 0,
        expires,
        ours.get(CORRELATION),
        ours.get(TYPE),
        None,
        tag,
    )
