"""Elections: one process of many leads, and another one when it dies. `Election` is the face, `Term` what it gives.

    election = locks.elect("indexer", ttl=15)
    election.run(index)  # calls index(term) whenever this process is elected

It stands on the lock of the election's name and promises what that lock promises. The asyncio twin is in `narrowboat.aio`.
Loaded when `locks.elect` is first called.
"""

from narrowboat.electing.election import Election, Term

__all__ = ["Election", "Term"]
