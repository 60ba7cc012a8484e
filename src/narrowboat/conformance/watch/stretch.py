"""The stretch: how many times longer than usual a scenario's short leases are, on a machine that pauses or on request."""

from __future__ import annotations

import os

from narrowboat.conformance.watch import Watch
from narrowboat.errors import ConfigurationError

#: Seconds of a short lease, where the backend can keep one that short.
SHORT = 0.5
#: The share of a lease that pauses may take. More, and the lease proves nothing: its renewal comes at a third of it, and
#: scenarios look at what is left of it.
PAUSED_SHARE = 0.25
#: Seconds before a scenario in which the pauses of the machine say how long its short leases must be.
LATELY = 20.0
#: How many times longer short leases may be, on machines that pause more and more.
STRETCHES = (1, 2, 4, 6)


def stretch(watch: Watch, now: float) -> int:
    """The stretch of a scenario that begins `now`: that of `NARROWBOAT_STRETCH` at least, and more after long pauses.

    The first pause of a quiet machine comes without notice. On a shared machine, 4 keeps a run green that pauses for a second.
    """
    least = os.environ.get("NARROWBOAT_STRETCH", "1")
    if least not in map(str, STRETCHES):
        raise ConfigurationError(f"NARROWBOAT_STRETCH={least}: allowed are {', '.join(map(str, STRETCHES))}")
    for times in STRETCHES[STRETCHES.index(int(least)) : -1]:
        if watch.stood(now - LATELY, now, SHORT * times) <= SHORT * times * PAUSED_SHARE / 2:
            return times
    return STRETCHES[-1]
