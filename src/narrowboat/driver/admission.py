"""Who of a lock's waiters may go, given who holds it, and what the others are told.

For backends that keep the queue themselves. Pure functions over counts, so that a backend can ask with numbers that it has
counted in its own way (a walk over a dict, a query, a listing). What decides on a server, such as a script, has to come to the
same answers. Nothing here knows a clock: the caller counts only holders whose lease runs and waiters that are alive.
"""

from __future__ import annotations

from collections.abc import Iterable

from narrowboat.contract.locks import Grant, Mode
from narrowboat.errors import LeaseLost, Reason


def admitted(mode: Mode, limit: int | None, *, holding: Mode | None, held: int, ahead: int, writer_ahead: bool) -> bool:
    """Whether a contender may go now.

    `holding`, `held`: the mode of the present holders (None when there are none) and how many they are. `ahead`: how many
    wait before it; `writer_ahead`: whether one of those wants it exclusively. A waiting writer blocks every reader that
    came after it, so that a stream of readers cannot starve it; nobody else may overtake either.

    >>> admitted(Mode.SHARED, None, holding=Mode.SHARED, held=3, ahead=0, writer_ahead=False)
    True
    >>> admitted(Mode.SHARED, None, holding=Mode.SHARED, held=3, ahead=1, writer_ahead=True)
    False
    """
    if mode is Mode.EXCLUSIVE:
        return held == 0 and ahead == 0
    if mode is Mode.SHARED:
        return holding is not Mode.EXCLUSIVE and not writer_ahead
    return held + ahead < (limit or 0)


def heads(queue: Iterable[tuple[Mode, int | None]], *, holding: Mode | None, held: int) -> int:
    """How many of the waiters at the front of `queue`, oldest first as (mode, limit), may all go now.

    >>> heads([(Mode.SHARED, None), (Mode.SHARED, None), (Mode.EXCLUSIVE, None)], holding=None, held=0)
    2
    """
    ahead = 0
    writer_ahead = False
    for mode, limit in queue:
        if not admitted(mode, limit, holding=holding, held=held, ahead=ahead, writer_ahead=writer_ahead):
            break
        ahead += 1
        writer_ahead = writer_ahead or mode is Mode.EXCLUSIVE
    return ahead


def disagree(mode: Mode, limit: int | None, other_mode: Mode, other_limit: int | None) -> bool:
    """Whether two contenders for one name contradict each other.

    Exclusive and shared go together; a semaphore goes with semaphores of the same size only.

    >>> disagree(Mode.SEMAPHORE, 3, Mode.SEMAPHORE, 4), disagree(Mode.SHARED, None, Mode.EXCLUSIVE, None)
    (True, False)
    """
    if mode is Mode.SEMAPHORE or other_mode is Mode.SEMAPHORE:
        return mode is not other_mode or limit != other_limit
    return False


def conflict(name: str, mode: Mode, limit: int | None, other_mode: Mode, other_limit: int | None) -> str:
    """The text of the `Conflict` for contenders that `disagree`."""
    return (
        f"lock {name!r}: asked for as {_text(mode, limit)}, but it is held or waited for as {_text(other_mode, other_limit)}. "
        "Everybody who uses one name has to name the same kind and size; take another name for another kind."
    )


def lost(grant: Grant, reason: Reason, *, backend: str) -> LeaseLost:
    """The answer to whoever renews a grant that is over.

    >>> str(lost(Grant("a", "me", 7, 30.0, Mode.EXCLUSIVE, None), Reason.EVICTED, backend="shop"))
    "lock 'a': the lease with token 7 is over (evicted). Stop what it protects; acquire again."
    """
    return LeaseLost(
        f"lock {grant.name!r}: the lease with token {grant.token} is over ({reason.value}). Stop what it protects; acquire "
        "again.",
        name=grant.name,
        reason=reason,
        token=grant.token,
        backend=backend,
    )


def _text(mode: Mode, limit: int | None) -> str:
    return f"a semaphore of {limit}" if mode is Mode.SEMAPHORE else f"{mode.value} lock"
