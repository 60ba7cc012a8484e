"""How a connection fares, as a value: for a readiness probe, a page, a test. It is of one moment, and no backend was asked.

`locks.health()` and `broker.health()` give it; a worker's own health is in `narrowboat.working`. To ask the backend there is
`ping()`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: "new": no call has been answered yet. "lost": two calls in a row had no answer.
State = Literal["new", "connected", "lost"]


@dataclass(frozen=True, slots=True)
class Connection:
    """What the calls of one face have found out about its backend."""

    url: str  #: without secrets
    backend: str  #: the URL's scheme
    state: State
    since: float | None = None  #: when the state began, in seconds since the epoch
    error: str | None = None  #: what the last call that had no answer met; it stays when the connection is back

    @property
    def connected(self) -> bool:
        """Whether calls are answered. Without calls nothing is found out: `ping()` is one."""
        return self.state == "connected"
