"""What one queue, topic, subscription or dead-letter queue does, once for both faces: the thin twins only wait for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

from narrowboat._engine.checks import flag, seconds
from narrowboat._engine.exchange import Call
from narrowboat._engine.runtime import Runtime, answer_of
from narrowboat._messages.checks import (
    MAX_DURATION,
    check_change,
    check_count,
    check_group,
    check_properties,
    check_source_name,
    check_start,
    demand,
)
from narrowboat._messages.consumer import Consumer
from narrowboat._messages.core import BrokerCore
from narrowboat._messages.delivery import TrackedDelivery
from narrowboat._messages.envelope import Envelope, Outbound, new_ids
from narrowboat._messages.requests import Reply, requests_of
from narrowboat._messages.terms import OWN, asked
from narrowboat.codecs import Codec
from narrowboat.codecs import check as check_codec
from narrowboat.contract.messages import Address, Broker, Delivery, Depth, Kind, Outgoing, Properties, Receipt, Source
from narrowboat.errors import InvalidArgument, NarrowboatError

T = TypeVar("T")
M = TypeVar("M", bound=TrackedDelivery[Any])

#: What a dead-letter queue is declared with: its messages are never rejected for how often they were looked at.
DEAD_PROPERTIES = Properties(max_deliveries=0)


def check_many(items: object) -> None:
    """`InvalidArgument` for one message where many are expected."""
    if isinstance(items, (str, bytes, bytearray, memoryview, Mapping)):
        raise InvalidArgument(
            f"publish_many takes a list of messages, and got one {type(items).__name__}; for one message there is publish()"
        )


class SourceCore(Generic[T]):
    """An address with its properties and codec, and what can be done there. `origin` is set for dead letters.

    `own`: the names of the properties that the program asked for, where it need not; see `terms`.
    """

    def __init__(
        self,
        core: BrokerCore,
        source: Source,
        codec: Codec[T] | None,
        *,
        earliest: bool = False,
        origin: SourceCore[T] | None = None,
        own: frozenset[str] = OWN,
    ) -> None:
        self.core = core
        self.unclosed = core.unclosed()
        self.source = source
        self.address = source.address
        self.codec = codec
        self.earliest = earliest
        self.origin = origin
        self.own = own
        self.runs: set[Any] = set()  #: each `run` that is under way, of either face
        self.envelope: Envelope[T] = Envelope(
            source.address, codec, core.capabilities, core.backend, source.properties.priorities
        )

    # -- publishing -----------------------------------------------------------------------------------------------

    async def publish(self, message: Outgoing) -> Receipt:
        """Send one; raises what it met."""
        (answer,) = await self.core.publish((message,))
        if isinstance(answer, Exception):
            try:
                raise answer
            finally:
                del answer  # its traceback leads here: the two would keep each other, and what the caller holds
        return answer

    def seal_many(self, items: Iterable[T | Outbound[T]]) -> list[Outgoing]:
        """The messages for `publish_many`, each of them checked.

        Called before that call begins: `items` and a codec are the program's, and may make calls of their own.
        """
        self.core.check_open()
        check_many(items)
        plain, seal, ids = self.envelope.plain, self.envelope.seal, new_ids()
        messages: list[Outgoing] = []
        for position, item in enumerate(items):
            try:
                messages.append(seal(item) if isinstance(item, Outbound) else plain(item, ids))
            except InvalidArgument as error:
                refused = InvalidArgument(f"message {position} of publish_many: {error}")
                refused.position = position
                raise refused from error
        return messages

    def publishing(self, items: Iterable[T | Outbound[T]]) -> AbstractContextManager[list[Outbound[T]]]:
        """Within what is around each publish: what there is to seal."""
        from narrowboat._messages.around import publishing  # for brokers that have been given some

        check_many(items)
        return publishing(self.core.around, self.address.path, items, self.core.backend, self.core.server)

    async def publish_many(self, messages: Sequence[Outgoing]) -> list[Receipt | NarrowboatError]:
        """Send them all: one outcome for each."""
        return await self.core.publish(messages) if messages else []

    async def enlisting(self, data: T, options: tuple[Any, ...]) -> Callable[[Any], Awaitable[object] | None]:
        """What stores one in the transaction of the connection that it is called with; see `Broker.enlist`."""
        core = self.core
        core.check_open()
        demand(core.capabilities.outbox, core.backend, "send_in()", "outbox")
        message = self.envelope.seal(Outbound(data, *options))
        if core.enlists is None:  # what a first use makes is not made in the caller's transaction
            core.enlists = await core.ask(_reached)
        driver = core.enlists
        return lambda connection: driver.enlist(connection, message)

    # -- the source itself ----------------------------------------------------------------------------------------

    async def declare(self) -> None:
        """Make it if it is not there."""
        await self.core.ask(lambda driver: driver.declare(self.source, earliest=self.earliest))

    async def stored(self) -> Properties | None:
        """What it was declared with, or altered to."""
        demand(self.core.capabilities.alter, self.core.backend, "properties()", "alter")
        return await self.core.ask(lambda driver: driver.stored(self.address))

    async def alter(self, max_deliveries: Any, lease: Any, ordered: Any, priorities: Any) -> Properties:
        """Store another limit or lease; see `Broker.alter`."""
        core = self.core
        core.check_open()
        seconds, limit = check_change(
            core.capabilities, core.backend, self.address.path, max_deliveries, lease, ordered, priorities
        )
        return await core.ask(lambda driver: driver.alter(self.address, lease=seconds, max_deliveries=limit))

    async def delete(self) -> bool:
        """Remove it with its messages."""
        return await self.core.ask(lambda driver: driver.delete(self.address))

    async def purge(self) -> int:
        """Drop what is ready or delayed."""
        return await self.core.ask(lambda driver: driver.purge(self.address))

    async def depth(self, runtime: Runtime | None = None) -> Depth:
        """How many messages it has. `runtime`: the caller's, where that is none of this face."""
        core = self.core
        core.check_open()
        demand(core.capabilities.depth, core.backend, "depth()", "depth")
        call = Call(core.CALL, (lambda driver: driver.depth(self.address),))
        found: Depth = await answer_of(runtime or core.runtime, core.fetches, call)
        return found

    # -- consuming ------------------------------------------------------------------------------------------------

    def consumer(
        self,
        make: Callable[[Consumer[Any], Delivery, float, float, float | None], M],
        *,
        prefetch: int,
        auto_extend: bool,
        max_extend: Any,
    ) -> Consumer[M]:
        """A consumer that is checked and not open yet."""
        self.core.check_open()
        consumer: Consumer[M] = Consumer(
            self.core,
            self.source,
            self.codec,
            make,
            prefetch=check_count("prefetch", prefetch, 1, 1_000_000),
            auto_extend=flag("auto_extend", auto_extend),
            max_extend=seconds("max_extend", max_extend, low=0.0, high=MAX_DURATION, allowed="0 or more seconds"),
            own=self.own,
        )
        consumer.unclosed = self.unclosed
        return consumer

    async def open(self, consumer: Consumer[Any]) -> None:
        """Open it: every message published from then on reaches the source."""

        def opened(driver: Broker) -> Consumer[Any]:
            consumer.open(driver, earliest=self.earliest)
            return consumer

        try:
            await self.core.ask(opened, lambda consumer: consumer.closing.abandon())
        except BaseException:
            consumer.closing.abandon()
            raise

    # -- asking ---------------------------------------------------------------------------------------------------

    async def request(self, data: T, timeout: Any) -> Reply[T]:
        """Send `data` with an address for the reply, and wait for it."""
        core = self.core
        core.check_open()
        demand(core.capabilities.request_reply, core.backend, "request()", "request_reply")
        length = seconds(
            "timeout", timeout, low=0.0, high=MAX_DURATION, allowed="0 or more seconds, as a number or a timedelta"
        )

        def message(reply_to: Address, correlation_id: str) -> Outgoing:
            return self.envelope.seal(Outbound(data, correlation_id=correlation_id), reply_to)

        self.envelope.plain(data)  # refused before an inbox is made
        return Reply(await requests_of(core).request(message, length), self.codec, core.backend)


