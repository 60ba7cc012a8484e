"""Codecs of the standard library's own: bytes, JSON without a type, text."""

from __future__ import annotations

import json
from typing import Any

from narrowboat.codecs.labelled import Labelled


class Bytes:
    """The bytes themselves: what a queue without a codec does, with a content type."""

    name = "bytes"
    content_type: str | None = "application/octet-stream"

    def encode(self, data: bytes, /) -> bytes:
        """The same bytes; anything else is refused."""
        if not isinstance(data, bytes):
            raise TypeError(f"expected bytes, got {type(data).__name__}")
        return data

    def decode(self, body: bytes, /) -> bytes:
        """The same bytes."""
        return body


class Json(Labelled[Any]):
    """JSON in UTF-8, compact. NaN and infinities are not written, since most readers refuse them.

    Args:
        strict: whether the content type must be there, and be one of JSON.
    """

    name = "json"
    content_type: str | None = "application/json"
    media_types = ("application/json",)

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict

    def encode(self, data: Any, /) -> bytes:
        """One JSON document."""
        return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()

    def decode(self, body: bytes, /) -> Any:
        """What the document says."""
        return json.loads(body)


class Text:
    """Text in UTF-8."""

    name = "text"
    content_type: str | None = "text/plain; charset=utf-8"

    def encode(self, data: str, /) -> bytes:
        """UTF-8; what is no text is refused."""
        if not isinstance(data, str):
            raise TypeError(f"expected text, got {type(data).__name__}")
        return data.encode()

    def decode(self, body: bytes, /) -> str:
        """The text."""
        return body.decode()

    def json_schema(self, prefix: str, /) -> tuple[dict[str, Any], dict[str, Any]]:
        """See `Model.json_schema`."""
        return {"type": "string"}, {}


BYTES = Bytes()
JSON = Json()
TEXT = Text()
