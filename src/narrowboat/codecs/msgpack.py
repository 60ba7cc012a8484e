"""MessagePack without a type: what JSON can say, and bytes and instants as well, in fewer bytes. It needs msgspec."""

from __future__ import annotations

from typing import Any

from narrowboat.codecs.errors import InvalidBody
from narrowboat.codecs.labelled import Labelled
from narrowboat.errors import ConfigurationError
from narrowboat.registry import how_to_install

try:
    import msgspec
except ImportError as error:  # now, and not when the first message comes: that would become a dead letter
    command = how_to_install("narrowboat", "msgspec")
    raise ConfigurationError(f"MSGPACK needs msgspec, which is not installed: {command}") from error


class MsgPack(Labelled[Any]):
    """MessagePack by msgspec. A tuple or a set comes back as a list, an object with fields as a dict.

    Args:
        strict: whether the content type must be there, and be one of MessagePack.
    """

    name = "msgpack"
    content_type: str | None = "application/msgpack"
    media_types = ("application/msgpack", "application/vnd.msgpack", "application/x-msgpack")

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict

    def encode(self, data: Any, /) -> bytes:
        """One MessagePack value."""
        return msgspec.msgpack.encode(data)

    def decode(self, body: bytes, /) -> Any:
        """What it says; `InvalidBody` where it is none, or more than one."""
        try:
            return msgspec.msgpack.decode(body)
        except (msgspec.DecodeError, ValueError, TypeError, RecursionError) as error:
            raise InvalidBody([("", str(error))]) from None


MSGPACK = MsgPack()
