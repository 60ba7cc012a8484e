"""Messages as fields of stream entries, and back. Pure.

An entry has `id` and `body`, and where they are needed `narrowboat-at` (seconds since the epoch), `-key`, `-priority`,
`-headers` (JSON), `-correlation`, `-type`, `-reply` (JSON) and `-expires` (microseconds of the server's clock). Whoever adds an
entry by other means needs none of them: the body is the field `body`, or the only field; every other field is a header. What
cannot be taken apart is delivered as it is, with what is wrong with it, and costs nobody else anything.

The first version left `narrowboat-` out of the names. Its entries begin with `id`, `body` and `at`, and are read as before;
the same names in any other entry are another program's.
"""

from __future__ import annotations

import contextlib
import json
import re
import struct
from collections.abc import Mapping, Sequence

from narrowboat.contract import Address, Delivery, Kind, Outgoing

#: Where the publisher's clock and the server's agree to within this, in seconds, the entry's id tells the time well enough.
NEAR = 2.0
_NO_HEADERS: Mapping[str, str] = {}
_MARK = b"narrowboat-"
_OLD = frozenset({b"at", b"key", b"priority", b"headers", b"correlation", b"type", b"reply", b"expires"})
#: What `settle.lua` makes of the fields that are too many for one command, and `receive.lua` of an entry that is too large.
_REST, _LEFT = _MARK + b"rest", _MARK + b"left"
_OURS = frozenset(_MARK + name for name in (*_OLD, b"id", b"rest", b"left"))
#: An expiry of the first version counts in microseconds: what is less is in seconds or milliseconds, and not its.
_MICROSECONDS = 1e14
#: Bytes of JSON that are read as headers, and seconds that can be a time. More than that no publisher of ours has made.
_HEADERS_MAX, _TIME_MAX = 1 << 20, 1e11
_NUMBER = re.compile(rb"[\d.e+-]+")


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
    fields = [b"id", message.id.encode(), b"body", message.body, _MARK + b"at", repr(message.published_at).encode()]
    for name, text in ((b"key", message.key), (b"correlation", message.correlation_id), (b"type", message.content_type)):
        if text is not None:
            fields += (_MARK + name, text.encode())
    if message.priority:
        fields += (_MARK + b"priority", b"%d" % message.priority)
    if message.headers:
        fields += (_MARK + b"headers", json.dumps(dict(message.headers), ensure_ascii=False, separators=(",", ":")).encode())
    if message.reply_to is not None:
        to = message.reply_to
        fields += (_MARK + b"reply", json.dumps([to.kind.value, to.name, to.group]).encode())
    return fields


def deliveries(now: float, sizes: bytes, data: bytes, shapes: Sequence[bytes]) -> list[Delivery]:
    """What `receive.lua` packed, each message by itself: what is wrong with one is told of that one."""
    numbers = struct.unpack(f">{len(sizes) // 4}I", sizes)
    names = [_names(shape) for shape in shapes]
    plain = shapes.index(b"") if b"" in shapes else -1
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
                    "",
                )
            )
            start, at = end, at + 6
            continue
        values = []
        behind = at + 4 + len(names[shape])
        for size in numbers[at + 4 : behind]:
            values.append(data[start : start + size])
            start += size
        found.append(_delivery(now, token, entry_id, numbers[at + 1], list(zip(names[shape], values, strict=True))))
        at = behind
    return found


def _names(shape: bytes) -> list[bytes]:
    """The field names of a shape, each behind its size."""
    return _taken_apart(shape) if shape else [b"id", b"body"]


def _taken_apart(data: bytes) -> list[bytes]:
    """Texts that stand one behind the other, each behind its size."""
    found, start = [], 0
    while start < len(data):
        (size,) = struct.unpack_from(">I", data, start)
        start += 4 + size
        if start > len(data):
            raise ValueError("it ends too early")
        found.append(data[start - size : start])
    return found


def _delivery(now: float, token: bytes, entry_id: bytes, attempt: int, fields: list[tuple[bytes, bytes]]) -> Delivery:
    """The delivery of one entry, whatever is in it."""
    found = Delivery(
        entry_id.decode(), b"", _NO_HEADERS, None, attempt, _time_of(entry_id), 0, None, None, None, None, token
    )  # the entry's id is the server's own
    if fields[0][0] == _LEFT:
        size = _text(fields[0][1])
        return found._replace(malformed=f"its entry has {size} bytes, more than max_reply= lets through; they are left out")
    try:
        return _read(now, found, _spread(fields))
    except Exception as error:
        why = str(error) if isinstance(error, _Malformed) else f"it cannot be taken apart ({type(error).__name__})"
        body, others = _body_of(fields)
        return found._replace(id=_id_of(fields) or found.id, body=body, headers=_headers_of(others), malformed=why)


def _id_of(fields: list[tuple[bytes, bytes]]) -> str:
    """The id of an entry that is malformed otherwise: it keeps that as a dead letter too. Empty where it has none."""
    try:
        return _own(fields)[0].get(b"id", b"").decode()
    except UnicodeDecodeError:
        return ""


