"""A thread that moves what is due where nobody looks: delayed messages into their stream, what a dead consumer had back.

Whoever touches a source moves what is due there first, so nothing is ever delivered late because of this thread; it is
for programs that read a stream by other means, and for consumers that are busy. It knows the sources that this broker
has sent delayed messages to or looked at, each with the time when something is due there, and begins with the first one.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable

from narrowboat.errors import NarrowboatError
from narrowboat_redis.places import Place
from narrowboat_redis.scripts import Packed
from narrowboat_redis.wire import Wire

#: Seconds between two moves at least, so that one batch takes what is due closely together.
_PACE = 0.02
#: Seconds after a failed exchange until the next try.
_AGAIN = 1.0


class Mover:
    """See the module's text. `call` makes a source's call of `tick.lua`. Closes the wire."""

    def __init__(self, wire: Wire, call: Callable[[Place], Packed]) -> None:
        self._wire = wire
        self._call = call
        self._due: dict[Place, float] = {}
        self._next = math.inf
        self._changed = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None
        self._closed = False

    def note(self, place: Place, seconds: float) -> None:
        """Something is due there in so many seconds."""
        at = time.monotonic() + seconds + _PACE
        with self._changed:
            if self._closed or self._due.get(place, math.inf) <= at:
                return
            self._due[place] = at
            # An interrupt can strike between making a thread and starting it: look again each time.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="narrowboat-redis-mover", daemon=True)
                with contextlib.suppress(RuntimeError):  # no more threads: whoever touches the source moves it
                    self._thread.start()
            if at < self._next:
                self._changed.notify_all()

    def close(self) -> None:
        """End the thread and the connection. What is due is moved by others."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._wire.close()
        if self._thread is not None and self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                self._next = min(self._due.values(), default=math.inf)
                if self._closed:
                    return
                if self._next > now:
                    self._changed.wait(None if self._next == math.inf else self._next - now)
                    continue
                ripe = [place for place, at in self._due.items() if at <= now]
                for place in ripe:
                    del self._due[place]
            self._move(ripe)

    def _move(self, ripe: list[Place]) -> None:
        try:
            answers = self._wire.run([self._call(place) for place in ripe], doing="moving what is due")
        except NarrowboatError:
            for place in ripe:
                self.note(place, _AGAIN)
            return
        for place, answer in zip(ripe, answers, strict=True):
            if not isinstance(answer, list):
                self.note(place, _AGAIN)
            elif answer[1]:
                self.note(place, max(0.0, (int(answer[1]) - int(answer[0])) / 1e6))
