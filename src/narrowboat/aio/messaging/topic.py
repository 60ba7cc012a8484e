# Made from narrowboat/messaging/topic.py by tools/generate_aio.py: change that file, and run this script.
"""Topics: every subscription gets each message once, for asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NoReturn, TypeVar

from narrowboat._messages.source import dead_letters_of, make_subscription
from narrowboat.aio.messaging.alterable import Alterable
from narrowboat.aio.messaging.dead_letters import DeadLetters
from narrowboat.aio.messaging.message import Seconds
from narrowboat.aio.messaging.publishing import Publisher
from narrowboat.aio.messaging.source import Readable

T = TypeVar("T")

_OF_GROUPS = {"consume", "run", "stop", "depth", "purge", "dead_letters", "request"}


class Topic(Publisher[T]):
    """A topic by its name. What is published while it has no subscriptions is dropped."""

    if not TYPE_CHECKING:  # a checker tells by itself

        def __getattr__(self, name: str) -> NoReturn:
            """Point to `subscription` where a queue's method is looked for on a topic."""
            hint = f": {self.name!r} is a topic; its messages are those of subscription('group')" if name in _OF_GROUPS else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")

    def subscription(
        self,
        group: str,
        *,
        max_deliveries: int | None = None,
        lease: Seconds | None = None,
        ordered: bool = False,
        priorities: int = 0,
        start: Literal["latest", "earliest"] = "latest",
    ) -> Subscription[T]:
        """One group of this topic; its members share its messages. Nothing is sent yet: it exists, and gets what is
        published, once `declare()` or `consume()` has returned.

        Args:
            group: its name, without dots.
            max_deliveries: as for a queue.
            lease: as for a queue.
            ordered: as for a queue.
            priorities: as for a queue.
            start: "earliest" begins with what the topic still has, where the backend claims replay.
        """
        return Subscription(make_subscription(self._core, group, max_deliveries, lease, ordered, priorities, start))


class Subscription(Alterable[T], Readable[T]):
    """One group of a topic."""

    async def declare(self) -> None:
        """Create it now, unless it exists: it gets every message from then on. Raises as a queue's `declare`."""
        await self._core.declare()

    async def delete(self) -> bool:
        """Delete it with its messages. False: it did not exist."""
        return await self._core.delete()

    def dead_letters(self) -> DeadLetters[T]:
        """What was rejected or delivered too often; a redrive goes to this subscription only."""
        return DeadLetters(dead_letters_of(self._core))
