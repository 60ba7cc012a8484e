"""Brokers that are broken on purpose: each breaks one promise, and names the ids that must catch it, each of them.

A kit that no mutant can make fail proves nothing. Each of these is a layer in front of a driver that works, so it breaks
any backend in the same way. Here is the table; they are written down by what they break, in the modules that it is put
together from.
"""

from __future__ import annotations

from narrowboat.conformance import (
    mutants_broker_publishing,
    mutants_broker_receiving,
    mutants_broker_settling,
    mutants_broker_sources,
)
from narrowboat.conformance.mutants import Mutant

MUTANTS: list[Mutant] = [
    *mutants_broker_publishing.MUTANTS,
    *mutants_broker_sources.MUTANTS,
    *mutants_broker_receiving.MUTANTS,
    *mutants_broker_settling.MUTANTS,
]
