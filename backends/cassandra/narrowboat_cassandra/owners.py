"""What a driver knows of its owners: whose attempts are in doubt, who polls how often, where a grant is; and last versions.

An attempt whose answer was lost can be done later. Its owner is in doubt until it is granted or withdrawn: its next attempt
looks first, and its withdrawal raises the version. Everything here may be forgotten at any time but the doubts: a look at the
row tells the rest. It does no I/O, and each step is one of a dictionary, so any thread may take it.
"""

from __future__ import annotations

import random
from typing import NamedTuple

#: Seconds: the first pause of one who waits. Each is longer than the one before, by this factor.
FIRST, FACTOR = 0.02, 1.6
#: The names whose last version is kept; of each that is not, the first attempt costs one exchange more.
NAMES = 10_000


class Place(NamedTuple):
    """Where a grant is."""

    slot: int
    since: float  #: when its lease began, by the driver's clock


class Owners:
    """See the module's text. `longest`: seconds of the longest pause."""

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._asked: set[str] = set()
        self._doubted: set[str] = set()
        self._looks: dict[str, int] = {}
        self._announced: dict[str, float] = {}
        self._places: dict[str, Place] = {}
        self._versions: dict[str, int | None] = {}

    def ask(self, owner: str) -> bool:
        """Note that an attempt begins. Whether an earlier one may still be done."""
        if owner in self._asked:
            self._doubted.add(owner)
        self._asked.add(owner)
        return owner in self._doubted

    def answered(self, owner: str) -> None:
        """Note that the attempt was answered, and nothing of it is under way."""
        self._asked.discard(owner)

    def granted(self, owner: str, slot: int, now: float) -> None:
        """Note that it holds the lock since `now`."""
        self._places[owner] = Place(slot, now)
        self._looks.pop(owner, None)
        self._announced.pop(owner, None)

    def place(self, owner: str) -> Place | None:
        """Where its grant is."""
        return self._places.get(owner)

    def may_hold(self, owner: str) -> bool:
        """Whether something of it may be in the row, or on its way there."""
        return owner in self._asked or owner in self._doubted or owner in self._places

    def announce(self, owner: str, now: float) -> None:
        """Note that the row says since `now` that it waits."""
        self._announced[owner] = now

    def announced(self, owner: str) -> float | None:
        """Since when the row says that it waits."""
        return self._announced.get(owner)

    def forget(self, owner: str) -> None:
        """Drop the owner: it has nothing, and nothing will be done for it."""
        self._asked.discard(owner)
        self._doubted.discard(owner)
        for known in (self._looks, self._announced, self._places):
            known.pop(owner, None)

    def waits(self, owner: str) -> bool:
        """Whether it has been told to wait before."""
        return owner in self._looks

    def pause(self, owner: str, wait: bool) -> float:
        """Seconds until it looks again: longer each time, up to a bound, and never two owners in step."""
        looks = self._looks.get(owner, 0)
        if wait:
            self._looks[owner] = looks + 1
        return min(self._longest, FIRST * FACTOR ** min(looks, 20)) * random.uniform(0.5, 1.0)

    def version(self, name: str) -> int | None:
        """The last version that was seen of a name."""
        return self._versions.get(name)

    def saw(self, name: str, version: int | None) -> None:
        """Note the version of a name."""
        if len(self._versions) >= NAMES and name not in self._versions:
            self._versions.pop(next(iter(self._versions), name), None)
        self._versions[name] = version
