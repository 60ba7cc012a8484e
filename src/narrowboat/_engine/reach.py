"""Whether a backend answers: what the exchanges of one face say of it, as one state and its changes.

The lanes tell each exchange's answers; a change of the state becomes one event and one line of the log. It makes no call of
its own, so an outage during which nobody calls is not noticed. One exchange without an answer is no outage yet: the core
repeats what may be repeated, and its caller never hears of a lost reply.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

from narrowboat._engine.exchange import unanswered
from narrowboat._engine.later_events import events
from narrowboat._engine.log import log
from narrowboat.clock import Clock
from narrowboat.dsn import Url
from narrowboat.errors import Unavailable
from narrowboat.health import Connection, State

#: Exchanges without an answer, in a row, that are an outage. One is a lost reply; more would delay the news of a lost lock.
LOST = 2


class Face(Protocol):
    """What is told whose connection it is."""

    backend: str
    url: Url
    clock: Clock
    listeners: tuple[events.Listener, ...]


class Reach:
    """See the module's text. Any thread may tell it and ask it."""

    def __init__(self, face: Face, half: str) -> None:
        """`half`: "locks" or "broker", for the log: one URL may serve both."""
        self._face = face
        self._half = half
        self._whose = f"the {half}'{'' if half.endswith('s') else 's'} connection"
        self.up = False  #: the last exchange was answered; looked at after each one
        self.forget()

    def forget(self) -> None:
        """Nothing is known: it is new, or this is a forked child."""
        # Held while listeners are told, so that they hear "lost" and "regained" in order; they may ask for `health` meanwhile.
        self._mutex = threading.RLock()
        self.up = False
        self._over = False  # closed: what a thread still hears is no news
        self._failed = 0  # exchanges without an answer, in a row
        self._first = 0.0  # the clock's time of the first of them
        self._since: float | None = None
        self._error: str | None = None

    @property
    def _lost(self) -> bool:
        return self._failed >= LOST

    def health(self) -> Connection:
        """What is known now."""
        with self._mutex:
            state: State = "lost" if self._lost else "connected" if self._since else "new"
            return Connection(str(self._face.url), self._face.backend, state, self._since, self._error)

    def close(self) -> None:
        """The face is closed. Listeners that count what is lost now are told that this is not any more."""
        face = self._face
        with self._mutex:
            ends, self._over = self._lost and not self._over, True
            if ends and face.listeners:
                away = face.clock() - self._first
                events.emit(face.listeners, events.ConnectionClosed(face.backend, str(face.url), away))

    def heard(self, answers: Sequence[Any]) -> None:
        """Take in what one exchange came to: one answer or error for each of its items."""
        error: Unavailable | None = None
        try:
            for answer in answers:
                if not isinstance(answer, Exception):
                    if not self.up:
                        self._answered()
                    return
                error = error or unanswered(answer)
            if error is not None:
                self._unanswered(error)
        finally:
            answers, answer, error = (), None, None  # an error's traceback may lead here: the two would keep each other

    def _fields(self) -> dict[str, Any]:
        return {"backend": self._face.backend, "half": self._half, "url": str(self._face.url)}

    def _answered(self) -> None:
        face = self._face
        with self._mutex:
            if self.up or self._over:
                return
            lost, away = self._lost, face.clock() - self._first
            self.up, self._failed = True, 0
            if lost or self._since is None:
                self._since = time.time()
            if not lost:
                return
            backend, url = face.backend, str(face.url)
            text, fields = "%s to %s is back after %.1f s", self._fields()
            log("INFO", text, self._whose, url, away, event="connection_regained", away=away, **fields)
            if face.listeners:
                events.emit(face.listeners, events.ConnectionRegained(backend, url, away))

    def _unanswered(self, error: Unavailable) -> None:
        face = self._face
        with self._mutex:
            if self._over:
                return
            self._error = f"{type(error).__name__}: {error}"
            self.up, self._failed = False, self._failed + 1
            if self._failed == 1:
                self._first = face.clock()
            if self._failed != LOST:
                return
            self._since = time.time()
            backend, url = face.backend, str(face.url)
            # The text alone: a handler may keep the record, and with the error the caller's frames.
            text, fields = "%s to %s is lost, retrying: %s", self._fields()
            log("WARNING", text, self._whose, url, str(error), event="connection_lost", **fields)
            if face.listeners:
                events.emit(face.listeners, events.ConnectionLost(backend, url, error))
