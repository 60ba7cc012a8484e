"""`elect` of `Locks`, for asyncio: what makes an election of a name. The election itself is loaded at the first call."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from narrowboat.aio.electing import Election, Term
    from narrowboat.aio.locking import Locks


class Electable:
    """What `Locks` has for elections."""

    def elect(
        self,
        name: str,
        *,
        ttl: float | timedelta = 30,
        renew: bool = True,
        label: str | None = None,
        on_elected: Callable[[Term], object] | None = None,
        on_lost: Callable[[Term], object] | None = None,
    ) -> Election:
        """An election by this name, as `narrowboat.locking.Locks.elect`."""
        from narrowboat.aio.electing.election import Election  # for programs that hold elections

        return Election(cast("Locks", self), name, ttl, renew, label, on_elected, on_lost)
