"""How an `async with` of locks ends: the twin of what `narrowboat.locking` does at the end of a `with`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from narrowboat._locks.blocks import Block
from narrowboat._locks.lease import State

if TYPE_CHECKING:
    from narrowboat.aio.locking import Held, HeldAll


async def leave_block(entered: Held | HeldAll, block: Block[Any] | None, error: BaseException | None) -> None:
    """Release at the end of an `async with`. Cancelled before the release began, the block is not left."""
    if entered._depth > 1 and entered._state is State.HELD:  # an inner one; no call may stand between the two
        entered._depth -= 1
        if block is not None:
            block.left = True
        return
    try:
        await leave(entered.release, error)
    except Exception:
        entered._leave_behind()  # a signal handler's exception may have struck before the release began
        if block is not None:
            block.left = True
        raise
    except BaseException:
        entered._leave_behind()
        raise
    if block is not None:
        block.left = True


async def leave(release: Callable[[], Awaitable[None]], error: BaseException | None) -> None:
    """Release at the end of an `async with`. The body's own error goes on unchanged, with a note of what was met."""
    try:
        await release()
    except Exception as failure:
        if error is None:
            raise
        error.add_note(f"narrowboat: releasing the lock afterwards: {type(failure).__name__}: {failure}")
