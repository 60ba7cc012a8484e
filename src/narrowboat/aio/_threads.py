"""Runs what blocks on a thread that ends with it, for the closing of a face on a loop: the default executor's would stay."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol

from narrowboat.clock import Clock, LoopClock


class Ends(Protocol):
    """What a face stands on, as its end needs it."""

    clock: Clock

    def finish_close(self) -> None:
        """Return or release what it has, and stop."""
        ...


async def finish(core: Ends) -> None:
    """Finish the closing of a face, whose callers have been told to go; in a thread, unless its clock asks for none."""
    if not isinstance(core.clock, LoopClock):
        await in_thread(core.finish_close)
        return
    while getattr(core, "waiting", None):  # noqa: ASYNC110  # acquires that are on their way out, by this loop
        await asyncio.sleep(0)
    core.finish_close()


async def in_thread(function: Callable[[], None]) -> None:
    """Run something that blocks, and wait for it."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def work() -> None:
        error: BaseException | None = None
        try:
            function()
        except BaseException as raised:
            error = raised
        try:
            loop.call_soon_threadsafe(_finish, done, error)
        except RuntimeError:
            pass  # the loop has ended meanwhile, and with it whoever waited

    thread = threading.Thread(target=work, name="narrowboat-close")
    thread.start()
    try:
        await asyncio.shield(done)
    finally:
        if done.done():
            thread.join()


def _finish(done: asyncio.Future[None], error: BaseException | None) -> None:
    if not done.done():
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
