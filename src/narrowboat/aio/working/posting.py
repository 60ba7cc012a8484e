"""Schedules and relays in tasks: how a worker of the asyncio face publishes, waits, and calls what one was registered for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from narrowboat.aio.electing.seat import Seat
from narrowboat.clock import Clock

__all__ = ["Seat", "call", "handler", "post", "send", "told"]


async def post(queue: Any, data: Any, **options: Any) -> None:
    """Publish it."""
    await queue.publish(data, **options)


async def send(broker: Any, messages: Sequence[Any]) -> list[Any]:
    """Publish what is sealed: an answer for each."""
    found: list[Any] = await broker._core.publish(messages)
    return found


async def told(seat: Seat, file: int | None, until: float, clock: Clock) -> None:
    """Wait until `file` can be read or the seat is woken, but no longer than `until`."""
    loop = asyncio.get_running_loop()
    if file is not None:
        loop.add_reader(file, seat.wake)
    try:
        await seat.wait(until)
    finally:
        if file is not None:
            loop.remove_reader(file)


async def call(function: Callable[[Any], Any], tick: Any) -> None:
    """Call the function of a schedule."""
    await function(tick)


def handler(work: Callable[[Any], Coroutine[Any, Any, None]]) -> Callable[[Any], Coroutine[Any, Any, None]]:
    """`work` as a handler of messages."""
    return work
