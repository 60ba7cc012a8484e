"""One request on its way: a caller's thread waits for it, the I/O thread answers it once."""

from __future__ import annotations

import _thread
import time
from collections.abc import Callable, Sequence
from typing import Any

from narrowboat_zeromq.protocol.frames import Bodies


class Call:
    """See the module's text. `why`: makes the error, in the caller's thread, so that no two callers share one."""

    __slots__ = (
        "_gate",
        "bodies",
        "born",
        "frames",
        "given",
        "id",
        "late",
        "left",
        "quiet",
        "sent",
        "sent_at",
        "value",
        "what",
        "why",
    )

    def __init__(
        self,
        id: int,
        what: str,
        frames: Sequence[bytes],
        *,
        late: Callable[[list[Any]], None] | None = None,
        quiet: bool = False,
    ) -> None:
        self.id = id
        self.born = time.monotonic()
        self.what = what  #: the request, for an error's text
        self.frames: Sequence[bytes] = frames
        self.sent = False  #: it was handed to the socket
        self.sent_at = 0.0
        self.left = quiet  #: its caller has gone
        self.late = late  #: gets the answer when the caller has gone
        self.quiet = quiet  #: nobody ever waited for it
        self.given = False
        self.value: list[Any] = []
        self.bodies: Bodies | None = None
        self.why: Callable[[], Exception] | None = None
        self._gate = _thread.allocate_lock()
        self._gate.acquire()

    def give(self, value: list[Any], bodies: Bodies) -> None:
        """The server's answer: what stands behind the id."""
        if not self.given:
            self.value, self.bodies, self.given = value, bodies, True
            self._gate.release()

    def fail(self, why: Callable[[], Exception]) -> None:
        """There will be no answer."""
        if not self.given:
            self.why, self.given = why, True
            self._gate.release()

    def wait(self, seconds: float) -> bool:
        """Whether it was answered within `seconds`."""
        if self.given or self._gate.acquire(timeout=max(0.0, seconds)):
            return True
        return self.given
