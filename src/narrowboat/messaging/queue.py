"""Queues: each message to one consumer, kept until it is consumed."""

from __future__ import annotations

from typing import TypeVar

from narrowboat._engine.runtime import run
from narrowboat._messages.requests import Reply
from narrowboat._messages.source import dead_letters_of
from narrowboat.messaging.alterable import Alterable
from narrowboat.messaging.dead_letters import DeadLetters
from narrowboat.messaging.message import Seconds
from narrowboat.messaging.publishing import Publisher
from narrowboat.messaging.source import Readable

T = TypeVar("T")


class Queue(Publisher[T], Alterable[T], Readable[T]):
    """A queue by its name. It exists after the first publish, consume or declare."""

    def request(self, body: T, timeout: Seconds) -> Reply[T]:
        """Publish a request and wait for its reply, which the other side sends with `message.reply(...)`.

        Raises `RequestTimeout` after `timeout` seconds; the request may still be answered, and that reply is dropped.
        """
        return run(self._core.request(body, timeout))

    def dead_letters(self) -> DeadLetters[T]:
        """The queue of messages that were rejected or delivered too often."""
        return DeadLetters(dead_letters_of(self._core))
