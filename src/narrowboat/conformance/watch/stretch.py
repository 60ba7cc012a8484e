"""By how much the short leases of a scenario are longer than usual: as the machine has paused of late, or as a run asks for."""

from __future__ import annotations

import os

from narrowboat.conformance.watch import Watch
from narrowboat.errors import ConfigurationError

#: Seconds of a short lease, where the backend can keep one that short.
SHORT = 0.5
#: The share of a lease that pauses may take before the lease proves nothing: its renewal comes at a third of it, and scenarios
#: look at what is left of it.
PAUSED_SHARE = 0.25
#: Seconds before a scenario in which the pauses of the machine say how long its short leases must be.
LATELY = 20.0
#: By how much short leases are longer, on a machine that pauses more and more.
STRETCHES = (1, 2, 4, 6)


def stretch(watch: Watch, now: float) -> int:
    """For a scenario that begins `now`: at least what `NARROWBOAT_STRETCH` says, more where the pauses ask for more.

    The first pause of a quiet machine comes without notice. Where a run must be green on a shared one, 4 lets it stand still
    for a second.
    """
    least = os.environ.get("NARROWBOAT_STRETCH", "1")
    if least not in map(str, STRETCHES):
        raise ConfigurationError(f"NARROWBOAT_STRETCH={least}: allowed are {', '.join(map(str, STRETCHES))}")
    for times in STRETCHES[STRETCHES.index(int(least)) : -1]:
        if watch.stood(now - LATELY, now, SHORT * times) <= SHORT * times * PAUSED_SHARE / 2:
            return times
    return STRETCHES[-1]
