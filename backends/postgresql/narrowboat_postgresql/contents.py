"""From a message to the columns of its row and back, also where another program wrote or damaged them.

Such a message is delivered with what could be read of it and a sentence on the rest, so that it is handled or becomes a dead
letter, like any other. Pure functions.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from narrowboat.contract import Address, Delivery, Kind, Outgoing
from narrowboat_postgresql.options import fit

_BYTEA = 17  #: PostgreSQL's number of the type
_new = tuple.__new__
_float = struct.Struct(">d").unpack
_integer = int.from_bytes


def target(address: Address) -> list[str | None]:
    """An address as the first arguments of `declare` and `send`: key, path, kind, and key and path of its topic."""
    topic = address.name if address.kind is Kind.SUBSCRIPTION else None
    return [fit(address.path), address.path, address.kind.value, None if topic is None else fit(topic), topic]


def parts(messages: Sequence[Outgoing]) -> str:
    """What `store` reads beside the bodies."""
    return json.dumps([_part(at, message) for at, message in enumerate(messages, 1)])


def part_of(message: Outgoing) -> str:
    """What `send_in` reads beside the body."""
    return json.dumps(_part(1, message))


def _part(at: int, message: Outgoing) -> dict[str, object]:
    found: dict[str, object] = {"at": at, "i": message.id, "a": message.published_at, "p": message.priority}
    if message.headers:
        found["h"] = json.dumps(dict(message.headers))
    if message.key is not None:
        found["k"] = message.key
    if message.delay > 0:
        found["w"] = message.delay
    if message.ttl is not None:
        found["x"] = message.ttl
    if not (message.correlation_id is None and message.content_type is None and message.reply_to is None):
        reply_to = None if message.reply_to is None else message.reply_to.name
        found["d"] = json.dumps([message.correlation_id, message.content_type, reply_to])
    return found


def bodies(messages: Sequence[Outgoing]) -> bytes:
    """An array of `bytea` in PostgreSQL's binary form."""
    pieces = [struct.pack(">iiiii", 1, 0, _BYTEA, len(messages), 1)]
    for message in messages:
        pieces += (len(message.body).to_bytes(4, "big"), message.body)
    return b"".join(pieces)


def numbers(values: Sequence[int]) -> str:
    """An array of numbers as text."""
    return f"{{{','.join(map(str, values))}}}"


def in_order(row: Sequence[bytes | None]) -> tuple[int, int]:
    """What a row of `receive` is sorted by."""
    return _integer(row[11] or b"", "big", signed=True), _integer(row[12] or b"", "big")


def delivery(row: Sequence[bytes | None]) -> Delivery:
    """What `receive` found in one row."""
    raw_id, raw_lease, raw_attempt, raw_rest, raw_name, body, raw_headers, raw_key, raw_at, raw_priority, raw_details, *_ = row
    tag = _integer(raw_id or b"", "big", signed=True), _integer(raw_lease or b"", "big")
    headers = headers_of(raw_headers)
    details = _details(raw_details)
    wrong = ["headers"] if headers is None else []
    wrong += ["details"] if details is None else []
    wrong += [] if raw_name else ["name"]
    published = None if raw_at is None else _float(raw_at)[0]
    if published is not None and not -1e12 < published < 1e12:
        published = None
        wrong.append("published")
    malformed = ""
    if wrong:
        malformed = (
            f"row {tag[0]} of the table message was damaged or written by another program: {', '.join(wrong)} cannot be read"
        )
    # This runs for every message: `Delivery(...)` would take twice the time.
    return _new(
        Delivery,
        (
            (raw_name or b"").decode() or f"row {tag[0]}",
            body,
            headers or {},
            None if raw_key is None else raw_key.decode(),
            _integer(raw_attempt or b"", "big"),
            published,
            _integer(raw_priority or b"", "big", signed=True),
            None if raw_rest is None else _float(raw_rest)[0],
            *(details or (None, None, None)),
            tag,
            malformed,
            "",
        ),
    )


def rest_of(row: Sequence[bytes | None]) -> float | None:
    """Seconds until something is due, of a row of `receive` that has no message."""
    return None if row[3] is None else float(_float(row[3])[0])


def headers_of(stored: bytes | None) -> Mapping[str, str] | None:
    """The headers in a column; None when they are none."""
    if stored is None:
        return {}
    found = _json(stored)
    if found.__class__ is dict and all(text.__class__ is str for text in found.values()):
        return found
    return None


def _details(stored: bytes | None) -> tuple[str | None, str | None, Address | None] | None:
    """Correlation id, content type and reply address, which is an inbox: a consumer replies with rights of its own."""
    if stored is None:
        return None, None, None
    found = _json(stored)
    if found.__class__ is not list or len(found) != 3 or not all(each is None or each.__class__ is str for each in found):
        return None
    correlation, content_type, reply_to = found
    return correlation, content_type, None if reply_to is None else Address(Kind.INBOX, reply_to)


def _json(stored: bytes) -> Any:
    try:
        return json.loads(stored)
    except (ValueError, RecursionError):  # no JSON, thousands of digits, thousands of brackets
        return None
