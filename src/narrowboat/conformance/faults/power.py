"""What a harness says of a loss of power: a place whose writes are recorded, and what each moment would have left of it.

A machine that is really switched off is not needed for what is a property of writes and syncs. The harness gives a `Recording`
(`Harness.recorded`); the scenarios B69 and L132 use it as any URL, and look at what is left of several moments.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol


class Recording(Protocol):
    """A place in which all that is written and synced is noted. A moment is a number that grows with each write."""

    url: str  #: of the place, as the scenario uses it

    def now(self) -> int:
        """The present moment: what was answered before it was synced before it, or never."""

    def cuts(self, moments: Iterable[int], more: int, seed: int) -> Iterator[tuple[int, str]]:
        """Each of `moments` and up to `more` others, in their order, with the URL of what a loss of power then leaves.

        What was synced is there. Of what was written since, nothing is left at the given moments. At the others each write may
        be there, be cut off, or be missing. The URL is good until the next one is asked for.
        """
