"""Protocol Buffers: messages of one class that protoc has made. The class brings its library along."""

from __future__ import annotations

from typing import Any, TypeVar

from narrowboat.codecs.codec import Head
from narrowboat.codecs.errors import InvalidBody
from narrowboat.codecs.labelled import Labelled, parameter
from narrowboat.errors import InvalidArgument

T = TypeVar("T")


class Protobuf(Labelled[T]):
    """A codec for one class of messages; unknown fields are kept, as Protocol Buffers do.

    The content type has the message's full name in the parameter `proto`. A message that names another one is refused, also
    without `strict`: its bytes could be read as ours, and would say something else.

    Args:
        message: the class, such as `shop_pb2.Order`.
        strict: whether the content type must be there, and be one of Protocol Buffers.

    Raises:
        InvalidArgument: another class.
    """

    media_types = ("application/protobuf", "application/x-protobuf", "application/vnd.google.protobuf")

    def __init__(self, message: type[T], *, strict: bool = False) -> None:
        descriptor: Any = getattr(message, "DESCRIPTOR", None)
        if not isinstance(message, type) or not hasattr(descriptor, "full_name"):
            raise InvalidArgument(f"Protobuf({message!r}): expected a class of messages that protoc has made")
        self._message: Any = message
        self.name: str = descriptor.full_name
        self.content_type: str | None = f"application/protobuf; proto={self.name}"
        self.strict = strict

    def encode(self, data: T, /) -> bytes:
        """Its binary form."""
        if not isinstance(data, self._message):
            raise TypeError(f"expected {self.name}, got {type(data).__name__}")
        made: bytes = data.SerializeToString()
        return made

    def decode(self, body: bytes, /) -> T:
        """The message; `InvalidBody` where the bytes are none, or a required field is missing."""
        try:
            made = self._message.FromString(body)
        except Exception as error:  # the class of its errors differs between the implementations
            raise InvalidBody([(self.name, str(error))]) from None
        if not made.IsInitialized():
            raise InvalidBody((field, "is required, and missing") for field in made.FindInitializationErrors())
        found: T = made
        return found

    def decode_message(self, body: bytes, head: Head, /) -> T:
        """See `MessageCodec`."""
        proto = parameter(head.content_type, "proto")
        if proto is not None and proto != self.name:
            raise InvalidBody([("content type", f"proto is {proto!r}, and has to be {self.name}")])
        return super().decode_message(body, head)

    def __repr__(self) -> str:
        return f"Protobuf({self.name})"
