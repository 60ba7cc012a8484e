"""How long a delayed message stays in which partition of a retry topic. Pure functions.

Partition 0 is for what is due within a quarter of a second. Each further partition is a level: a message stays there for
0.25 s x 4^n, so whatever is at its head is due first, and then goes to the largest level that is not above what remains.
"""

from __future__ import annotations

#: Seconds of the first level. Shorter waits are held in the consumer's memory.
FIRST = 0.25
#: How much longer each level is than the one before.
FACTOR = 4


def stay(level: int) -> float:
    """Seconds for which a message stays in a level before it is looked at.

    >>> [stay(level) for level in range(4)]
    [0.0, 0.25, 1.0, 4.0]
    """
    return 0.0 if level == 0 else FIRST * FACTOR ** (level - 1)


def count(delay_max: float) -> int:
    """How many partitions a retry topic needs for delays up to `delay_max` seconds.

    >>> count(1.0), count(86400.0)
    (3, 11)
    """
    levels = 1
    while stay(levels) <= delay_max:
        levels += 1
    return levels


def level(remaining: float, levels: int) -> int:
    """The largest of `levels` that is not above what remains.

    >>> [level(seconds, 11) for seconds in (0.0, 0.2, 0.25, 3.9, 4.0, 1e9)]
    [0, 0, 1, 2, 3, 10]
    """
    found = 0
    while found + 1 < levels and stay(found + 1) <= remaining:
        found += 1
    return found
