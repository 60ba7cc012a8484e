"""Any value as JSON that every program reads and every terminal only shows. Pure functions.

Texts of others may hold anything: bytes that are no UTF-8 (as Python's surrogates), halves of surrogate pairs, controls,
characters that turn the direction of what follows. In JSON, what is not printable is written as an escape, which any parser
turns back. A text that is no Unicode at all has no place in JSON: the field `key` is then left out, and `key_base64` has its
bytes. A number that is not finite is null.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from typing import Any

#: Of a field whose text is no Unicode: its bytes are under its name with this added.
ENCODED = "_base64"

#: What may be unprintable. `str.isprintable` decides; this only finds the candidates.
_BEYOND = re.compile("[^ -~]")


def json_text(value: object, *, indent: int | None = None, separators: tuple[str, str] | None = None) -> str:
    r"""`value` as JSON.

    >>> print(json_text({"key": "a\x9b\u202eb", "id": "\udcff", "wait": float("inf")}))
    {"key": "a\u009b\u202eb", "id_base64": "/w==", "wait": null}
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators)
        text.encode()
    except ValueError:  # no Unicode, or a number that is not finite
        text = json.dumps(portable(value), ensure_ascii=False, indent=indent, separators=separators)
    return text if text.isprintable() else _BEYOND.sub(_escaped, text)


def portable(value: Any) -> Any:
    """`value` with what JSON has no place for written otherwise."""
    if isinstance(value, Mapping):
        found: dict[str, Any] = {}
        for name, item in value.items():
            found.update(_field(name, item))
        return found
    if isinstance(value, (list, tuple)):
        return [portable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if not isinstance(value, str) or _is_unicode(value) else _encoded(value)


def decoded(text: str) -> str:
    """What a `_base64` field holds, as the text that it was. `ValueError` when it is no base64."""
    return base64.b64decode(text, validate=True).decode("utf-8", "surrogateescape")


def _field(name: str, item: Any) -> dict[str, Any]:
    if isinstance(item, str) and not _is_unicode(item):
        return {name + ENCODED: _encoded(item)}
    if isinstance(item, Mapping):
        odd = {each: text for each, text in item.items() if isinstance(text, str) and not _is_unicode(each + text)}
        if odd:
            whole = {each: text for each, text in item.items() if each not in odd}
            return {name: portable(whole), name + ENCODED: {_encoded(each): _encoded(text) for each, text in odd.items()}}
    return {name: portable(item)}


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _encoded(text: str) -> str:
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair that stands for no byte
        data = text.encode("utf-8", "surrogatepass")
    return base64.b64encode(data).decode("ascii")


def _escaped(match: re.Match[str]) -> str:
    char = match[0]
    return char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1]
