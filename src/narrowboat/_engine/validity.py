"""Until when a lease is ours, of a lock as of a delivery.

Validity is counted by the holder's own clock from *before* the request that last succeeded was sent, less a margin: the
server cannot have started the lease earlier, so it cannot end it earlier either. (Kleppmann, "How to do distributed locking",
2016; Gray and Cheriton, "Leases", 1989.)
"""

from __future__ import annotations

#: The smallest margin in seconds, and the share of the ttl. Less, and a coarse clock or a late thread believes in a lease
#: that has ended; more, and short leases are of little use.
MARGIN, MARGIN_SHARE = 0.010, 0.02


def deadline(sent: float, ttl: float, margin: float = 0.0) -> float:
    """Until when a lease of `ttl` seconds is ours, if the request for it was sent at `sent`.

    >>> deadline(100.0, 30.0)
    129.4
    >>> round(deadline(100.0, 0.05), 3)
    100.04
    """
    return sent + ttl - max(MARGIN, ttl * MARGIN_SHARE) - margin
