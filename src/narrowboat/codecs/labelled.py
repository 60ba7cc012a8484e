"""Content types: what a codec sets, and whether a message's own one is what the codec reads.

A wrong label on a body that fits is common, as with programs that send `text/plain` for JSON. So only a codec that is `strict`
looks at it.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from narrowboat.codecs.codec import Head
from narrowboat.codecs.errors import InvalidBody

T = TypeVar("T")

#: Where the parameters of a content type begin, each with its value; RFC 9110, 8.3.1.
_PARAMETER = re.compile(r""";\s*([^\s=;"]+)=(?:"([^"]*)"|([^\s;"]*))""")


class Labelled(ABC, Generic[T]):
    """The base of codecs with `strict`: whether the content type must be there, and be one of `media_types`.

    A type that ends like `+json` is taken for `application/json`.
    """

    media_types: tuple[str, ...]
    strict: bool

    @abstractmethod
    def decode(self, body: bytes, /) -> T:
        """See `Codec`."""

    def decode_message(self, body: bytes, head: Head, /) -> T:
        """See `MessageCodec`."""
        if self.strict:
            check_media_type(head.content_type, self.media_types)
        return self.decode(body)


def media_type(content_type: str | None) -> str:
    """Without its parameters; empty where there is none.

    >>> media_type("Application/JSON; charset=utf-8")
    'application/json'
    """
    return (content_type or "").partition(";")[0].strip().lower()


def parameter(content_type: str | None, name: str) -> str | None:
    """One of its parameters.

    >>> parameter('application/json; charset=utf-8; version="2"', "version")
    '2'
    """
    for match in _PARAMETER.finditer(content_type or ""):
        if match[1].lower() == name:
            return match[3] if match[2] is None else match[2]
    return None


def is_json(media: str) -> bool:
    """Whether a media type is of JSON."""
    return media == "application/json" or media.endswith("+json")


def check_media_type(content_type: str | None, media_types: tuple[str, ...]) -> None:
    """`InvalidBody` for a content type that is missing or another one."""
    media = media_type(content_type)
    if media not in media_types and not (is_json(media) and "application/json" in media_types):
        found = f"is {media!r}" if media else "is missing"
        raise InvalidBody([("content type", f"{found}, and has to be {media_types[0]}")])
