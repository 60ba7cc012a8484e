"""Messages as fields of stream entries, and back. Pure.

An entry has `id` and `body`, and where they are needed `narrowboat-at` (seconds since the epoch), `-key`, `-priority`,
`-headers` (JSON), `-correlation`, `-type`, `-reply` (JSON) and `-expires` (microseconds of the server's clock). Another program
that adds an entry needs none of them: the body is the field `body`, or the only field, and every other field is a header. An
entry that cannot be parsed is delivered as it is, with a sentence on what is wrong. It affects no other entry.

The first version left `narrowboat-` out of the names. Its entries begin with `id`, `body` and `at`, and are read as before.
The same names in any other entry belong to another program.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from narrowboat.contract import Address, Delivery, Kind, Outgoing

#: Seconds. Where the publisher's clock and the server's agree to within this, the entry's id serves as the time of publishing.
NEAR = 2.0
_NO_HEADERS: Mapping[str, str] = {}
_MARK = b"narrowboat-"
_OLD = frozenset({b"at", b"key", b"priority", b"headers", b"correlation", b"type", b"reply", b"expires"})
#: What `settle.lua` makes of the fields that are too many for one command, and `receive.lua` of an entry that is too large.
_REST, _LEFT = _MARK + b"rest", _MARK + b"left"
_OURS = frozenset(_MARK + name for name in (*_OLD, b"id", b"rest", b"left"))
#: The smallest expiry of the first version, in microseconds. A smaller number is in seconds or milliseconds, so it is foreign.
_MICROSECONDS = 1e14
#: Bytes of JSON that are read as headers, and seconds that can be a time. No publisher of ours has ever made more.
_HEADERS_MAX, _TIME_MAX = 1 << 20, 1e11
_NUMBER = re.compile(rb"[\d.e+-]+")


def is_plain(message: Outgoing, now: float) -> bool:
    """Whether the message has nothing but an id and a body. `now`: seconds since the epoch."""
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
    """The deliveries that `receive.lua` packed. Each is parsed by itself, so that a malformed one affects no other."""
    numbers = struct.unpack(f">{len(sizes) // 4}I", sizes)
    names = [_names(shape) for shape in shapes]
    plans: dict[Any, _Plan] = {}
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
        found.append(_delivery(now, token, entry_id, numbers[at + 1], names[shape], values, plans))
        at = behind
    return found


def _names(shape: bytes) -> list[bytes]:
    """The field names of a shape; each follows its size."""
    return _taken_apart(shape) if shape else [b"id", b"body"]


def _taken_apart(data: bytes) -> list[bytes]:
    """The texts in `data`; each follows its size."""
    found, start = [], 0
    while start < len(data):
        (size,) = struct.unpack_from(">I", data, start)
        start += 4 + size
        if start > len(data):
            raise ValueError("it ends too early")
        found.append(data[start - size : start])
    return found


class _Plan(NamedTuple):
    """How to read the entries of one shape: the positions of their fields."""

    own: dict[bytes, int]  #: by short names
    body: int | None
    headers: list[tuple[str, int]]
    old: bool  #: its expiry is the first version's
    whole: bool  #: nothing of it is packed into a field, or left out
    may_be_old: bool  #: what is called `at` may be the first version's, if it is a number


def _plan(names: Sequence[bytes], old: bool) -> _Plan:
    """The same rules stand in `messages.lua`: `old`, `named`. `old`: what is called `at` can be the first version's."""
    own = {names[at][len(_MARK) :]: at for at in reversed(range(len(names))) if names[at] in _OURS}
    others = [at for at, name in enumerate(names) if name not in _OURS]
    foreign = [names[at] for at in others if not names[at].startswith(_MARK)]
    old = old and names[2] == b"at" and _OLD.issuperset(foreign[2:])
    marked = b"expires" in own
    if names[:2] == [b"id", b"body"] and (old or len(foreign) == 2):
        for at in others:
            if names[at] != b"body" and not names[at].startswith(_MARK):
                own.setdefault(names[at], at)
        others = [at for at in others if names[at] == b"body" or names[at].startswith(_MARK)]
    body = _body_of(names, others)
    headers = [(_text(names[at]), at) for at in reversed(others) if at != body]
    whole = _REST not in names and _LEFT not in names
    return _Plan(own, body, headers, old and not marked, whole, names[:3] == [b"id", b"body", b"at"])


def _body_of(names: Sequence[bytes], others: Sequence[int]) -> int | None:
    """The field `body`, or the only field that is none of our marks."""
    for at in others:
        if names[at] == b"body":
            return at
    bare = [at for at in others if not names[at].startswith(_MARK)]
    if len(bare) == 1:
        return bare[0]
    return 0 if len(names) == 1 and names[0] not in _OURS else None


def _may_be_old(names: Sequence[bytes], values: Sequence[bytes]) -> bool:
    return names[:3] == [b"id", b"body", b"at"] and _NUMBER.fullmatch(values[2]) is not None


