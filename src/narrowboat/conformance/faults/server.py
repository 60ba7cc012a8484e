"""The server under test, as a fixture hands it to the kit.

The kit starts no server: it does not know how. With `Harness(url, server=mine)` it exercises the ids that need a restart, a
kill or a pause. Without one these ids are reported as "not exercised".
"""

from __future__ import annotations

from typing import Protocol


class Server(Protocol):
    """A server's process (or processes) behind one URL, which stays the same. Each method has taken effect on return.

    All methods are idempotent, may block for up to a minute, and are called from one thread at a time.
    """

    def start(self) -> None:
        """Start it with its data and on its port, and wait until it answers. Do nothing when it runs."""
        ...

    def stop(self) -> None:
        """End it in good order, by SIGTERM or its own command. It keeps its data."""
        ...

    def kill(self) -> None:
        """SIGKILL: nothing is flushed."""
        ...

    def pause(self) -> None:
        """SIGSTOP: its port accepts connections, and no request is answered."""
        ...

    def resume(self) -> None:
        """SIGCONT. Do nothing when it is not paused."""
        ...
