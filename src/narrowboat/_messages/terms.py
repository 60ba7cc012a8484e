"""The terms of one consumer: the lease and the limit of deliveries that its messages are under.

What the program asked for is the consumer's own, and counts for as long as it lives. What it did not ask for is what is stored
with the source: looked up when the consumer opens, and again while it runs, so that an `alter` reaches it. Where the backend
does not claim `alter`, the defaults count instead of what is stored.

Made and changed on the lane of fetches. `properties` is replaced as a whole, so that any thread may read it.
"""

from __future__ import annotations

import math

from narrowboat.capabilities import BrokerCapabilities, Support
from narrowboat.contract.messages import Broker, Feed, Properties, Source

#: What each consumer may ask for by itself. The other properties say how the messages lie, and are the source's.
OWN = frozenset({"lease", "max_deliveries"})
#: Looked up again when this share of `alter_lag` is over, so that the rest is left for an idle consumer to fetch in.
LOOK_SHARE = 1 / 2


def asked(*, lease: object, max_deliveries: object) -> frozenset[str]:
    """The names of what a program asked for by itself.

    >>> sorted(asked(lease=30.0, max_deliveries=None))
    ['lease']
    """
    return frozenset(name for name, value in (("lease", lease), ("max_deliveries", max_deliveries)) if value is not None)


class Terms:
    """See the module's text. `own`: the names of what the program asked for."""

    def __init__(self, source: Source, own: frozenset[str], claims: BrokerCapabilities) -> None:
        self.properties = source.properties
        self._address = source.address
        self._own = own
        self._follows = claims.alter is not Support.ABSENT and not own >= OWN
        self._pause = claims.alter_lag * LOOK_SHARE
        self._again = math.inf

    @property
    def lease(self) -> float:
        """Seconds that a delivery is ours."""
        return self.properties.lease

    @property
    def limit(self) -> int:
        """How often a message is handed out before it is rejected; 0: always."""
        return self.properties.max_deliveries

    def begin(self, driver: Broker, now: float) -> Source:
        """Look up what is stored. The source to open a feed from."""
        self.properties = self._found(driver)
        self._again = now + self._pause if self._follows else math.inf
        return Source(self._address, self.properties)

    def due(self, now: float) -> bool:
        """Whether it is time to look again."""
        return now >= self._again

    def follow(self, driver: Broker, feed: Feed, now: float) -> bool:
        """Look again, and have `feed` claim by what is stored now. Whether anything was altered."""
        found = self._found(driver)
        altered = found != self.properties
        if altered:
            feed.use(found)  # first: whoever is interrupted here does both again
            self.properties = found
        self._again = now + self._pause
        return altered

    def _found(self, driver: Broker) -> Properties:
        stored = driver.stored(self._address) if self._follows else None
        return self.properties if stored is None else merged(self.properties, stored, self._own)


def merged(asked: Properties, stored: Properties, own: frozenset[str]) -> Properties:
    """What a consumer goes by: what is its `own` as it was asked, the rest of those as it is stored.

    >>> merged(Properties(lease=5.0, max_deliveries=3), Properties(lease=60.0, max_deliveries=9), frozenset({"lease"}))
    Properties(lease=5.0, max_deliveries=9, ordered=False, priorities=0)
    """
    return asked._replace(**{name: getattr(stored, name) for name in OWN - own})
