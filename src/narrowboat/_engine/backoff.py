"""How long to wait before the next try: pure functions, with the randomness passed in.

Delays grow by doubling up to a cap, because what failed twice will probably fail again at once; and they are spread,
because a thousand clients that failed together must not come back together. A delay is never shorter than half of
what it would be without the spread, so that "at least" can be promised.
"""

from __future__ import annotations

from collections.abc import Callable

#: Seconds before a message comes back whose handler failed: at first and at most. Smaller hammers what is down;
#: larger delays messages after a hiccup.
RETRY_BASE, RETRY_CAP = 1.0, 300.0
#: The same for looking again after the backend did not answer: somebody waits for it.
LOOK_BASE, LOOK_CAP = 0.05, 5.0


def exponential(attempt: int, base: float, cap: float, random: Callable[[], float]) -> float:
    """Seconds before the try after the `attempt`-th (1 is the first): between half of the full delay and all of it.

    >>> [exponential(attempt, 1.0, 60.0, lambda: 1.0) for attempt in (1, 2, 3, 10)]
    [1.0, 2.0, 4.0, 60.0]
    >>> exponential(1, 1.0, 60.0, lambda: 0.0)
    0.5
    """
    full = cap if attempt > 64 else min(cap, base * 2.0 ** max(0, attempt - 1))
    return full * (0.5 + 0.5 * random())


def after_failure(attempt: int, random: Callable[[], float], longest: float) -> float:
    """The delay of a message whose `attempt`-th delivery failed in its handler, no longer than the backend can keep it."""
    return min(longest, exponential(attempt, RETRY_BASE, RETRY_CAP, random))


def after_error(failures: int, random: Callable[[], float]) -> float:
    """The pause of a consumer whose backend failed to answer `failures` times in a row."""
    return exponential(failures, LOOK_BASE, LOOK_CAP, random)