class _Malformed(Exception):
    """What is wrong with an entry, in a sentence's second half."""


def _read(now: float, found: Delivery, fields: list[tuple[bytes, bytes]]) -> Delivery:
    own, others = _own(fields)
    body, others = _body_of(others)
    headers = _headers(own.get(b"headers"))
    headers.update(_headers_of(others))
    published = _number(b"at", own.get(b"at"), _TIME_MAX)
    expires = _number(b"expires", own.get(b"expires"), 1e16)
    return found._replace(
        id=_ours(b"id", own.get(b"id")) or found.id,
        body=body,
        headers=headers,
        key=_ours(b"key", own.get(b"key")),
        published_at=found.published_at if published is None else published,
        priority=int(_number(b"priority", own.get(b"priority"), 9) or 0),
        expires_in=None if expires is None else (expires - now) / 1e6,
        correlation_id=_ours(b"correlation", own.get(b"correlation")),
        content_type=_ours(b"type", own.get(b"type")),
        reply_to=_address(own.get(b"reply")),
    )


def _spread(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The fields with those that a dead letter has in one (`settle.lua`)."""
    spread: list[tuple[bytes, bytes]] = []
    for name, value in fields:
        if name == _REST:
            parts = _taken_apart(value)
            spread += zip(parts[::2], parts[1::2], strict=True)
        else:
            spread.append((name, value))
    return spread


def _own(fields: list[tuple[bytes, bytes]]) -> tuple[dict[bytes, bytes], list[tuple[bytes, bytes]]]:
    """Our own fields by their short names, and the others. The same rules stand in `messages.lua`: `old`, `named`."""
    others = [(name, value) for name, value in fields if name not in _OURS]
    own = {name[len(_MARK) :]: value for name, value in reversed(fields) if name in _OURS}
    foreign = [name for name, _ in others if not name.startswith(_MARK)]
    if foreign[:2] == [b"id", b"body"] and fields[0][0] == b"id" and fields[1][0] == b"body":
        old = foreign[2:3] == [b"at"] and fields[2][0] == b"at" and _NUMBER.fullmatch(fields[2][1]) is not None
        if len(foreign) == 2 or (old and _OLD.issuperset(foreign[3:])):
            for name, value in reversed(others):
                if name != b"body" and not name.startswith(_MARK):
                    own.setdefault(name, value)
            if not _microseconds(own.get(b"expires", b"")) and b"narrowboat-expires" not in dict(fields):
                own.pop(b"expires", None)
            others = [(name, value) for name, value in others if name == b"body" or name.startswith(_MARK)]
    return own, others


def _microseconds(value: bytes) -> bool:
    return value.isdigit() and len(value) <= 16 and int(value) >= _MICROSECONDS


def _body_of(fields: list[tuple[bytes, bytes]]) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """The body, and what else there is: the field `body`, or the only one that is nobody's mark."""
    at = next((at for at, (name, _) in enumerate(fields) if name == b"body"), None)
    if at is None:
        bare = [at for at, (name, _) in enumerate(fields) if not name.startswith(_MARK)]
        at = bare[0] if len(bare) == 1 else 0 if len(fields) == 1 and fields[0][0] not in _OURS else None
    if at is None:
        return b"", fields
    return fields[at][1], fields[:at] + fields[at + 1 :]


def _headers_of(fields: list[tuple[bytes, bytes]]) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in reversed(fields)}


def _time_of(entry_id: bytes) -> float:
    return int(entry_id[: entry_id.index(b"-")]) / 1000


def _text(value: bytes) -> str:
    return value.decode(errors="replace")


def _ours(name: bytes, value: bytes | None) -> str | None:
    """A text of ours."""
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        raise _Malformed(f"its field {_MARK.decode()}{name.decode()} is no UTF-8") from None


def _number(name: bytes, value: bytes | None, most: float) -> float | None:
    if value is None:
        return None
    if (value.isdigit() if name == b"expires" else _NUMBER.fullmatch(value) is not None) and len(value) < 40:
        with contextlib.suppress(ValueError):
            number = float(value)
            if abs(number) <= most and (number >= 0 or name == b"at"):
                return number
    raise _Malformed(f"its field {_MARK.decode()}{name.decode()} is no number that we write")


def _headers(value: bytes | None) -> dict[str, str]:
    if value is None:
        return {}
    try:
        found = json.loads(value) if len(value) <= _HEADERS_MAX else None
        if isinstance(found, dict) and all(isinstance(text, str) for text in found.values()):
            "".join([*found, *found.values()]).encode()  # half a character is no text
            return found
    except (ValueError, RecursionError):
        pass
    raise _Malformed("its field narrowboat-headers is no JSON of texts, or too long")


def _address(value: bytes | None) -> Address | None:
    if value is None:
        return None
    try:
        kind, name, group = json.loads(value[:10_000])
        return Address({kind.value: kind for kind in Kind}[kind], str(name), str(group))
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _Malformed("its field narrowboat-reply is no address") from None
