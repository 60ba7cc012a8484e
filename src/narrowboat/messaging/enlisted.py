"""What a caller's own connection gives back when it was asked to store a message: for this face, nothing to wait for."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine

from narrowboat.errors import InvalidArgument


async def finished(found: Awaitable[object] | None) -> None:
    """Refuse what is to be awaited: nothing of it has begun."""
    if found is None:
        return
    if isinstance(found, Coroutine):
        found.close()
    raise InvalidArgument("send_in: the connection is asynchronous; use narrowboat.aio. Nothing was sent")
