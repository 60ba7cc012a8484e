"""What a caller's own connection gives back when it was asked to store a message: awaited where that is asynchronous."""

from __future__ import annotations

from collections.abc import Awaitable


async def finished(found: Awaitable[object] | None) -> None:
    """Wait for it. A connection that is not asynchronous has done it already."""
    if found is not None:
        await found
