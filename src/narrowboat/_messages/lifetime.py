"""How far a consumer is on its way: open, stopped, closed; or the parent's, in a forked child. And its feed.

*Stopped*: nothing more is handed out, and what was handed out can still be settled. *Closed*: all it had has gone
back, and no driver is asked any more. *Forked*: all of it is the parent's. The last two are stopped as well, and no
state is left again. The flags are set without a mutex, each by a single step, because `stop` may be called in a
signal handler. `close.py` sets them, and says what the end of a consumer takes; everybody else reads.
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
        """Whether it was stopped. Raises `Closed` where it was not the caller who ended it."""
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
