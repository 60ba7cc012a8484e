"""Messages as fields of stream entries, and back. Pure.

An entry has `id` and `body`, and where they are needed `at` (seconds since the epoch), `key`, `priority`, `headers`
(JSON), `correlation`, `type`, `reply` (JSON) and `expires` (microseconds of the server's clock). Whoever adds an entry by
other means needs none of them: the body is the field `body`, or the only field; every other field is a header.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from narrowboat.contract import Address, Delivery, Kind, Outgoing

#: Where the publisher's clock and the server's agree to within this, in seconds, the entry's id tells the time well enough.
NEAR = 2.0
_NO_HEADERS: Mapping[str, str] = {}
_PLAIN = b"id\0body"
_OURS = frozenset({b"id", b"body", b"at", b"key", b"priority", b"headers", b"correlation", b"type", b"reply", b"expires"})


def is_plain(message: Outgoing, now: float) -> bool:
    """Whether id and body say it all. `now`: seconds since the epoch."""
    return not (
        message.headers
        or message.delay
        or message.dedup
        or message.priority
        or message.key is not None
        or message.ttl is not None
        or message.content_type is not None
        or message.correlation_id is not None
        or message.reply_to is not None
        or not -NEAR < now - message.published_at < NEAR
    )


def fields_of(message: Outgoing) -> list[bytes]:
    """Names and values, in turn."""
    fields = [b"id", message.id.encode(), b"body", message.body, b"at", repr(message.published_at).encode()]
    for name, text in ((b"key", message.key), (b"correlation", message.correlation_id), (b"type", message.content_type)):
        if text is not None:
            fields += (name, text.encode())
    if message.priority:
        fields += (b"priority", b"%d" % message.priority)
    if message.headers:
        fields += (b"headers", json.dumps(dict(message.headers), ensure_ascii=False, separators=(",", ":")).encode())
    if message.reply_to is not None:
        to = message.reply_to
        fields += (b"reply", json.dumps([to.kind.value, to.name, to.group]).encode())
    return fields


def deliveries(now: float, sizes: bytes, data: bytes, shapes: Sequence[bytes]) -> list[Delivery]:
    """What `receive.lua` packed: for each message shape, attempt and the sizes of token, entry id and each value."""
    numbers = struct.unpack(f">{len(sizes) // 4}I", sizes)
    names = [shape.split(b"\0") for shape in shapes]
    plain = shapes.index(_PLAIN) if _PLAIN in shapes else -1
    found = []
    at, start, total = 0, 0, len(numbers)
    while at < total:
        shape = numbers[at]
        id_from = start + numbers[at + 2]
        token = data[start:id_from]
        start = id_from + numbers[at + 3]
        entry_id = data[id_from:start]
        if shape == plain:
            body_from = start + numbers[at + 4]
            end = body_from + numbers[at + 5]
            published = int(entry_id[: entry_id.index(b"-")]) / 1000
            found.append(
                Delivery(
                    data[start:body_from].decode(errors="replace"),
                    data[body_from:end],
                    _NO_HEADERS,
                    None,
                    numbers[at + 1],
                    published,
                    0,
                    None,
                    None,
                    None,
                    None,
                    token,
                )
            )
            start, at = end, at + 6
            continue
        values = []
        behind = at + 4 + len(names[shape])
        for size in numbers[at + 4 : behind]:
            values.append(data[start : start + size])
            start += size
        found.append(_delivery(now, token, entry_id, numbers[at + 1], names[shape], values))
        at = behind
    return found


def _delivery(
    now: float, token: bytes, entry_id: bytes, attempt: int, names: Sequence[bytes], values: Sequence[bytes]
) -> Delivery:
    fields = dict(zip(names, values, strict=True))
    headers: dict[str, str] = {}
    body = fields.get(b"body")
    if body is None and len(fields) == 1:
        body, fields = values[0], {}
    known = _headers(fields.get(b"headers"))
    if known is not None:
        headers.update(known)
    for name, value in fields.items():
        if name not in _OURS or (name == b"headers" and known is None):
            headers[_text(name)] = _text(value)
    expires = _number(fields.get(b"expires"))
    published = _number(fields.get(b"at"))
    return Delivery(
        _text(fields.get(b"id", entry_id)),
        b"" if body is None else body,
        headers,
        _optional(fields.get(b"key")),
        attempt,
        int(entry_id.partition(b"-")[0]) / 1000 if published is None else published,
        int(_number(fields.get(b"priority")) or 0),
        None if expires is None else (expires - now) / 1e6,
        _optional(fields.get(b"correlation")),
        _optional(fields.get(b"type")),
        _address(fields.get(b"reply")),
        token,
    )


def _text(value: bytes) -> str:
    return value.decode(errors="replace")


def _optional(value: bytes | None) -> str | None:
    return None if value is None else _text(value)


def _number(value: bytes | None) -> float | None:
    try:
        return None if value is None else float(value)
    except ValueError:
        return None  # another program's field of that name


def _json(value: bytes | None) -> Any:
    try:
        return None if value is None else json.loads(value)
    except ValueError:
        return None


def _headers(value: bytes | None) -> dict[str, str] | None:
    """Headers of ours; None where the field is another program's."""
    found = _json(value)
    return found if isinstance(found, dict) and all(isinstance(text, str) for text in found.values()) else None


def _address(value: bytes | None) -> Address | None:
    found = _json(value)
    if isinstance(found, list) and len(found) == 3 and all(isinstance(text, str) for text in found):
        kinds = {kind.value: kind for kind in Kind}
        if found[0] in kinds:
            return Address(kinds[found[0]], found[1], found[2])
    return None
