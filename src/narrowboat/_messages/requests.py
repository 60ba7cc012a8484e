"""Requests and their replies: one inbox for the whole face, shared by everybody who waits for a reply.

It has no thread. Whoever waits looks into the inbox when it is woken, and what it finds for others it gives to them. A
reply that nobody waits for any more is acknowledged and dropped. Requests are messages like all others: a request that
timed out may still be answered, so what it asks for must be harmless when it is done twice.
"""

from __future__ import annotations

import enum
import math
import os
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from narrowboat._messages.consumer import ACK, Consumer
from narrowboat._messages.entry import Entry, decode
from narrowboat._messages.envelope import Envelope, demand
from narrowboat.codecs import Codec
from narrowboat.contract.messages import Address, Broker, Delivery, Kind, Outgoing, Properties, Received, Source
from narrowboat.errors import InvalidArgument, RequestTimeout

if TYPE_CHECKING:
    from narrowboat._messages.core import BrokerCore
    from narrowboat._messages.source import SourceCore

T = TypeVar("T")

#: Replies fetched in one call. They are given away at once, so this bounds a call and not what is unsettled.
PREFETCH = 1000
#: What an inbox is for the core: no lease that anybody extends, no dead letters.
PROPERTIES = Properties(max_deliveries=0)


class ReplyTo(enum.Enum):
    """Where `message.reply` may send: `?reply_to=`."""

    INBOX = "inbox"  #: to an inbox of ours, and nowhere else
    ANY = "any"  #: wherever the message says, and so wherever its publisher likes


class Reply(Generic[T]):
    """The answer to a request."""

    __slots__ = ("_backend", "_codec", "_delivery")

    def __init__(self, delivery: Delivery, codec: Codec[T] | None, backend: str) -> None:
        self._backend = backend
        self._delivery = delivery
        self._codec = codec

    @property
    def body(self) -> bytes:
        """The bytes."""
        return self._delivery.body

    @property
    def data(self) -> T:
        """What the queue's codec makes of the body; the body itself without a codec."""
        return decode(self._codec, self._delivery, "inbox", self._backend)

    @property
    def id(self) -> str:
        """The reply's own id."""
        return self._delivery.id

    @property
    def headers(self) -> Mapping[str, str]:
        """Text to text, read-only."""
        return MappingProxyType(dict(self._delivery.headers))

    @property
    def correlation_id(self) -> str | None:
        """The request's."""
        return self._delivery.correlation_id

    @property
    def content_type(self) -> str | None:
        """What the codec of the one who replied says."""
        return self._delivery.content_type

    def __repr__(self) -> str:
        return f"<Reply {self.id!r} {len(self.body)} bytes>"


def make_reply(entry: Entry[Any], data: Any) -> Outgoing:
    """The reply to a request, checked."""
    core, to = entry._consumer.core, entry._delivery.reply_to
    demand(core.capabilities.request_reply, core.backend, "reply()", "request_reply")
    if to is None:
        raise InvalidArgument(
            f"message {entry.id!r} from {entry._consumer.path!r} asks for no reply: it was published, not sent with request()"
        )
    if core.reply_to is not ReplyTo.ANY and not core.driver.get().is_inbox(to):
        raise InvalidArgument(
            f"message {entry.id!r} from {entry._consumer.path!r} asks for its reply at the {to.kind.value} {to.path!r}, which "
            "is no inbox of Narrowboat's: nothing was sent, and the message is not settled. Reject it; or open the broker with "
            "?reply_to=any, if whoever publishes here may choose where you publish"
        )
    envelope: Envelope[Any] = Envelope(to, entry._consumer.codec, core.capabilities, core.backend, 0)
    return envelope.seal(
        data,
        key=None,
        headers=None,
        delay=0,
        priority=0,
        ttl=None,
        id=None,
        correlation_id=entry.correlation_id,
        content_type=None,
    )


class Requests(Consumer[Entry[Any]]):
    """The inbox of a face: a consumer whose messages go to those who wait for them."""

    def __init__(self, core: BrokerCore) -> None:
        # Until the driver has named it, the address is only for texts.
        source = Source(Address(Kind.INBOX, "inbox"), PROPERTIES)
        super().__init__(core, source, None, Entry, prefetch=PREFETCH, auto_extend=False, max_extend=0.0)
        self.address: Address | None = None
        self._opening = threading.Lock()
        self._expected: dict[str, tuple[list[Delivery], Any]] = {}  # by correlation id: where the reply goes, whom to wake

    async def request(self, source: SourceCore[Any], message: Callable[[Address, str], Outgoing], timeout: float) -> Delivery:
        """Send what `message` makes of a reply address and a correlation id; the reply, or `RequestTimeout`."""
        core, runtime = self.core, self.core.runtime
        ends = core.clock() + timeout
        address = self.address
        if address is None:
            address = await core.ask(self._open)
        correlation, token, signal = os.urandom(16).hex(), object(), runtime.signal()
        replies: list[Delivery] = []
        self._expected[correlation] = replies, signal
        self._waiters[signal] = None
        try:
            await source.publish(message(address, correlation))
            begun = self._looks
            while not replies:
                self._over()
                now = core.clock()
                looked = self._looks > begun
                limit, again = self._plan(token, now, looked, hurry=now >= ends and not looked)
                if limit:
                    await self._fetch(token, limit)
                elif now < ends:
                    await runtime.wait(signal, min(ends, again))
                else:
                    raise RequestTimeout(
                        f"request {correlation} to {source.address.path!r}: no reply within {timeout:g} s; a late one is "
                        "dropped. Is somebody consuming there, and does it call message.reply()?",
                        id=correlation,
                        backend=core.backend,
                    ) from self._failure
            return replies[0]
        finally:
            self._expected.pop(correlation, None)
            self._leave(token, signal)

    def _open(self, driver: Broker) -> Address:
        """Open the inbox, once. Of several who come at the same time (an open lane lets them all in) one opens it."""
        with self._opening:
            if self.address is None:
                address, self.feed = driver.inbox(self.wake)
                with self.core.mutex:
                    self.core.consumers.add(self)
                self.address = address
            return self.address

    def _admit(self, received: Received, since: float) -> None:
        """Give each reply to whoever waits for it, and acknowledge them all: none of them ever comes back."""
        entries = [Entry[Any](self, delivery, math.inf, since, None) for delivery in received.deliveries]
        with self.mutex:
            self.unsettled.update(entries)
            self._look_again = 0.0 if entries else self.core.clock() + received.retry_after
        for entry in entries:
            expected = self._expected.get(entry.correlation_id or "")
            if expected is not None:
                replies, signal = expected
                replies.append(entry._delivery)
                signal.set()
        if entries:
            self.post(entries, ACK)

    def _fetched(self) -> None:
        """One looks on; those whose reply came have been woken by it."""
        self.rouse(1)
