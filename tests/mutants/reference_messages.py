"""The in-memory broker with one of its own steps done wrongly, where a layer in front of it cannot do it wrongly.

Each is a subclass of that broker, and whatever a scenario opens becomes one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

from mutants import Mutant
from mutants.layers import becomes, named
from narrowboat.contract.messages import Address, Delivery, Feed, Outcome, Source
from narrowboat.errors import NarrowboatError
from narrowboat_memory.broker import MemoryBroker
from narrowboat_memory.feed import MemoryFeed
from narrowboat_memory.source import Entry, MemorySource, State
from narrowboat_memory.sources import MemoryTopic, Sources


class PurgeTakesAll(MemoryBroker):
    """Drops at a purge what is in flight as well."""

    def _purge(self, sources: Sources, address: Address, now: float) -> int | NarrowboatError:
        found = self._find(sources, address, now)
        if isinstance(found, MemorySource):
            for entry in [each for each in found.entries.values() if each.state is State.CLAIMED]:
                found.remove(entry)
        return super()._purge(sources, address, now)


class CountsTheExpired(MemoryBroker):
    """Counts messages that have expired until somebody receives."""

    def _find(self, sources: Sources, address: Address, now: float) -> MemorySource | MemoryTopic | NarrowboatError | None:
        return sources.find(address)


class _Late(MemoryFeed):
    def _settle(self, sources: Sources, delivery: Delivery, outcome: Outcome, now: float) -> NarrowboatError | None:
        return super()._settle(sources, delivery, outcome, 0.0)

    def _extend(self, sources: Sources, delivery: Delivery, now: float, seconds: float) -> NarrowboatError | None:
        entry, token = cast("tuple[Entry, object]", delivery.tag)
        source = sources.find(self._source.address)
        if isinstance(source, MemorySource) and entry.token is token:
            source.extend(entry, now + seconds)
            return None
        return super()._extend(sources, delivery, now, seconds)


class SettledAfterTheEnd(MemoryBroker):
    """Settles and extends a delivery after the end of its lease, as long as no other consumer has it."""

    def _feed(self, source: Source, wake: Callable[[], None]) -> Feed:
        feed = super()._feed(source, wake)
        feed.__class__ = _Late
        return feed


def _by_the_wall_clock(driver: MemoryBroker) -> MemoryBroker:
    """Counts leases, delays and times to live by the wall clock."""
    driver.clock = lambda: time.time()  # noqa: PLW0108  # that of the moment: a scenario puts another one in its place
    return driver


_by_the_wall_clock.__name__ = "TimesByTheWallClock"

MUTANTS: list[Mutant] = [
    named(becomes(PurgeTakesAll), "B102"),
    named(becomes(CountsTheExpired), "B51"),
    named(becomes(SettledAfterTheEnd), "B26", "B30"),
    named(_by_the_wall_clock, "B133"),
]
