"""Brokers that are broken on purpose: each breaks one promise, and names the ids that must catch it, each of them.

A kit that no mutant can make fail proves nothing. Each of these is a layer in front of a driver that works, so it breaks
any backend in the same way. Here is the table; they are written down by what they break, in the modules that it is put
together from.
"""

from __future__ import annotations

from mutants import (
    Mutant,
    messages_publishing,
    messages_receiving,
    messages_settling,
    messages_sources,
)

MUTANTS: list[Mutant] = [
    *messages_publishing.MUTANTS,
    *messages_sources.MUTANTS,
    *messages_receiving.MUTANTS,
    *messages_settling.MUTANTS,
]
