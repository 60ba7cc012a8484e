"""Messages as lines: what `publish --ndjson` reads and `consume` writes. Pure functions, no I/O.

One JSON object a line. `body` is text; a body that is no UTF-8 is `body_base64`, and so is any other text (`key_base64`;
`headers_base64`, names and values). What `consume` writes `publish` reads
again: the fields that only a delivery has are then left out.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from narrowboat.cli.portable import ENCODED, decoded, json_text
from narrowboat.dsn import unknown


class BadLine(ValueError):
    """A line that is no message; the text says why, without the line's number."""


@dataclass(frozen=True)
class Record:
    """One message to be published: its body, and the arguments of `publish` that the line gives."""

    body: bytes
    options: Mapping[str, Any] = field(default_factory=dict)


class Delivered(Protocol):
    """What a delivered message shows of itself."""

    @property
    def id(self) -> str: ...  # noqa: D102  # named as in the library
    @property
    def body(self) -> bytes: ...  # noqa: D102
    @property
    def headers(self) -> Mapping[str, str]: ...  # noqa: D102
    @property
    def key(self) -> str | None: ...  # noqa: D102
    @property
    def attempt(self) -> int: ...  # noqa: D102
    @property
    def priority(self) -> int: ...  # noqa: D102
    @property
    def published_at(self) -> float | None: ...  # noqa: D102
    @property
    def correlation_id(self) -> str | None: ...  # noqa: D102
    @property
    def content_type(self) -> str | None: ...  # noqa: D102


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise BadLine(f"expected text, got {_kind(value)}")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadLine(f"expected a number, got {_kind(value)}")
    return value


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadLine(f"expected a whole number, got {_kind(value)}")
    return value


def _headers(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise BadLine(f"expected an object of texts, got {_kind(value)}")
    for name, text in value.items():
        if not isinstance(text, str):
            raise BadLine(f"{name!r}: expected text, got {_kind(text)}")
    return value


_FIELDS: dict[str, Callable[[object], Any]] = {
    "key": _text,
    "headers": _headers,
    "delay": _number,
    "priority": _whole,
    "ttl": _number,
    "id": _text,
    "correlation_id": _text,
    "content_type": _text,
}
_BODIES = ("body", "body_base64")
#: Written by `consume`, without a meaning for `publish`.
_IGNORED = ("attempt", "published_at")


def parse_line(line: bytes) -> Record:
    r"""A line as a message as it is: everything but its end is the body.

    >>> parse_line(b"hello\n").body
    b'hello'
    """
    return Record(line.removesuffix(b"\n"))


def parse_ndjson(line: bytes) -> Record | None:
    """A line of NDJSON as a message; None for a blank one. `BadLine` says what is wrong with it.

    >>> parse_ndjson(b'{"body": "hello", "key": "42"}')
    Record(body=b'hello', options={'key': '42'})
    """
    if not line.strip():
        return None
    try:
        value = json.loads(line.decode("utf-8"), parse_constant=_no_constant)
    except BadLine:
        raise
    except UnicodeDecodeError:
        raise BadLine("it is not UTF-8") from None
    except RecursionError:
        raise BadLine("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise BadLine(f"it is no JSON: {error.msg} at column {error.colno}") from None
    except ValueError as error:  # a number of thousands of digits
        raise BadLine(f"it is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadLine(f"expected an object such as {{'body': 'text'}}, got {_kind(value)}")
    given = [name for name in _BODIES if name in value]
    if len(given) != 1:
        raise BadLine("it needs one of 'body' and 'body_base64'" + (", not both" if given else ""))
    body = _body(given[0], value[given[0]])
    options = dict(_field(name, content) for name, content in _merged(value).items() if name not in (*_BODIES, *_IGNORED))
    return Record(body, {name: content for name, content in options.items() if content is not None})


def to_json(message: Delivered) -> dict[str, Any]:
    """A delivered message as an object for one line of NDJSON, without the properties that are not set."""
    fields: dict[str, Any] = {"id": message.id}
    try:
        fields["body"] = message.body.decode("utf-8")
    except UnicodeDecodeError:
        fields["body_base64"] = base64.b64encode(message.body).decode("ascii")
    fields.update(
        key=message.key,
        headers=dict(message.headers) or None,
        attempt=message.attempt,
        priority=message.priority or None,
        published_at=message.published_at,
        correlation_id=message.correlation_id,
        content_type=message.content_type,
    )
    return {name: value for name, value in fields.items() if value is not None}


def to_line(message: Delivered) -> bytes:
    """A delivered message as one line of NDJSON."""
    return json_text(to_json(message), separators=(",", ":")).encode() + b"\n"


def _body(name: str, value: object) -> bytes:
    try:
        text = _text(value)
        if name == "body":
            return text.encode("utf-8")
        return base64.b64decode(text, validate=True)
    except UnicodeEncodeError:
        raise BadLine(f"{name}: it holds half of a surrogate pair, which no UTF-8 can carry") from None
    except (BadLine, binascii.Error, ValueError) as error:
        raise BadLine(f"{name}: {error}") from None


def _merged(value: dict[str, Any]) -> dict[str, Any]:
    """The two kinds of headers as one."""
    encoded = value.pop("headers" + ENCODED, None)
    if encoded is None:
        return value
    try:
        more = {decoded(name): decoded(text) for name, text in _headers(encoded).items()}
        return {**value, "headers": {**_headers(value.get("headers") or {}), **more}}
    except ValueError as error:
        raise BadLine(f"headers{ENCODED}: {error}") from None


def _field(name: str, value: object) -> tuple[str, Any]:
    plain = name.removesuffix(ENCODED)
    check = _FIELDS.get(plain)
    if check is None or (plain != name and check is not _text):
        raise BadLine(unknown("field", name, [*_BODIES, *_FIELDS]))
    if value is None:
        return plain, None
    try:
        return plain, check(value) if plain == name else decoded(_text(value))
    except ValueError as error:
        raise BadLine(f"{name}: {error}") from None


def _kind(value: object) -> str:
    names = {bool: "true or false", str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), "null")


def _no_constant(name: str) -> Any:
    raise BadLine(f"{name} is no JSON")
