"""A thread that moves messages when they are due: delayed ones into their stream, and those of a dead consumer back.

Every script moves the messages that are due in its source first, so a consumer of ours never needs this thread. It serves other
programs that read a stream, and consumers that are busy. It knows the sources that this broker has sent delayed messages to or
has read, with the time at which the next message is due there. The earliest comes first.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable

from narrowboat.driver.threads import LazyThread
from narrowboat.errors import NarrowboatError
from narrowboat_redis.client import RedisClient
from narrowboat_redis.scripts import Packed
from narrowboat_redis.streams import StreamKeys

#: Seconds between two moves at least. One batch then takes messages that are due closely together.
_PACE = 0.02
#: Seconds after a failed exchange until the next try.
_AGAIN = 1.0


class Mover:
    """See the module's text. `call` makes a call of `tick.lua` for a source. `close` closes the client."""

    def __init__(self, client: RedisClient, call: Callable[[StreamKeys], Packed]) -> None:
        self._client = client
        self._call = call
        self._due: dict[StreamKeys, float] = {}
        self._next = math.inf
        self._changed = threading.Condition(threading.Lock())
        self._thread = LazyThread("narrowboat-redis-mover", self._run, wake=self._stir)

    def note(self, keys: StreamKeys, seconds: float) -> None:
        """A message is due in that source in so many seconds."""
        at = time.monotonic() + seconds + _PACE
        with self._changed:
            if self._thread.ended or self._due.get(keys, math.inf) <= at:
                return
            self._due[keys] = at
            with contextlib.suppress(RuntimeError):  # no thread left: the next script that touches the source moves them
                self._thread.start()
            if at < self._next:
                self._changed.notify_all()

    def close(self) -> None:
        """End the thread and the connection."""
        self._client.close()
        self._thread.end()

    def _stir(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                self._next = min(self._due.values(), default=math.inf)
                if self._thread.ended:
                    return
                if self._next > now:
                    self._changed.wait(None if self._next == math.inf else self._next - now)
                    continue
                ripe = [keys for keys, at in self._due.items() if at <= now]
                for keys in ripe:
                    del self._due[keys]
            self._move(ripe)

    def _move(self, ripe: list[StreamKeys]) -> None:
        try:
            answers = self._client.run([self._call(keys) for keys in ripe], doing="moving what is due")
        except NarrowboatError:
            for keys in ripe:
                self.note(keys, _AGAIN)
            return
        for keys, answer in zip(ripe, answers, strict=True):
            if not isinstance(answer, list):
                self.note(keys, _AGAIN)
            elif answer[1]:
                self.note(keys, max(0.0, (int(answer[1]) - int(answer[0])) / 1e6))
