"""The dead letters of a queue or subscription: an ordinary queue without dead letters of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from narrowboat._engine.runtime import run
from narrowboat._messages.redrive import redrive
from narrowboat.messaging.source import Readable

T = TypeVar("T")


class DeadLetters(Readable[T]):
    """What was rejected or delivered too often, with `message.dead` saying why. Consume them, count them, redrive them."""

    def redrive(self, count: int | None = None, *, ids: Iterable[str] | None = None) -> int:
        """Move them back to where they come from, oldest first, with the same id, body, key and headers; how many.

        Each is moved at least once, exactly once unless the process dies half way. What dies again meanwhile is left.

        Args:
            count: the most that are moved; None: all that are there now.
            ids: only letters with these ids, the oldest of each; None: all. The first 100,000 letters are looked through, and
                nobody else can read them meanwhile.
        """
        return run(redrive(self._core, count, ids))

    def delete(self) -> bool:
        """Delete them all. False: there were none."""
        return run(self._core.delete())
