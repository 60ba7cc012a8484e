"""Lock drivers that are broken on purpose: each breaks one promise, and names the ids that must catch it, each of them.

A kit that no mutant can make fail proves nothing. Each of these is a layer in front of a driver that works, so it breaks
any backend in the same way; they are never used outside the kit's own tests. Here is the table; they are written down by
what they break, in the modules that it is put together from.
"""

from __future__ import annotations

from narrowboat.conformance import (
    mutants_locks_holders,
    mutants_locks_leases,
    mutants_locks_leaving,
    mutants_locks_tokens,
    mutants_locks_waiting,
)
from narrowboat.conformance.mutants import Mutant
from narrowboat.conformance.mutants_locks_leaving import ReleaseDoesNothing

__all__ = ["MUTANTS", "ReleaseDoesNothing"]

MUTANTS: list[Mutant] = [
    *mutants_locks_holders.MUTANTS,
    *mutants_locks_tokens.MUTANTS,
    *mutants_locks_leaving.MUTANTS,
    *mutants_locks_waiting.MUTANTS,
    *mutants_locks_leases.MUTANTS,
]
