"""The in-memory broker with one of its own steps done wrongly, where a layer in front of it cannot do it wrongly.

Each is a subclass of that broker, and whatever a scenario opens becomes one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

from mutants import Mutant
from mutants.layers import becomes, named
from narrowboat.contract.messages import Address, Delivery, Feed, Outcome, Received, Source
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


class _LooksThenClaims(MemoryFeed):
    state = State.READY

    def receive(self, limit: int) -> Received:
        now = self._broker.clock()
        seen = self._messages.change(lambda sources: self._seen(sources, now)[:limit], now)
        time.sleep(0.005)
        self._messages.change(lambda sources: self._take_away(sources, seen, now), now)
        return super().receive(limit)

    def _seen(self, sources: Sources, now: float) -> list[Entry]:
        found = sources.find(self._source.address)
        entries = found.entries.values() if isinstance(found, MemorySource) else ()
        return [each for each in entries if each.state is self.state and (each.until is None or each.until <= now)]

    def _take_away(self, sources: Sources, seen: list[Entry], now: float) -> None:
        found = sources.find(self._source.address)
        if isinstance(found, MemorySource):
            for entry in seen:
                if entry.state is State.CLAIMED and entry in found.entries.values():
                    found.give_back(entry, now, counted=True)


class _LooksThenLetsCome(_LooksThenClaims):
    state = State.DELAYED


class ClaimsInTwoSteps(MemoryBroker):
    """Looks at what is ready, and claims it a moment later, whoever has it by then."""

    feeds: type[MemoryFeed] = _LooksThenClaims

    def _feed(self, source: Source, wake: Callable[[], None]) -> Feed:
        feed = super()._feed(source, wake)
        feed.__class__ = self.feeds
        return feed


class ComesDueInTwoSteps(ClaimsInTwoSteps):
    """Looks at what is due, and makes it ready a moment later, whoever has it by then."""

    feeds = _LooksThenLetsCome


def _by_the_wall_clock(driver: MemoryBroker) -> MemoryBroker:
    """Counts leases, delays and times to live by the wall clock."""
    driver.clock = lambda: time.time()  # noqa: PLW0108  # that of the moment: a scenario puts another one in its place
    return driver


_by_the_wall_clock.__name__ = "TimesByTheWallClock"

MUTANTS: list[Mutant] = [
    named(becomes(PurgeTakesAll), "B102"),
    named(becomes(CountsTheExpired), "B51"),
    named(becomes(SettledAfterTheEnd), "B26", "B30"),
    named(becomes(ClaimsInTwoSteps), "B13", "B86"),
    named(becomes(ComesDueInTwoSteps), "B47"),
    named(_by_the_wall_clock, "B133"),
]
