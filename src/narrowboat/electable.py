"""`elect` of `Locks`: what makes an election of a name. The election itself is loaded at the first call."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from narrowboat.electing import Election, Term
    from narrowboat.locking import Locks


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
        """An election by this name: one process of many leads, and another one within the ttl when it dies.

        It is the lock of that name, so `holders` and `evict` know it. Nothing is sent yet.

        Args:
            name: as for `lock`.
            ttl: seconds after which another process is elected if the leader dies or stands still.
            renew: keep the term alive in the background. With False the leader's own `term.renew()` does: then a function that
                hangs in a living process is replaced as well.
            label: for people, shown by `leader`; host and process id unless given.
            on_elected: called with the `Term` before its work begins; what it raises ends the term.
            on_lost: called with the `Term` when it is lost, as `Held.on_lost`.

        Raises:
            InvalidArgument: an argument outside what is allowed.
        """
        from narrowboat.electing.election import Election  # for programs that hold elections

        return Election(cast("Locks", self), name, ttl, renew, label, on_elected, on_lost)
