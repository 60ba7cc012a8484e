"""The delay ladder: which of the ttl queues of its prefix a delayed message passes, decided without I/O.

There is one queue for each power of two of a step. A delay is rounded up to whole steps; the message passes the queues
of the bits that are set, from the longest to the shortest, each of which hands it on when its own time is over. All
messages of one queue wait equally long, so none holds up another, and the server does it alone: no client moves them.

The routing key has a word for each level, from the longest down, and then the destination as one word:
`0.0.1.0.1.orders`. Exchange `n` sends a message whose word for level `n` is 1 into queue `n`, whose dead letters go to
exchange `n-1`; it hands one whose word is 0 to exchange `n-1` directly. Exchange `due` stands at the end and knows the
destinations.

Each prefix has a ladder of its own, so that rights can be given to it. Version 0.1 had one for all: what was on it when a
program was brought up to date is handed on by the server, over the bindings that are there.
"""

from __future__ import annotations

import math
from typing import NamedTuple

#: Seconds of the shortest queue, and so the most by which a message is late for the ladder's sake. A smaller step costs
#: more levels; a larger one makes short delays coarse.
STEP = 0.1
#: How many levels there are. Each is a quorum queue that is made when a delay first needs it.
LEVELS = 25
#: The longest delay that is taken, in seconds: 30 days. The levels would do for 38.
LONGEST = 30 * 86400.0

_ROOT = "narrowboat.delay"


class Ladder(NamedTuple):
    """The names of the ladder of one prefix."""

    root: str

    @classmethod
    def of(cls, prefix: str) -> Ladder:
        """The ladder of a prefix, which is escaped as it is in the names of queues.

        >>> Ladder.of("shop").root, Ladder.of("").root
        ('narrowboat.delay:shop', 'narrowboat.delay')
        """
        return cls(f"{_ROOT}:{prefix}" if prefix else _ROOT)

    @property
    def due(self) -> str:
        """The exchange at the end."""
        return f"{self.root}.due"

    @property
    def gone(self) -> str:
        """Where what is due goes whose destination is no longer there."""
        return f"{self.root}.gone"

    def exchange(self, level: int) -> str:
        """The exchange of a level; below the last one it is the end of the ladder.

        >>> Ladder.of("").exchange(3), Ladder.of("").exchange(-1)
        ('narrowboat.delay.3', 'narrowboat.delay.due')
        """
        return f"{self.root}.{level}" if level >= 0 else self.due


def ticks(level: int) -> int:
    """How long the queue of a level keeps a message, in milliseconds.

    >>> ticks(0), ticks(3)
    (100, 800)
    """
    return round(STEP * 1000) << level


def steps(delay: float) -> int:
    """How many steps a delay in seconds takes; never fewer than it asks for.

    >>> steps(0.1), steps(0.11), steps(0.0001)
    (1, 2, 1)
    """
    return max(1, math.ceil(round(delay / STEP, 6)))


def start(delay: float, word: str) -> tuple[int, str]:
    """The level to begin at, and the routing key for the destination `word`.

    >>> level, key = start(0.5, "orders")
    >>> level, key[-12:]
    (2, '1.0.1.orders')
    """
    count = steps(delay)
    bits = ".".join(f"{count:0{LEVELS}b}")
    return count.bit_length() - 1, f"{bits}.{word}"


def pattern(level: int, bit: int) -> str:
    """The binding key of a level for what passes its queue (1) or passes it by (0).

    >>> pattern(24, 1), pattern(22, 0)
    ('1.#', '*.*.0.#')
    """
    return "*." * (LEVELS - 1 - level) + f"{bit}.#"


def destination(word: str) -> str:
    """The binding key of a destination at the ladder's end.

    >>> destination("orders")
    '#.orders'
    """
    return f"#.{word}"
