# Made from narrowboat/messaging/alterable.py by tools/generate_aio.py: change that file, and run this script.
"""What is stored with a queue or subscription, and altering it while it is in use, for asyncio."""

from __future__ import annotations

from typing import Generic, TypeVar

from narrowboat._messages.source import SourceCore
from narrowboat.aio.messaging.message import Seconds
from narrowboat.contract.messages import Properties

T = TypeVar("T")


class Alterable(Generic[T]):
    """A source with properties. Dead letters have none that anybody could alter."""

    _core: SourceCore[T]

    async def properties(self) -> Properties | None:
        """What is stored with it. None: it does not exist, or was never declared. `Unsupported` without the claim `alter`."""
        return await self._core.stored()

    async def alter(
        self,
        *,
        max_deliveries: int | None = None,
        lease: Seconds | None = None,
        ordered: bool | None = None,
        priorities: int | None = None,
    ) -> Properties:
        """Store another limit or lease, for consumers that ask for none of their own. Messages stay as they are.

        Consumers that come obey it, and those that run in what they fetch `alter_lag` seconds later. Returns what is
        stored then.

        Args:
            max_deliveries: as for a queue; None: as it is.
            lease: as for a queue; None: as it is.
            ordered: refused: it says how the messages lie.
            priorities: the same.

        Raises:
            NotFound: it does not exist, or was never declared.
            Unsupported: the backend does not claim `alter`, or this cannot be altered; nothing was sent.
            Unavailable: there was no answer; it may have been altered. It can be repeated.
        """
        return await self._core.alter(max_deliveries, lease, ordered, priorities)
