"""Schedules and relays in threads: how a worker of the sync face publishes, waits, and calls what one was registered for."""

from __future__ import annotations

import select
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from narrowboat._engine.runtime import run, straight
from narrowboat._messages.handling import check_result
from narrowboat.clock import Clock
from narrowboat.electing.seat import Seat

__all__ = ["Seat", "call", "handler", "post", "send", "told"]

#: Seconds between two looks at the seat while a file is waited for.
LOOK = 0.1


async def post(queue: Any, data: Any, **options: Any) -> None:
    """Publish it."""
    queue.publish(data, **options)


async def send(broker: Any, messages: Sequence[Any]) -> list[Any]:
    """Publish what is sealed: an answer for each."""
    return run(broker._core.publish(messages))


async def told(seat: Seat, file: int | None, until: float, clock: Clock) -> None:
    """Wait until `file` can be read or the seat is woken, but no longer than `until`."""
    if file is None:
        await seat.wait(until)
        return
    while (left := until - clock()) > 0 and not await seat.wait(0.0):  # what wakes a seat wakes no `select`
        if select.select([file], [], [], min(left, LOOK))[0]:
            return


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
