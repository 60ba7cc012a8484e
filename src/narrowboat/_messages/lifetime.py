"""How far a consumer is on its way: open, stopped, closed; or the parent's, in a forked child. And its feed.

*Stopped*: nothing more is handed out, and what was handed out can still be settled. *Closed*: all deliveries have
gone back, and the driver is not asked any more. *Forked*: all deliveries are the parent's. A consumer that is closed
or forked is stopped as well, and it leaves none of these states. Each flag is set by a single step without a mutex,
because `stop` may be called in a signal handler. `close.py` sets the flags; all other files read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from narrowboat._messages.core import BrokerCore
from narrowboat._messages.delivery import TrackedDelivery
from narrowboat._messages.window import Window
from narrowboat.contract.messages import Feed
from narrowboat.errors import Closed, NarrowboatError


class Lifetime:
    """See the module's text."""

    feed: Feed  #: once it is open

    def __init__(self, core: BrokerCore, path: str) -> None:
        self.stopped = False
        self.closed = False
        self.forked = False
        self.opened: list[Feed] = []  #: the feed; a list, so that an interrupt cannot come between its opening and its keeping
        self.feed_closed = False
        self._core = core
        self._path = path

    def check(self) -> bool:
        """Whether the consumer was stopped. Raises `Closed` if it, or the broker, was closed, and in a forked child."""
        if not self.stopped and not self._core.closed:
            return False
        if self.forked:
            raise Closed(
                f"consumer of {self._path!r}: it is the parent's; open a new one in the forked child",
                backend=self._core.backend,
            )
        if self.closed or self._core.closed:
            raise Closed(f"consumer of {self._path!r}: closed", backend=self._core.backend)
        return True

    def refusals(self, window: Window[Any], entries: Sequence[TrackedDelivery[Any]]) -> list[NarrowboatError | None]:
        """What settling or extending `entries` comes to after the end: an error for each. No driver is asked."""
        self._core.check_open()
        if self.forked:
            text = "its consumer is the parent's, and so is the message; nothing was changed"
            return [Closed(f"message {each.id!r} from {self._path!r}: {text}", backend=self._core.backend) for each in entries]
        with window.mutex:
            for entry in entries:
                window.drop(entry)
        return [entry._stale() for entry in entries]
