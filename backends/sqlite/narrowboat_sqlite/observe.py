"""How long a row still counts: by its own time where we read the same clock, by watching it stand still where we do not.

The times of a foreign clock say nothing here. But whoever wrote the row rewrites it before its time is over, so a row that
has not changed for its whole length *of our time*, counted from when we first saw it so, is over by its writer's clock too.
The price is that a dead one is seen for longer: up to one length after we first looked. No I/O here.
"""

from __future__ import annotations

from collections.abc import Container, Hashable


class Observer:
    """What one process has seen of others' rows. `clock`: the id of the clock that `now` is read from."""

    def __init__(self, clock: str) -> None:
        self.clock = clock
        self._seen: dict[Hashable, tuple[int, float]] = {}

    def left(self, now: float, *, clock: str, ends: float, key: Hashable, changes: int, length: float) -> float:
        """Seconds until the row is over; 0 or less: it is over.

        `clock`, `ends`: what the row says. `key`: which row it is, never used for another one. `changes`: a number in it
        that grows whenever it is rewritten. `length`: seconds for which its writer lets it stand at most.
        """
        if clock == self.clock:
            return ends - now
        seen = self._seen.get(key)
        if seen is None or seen[0] != changes:
            self._seen[key] = (changes, now)
            return length
        return seen[1] + length - now

    def keep(self, present: Container[Hashable]) -> None:
        """Forget all rows but those."""
        self._seen = {key: seen for key, seen in self._seen.copy().items() if key in present}