def _delivery(
    now: float, token: bytes, entry_id: bytes, attempt: int, names: list[bytes], values: list[bytes], plans: dict[Any, _Plan]
) -> Delivery:
    """The delivery of one entry, whatever is in it. `plans`: those of the shapes in this answer."""
    try:
        plan = plans.get(id(names))
        if plan is None:
            plan = plans[id(names)] = _plan(names, False)
        if not plan.whole:
            if names[0] == _LEFT:
                raise _Malformed(
                    f"its entry has {_text(values[0])} bytes, more than max_reply= lets through; they are left out"
                )
            names, values = _spread(names, values)
            plan = _plan(names, _may_be_old(names, values))
        elif plan.may_be_old and _NUMBER.fullmatch(values[2]) is not None:
            plan = plans.get(-id(names)) or plans.setdefault(-id(names), _plan(names, True))
        return _read(now, token, entry_id, attempt, plan, values)
    except Exception as error:
        why = str(error) if isinstance(error, _Malformed) else f"it cannot be taken apart ({type(error).__name__})"
        return _raw(token, entry_id, attempt, names, values, why)


def _raw(token: bytes, entry_id: bytes, attempt: int, names: Sequence[bytes], values: Sequence[bytes], why: str) -> Delivery:
    """The delivery of an entry that cannot be parsed: its body, all other fields as headers, and its id if that is readable."""
    at = _plan(names, _may_be_old(names, values)).own.get(b"id")
    try:
        own = "" if at is None else values[at].decode()
    except UnicodeDecodeError:
        own = ""
    left = names[0] == _LEFT
    body = None if left else _body_of(names, range(len(names)))
    headers = {} if left else {_text(names[n]): _text(values[n]) for n in reversed(range(len(names))) if n != body}
    raw = b"" if body is None else values[body]
    published = _time_of(entry_id)
    return Delivery(own or entry_id.decode(), raw, headers, None, attempt, published, 0, None, None, None, None, token, why)


class _Malformed(Exception):
    """What is wrong with an entry, in a sentence's second half."""


def _read(now: float, token: bytes, entry_id: bytes, attempt: int, plan: _Plan, values: Sequence[bytes]) -> Delivery:
    own = plan.own
    headers = _headers(values[own[b"headers"]]) if b"headers" in own else {}
    for name, at in plan.headers:
        headers[name] = _text(values[at])
    published = _number(b"at", values[own[b"at"]], _TIME_MAX) if b"at" in own else None
    expires = values[own[b"expires"]] if b"expires" in own else None
    if expires is not None and plan.old and not _microseconds(expires):
        expires = None
    return Delivery(
        (_ours(b"id", values[own[b"id"]]) if b"id" in own else "") or entry_id.decode(),  # the entry's id is the server's own
        b"" if plan.body is None else values[plan.body],
        headers,
        _ours(b"key", values[own[b"key"]]) if b"key" in own else None,
        attempt,
        _time_of(entry_id) if published is None else published,
        int(_number(b"priority", values[own[b"priority"]], 9)) if b"priority" in own else 0,
        None if expires is None else (_number(b"expires", expires, 1e16) - now) / 1e6,
        _ours(b"correlation", values[own[b"correlation"]]) if b"correlation" in own else None,
        _ours(b"type", values[own[b"type"]]) if b"type" in own else None,
        _address(values[own[b"reply"]]) if b"reply" in own else None,
        token,
        "",
    )


def _spread(names: Sequence[bytes], values: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
    """The fields, unpacked where a dead letter has them all in one (`settle.lua`)."""
    found: tuple[list[bytes], list[bytes]] = ([], [])
    for name, value in zip(names, values, strict=True):
        parts = _taken_apart(value) if name == _REST else [name, value]
        found[0].extend(parts[::2])
        found[1].extend(parts[1::2])
    if len(found[0]) != len(found[1]) or not found[0]:
        raise ValueError("a name without a value")
    return found


def _microseconds(value: bytes) -> bool:
    return value.isdigit() and len(value) <= 16 and int(value) >= _MICROSECONDS


def _time_of(entry_id: bytes) -> float:
    return int(entry_id[: entry_id.index(b"-")]) / 1000


def _text(value: bytes) -> str:
    return value.decode(errors="replace")


def _ours(name: bytes, value: bytes) -> str:
    """The text of one of our own fields; `_Malformed` where it is none."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _Malformed(f"its field {_MARK.decode()}{name.decode()} is no UTF-8") from None


def _number(name: bytes, value: bytes, most: float) -> float:
    if (value.isdigit() if name == b"expires" else _NUMBER.fullmatch(value) is not None) and len(value) < 40:
        try:
            number = float(value)
        except ValueError:
            number = math.inf
        if abs(number) <= most and (number >= 0 or name == b"at"):
            return number
    raise _Malformed(f"its field {_MARK.decode()}{name.decode()} is no number that we write")


def _headers(value: bytes) -> dict[str, str]:
    try:
        found = json.loads(value.decode()) if len(value) <= _HEADERS_MAX else None
        if type(found) is dict and all([type(text) is str for text in found.values()]):  # noqa: C419  # a list is faster
            if b"\\u" in value:
                "".join([*found, *found.values()]).encode()  # half a character is no text
            return found
    except (ValueError, RecursionError):
        pass
    raise _Malformed("its field narrowboat-headers is no JSON of texts, or too long")


def _address(value: bytes) -> Address:
    try:
        kind, name, group = json.loads(value[:10_000])
        return Address({kind.value: kind for kind in Kind}[kind], str(name), str(group))
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _Malformed("its field narrowboat-reply is no address") from None
