"""One clock of the watch: it sleeps for some milliseconds, looks how late it is, and writes that down.

    python ticking.py PATH

As a program it ticks in a process of its own and writes into the file PATH, until its standard input ends. It imports nothing
but the standard library: it must be small and start at once.
"""

from __future__ import annotations

import mmap
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol, overload


class Doubles(Protocol):
    """A row of floats: an array, or a file that is mapped into memory."""

    @overload
    def __getitem__(self, index: int, /) -> float: ...
    @overload
    def __getitem__(self, index: slice, /) -> Iterable[float]: ...
    def __setitem__(self, index: int, value: float, /) -> None: ...


#: Seconds between two ticks while all come in time, and while one of the last `RESTLESS` came late by more than `LATE` seconds.
#: Each wakes a processor: 300 a second take three hundredths of one, and every program that has a watch has two clocks.
CALM, PERIOD = 0.012, 0.003
LATE, RESTLESS = 0.003, 30
#: Seconds of a bin, which has one sum, and the number of bins. They last for an hour, and are then used again.
BIN, BINS = 0.02, 180_000
#: A tick that is late by this many seconds is a pause. A shorter delay is slowness: it ends no lease.
PAUSE = 0.05

#: The places in the row: the time of the last tick, then the lost seconds of each bin, then those of them that were pauses.
LAST, LOST, PAUSED = 0, 1, 1 + BINS
SIZE = 1 + 2 * BINS


def tick(row: Doubles, ended: Callable[[], bool], used: Callable[[], float]) -> None:
    """Write into `row` until `ended()`. `used` returns the seconds of processor time that are no loss: our own work."""
    last, before = time.monotonic(), used()
    row[LAST] = last
    restless = RESTLESS
    while not ended():
        period = PERIOD if restless else CALM
        time.sleep(period)
        now, spent = time.monotonic(), used()
        lost = now - last - period - (spent - before)
        note(row, last, now, lost)
        restless = RESTLESS if lost > LATE else max(0, restless - 1)
        last, before = now, spent
        row[LAST] = now


def note(row: Doubles, begun: float, ended: float, lost: float) -> None:
    """Write down that `lost` seconds between `begun` and `ended` were lost, spread evenly over their bins."""
    first, final = int(begun / BIN), int(ended / BIN)
    share = max(0.0, lost) / (ended - begun)
    paused = lost >= PAUSE
    for number in range(first, final + 1):
        at = number % BINS
        within = (min(ended, (number + 1) * BIN) - max(begun, number * BIN)) * share
        if number > first:  # a bin that is entered for the first time holds what was there an hour ago
            row[LOST + at] = row[PAUSED + at] = 0.0
        row[LOST + at] += within
        row[PAUSED + at] += within if paused else 0.0


def main(path: str) -> None:
    """Tick into the file at `path`."""
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 8 * SIZE) as memory, memoryview(memory).cast("d") as row:
        parent = threading.Thread(target=sys.stdin.read, daemon=True)
        parent.start()
        tick(row, lambda: not parent.is_alive(), lambda: 0.0)


if __name__ == "__main__":
    main(sys.argv[1])
