"""The histories of message scenarios: publish and consume under faults, write down the outcomes, and judge them.

Use them when a scenario cannot say which message comes when, only that none may be lost or invented.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

from narrowboat.conformance.checks.history_queues import History, Verdict, check
from narrowboat.conformance.message_kit import MessageKit
from narrowboat.errors import BrokerError, NarrowboatError, PublishFailed, PublishUnknown, Unavailable


def lease_for_outages(kit: MessageKit) -> float:
    """A lease in seconds that outlives one driver call that times out."""
    return max(kit.broker_claims.lease_min, 1.5 * kit.operation)


async def published(
    history: History, queue: Any, id: str, key: str | None = None, failed: tuple[type[NarrowboatError], ...] = (PublishFailed,)
) -> None:
    """Publish under `id`, and record the outcome. `failed` are the errors that say that nothing was sent."""
    try:
        await queue.publish(b"x", id=id, key=key)
    except PublishUnknown:
        history.uncertain(id, key)
    except failed:
        history.failed(id)
    else:
        history.published(id, key)


async def acked(history: History, message: Any, doubt: tuple[type[NarrowboatError], ...] = ()) -> bool:
    """Record the delivery, and ack it. Whether the ack was answered: an error of `doubt` is recorded as unknown."""
    history.delivered(message.id, message.attempt)
    try:
        await message.ack()
    except doubt:
        history.ack_unknown(message.id)
        return False
    history.acked(message.id)
    return True


async def judged(
    history: History, source: Any, idle: float, doubt: tuple[type[NarrowboatError], ...] = (), **terms: Any
) -> Verdict:
    """Empty `source` until no message came for `idle` seconds, and check the history. The terms are those of `check`."""
    async with source.consume() as messages:
        while (message := await messages.receive(idle)) is not None:
            await acked(history, message, doubt)
    return check(history, drained=True, **terms)


class Traffic:
    """Publishers and consumers of one queue that bear outages, and the history of what came of each message.

    They work until `end` is called. Only they and `judged` write the history.
    """

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._ended = asyncio.Event()
        self.consumers = 0  #: that are open: an outage before that is one of `consume`, which may raise
        self.history = History()
        self.answered: dict[str, float] = {}  #: when the ack of each id was answered, by the monotonic clock

    def end(self) -> None:
        """Let each publisher and consumer return after what it is doing."""
        self._ended.set()

    async def publish(self, name: str, *, keyed: bool = False, pause: float = 0.005) -> None:
        """A publisher: messages with ids of its own, and `name` as their key where they are `keyed`."""
        for number in itertools.count():
            if self._ended.is_set():
                return
            failed = (PublishFailed, Unavailable)
            await published(self.history, self._queue, f"{name}-{number}", name if keyed else None, failed)
            await asyncio.sleep(pause)

    async def consume(self, prefetch: int) -> None:
        """A consumer that acks each message, and goes on after it was told that the server cannot be reached."""
        async with self._queue.consume(prefetch=prefetch) as messages:
            self.consumers += 1
            while not self._ended.is_set():
                try:
                    message = await messages.receive(0.2)
                except Unavailable:
                    await asyncio.sleep(0.1)
                    continue
                if message is not None and await acked(self.history, message, (BrokerError,)):
                    self.answered[message.id] = time.monotonic()
