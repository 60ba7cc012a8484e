"""What the consumers of one member want, as far as their calls show it: how many at a time, how soon, at which pace.

Those who read and commit ask it how far to read ahead, whether to hurry, and how much to claim ahead. It knows no message,
no partition and no clock, and does nothing by itself: what it is told and asked is numbers and times.
"""

from __future__ import annotations

import math

#: A consumer that takes so many at a time is given what was claimed ahead, without a commit to wait for.
_BULK = 256
#: Records that are read ahead for each partition: no more is read where there are so many, none fetched where twice as many.
_AHEAD = 1000
#: Seconds after which a consumer that asks for nothing more is in no hurry.
_RECENT = 0.1


class Demand:
    """See the module's text. All times are seconds of one clock that never goes back.

    >>> demand = Demand()
    >>> demand.asked(1000, 50.0, alone=True)
    >>> demand.took(1000, 500, 50.0)
    >>> demand.asked(1000, 50.1, alone=True)
    >>> demand.took(500, 0, 50.1)  # 500 in a tenth of a second, which was all that there was
    >>> demand.ahead, demand.bulk, demand.outruns(2000, 0.5), demand.outruns(3000, 0.5)
    (1000, 1000, True, False)
    """

    def __init__(self) -> None:
        self.ahead = 1  #: records that are read and kept for each partition: what consumers last had room for
        self.bulk = 0  #: how many the consumer takes at a time, where that is many
        self._called = 0.0  #: when a consumer last asked for something
        self._taken = 0.0  #: when one last got something, where that was not all; else 0
        self._pace = math.inf  #: messages a second that consumers took when there were enough

    def asked(self, limit: int, now: float, *, alone: bool) -> None:
        """A consumer has room for `limit` messages. `alone`: there is no other one."""
        self._called = now
        self.ahead = max(min(_AHEAD, limit), 1 if alone else self.ahead)
        self.bulk = limit if limit >= _BULK else 0

    def took(self, count: int, left: int, now: float) -> None:
        """A consumer got `count` messages, and `left` remained for the next one."""
        if self._taken:
            self._pace = count / max(self._called - self._taken, 0.001)
        self._taken = now if left else 0.0

    def gone(self) -> None:
        """Claim nothing ahead until a consumer asks for many again: one has gone."""
        self.bulk = 0

    def is_recent(self, now: float) -> bool:
        """Whether a consumer asked for something a moment ago."""
        return now <= self._called + _RECENT

    def outruns(self, ready: int, seconds: float) -> bool:
        """Whether so many that are `ready` may be gone before so many `seconds` are over."""
        return ready < self._pace * seconds
