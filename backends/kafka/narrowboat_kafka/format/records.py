"""Messages as records of the server and back. Pure functions.

A record's value is the body, its key the key, its timestamp the time of publishing; the user's headers are its headers.
What is ours travels in headers that begin with `narrowboat-`. A record of another program, without them, is delivered as it
is: its id is made of where it lies, so that it stays the same when it comes again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from narrowboat.contract import Delivery, Outgoing
from narrowboat.contract.messages import DEAD_ATTEMPTS, DEAD_ORIGIN, DEAD_REASON

if TYPE_CHECKING:
    from narrowboat_kafka.format.stored import Stored

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
#: Where the whole message lies that was too large to be published again: topic, partition and offset, with `/` between them.
DEAD_ORIGINAL = "narrowboat-dead-original"

#: Ours, and not for the user to see.
_HIDDEN = frozenset({ID, CORRELATION, TYPE, PRIORITY, EXPIRES, ATTEMPTS, DUE, STEP})
_OURS = _HIDDEN | {DEAD_REASON, DEAD_ATTEMPTS, DEAD_ORIGIN, DEAD_ORIGINAL}
#: Beyond these, what stands in a header of ours was not written by us, and counts for nothing.
_ATTEMPTS_MAX, _PRIORITY_MAX = 2**31, 255
#: Bytes of key and headers that go with a dead letter whose body is too large. What is more than ours may have does not go.
_KEPT_MAX = 64 * 1024

#: What the headers begin with where the only one is the id: one, how long its name is, its name. Then the id's length.
_ONLY_ID = bytes((2, 2 * len(ID))) + ID.encode()
_ID_AT = len(_ONLY_ID) + 1
_EXPIRES = EXPIRES.encode()

#: Why a message is refused: what librdkafka writes and reads of such a name ends there.
NO_NUL = "the name of one of its headers has a NUL in it, which not every client of Kafka can carry. Take another name"
#: Characters of the longest number that is read.
_DIGITS = 40

#: At a third of the price of `Delivery(...)`, which is paid for each message.
_delivery: Callable[[Sequence[Any]], Delivery] = partial(tuple.__new__, Delivery)

Headers = list[tuple[str, bytes]]


class Record(NamedTuple):
    """What the producer is given."""

    topic: str
    partition: int | None  #: None: the key decides
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp: int  #: milliseconds since the epoch


#: At a third of the price of `Record(...)`, as above.
_record: Callable[[Sequence[Any]], Record] = partial(tuple.__new__, Record)


def text(data: bytes | None) -> str:
    """Foreign bytes as text that becomes the same bytes again."""
    return "" if data is None else data.decode("utf-8", "surrogateescape")


def data(text: str) -> bytes:
    """The reverse of `text`."""
    return text.encode("utf-8", "surrogateescape")


def outgoing(message: Outgoing, topic: str, partition: int | None, now: float, *, stay: float = 0.0) -> Record:
    """`message` for `topic`, published at `now`. `stay`: seconds for which its level keeps it, where it is delayed."""
    # Taken apart once, and no call more than it takes: this is paid for each message.
    _, id, body, theirs, key, published_at, delay, priority, ttl, correlation_id, content_type, _, _, _ = message
    headers = [(name, data(value)) for name, value in theirs.items()] if theirs else []
    headers.append((ID, id.encode("utf-8", "surrogateescape")))
    if correlation_id is not None:
        headers.append((CORRELATION, data(correlation_id)))
    if content_type is not None:
        headers.append((TYPE, data(content_type)))
    if priority:
        headers.append((PRIORITY, b"%d" % priority))
    if ttl is not None:
        headers.append((EXPIRES, b"%r" % (now + ttl)))
    if partition is not None:
        headers += [(DUE, b"%r" % (now + delay)), (STEP, b"%r" % (now + stay))]
    named = None if key is None else data(key)
    return _record((topic, partition, named, body, headers, int(published_at * 1000)))


def republished(record: Stored, topic: str, partition: int | None, changes: Mapping[str, str]) -> Record:
    """A record that was read, published again with `changes` in its headers. It keeps its id, a foreign record too."""
    dropped = {*changes, DUE, STEP} | (set() if header(record, ID) else {ID})
    headers = [(name, value or b"") for name, value in record.headers if name not in dropped]
    if ID in dropped:
        headers.append((ID, data(foreign_id(record))))
    headers += [(name, data(value)) for name, value in changes.items()]
    return Record(topic, partition, record.key, record.value, headers, max(0, record.timestamp))


def without_body(record: Record, stored: Stored) -> Record:
    """What can be stored of `record`, which is too large: what is ours, where `stored` lies, and the rest if that is small."""
    ours = {name: value[: _KEPT_MAX // 8] for name, value in record.headers if name in _OURS}
    theirs = [(name, value) for name, value in record.headers if name not in _OURS]
    if len(theirs) > _KEPT_MAX // 64 or sum(len(data(name)) + len(value) for name, value in theirs) > _KEPT_MAX:
        theirs = []
    ours[DEAD_ORIGINAL] = data(f"{stored.topic}/{stored.partition}/{stored.offset}")
    key = record.key if record.key is None or len(record.key) <= _KEPT_MAX else None
    return record._replace(key=key, value=b"", headers=[*theirs, *ours.items()])


def foreign_id(record: Stored) -> str:
    """The id of a record that has none."""
    return f"{record.topic}-{record.partition}-{record.offset}"


def header(record: Stored, name: str) -> str | None:
    """The last header of that name."""
    found: str | None = None
    for each, value in record.headers:
        if each == name:
            found = text(value)
    return found


def number(record: Stored, name: str, default: float) -> float:
    """A header of ours as a number; `default` where a foreign program wrote something else."""
    return _number(header(record, name), default)


def attempts(record: Stored) -> int:
    """How often it was handed out before it was published again; 0 where that is no count."""
    return _count(header(record, ATTEMPTS), _ATTEMPTS_MAX) or 0


def _count(value: str | None, most: int) -> int | None:
    """A whole number from 0 to `most`; None where there is something else."""
    found = -1.0 if value is not None and len(value) > _DIGITS else _number(value or "0", -1.0)
    return int(found) if 0 <= found <= most and found == int(found) else None


def _number(value: str | None, default: float) -> float:
    try:
        found = default if value is None else float(value)
    except ValueError:
        return default
    return found if math.isfinite(found) else default


def expires(record: Stored) -> float:
    """When its time to live is over, in seconds since the epoch; infinite where it has none."""
    # Asked about each message, so it is looked for before the headers are taken apart.
    return number(record, EXPIRES, math.inf) if _EXPIRES in record.packed else math.inf


def delivery(record: Stored, claims: int, now: float, tag: object) -> Delivery:
    """`record` handed out for the `claims`-th time since it was last published."""
    _, _, _, timestamp, key, value, packed = record
    published = timestamp / 1000 if timestamp >= 0 else None
    body = b"" if value is None else value
    named = None if key is None else text(key)
    if packed.startswith(_ONLY_ID) and 0 < packed[_ID_AT - 1] == 2 * (len(packed) - _ID_AT) < 128:
        # The common case: one header, the id, short enough for one byte of length before it.
        return _delivery((text(packed[_ID_AT:]), body, {}, named, claims, published, 0, None, None, None, None, tag, "", ""))
    ours: dict[str, str] = {}
    headers: dict[str, str] = {}
    for name, data in record.headers:
        (ours if name in _HIDDEN else headers)[name] = text(data)
    ends = _number(ours.get(EXPIRES), math.inf)
    before, priority = _count(ours.get(ATTEMPTS), _ATTEMPTS_MAX), _count(ours.get(PRIORITY), _PRIORITY_MAX)
    return Delivery(
        id=ours.get(ID) or foreign_id(record),
        body=body,
        headers=headers,
        key=named,
        attempt=(before or 0) + claims,
        published_at=published,
        priority=priority or 0,
        expires_in=None if ends == math.inf else max(0.0, ends - now),
        correlation_id=ours.get(CORRELATION),
        content_type=ours.get(TYPE),
        reply_to=None,
        tag=tag,
        malformed=record.problem or _problem(ours, before, priority),
    )


def _problem(ours: Mapping[str, str], before: int | None, priority: int | None) -> str:
    """What is wrong with headers of ours that a foreign program wrote; empty where nothing is."""
    wrong = [name for name, found in ((ATTEMPTS, before), (PRIORITY, priority)) if found is None]
    wrong += [name for name in (EXPIRES, DUE, STEP) if not math.isfinite(_number(ours.get(name, "0"), math.nan))]
    return f"what its header {' and '.join(wrong)} says is no number of ours, and is not taken for one" if wrong else ""
