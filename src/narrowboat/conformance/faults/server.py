"""What the kit asks of whoever can start and stop the server under test.

The kit starts no server: it does not know how. A fixture that does hands its server over, `Harness(url, server=mine)`,
and the ids that need a restart, a kill or a pause are then exercised instead of being reported as "not exercised".
"""

from __future__ import annotations

from typing import Protocol


class Server(Protocol):
    """A server's process (or processes) behind one URL that stays the same. Each method has taken effect on return.

    All are idempotent, block (each up to a minute), and are called from one thread at a time.
    """

    def start(self) -> None:
        """Start it on its data and its port, and wait until it answers. Nothing when it runs."""
        ...

    def stop(self) -> None:
        """End it in good order (SIGTERM or its own command); it keeps its data."""
        ...

    def kill(self) -> None:
        """SIGKILL: nothing is flushed."""
        ...

    def pause(self) -> None:
        """SIGSTOP: its port accepts, nobody answers."""
        ...

    def resume(self) -> None:
        """SIGCONT. Nothing when it is not paused."""
        ...
