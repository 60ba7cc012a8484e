"""Lock drivers that are broken on purpose: each breaks one promise, and names the ids that must catch it, each of them.

A kit that no mutant can make fail proves nothing. Each mutant is a layer in front of a driver that works, and breaks any
backend in the same way. Only the kit's own tests use them. This module is their table; the modules that it imports hold them,
by what they break.
"""

from __future__ import annotations

from mutants import (
    Mutant,
    locks_holders,
    locks_leases,
    locks_leaving,
    locks_minimum,
    locks_tokens,
    locks_told,
    locks_waiting,
    reference_locks,
)
from mutants.locks_leaving import ReleaseDoesNothing

__all__ = ["MUTANTS", "ReleaseDoesNothing"]

MUTANTS: list[Mutant] = [
    *locks_holders.MUTANTS,
    *locks_tokens.MUTANTS,
    *locks_leaving.MUTANTS,
    *locks_waiting.MUTANTS,
    *locks_leases.MUTANTS,
    *locks_minimum.MUTANTS,
    *locks_told.MUTANTS,
    *reference_locks.MUTANTS,
]
