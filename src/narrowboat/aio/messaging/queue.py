# Made from narrowboat/messaging/queue.py by tools/generate_aio.py: change that file, and run this script.
"""Queues: each message to one consumer, kept until it is consumed, for asyncio."""

from __future__ import annotations

from typing import TypeVar

from narrowboat._messages.requests import Reply
from narrowboat._messages.source import dead_letters_of
from narrowboat.aio.messaging.alterable import Alterable
from narrowboat.aio.messaging.dead_letters import DeadLetters
from narrowboat.aio.messaging.message import Seconds
from narrowboat.aio.messaging.publishing import Publisher
from narrowboat.aio.messaging.source import Readable

T = TypeVar("T")


class Queue(Publisher[T], Alterable[T], Readable[T]):
    """A queue by its name. It exists after the first publish, consume or declare."""

    async def request(self, body: T, timeout: Seconds) -> Reply[T]:
        """Publish a request and wait for its reply, which the other side sends with `message.reply(...)`.

        Raises `RequestTimeout` after `timeout` seconds; the request may still be answered, and that reply is dropped.
        """
        return await self._core.request(body, timeout)

    def dead_letters(self) -> DeadLetters[T]:
        """The queue of messages that were rejected or delivered too often."""
        return DeadLetters(dead_letters_of(self._core))
