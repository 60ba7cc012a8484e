"""Types that msgspec reads: its Structs, and dataclasses of the standard library.

A dataclass is always read by msgspec. By whichever library is installed it would mean two things: pydantic takes the text "1"
for a number, and msgspec does not.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from narrowboat.codecs.errors import InvalidBody
from narrowboat.codecs.finite import check_finite

_PATH = re.compile(r"^(.*) - at `(?:key in )?\$\.?(.*)`$", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)


class ByMsgspec:
    """See `model.Library`. Nothing is coerced, and unknown fields are left aside unless the Struct forbids them."""

    def __init__(self, model: type) -> None:
        self._model = model
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(model)
        self._encoder = msgspec.json.Encoder()

    def load(self, body: bytes) -> Any:
        """It stops at the first field that does not fit."""
        try:
            return self._decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidBody([problem(error)]) from None

    def dump(self, data: Any) -> bytes:
        """As msgspec writes it; `InvalidBody` for NaN and infinities, which it writes as null."""
        body = self._encoder.encode(data)
        if b"null" in body:
            check_finite(msgspec.to_builtins(data))
        return body

    def json_schema(self, prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Of what is read and written."""
        (schema,), definitions = msgspec.json.schema_components([self._model], ref_template=f"{prefix}{{name}}")
        return schema, definitions


def problem(error: Exception) -> tuple[str, str]:
    """The path and the text of one of its errors.

    >>> problem(ValueError("Expected `int`, got `str` - at `$.lines[0].pieces`"))
    ('lines[0].pieces', 'Expected `int`, got `str`')
    >>> problem(ValueError("Object missing required field `pieces` - at `$.lines[0]`"))
    ('lines[0].pieces', 'is missing')
    """
    found = _PATH.match(str(error))
    path, text = (found[2], found[1]) if found else ("", str(error))
    missing = _MISSING.fullmatch(text)
    return (f"{path}.{missing[1]}".lstrip("."), "is missing") if missing else (path, text)
