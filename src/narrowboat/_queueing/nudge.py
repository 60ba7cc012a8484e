"""Ends another thread's `poll` or `select`, for drivers whose thread waits on sockets and must also hear its own process.

The thread registers the `Nudge` beside its sockets, calls `hush` when it is readable, and then looks at what has changed.
It carries no news: whoever rings has left them elsewhere before, and a hundred rings may be heard as one.
"""

from __future__ import annotations

import socket


class Nudge:
    """See the module's text. `ring` comes from any thread and never blocks; the rest belongs to the thread that waits."""

    def __init__(self) -> None:
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._ear.setblocking(False)

    def fileno(self) -> int:
        """What `poll` and `select` take; readable from a ring until `hush`."""
        return self._ear.fileno()

    def ring(self) -> None:
        """End the wait that is under way, or the next one."""
        try:
            self._bell.send(b"!")
        except OSError:
            pass  # full: it rings already; or closed: nobody waits any more

    def hush(self) -> None:
        """Whatever rang has been heard; before the look at what has changed, or a ring in between is lost."""
        try:
            while self._ear.recv(4096):
                pass
        except OSError:
            pass

    def close(self) -> None:
        """Give both ends back. Idempotent; a ring that comes later does nothing."""
        self._bell.close()
        self._ear.close()
