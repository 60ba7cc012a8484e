"""Codecs: what turns `data` into a message's bytes and back.

In the API a codec is an object, `queue("orders", codec=JSON)`, and any object with these four names will do; by name
(`json`) codecs are only known to URLs and to the command line, which find them in the entry point group
`narrowboat.codecs`. A codec is called in the publisher's or the consumer's own thread. It does no I/O, and it must not
run what it decodes: bytes come from whoever may publish.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from narrowboat.dsn import unknown
from narrowboat.errors import ConfigurationError, InvalidArgument

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "narrowboat.codecs"

T = TypeVar("T")


class Codec(Protocol[T]):
    """What a codec has. `encode` and `decode` raise what they like: the core names the message and keeps the cause."""

    @property
    def name(self) -> str:
        """What URLs and the command line call it."""
        ...

    @property
    def content_type(self) -> str | None:
        """Sent with each message unless the publisher gives another; None sends none."""
        ...

    def encode(self, data: T, /) -> bytes:
        """The bytes of `data`."""
        ...

    def decode(self, body: bytes, /) -> T:
        """What `encode` was given."""
        ...


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


class Json:
    """JSON in UTF-8, compact, and strict: NaN and infinities are refused, since most readers refuse them."""

    name = "json"
    content_type: str | None = "application/json"

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


BYTES = Bytes()
JSON = Json()
TEXT = Text()


def names() -> list[str]:
    """Every codec that an installed distribution registers, sorted."""
    return sorted(_entry_points())


def by_name(name: str) -> Codec[Any]:
    """The codec of that name; `ConfigurationError` says the near miss, or what is missing."""
    points = _entry_points()
    if name not in points:
        raise ConfigurationError(unknown("codec", name, sorted(points)))
    try:
        codec = points[name].load()
    except ImportError as error:
        raise ConfigurationError(
            f"codec {name!r} needs {error.name or 'a module'}, which is not installed: install what provides it"
        ) from error
    try:
        return check(codec)
    except InvalidArgument as error:
        raise ConfigurationError(f"the entry point {GROUP}:{name} is no codec: {error}") from None


def check(codec: Any) -> Codec[Any]:
    """`codec` if it is one; `InvalidArgument` says what it lacks, and the way for who gave a name."""
    if isinstance(codec, str):
        raise InvalidArgument(
            f"codec={codec!r}: in the API a codec is an object, such as narrowboat.codecs.JSON; "
            "names are for URLs and the command line (narrowboat.codecs.by_name gives the object)"
        )
    missing = [part for part in ("name", "content_type", "encode", "decode") if not hasattr(codec, part)]
    if missing or isinstance(codec, type):
        what = "a class, not an object" if isinstance(codec, type) else f"it has no {', '.join(missing)}"
        raise InvalidArgument(f"codec={codec!r}: expected an object with name, content_type, encode and decode; {what}")
    found: Codec[Any] = codec
    return found


def _entry_points() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # slow to import, and needed by programs that name codecs only

    return {point.name: point for point in entry_points(group=GROUP)}
