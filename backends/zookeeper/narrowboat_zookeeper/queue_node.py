"""One owner's node in the queue of a lock: what is known of it, and every change of that.

Three kinds of threads change it: callers (the core lets in one at a time for each owner), kazoo's thread (it reports watches
and answers), and the janitor's (it removes nodes that are over). Each change is a method here, made under the node's mutex. No
other file writes a field. Reading a field needs no mutex. A method never waits and never calls out while it has the mutex, so
kazoo's thread may call all of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from narrowboat.errors import Reason

#: Seconds within which a woken waiter has to attempt again, or it loses its place. Longer lets a stopped one block the others.
PATIENCE = 5.0


class Look(NamedTuple):
    """A look at the queue that was sent before its waiter was woken."""

    sent: float  #: on the clock that was handed in
    synced: Any
    listed: Any


class QueueNode:
    """See the module's text. It is made within an attempt, before its creation is sent, and dropped when it is surely gone."""

    __slots__ = (
        "_mutex",
        "_under_way",
        "_woken_at",
        "_written",
        "ends",
        "expelled",
        "gone",
        "granted",
        "path",
        "prefetched",
        "session",
        "token",
        "wake",
        "watched_in",
        "watching",
    )

    def __init__(self, wake: Callable[[], None]) -> None:
        self._mutex = threading.Lock()
        self._under_way = True
        self._woken_at: float | None = None  # monotonic; None: its attempt has come since
        self._written = False  # its watch reported a change; an eviction makes one before it deletes
        self.wake = wake
        self.path: str | None = None  #: None: its creation was sent, and its outcome is unknown
        self.token = 0
        self.session: int | None = None
        self.granted = False
        self.ends = 0.0  #: when the grant is over unless it is renewed, on the clock that was handed in
        self.gone: Reason | None = None  #: why it is no longer there; None as long as that is not known
        self.expelled = False  #: the janitor is removing it
        self.watched_in = -1  #: the epoch in which its own watch was sent
        self.watching: tuple[str, int] | None = None  #: the path that a waiter watches, and the epoch
        self.prefetched: Look | None = None

    # -- by callers -----------------------------------------------------------------------------------------------

    def enter(self, wake: Callable[[], None]) -> None:
        """Begin an attempt. Until `leave` the janitor does not touch this node."""
        with self._mutex:
            self._under_way, self._woken_at, self.wake = True, None, wake

    def leave(self) -> None:
        """End the attempt."""
        with self._mutex:
            self._under_way = False

    def found(self, path: str, stat: Any) -> None:
        """The node exists, and belongs to this session."""
        with self._mutex:
            self.path, self.token, self.session = path, stat.czxid, stat.ephemeralOwner
            self.gone = self.watching = None
            self.expelled = self._written = False

    def lost(self) -> None:
        """The node does not exist: the attempt makes a new one."""
        with self._mutex:
            self.path = self.session = self.gone = self.watching = None
            self.granted = self.expelled = self._written = False

    def take_prefetched(self) -> Look | None:
        """The prefetched look, if there is one. It serves once."""
        with self._mutex:
            look, self.prefetched = self.prefetched, None
        return look

    def watch(self, watching: tuple[str, int] | None) -> tuple[str, int] | None:
        """Note the path that the waiter watches from now on. Returns the previous one."""
        with self._mutex:
            before, self.watching = self.watching, watching
        return before

    def grant(self, ends: float) -> None:
        """Grant the lock to the owner. It waits no longer, so nothing wakes it."""
        with self._mutex:
            self.granted, self.ends, self.wake = True, ends, _nothing

    def renew(self, ends: float) -> None:
        """Start the lease afresh."""
        with self._mutex:
            self.ends = ends

    def still_there(self) -> None:
        """The node still exists after a write of its data: that was no eviction."""
        with self._mutex:
            self._written = False

    # -- by kazoo's thread and the janitor's ------------------------------------------------------------------------

    def own_watch_sent(self, epoch: int) -> None:
        """Note that a watch of the node itself was sent in this epoch."""
        with self._mutex:
            self.watched_in = epoch

    def changed(self) -> None:
        """The data of the node changed. Its watch is used up."""
        with self._mutex:
            self._written, self.watched_in = True, -1

    def vanished(self) -> None:
        """The node was deleted. Its watch is used up."""
        with self._mutex:
            self.watched_in = -1
            self.gone = self.gone or (Reason.EVICTED if self._written else Reason.TAKEN)

    def woken(self, now: float, look: Look | None = None) -> None:
        """The waiter is woken `now` (monotonic), or once `look` is answered. Its attempt has to come within `PATIENCE`."""
        with self._mutex:
            self._woken_at, self.prefetched = now, look

    def expel(self, now: float, monotonic: float) -> str | None:
        """The path to delete, if the lease is over or a woken waiter did not come; None: the node stays.

        A node whose attempt is under way stays: the attempt looks itself. A deletion that was lost with a connection is resent.
        """
        with self._mutex:
            late = now >= self.ends if self.granted else self._woken_at is not None and self._woken_at + PATIENCE <= monotonic
            if self.path is None or self._under_way or not (late or self.expelled):
                return None
            self.expelled = True
            if self.granted:
                self.gone = self.gone or Reason.EXPIRED
            return self.path

    def removed(self, path: str) -> None:
        """Note that the expelled node at `path` is gone."""
        with self._mutex:
            if self.path == path:
                self.path = None


def _nothing() -> None:
    """The wake of an owner that waits no longer."""
