"""A set of offsets that is kept as the spans that it is made of: a million in a row cost as much as one.

For what is settled of a partition (`ledger.py`), where nearly everything lies side by side and the number of spans is small.
It does not know what an offset means, and it is no general set: what is taken out is taken out from below.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Spans:
    """See the module's text.

    >>> spans = Spans()
    >>> for start, stop in ((5, 7), (9, 10), (7, 9)):
    ...     spans.add(start, stop)
    >>> list(spans.ranges()), len(spans), 8 in spans, 10 in spans
    ([range(5, 10)], 5, True, False)
    >>> spans.cut(8)
    >>> list(spans)
    [8, 9]
    """

    __slots__ = ("_starts", "_stops", "_total")

    def __init__(self) -> None:
        self._starts: list[int] = []  #: where each begins
        self._stops: list[int] = []  #: where each ends, itself not in it; no two touch
        self._total = 0

    def add(self, start: int, stop: int) -> None:
        """Take in everything from `start` to before `stop`."""
        starts, stops = self._starts, self._stops
        if start >= stop:
            return
        if not stops or start > stops[-1]:
            starts.append(start)
            stops.append(stop)
            self._total += stop - start
            return
        low, high = bisect_left(stops, start), bisect_right(starts, stop)
        if low < high:  # it touches these
            start, stop = min(start, starts[low]), max(stop, stops[high - 1])
            self._total -= sum(stops[low:high]) - sum(starts[low:high])
        starts[low:high] = [start]
        stops[low:high] = [stop]
        self._total += stop - start

    def cut(self, below: int) -> None:
        """Forget what is below that offset."""
        gone = bisect_right(self._stops, below)
        self._total -= sum(self._stops[:gone]) - sum(self._starts[:gone])
        del self._starts[:gone], self._stops[:gone]
        if self._starts and self._starts[0] < below:
            self._total -= below - self._starts[0]
            self._starts[0] = below

    def after(self, offset: int) -> int:
        """The first offset from `offset` on that is not in it."""
        index = bisect_right(self._starts, offset) - 1
        return max(offset, self._stops[index]) if index >= 0 else offset

    @property
    def end(self) -> int | None:
        """What comes behind the last one; None where there is none."""
        return self._stops[-1] if self._stops else None

    @property
    def count(self) -> int:
        """How many spans there are."""
        return len(self._starts)

    def ranges(self) -> Iterator[range]:
        """The spans, in their order."""
        return map(range, self._starts, self._stops)

    def gaps(self, start: int, stop: int) -> Iterator[range]:
        """What is not in it, from `start` to before `stop`, in order.

        >>> spans = Spans()
        >>> spans.add(3, 5)
        >>> list(spans.gaps(0, 9)), list(spans.gaps(3, 5)), list(spans.gaps(4, 6))
        ([range(0, 3), range(5, 9)], [], [range(5, 6)])
        """
        index = bisect_right(self._stops, start)
        while index < len(self._starts) and self._starts[index] < stop:
            if start < self._starts[index]:
                yield range(start, self._starts[index])
            start = self._stops[index]
            index += 1
        if start < stop:
            yield range(start, stop)

    def __contains__(self, offset: int) -> bool:
        index = bisect_right(self._starts, offset) - 1
        return index >= 0 and offset < self._stops[index]

    def __len__(self) -> int:
        return self._total

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __iter__(self) -> Iterator[int]:
        for each in self.ranges():
            yield from each

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spans) and (self._starts, self._stops) == (other._starts, other._stops)

    __hash__ = None  # type: ignore[assignment]  # it changes
