"""Which acknowledgements of one channel can be said at once. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable


def coalesce(outstanding: Iterable[int], settled: Collection[int]) -> tuple[int, list[int]]:
    """The number up to which all of `outstanding` (in order) are in `settled`, 0 for none; and the rest, one by one.

    Acknowledging "all up to n" costs one frame, and must not touch what somebody still has in his hands.

    >>> coalesce([3, 4, 5, 6, 7], {3, 4, 6})
    (4, [6])
    >>> coalesce([3, 4], {4})
    (0, [4])
    """
    last = 0
    done = 0
    for number in outstanding:
        if number not in settled:
            break
        last = number
        done += 1
    if done == len(settled):
        return last, []
    return last, sorted(number for number in settled if number > last)
