"""A schedule in tasks: how a worker of the asyncio face publishes a tick, and calls what one was registered for."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from narrowboat.aio.electing.seat import Seat

__all__ = ["Seat", "call", "handler", "post"]


async def post(queue: Any, data: Any, **options: Any) -> None:
    """Publish it."""
    await queue.publish(data, **options)


async def call(function: Callable[[Any], Any], tick: Any) -> None:
    """Call the function of a schedule."""
    await function(tick)


def handler(work: Callable[[Any], Coroutine[Any, Any, None]]) -> Callable[[Any], Coroutine[Any, Any, None]]:
    """`work` as a handler of messages."""
    return work
