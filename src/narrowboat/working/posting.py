"""A schedule in threads: how a worker of the sync face publishes a tick, and calls what one was registered for."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from narrowboat._engine.runtime import straight
from narrowboat._messages.handling import check_result
from narrowboat.electing.seat import Seat

__all__ = ["Seat", "call", "handler", "post"]


async def post(queue: Any, data: Any, **options: Any) -> None:
    """Publish it."""
    queue.publish(data, **options)


async def call(function: Callable[[Any], Any], tick: Any) -> None:
    """Call the function of a schedule."""
    found = function(tick)
    if found is not None:
        check_result(function, found)


def handler(work: Callable[[Any], Coroutine[Any, Any, None]]) -> Callable[[Any], None]:
    """`work` as a handler of messages."""

    def handle(message: Any) -> None:
        straight(work(message))

    return handle
