"""Requests and their replies: one inbox for the whole face, shared by all callers that wait for a reply.

The inbox has no thread. A caller that waits polls it when it is woken, and hands other callers' replies to them. A
reply that no caller waits for any more is acknowledged and dropped. Requests are ordinary messages: a request that
timed out may still be answered, so what it asks for must be harmless when it is done twice.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from narrowboat._messages.checks import MAX_DURATION, demand
from narrowboat._messages.consumer import Consumer
from narrowboat._messages.core import BrokerCore, ReplyTo
from narrowboat._messages.delivery import Content, TrackedDelivery, decode
from narrowboat._messages.envelope import Envelope, Outbound
from narrowboat._messages.polling import Visit
from narrowboat._messages.settle import ACK
from narrowboat.codecs import Codec
from narrowboat.contract.messages import Address, Broker, Delivery, Kind, Outgoing, Properties, Source
from narrowboat.errors import InvalidArgument, RequestTimeout

T = TypeVar("T")

#: Replies fetched in one call. They are handed over at once, so this bounds a call and not what is unsettled.
PREFETCH = 1000
#: What an inbox is for the core: no lease that ends, no dead letters.
PROPERTIES = Properties(lease=MAX_DURATION, max_deliveries=0)


class Reply(Content, Generic[T]):
    """The answer to a request."""

    __slots__ = ("_backend", "_codec")

    def __init__(self, delivery: Delivery, codec: Codec[T] | None, backend: str) -> None:
        super().__init__(delivery)
        self._backend = backend
        self._codec = codec

    @property
    def data(self) -> T:
        """What the queue's codec makes of the body; the body itself without a codec."""
        return decode(self._codec, self._delivery, "inbox", self._backend)

    def __repr__(self) -> str:
        return f"<Reply {self.id!r} {len(self.body)} bytes>"


def make_reply(core: BrokerCore, entry: TrackedDelivery[Any], data: Any) -> Outgoing:
    """The reply to a request, checked."""
    to = entry._delivery.reply_to
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
    return envelope.seal(Outbound(data, correlation_id=entry.correlation_id))


class Requests:
    """The inbox of a face, and the callers that wait for replies. Owns which reply belongs to which caller."""

    def __init__(self, core: BrokerCore) -> None:
        self._core = core
        # Until the driver has named it, the address is only for error texts.
        source = Source(Address(Kind.INBOX, "inbox"), PROPERTIES)
        self._consumer: Consumer[TrackedDelivery[Any]] = Consumer(
            core, source, None, TrackedDelivery, prefetch=PREFETCH, auto_extend=False, max_extend=0.0
        )
        self._address: Address | None = None
        self._opening = threading.Lock()
        self._expected: dict[str, tuple[list[Delivery], Visit]] = {}  # by correlation id: where the reply goes, whom to wake

    def wait_by(self, runtime: Any) -> None:
        """Wait for replies by `runtime`, and not by the broker's: in a test nobody else lets time pass."""
        self._consumer.runtime = runtime

    async def request(self, message: Callable[[Address, str], Outgoing], timeout: float) -> Delivery:
        """Send the message that `message` makes of a reply address and a correlation id. Returns the reply.

        Raises `RequestTimeout` after `timeout` seconds; the request may still be answered.
        """
        core, consumer = self._core, self._consumer
        ends = core.clock() + timeout
        address = self._address
        if address is None:
            address = await core.ask(self._open)
        correlation, visit = os.urandom(16).hex(), consumer.polling.enter()
        replies: list[Delivery] = []
        self._expected[correlation] = replies, visit
        try:
            outgoing = message(address, correlation)
            (receipt,) = await core.publish((outgoing,))
            if isinstance(receipt, Exception):
                raise receipt
            visit.begun = consumer.polling.begun  # a fetch that began earlier cannot bring this reply
            while True:
                self._give()
                if replies:
                    return replies[0]
                consumer.life.check()
                if not await consumer.advance(visit, core.clock(), ends):
                    raise RequestTimeout(
                        f"request {correlation} to {outgoing.to.path!r}: no reply within {timeout:g} s; a late one is "
                        "dropped. Is somebody consuming there, and does it call message.reply()?",
                        id=correlation,
                        backend=core.backend,
                    ) from consumer.polling.failure
        finally:
            self._expected.pop(correlation, None)
            consumer.polling.leave(visit, core.clock)

    def _open(self, driver: Broker) -> Address:
        """Open the inbox, once. An open lane lets several callers in at the same time; one of them opens it."""
        with self._opening:
            if self._address is None:
                address, feed = driver.inbox(self._consumer.polling.wake)
                self._consumer.adopt(feed)
                self._address = address
            return self._address

    def _give(self) -> None:
        """Hand each reply in the buffer to the caller that waits for it, and acknowledge all: a reply is never redelivered."""
        window = self._consumer.window
        if not window.buffer:
            return
        came: list[TrackedDelivery[Any]] = []
        try:
            window.take(PREFETCH, came, self._core.clock())
            for entry in came:
                expected = self._expected.get(entry.correlation_id or "")
                if expected is not None:
                    replies, visit = expected
                    replies.append(entry._delivery)
                    if visit.signal is not None:  # else the caller has not begun to wait, and looks at `replies` first
                        visit.signal.set()
            self._consumer.settlement.post(came, ACK)
        except BaseException:
            window.put_back(came)  # for the next caller that polls; handing a reply over twice does no harm
            raise
        self._consumer.post_condemned()


def requests_of(core: BrokerCore) -> Requests:
    """The requests of a face, made at the first one."""
    with core.mutex:
        if core.requests is None:
            core.requests = Requests(core)
        made: Requests = core.requests
    return made
