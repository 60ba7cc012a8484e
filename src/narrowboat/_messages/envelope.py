"""Makes of data and options the message that a driver is handed, checked (`checks.py`). It sends nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from narrowboat import codecs
from narrowboat._engine.checks import seconds, text
from narrowboat._messages.checks import MAX_DURATION, check_count, check_delay, check_headers, demand
from narrowboat.capabilities import BrokerCapabilities, Support
from narrowboat.contract.messages import Address, Kind, Outgoing
from narrowboat.errors import InvalidArgument

T = TypeVar("T")

#: At half the price of `Outgoing(...)`, which is paid for each message.
_outgoing: Callable[[tuple[Any, ...]], Outgoing] = partial(tuple.__new__, Outgoing)


@dataclass(frozen=True, slots=True)
class Outbound(Generic[T]):
    """One message for `publish_many` that needs more than its data; the fields are `publish`'s arguments."""

    data: T
    key: str | None = None
    headers: Mapping[str, str] | None = None
    delay: Any = 0
    priority: int = 0
    ttl: Any = None
    id: str | None = None
    correlation_id: str | None = None
    content_type: str | None = None


class Envelope(Generic[T]):
    """Turns data and options into the `Outgoing` of one address, checked. One for each queue or topic object."""

    __slots__ = ("_backend", "_body_max", "_claims", "_codec", "_content_type", "_encode_message", "_priorities", "_wall", "to")

    def __init__(
        self,
        to: Address,
        codec: codecs.Codec[T] | None,
        claims: BrokerCapabilities,
        backend: str,
        priorities: int,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.to = to
        self._codec = codec
        self._encode_message: Callable[[T, codecs.Head], codecs.Encoded] | None = getattr(codec, "encode_message", None)
        # A codec with a say in the head is asked for each message.
        self._content_type = None if codec is None or self._encode_message is not None else codec.content_type
        self._claims = claims
        self._body_max = claims.body_max
        self._backend = backend
        self._priorities = priorities
        self._wall = wall  # for people and for ages; nothing is decided by it

    def body(self, data: T) -> bytes:
        """The bytes of `data`."""
        codec = self._codec
        body: Any = data
        if codec is not None and data is not None:
            try:
                body = codec.encode(data)
            except Exception as error:
                raise self._refused(data, error) from error
        return self._checked(body)

    def _refused(self, data: object, error: Exception) -> InvalidArgument:
        name = "" if self._codec is None else self._codec.name
        return InvalidArgument(
            f"{self.to.path!r}: the codec {name!r} cannot encode this {type(data).__name__} "
            f"({type(error).__name__}: {error}); nothing was sent. "
            "Publish what that codec takes, or give the queue another one"
        )

    def _checked(self, body: Any) -> bytes:
        if type(body) is not bytes:
            raise InvalidArgument(f"{self.to.path!r}: {_no_bytes(body, self._codec)}")
        if len(body) > self._body_max:
            raise InvalidArgument(
                f"{self.to.path!r}: a body of {len(body)} bytes; {self._backend} takes up to {self._body_max}. "
                "Store it elsewhere and send where it is"
            )
        return body

    def plain(self, data: T, ids: Iterator[str] | None = None) -> Outgoing:
        """A message without options. `ids`: `new_ids()`, for one of many."""
        if self._encode_message is not None:
            return self.seal(Outbound(data))
        body: Any = data
        if self._codec is not None or type(body) is not bytes or len(body) > self._body_max:
            body = self.body(data)  # for most it would be one more call
        id = os.urandom(16).hex() if ids is None else next(ids)
        wall, kind = self._wall(), self._content_type
        return _outgoing((self.to, id, body, {}, None, wall, 0.0, 0, None, None, kind, None, False, None))

    def seal(self, item: Outbound[T], reply_to: Address | None = None) -> Outgoing:
        """A message with options."""
        claims, backend, delay, ttl = self._claims, self._backend, item.delay, item.ttl
        if delay != 0:
            delay = check_delay(claims, backend, delay, "delay=%s")
        if item.priority != 0:
            self._check_priority(item.priority)
        if ttl is not None:
            ttl = self._check_ttl(ttl, delay)
        content_type, encodes = item.content_type, self._encode_message
        outgoing = Outgoing(
            self.to,
            os.urandom(16).hex() if item.id is None else text("id", item.id),
            self.body(item.data) if encodes is None else b"",
            {} if item.headers is None else check_headers(item.headers, claims.headers_max),
            None if item.key is None else text("key", item.key),
            self._wall(),
            float(delay),
            item.priority,
            ttl,
            None if item.correlation_id is None else text("correlation_id", item.correlation_id),
            self._content_type if content_type is None else text("content_type", content_type),
            reply_to,
            item.id is not None and claims.dedup is not Support.ABSENT,
        )
        return outgoing if encodes is None else self._encoded(encodes, item.data, outgoing)

    def _encoded(self, encodes: Callable[[T, codecs.Head], codecs.Encoded], data: T, outgoing: Outgoing) -> Outgoing:
        """With what a codec makes of the head and the data."""
        if data is None:
            raise InvalidArgument(f"{self.to.path!r}: {_no_bytes(data, self._codec)}")
        try:
            body, content_type, headers = encodes(data, outgoing)
        except Exception as error:
            raise self._refused(data, error) from error
        return outgoing._replace(
            body=self._checked(body),
            content_type=None if content_type is None else text("content_type", content_type),
            headers=check_headers(headers, self._claims.headers_max),
        )

    def _check_ttl(self, asked: object, delay: float) -> float:
        allowed = f"more than 0 and up to {MAX_DURATION:.0f} seconds, as a number or a timedelta; None: no end"
        ttl = seconds("ttl", asked, low=0.0, high=MAX_DURATION, allowed=allowed)
        demand(self._claims.ttl, self._backend, f"ttl={ttl:g}", "ttl")
        if ttl > delay:
            return ttl
        when = f"with delay={delay:g}: it would expire before it could be delivered" if delay else "it would expire at once"
        raise InvalidArgument(f"ttl={ttl:g} {when}")

    def _check_priority(self, priority: object) -> None:
        check_count("priority", priority, 0, 1_000_000)
        demand(self._claims.priority, self._backend, f"priority={priority}", "priority")
        check_count("priority", priority, 0, self._priorities or self._claims.priorities_max)
        if not self._priorities and self.to.kind is not Kind.TOPIC:
            raise InvalidArgument(
                f"priority={priority}: {self.to.path!r} has no levels; "
                f"declare it with queue({self.to.name!r}, priorities={priority})"
            )


def new_ids() -> Iterator[str]:
    """Ids for one batch of messages: a system call for each would be a quarter of what the core does for a message.

    No two batches may share it: after a fork both processes would go on with the same ids.
    """
    number = 4
    while True:
        drawn = os.urandom(16 * number).hex()
        for start in range(0, len(drawn), 32):
            yield drawn[start : start + 32]
        number = min(2 * number, 256)


def _no_bytes(body: object, codec: codecs.Codec[Any] | None) -> str:
    if codec is not None and body is not None:
        return f"the codec {codec.name!r} made {type(body).__name__}; a body is bytes"
    hint = {
        str: "encode() it, or give the queue codec=narrowboat.codecs.TEXT",
        bytearray: "pass bytes(...): what may change afterwards cannot be sent",
        memoryview: "pass bytes(...): what may change afterwards cannot be sent",
        type(None): "None is no message",
    }.get(type(body), "give the queue a codec, such as narrowboat.codecs.JSON")
    return f"a body is bytes, got {type(body).__name__}; {hint}"
