"""The watch: for how long the machine stood still. Upper bounds of time are extended by that, and it excuses an ended lease.

A loaded or virtual machine lets a program wait for its turn, for milliseconds or for seconds. A bound that is missed because of
that says nothing about a backend. Two clocks tick, one in a thread of this process and one in a process of its own. Each writes
down how late it was. The time in which this process itself worked is no loss: code that keeps the interpreter busy extends no
bound. Lost time counts once, by the clock that lost more.
"""

from __future__ import annotations

import array
import asyncio
import atexit
import contextlib
import mmap
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator

from narrowboat.conformance.watch import ticking
from narrowboat.conformance.watch.ticking import BIN, BINS, LAST, LOST, PAUSED, PERIOD, SIZE, Doubles

#: Seconds to wait at most until both clocks have written down the present. A clock that has not by then stands still.
_CATCH_UP = 0.25


class Watch:
    """Reads what two clocks have written down. Times are those of `time.monotonic()`."""

    def __init__(self, *rows: Doubles) -> None:
        self._rows = rows

    def lost(self, begun: float, ended: float) -> float:
        """Seconds of those from `begun` to `ended` in which nothing here could run."""
        seen = min(row[LAST] for row in self._rows)
        if begun < ended and ended - seen > _CATCH_UP:  # the machine stands still now, and no clock has written that down
            return self.lost(begun, max(begun, seen)) + ended - max(begun, seen)
        return sum(self._bins(LOST, int(begun / BIN), int(ended / BIN)))

    def extended(self, seconds: float) -> float:
        """`seconds`, and what was lost in the time that ends now and has so many seconds that were not lost."""
        now = time.monotonic()
        self._catch_up(now)
        number = int(now / BIN)
        earliest = number - BINS // 2
        part = now - number * BIN  # of the bin that has just begun
        lost = min(part, *self._bins(LOST, number, number))
        left = seconds - part + lost
        while left > 0 and number > earliest:
            many = max(1, min(int(left / BIN), number - earliest))  # one by one they took a tenth of a run's time
            gone = sum(self._bins(LOST, number - many, number - 1))
            left -= many * BIN - gone
            lost += gone
            number -= many
        return seconds + lost

    def spent(self, begun: float) -> float:
        """Seconds since `begun`, not counting lost ones."""
        now = time.monotonic()
        self._catch_up(now)
        return now - begun - self.lost(begun, now)

    def stood(self, begun: float, ended: float, window: float) -> float:
        """The longest standstill between `begun` and `ended`: the most that pauses took of any `window` seconds."""
        pauses = self._bins(PAUSED, int(begun / BIN), int(ended / BIN))
        length = max(1, round(window / BIN))
        most = total = sum(pauses[:length])
        for old, new in zip(pauses, pauses[length:], strict=False):
            total += new - old
            most = max(most, total)
        return most

    def _bins(self, kind: int, first: int, last: int) -> list[float]:
        """From the `first` to the `last`, each by the clock that lost more in it. No more than an hour is written down."""
        if last < first:
            return []
        begin, end = kind + max(first, last - BINS + 1) % BINS, kind + last % BINS + 1
        spans = [slice(begin, end)] if begin < end else [slice(begin, kind + BINS), slice(kind, end)]
        return [gone for span in spans for gone in map(max, zip(*(row[span] for row in self._rows), strict=True))]

    def _catch_up(self, now: float) -> None:
        until = now + _CATCH_UP
        while min(row[LAST] for row in self._rows) < now and time.monotonic() < until:
            time.sleep(PERIOD / 2)

    @contextlib.asynccontextmanager
    async def timeout(self, seconds: float) -> AsyncIterator[asyncio.Timeout]:
        """Like `asyncio.timeout`, but lost seconds do not count."""
        loop = asyncio.get_running_loop()
        begun = time.monotonic()
        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal timer
            left = seconds - self.spent(begun)
            if left <= 0:
                limit.reschedule(loop.time())
            else:
                timer = loop.call_later(left, look)

        async with asyncio.timeout(None) as limit:
            timer = loop.call_later(seconds, look)
            try:
                yield limit
            finally:
                timer.cancel()


class Clocks(Watch):
    """A watch that owns its two clocks. They tick until `close`."""

    def __init__(self) -> None:
        own = array.array("d", bytes(8 * SIZE))
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=ticking.tick, args=(own, self._ended.is_set, time.process_time), name="conformance-watch", daemon=True
        )
        handle, path = tempfile.mkstemp(prefix="narrowboat-watch-")
        try:
            os.truncate(handle, 8 * SIZE)
            theirs = memoryview(mmap.mmap(handle, 8 * SIZE)).cast("d")
            command = [sys.executable, "-I", "-S", ticking.__file__, path]
            self.child = subprocess.Popen(command, stdin=subprocess.PIPE)  # noqa: S603  # our own file
            while not theirs[LAST] and self.child.poll() is None:
                time.sleep(0.001)
        finally:
            os.close(handle)
            os.unlink(path)
        self._thread.start()
        while not own[LAST]:
            time.sleep(0.001)
        self._owner = os.getpid()
        super().__init__(own, theirs)

    def close(self) -> None:
        """End the thread and the process. Does nothing in a fork, which has neither."""
        if os.getpid() == self._owner:
            self._ended.set()
            self._thread.join()
            assert self.child.stdin is not None
            self.child.stdin.close()
            self.child.kill()
            self.child.wait()


_mutex = threading.Lock()
_running: Clocks | None = None


def watch() -> Watch:
    """The watch of this process. It begins with the first call and ends with the process."""
    global _running
    with _mutex:
        if _running is None:
            _running = Clocks()
            atexit.register(_running.close)
        return _running