def _reached(driver: Broker) -> Broker:
    driver.ping()
    return driver


def make_queue(
    core: BrokerCore,
    name: str,
    codec: Codec[T] | None,
    max_deliveries: int | None,
    lease: Any,
    ordered: bool,
    priorities: int,
) -> SourceCore[T]:
    """A queue, checked; nothing is sent."""
    core.check_open()
    properties = check_properties(core.capabilities, core.backend, max_deliveries, lease, ordered, priorities)
    address = Address(Kind.QUEUE, check_source_name("queue", name))
    own = asked(lease=lease, max_deliveries=max_deliveries)
    return SourceCore(core, Source(address, properties), codec if codec is None else check_codec(codec), own=own)


def make_topic(core: BrokerCore, name: str, codec: Codec[T] | None) -> SourceCore[T]:
    """A topic, checked; nothing is sent."""
    core.check_open()
    demand(core.capabilities.topics, core.backend, "topic()", "topics")
    address = Address(Kind.TOPIC, check_source_name("topic", name))
    return SourceCore(core, Source(address, Properties()), codec if codec is None else check_codec(codec))


def make_subscription(
    topic: SourceCore[T],
    group: str,
    max_deliveries: int | None,
    lease: Any,
    ordered: bool,
    priorities: int,
    start: str,
) -> SourceCore[T]:
    """One group of a topic, checked; nothing is sent."""
    core = topic.core
    core.check_open()
    properties = check_properties(core.capabilities, core.backend, max_deliveries, lease, ordered, priorities)
    earliest = check_start(core.capabilities, core.backend, start)
    address = Address(Kind.SUBSCRIPTION, topic.address.name, check_group(group))
    own = asked(lease=lease, max_deliveries=max_deliveries)
    return SourceCore(core, Source(address, properties), topic.codec, earliest=earliest, own=own)


def dead_letters_of(source: SourceCore[T]) -> SourceCore[T]:
    """Its dead letters, as a source."""
    core = source.core
    core.check_open()
    demand(core.capabilities.dead_letters, core.backend, "dead_letters()", "dead_letters")
    return SourceCore(core, Source(source.address.dead, DEAD_PROPERTIES), source.codec, origin=source)


async def list_sources(core: BrokerCore) -> list[Address]:
    """What there is behind a broker, by name."""
    demand(core.capabilities.listing, core.backend, "sources()", "listing")
    found = await core.ask(lambda driver: driver.sources())
    return sorted(found, key=lambda address: (address.path, address.kind.value))
