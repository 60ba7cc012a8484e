"""Decides how long a lease still counts: by its deadline where we read the same clock, by observation where we do not.

The times of a foreign clock mean nothing here. But the writer of a lease renews it before its deadline. So a row that has not
changed for its whole length *by our clock*, counted from our first look, is over by its writer's clock too. The price: a dead
lease counts for up to one length after our first look. No I/O here.
"""

from __future__ import annotations

from collections.abc import Container, Hashable


class Observer:
    """What one process has seen of others' rows. `clock`: the id of the clock that `now` is read from."""

    def __init__(self, clock: str) -> None:
        self.clock = clock
        self._seen: dict[Hashable, tuple[Hashable, float]] = {}

    def left(self, now: float, *, clock: str, ends: float, key: Hashable, changes: int, length: float) -> float:
        """Seconds until the row is over; 0 or less: it is over. `clock`, `ends`: what it says; the rest as for `stands`."""
        return ends - now if clock == self.clock else self.stands(now, key=key, changes=changes, length=length)

    def stands(self, now: float, *, key: Hashable, changes: Hashable, length: float) -> float:
        """Seconds until a row of another clock has stood unchanged for its whole length.

        `key`: which row it is, never used for another one. `changes`: what differs in it whenever it is rewritten. `length`:
        seconds for which its writer lets it stand at most.
        """
        seen = self._seen.get(key)
        if seen is None or seen[0] != changes:
            self._seen[key] = (changes, now)
            return length
        return seen[1] + length - now

    def keep(self, present: Container[Hashable]) -> None:
        """Forget all rows but those."""
        self._seen = {key: seen for key, seen in self._seen.copy().items() if key in present}
