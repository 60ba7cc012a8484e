"""The delay ladder: which of the shared ttl queues a delayed message passes, decided without I/O.

There is one queue for each power of two of a step. A delay is rounded up to whole steps; the message passes the queues
of the bits that are set, from the longest to the shortest, each of which hands it on when its own time is over. All
messages of one queue wait equally long, so none holds up another, and the server does it alone: no client moves them.

The routing key has a word for each level, from the longest down, and then the destination as one word:
`0.0.1.0.1.orders`. Exchange `n` sends a message whose word for level `n` is 1 into queue `n`, whose dead letters go to
exchange `n-1`; it hands one whose word is 0 to exchange `n-1` directly. Exchange `due` stands at the end and knows the
destinations.
"""

from __future__ import annotations

import math

#: Seconds of the shortest queue, and so the most by which a message is late for the ladder's sake. A smaller step costs
#: more levels; a larger one makes short delays coarse.
STEP = 0.1
#: How many levels there are. Each is a quorum queue that is made when a delay first needs it.
LEVELS = 25
#: The longest delay that is taken, in seconds: 30 days. The levels would do for 38.
LONGEST = 30 * 86400.0

#: What all parts of the ladder are called, in every virtual host; it serves all prefixes.
ROOT = "narrowboat.delay"
DUE = f"{ROOT}.due"
#: Where what is due goes whose destination is no longer there.
GONE = f"{ROOT}.gone"


def exchange(level: int) -> str:
    """The exchange of a level; below the last one it is the end of the ladder.

    >>> exchange(3), exchange(-1)
    ('narrowboat.delay.3', 'narrowboat.delay.due')
    """
    return f"{ROOT}.{level}" if level >= 0 else DUE


def ticks(level: int) -> int:
    """How long a level's queue keeps a message, in milliseconds.

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


def route(delay: float, word: str) -> tuple[int, str]:
    """The level to begin at, and the routing key for the destination `word`.

    >>> level, key = route(0.5, "orders")
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
