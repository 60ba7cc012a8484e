# Made from narrowboat/messaging/publishing.py by tools/generate_aio.py: change that file, and run this script.
"""Publishing, for queues and topics alike, for asyncio."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

from narrowboat._engine.holdable import Uncopied
from narrowboat._messages.envelope import Outbound
from narrowboat._messages.source import SourceCore
from narrowboat.aio.messaging.enlisted import finished
from narrowboat.aio.messaging.message import Seconds
from narrowboat.contract.messages import Receipt
from narrowboat.errors import NarrowboatError

T = TypeVar("T")

_NO_OPTIONS = (None,) * 6


class Publisher(Uncopied, Generic[T]):
    """What can be published to. Safe to share between tasks, threads and loops, which then share exchanges and commits."""

    def __init__(self, core: SourceCore[T]) -> None:
        self._core = core

    @property
    def name(self) -> str:
        """Its name; a subscription's is that of its topic, a dot, and its group."""
        return self._core.address.path

    async def publish(
        self,
        data: T,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: Seconds = 0,
        priority: int = 0,
        ttl: Seconds | None = None,
        id: str | None = None,
        correlation_id: str | None = None,
        content_type: str | None = None,
    ) -> Receipt:
        """Publish one message; returns when the backend has it, at its declared durability.

        Args:
            data: bytes, or what the codec takes.
            key: messages of one key keep their order in an ordered source.
            headers: a mapping of text to text.
            delay: seconds before the message is delivered.
            priority: higher goes first, up to the source's `priorities`.
            ttl: seconds from now after which the message is not delivered any more; None: no end.
            id: the idempotency key; a second message of this id is dropped within the backend's window, where dedup is claimed.
            correlation_id: kept as it is.
            content_type: the codec's unless given.

        Raises:
            InvalidArgument: nothing was sent.
            Unsupported: the backend does not claim what is asked; nothing was sent.
            PublishFailed: the message will never be delivered.
            PublishUnknown: there was no answer; the message may be delivered. Repeat it with the same id.
        """
        envelope = self._core.envelope
        options = (key, headers, ttl, id, correlation_id, content_type)
        if self._core.core.around:
            item = Outbound(data, key, headers, delay, priority, ttl, id, correlation_id, content_type)
            with self._core.publishing((item,)) as (ready,):
                return await self._core.publish(envelope.seal(ready))
        if options == _NO_OPTIONS and delay == 0 and priority == 0:
            message = envelope.plain(data)  # most messages, and four times as fast
        else:
            message = envelope.seal(Outbound(data, key, headers, delay, priority, ttl, id, correlation_id, content_type))
        return await self._core.publish(message)

    async def send_in(
        self,
        connection: Any,
        data: T,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay: Seconds = 0,
        priority: int = 0,
        ttl: Seconds | None = None,
        id: str | None = None,
        correlation_id: str | None = None,
        content_type: str | None = None,
    ) -> None:
        """Publish one message in a transaction of your own: it is there, and consumers wake, if and when that is committed.

        Args:
            connection: yours, to the database of this broker's URL. The backend's page says which clients it knows.
            data: as for `publish`, and so are the others.
            key: see there.
            headers: see there.
            delay: seconds from this call, and not from the commit.
            priority: see there.
            ttl: seconds from this call.
            id: for people; it is not looked for, as the transaction makes the message once.
            correlation_id: see there.
            content_type: see there.

        Raises:
            InvalidArgument: nothing was sent.
            Unsupported: the backend does not claim `outbox`; nothing was sent.
            Unavailable: the backend was not reached over a connection of its own, which the first call needs; nothing was sent.

            What the connection raises is raised as it is; its transaction has then failed.
        """
        options = (key, headers, delay, priority, ttl, id, correlation_id, content_type)
        enlist = await self._core.enlisting(data, options)
        await finished(enlist(connection))

    async def publish_many(self, messages: Iterable[T | Outbound[T]]) -> list[Receipt | NarrowboatError]:
        """Publish all of them in as few exchanges as can be: one outcome for each, its receipt or the error it met.

        Args:
            messages: data as for `publish`, or `Outbound` where a message has options.

        Raises:
            InvalidArgument: one of them cannot be sent, and `position` says which; none was sent.
        """
        if self._core.core.around:
            with self._core.publishing(messages) as ready:
                return await self._core.publish_many(self._core.seal_many(ready))
        return await self._core.publish_many(self._core.seal_many(messages))

    async def declare(self) -> None:
        """Create it now, unless it exists. Raises `Conflict` if it exists in another order or with other priorities."""
        await self._core.declare()

    async def delete(self) -> bool:
        """Delete it with all its messages, a topic with its subscriptions. False: it did not exist."""
        return await self._core.delete()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"
