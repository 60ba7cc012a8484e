"""Codecs by name, for URLs and the command line; and whether an object is a codec at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from narrowboat.codecs.codec import Codec
from narrowboat.dsn import unknown
from narrowboat.errors import ConfigurationError, InvalidArgument

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "narrowboat.codecs"


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
