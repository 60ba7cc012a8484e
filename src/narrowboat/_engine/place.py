"""Where a call of the sync face comes from: a thread, and in a pool's thread the job that it is at.

A pool's thread takes one job after the other. A lock that an earlier job has entered and not yet left (a generator that was
suspended in its `with`, as FastAPI's sync dependencies are) is not the next job's: that one waits its turn as anybody, and
nests in nothing. What tells two jobs apart is their context, which such pools copy for each; so a place is a mark that this
thread has left in the context of now. Without copies there is one context a thread, and so one place.

In a thread that runs an event loop everything is one place: who waited there for another task would stop that task as well.
"""

from __future__ import annotations

import sys
import threading
from contextvars import ContextVar


class Place:
    """One thread in one context."""

    __slots__ = ("thread",)

    def __init__(self, thread: int) -> None:
        self.thread = thread


_PLACE: ContextVar[Place | None] = ContextVar("place", default=None)


def here() -> Place:
    """The place of this call. A copied context brings another thread's mark along; it is not ours."""
    me = threading.get_ident()
    place = _PLACE.get()
    if place is None or place.thread != me:
        place = Place(me)
        _PLACE.set(place)
    return place


def in_loop() -> bool:
    """Whether this thread runs an event loop."""
    events = sys.modules.get("asyncio.events")
    return events is not None and events._get_running_loop() is not None
