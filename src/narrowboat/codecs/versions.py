"""Messages whose type changes: old ones are read, and brought up to the newest version before a handler sees them.

    ORDER = Versions({1: OldOrder, 2: Order}, up=modernise)  # message.data is an Order

The version is a parameter of the content type, `application/json; version=2`, so it goes wherever the body goes. A field with a
default needs no version at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, overload

from narrowboat.codecs.codec import Codec, Head
from narrowboat.codecs.codec import decode as decode_by
from narrowboat.codecs.errors import InvalidBody, NewerVersion
from narrowboat.codecs.finding import check
from narrowboat.codecs.labelled import parameter
from narrowboat.codecs.model import Model
from narrowboat.errors import InvalidArgument

T = TypeVar("T")

Up = Callable[[Any], Any]


class Versions(Generic[T]):
    """A codec for one type in several versions. It writes the newest one.

    A message of a version beyond the newest one raises `NewerVersion`. It is nacked as after any failure, and comes back for a
    consumer that knows it. At its last delivery it becomes a dead letter, which can be redriven.

    Args:
        versions: a type for `Model`, or a codec, by version number.
        up: what makes the next version's value of an older one's: a function where there are two versions, else functions by
            the version that they take. A checker knows the newest type by the function's result; with several write
            `Versions[Order](...)`.
        strict: whether the version must be there. Else a message without one is of the oldest version, as those are that
            were published before there were versions.

    Raises:
        InvalidArgument: fewer than two versions, or a function is missing.
    """

    @overload
    def __init__(self, versions: Mapping[int, Any], *, up: Callable[[Any], T], strict: bool = False) -> None: ...

    @overload
    def __init__(self, versions: Mapping[int, Any], *, up: Mapping[int, Up], strict: bool = False) -> None: ...

    def __init__(self, versions: Mapping[int, Any], *, up: Up | Mapping[int, Up], strict: bool = False) -> None:
        if len(versions) < 2 or not all(type(number) is int and number >= 0 for number in versions):
            raise InvalidArgument(f"versions={versions!r}: expected two versions or more, by numbers such as 1 and 2")
        numbers = sorted(versions)
        steps = {numbers[0]: up} if callable(up) else dict(up)
        if sorted(steps) != numbers[:-1]:
            wanted = ", ".join(map(str, numbers[:-1]))
            raise InvalidArgument(f"up={up!r}: expected one function for each version but the newest: {wanted}")
        self.versions: dict[int, Codec[Any]] = {number: _codec(number, versions[number]) for number in numbers}
        self.newest = numbers[-1]
        self.name = self.versions[self.newest].name
        self.content_type: str | None = self.label(self.newest)
        self.strict = strict
        self._numbers = numbers
        self._steps = steps

    def label(self, version: int) -> str:
        """The content type of that version."""
        return f"{self.versions[version].content_type}; version={version}"

    def encode(self, data: T, /) -> bytes:
        """By the newest version."""
        return self.versions[self.newest].encode(data)

    def decode(self, body: bytes, /) -> T:
        """As the newest version: without a head there is no other one."""
        made: T = self.versions[self.newest].decode(body)
        return made

    def decode_message(self, body: bytes, head: Head, /) -> T:
        """By the version of the content type, brought up to the newest."""
        version = self._version(head.content_type)
        data: Any = decode_by(self.versions[version], body, head)
        for number in self._numbers[self._numbers.index(version) : -1]:
            data = self._steps[number](data)
        found: T = data
        return found

    def _version(self, content_type: str | None) -> int:
        said = parameter(content_type, "version")
        if said is None:
            if self.strict:
                raise InvalidBody([("version", f"is missing in the content type {content_type!r}")])
            return self._numbers[0]
        if not (said.isascii() and said.isdigit() and len(said) < 10):
            raise InvalidBody([("version", f"{said[:20]!r} is no number")])
        version = int(said)
        known = ", ".join(map(str, self._numbers))
        if version > self.newest:
            raise NewerVersion(
                f"{self.name}: a message of version {version}; this consumer knows {known}. It comes back: deploy consumers "
                "of the new version, and redrive what has become a dead letter"
            )
        if version not in self.versions:
            raise InvalidBody([("version", f"{version} is not known any more; known are {known}")])
        return version

    def __repr__(self) -> str:
        return f"Versions({self.name}, {self._numbers})"


def _codec(number: int, given: Any) -> Codec[Any]:
    codec = check(given if hasattr(given, "encode") and not isinstance(given, type) else Model(given))
    if codec.content_type is None or hasattr(codec, "encode_message"):
        raise InvalidArgument(
            f"version {number}: {codec!r} cannot be versioned: it needs a content type of its own, and events are around "
            "versions and not in them, as in CloudEvents(Versions(...))"
        )
    return codec
