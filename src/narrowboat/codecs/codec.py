"""What a codec is: four names, and two methods more for one that reads or writes more of a message than its body.

Take `Codec` for the annotation of your own. Most codecs need no `MessageCodec`: a content type is set without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol, TypeVar

T = TypeVar("T")


class Codec(Protocol[T]):
    """What a codec has. `encode` and `decode` raise what they like: the core names the message and keeps the cause.

    What `decode` raises makes the message a dead letter. The exception is a `NarrowboatError` that is `retryable`, which is no
    verdict on the body: the message comes back, as after any other failure.
    """

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


class Head(Protocol):
    """What a message says beside its body. Messages have these names, so a codec can be asked about one."""

    @property
    def id(self) -> str:
        """The message's id."""
        ...

    @property
    def key(self) -> str | None:
        """The key by which an ordered source orders."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Text to text."""
        ...

    @property
    def content_type(self) -> str | None:
        """Of what is published: what the publisher gave for this message, None where it left that to the codec."""
        ...

    @property
    def published_at(self) -> float | None:
        """Seconds since the epoch by the publisher's clock; None where that is not known."""
        ...


class Encoded(NamedTuple):
    """What a codec makes of a message: these replace what the publisher gave."""

    body: bytes
    content_type: str | None
    headers: Mapping[str, str]


class MessageCodec(Codec[T], Protocol[T]):
    """A codec that sees the head as well. It may have only one of the two methods."""

    def encode_message(self, data: T, head: Head, /) -> Encoded:
        """Called instead of `encode`."""
        ...

    def decode_message(self, body: bytes, head: Head, /) -> T:
        """Called instead of `decode`."""
        ...


def decode(codec: Codec[T], body: bytes, head: Head) -> T:
    """What `codec` makes of a body, by the method that it has."""
    decode_message = getattr(codec, "decode_message", None)
    if decode_message is None:
        return codec.decode(body)
    made: T = decode_message(body, head)
    return made
