"""The table of brokers that are broken on purpose. Each breaks one promise, and each id that it names must catch it.

A kit that no mutant can make fail proves nothing. A mutant is a layer in front of a driver that works, so it breaks any backend
in the same way. The modules that this table is made of are named after what their mutants break.
"""

from __future__ import annotations

from mutants import (
    Mutant,
    messages_publishing,
    messages_receiving,
    messages_settling,
    messages_sources,
    messages_told,
    reference_messages,
)

MUTANTS: list[Mutant] = [
    *messages_publishing.MUTANTS,
    *messages_sources.MUTANTS,
    *messages_receiving.MUTANTS,
    *messages_settling.MUTANTS,
    *messages_told.MUTANTS,
    *reference_messages.MUTANTS,
]
