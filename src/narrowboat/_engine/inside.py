"""Which threads are in the middle of a call: for calls that come out of one, from a signal handler, a finaliser, a listener.

Such a call would wait for what its own thread has: the lane's turn, a mutex of the driver's. So a thread is noted here while
it runs a call of the sync face, and for as long as it lives where it is a thread of the core's. Who waits for somebody else,
with nothing in its hands, is not inside. What a call from there may do is said in `narrowboat.errors.NestedCall`.

A mark is set and taken back by a statement that no call precedes: an interrupt strikes after calls only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from narrowboat.errors import NestedCall

T = TypeVar("T")

#: The idents of the threads that are inside. Asked for by the module's attribute, which gevent replaces.
INSIDE: dict[int, None] = {}


def inside() -> bool:
    """Whether the calling thread is in the middle of a call."""
    return threading.get_ident() in INSIDE


def refused() -> NestedCall:
    """The error for a call that cannot be made there."""
    return NestedCall(
        "this call came out of the middle of another one in the same thread (from a signal handler, a finaliser or a listener) "
        "and would wait for itself; nothing was sent. There, set a flag and make the call later: of a lock only release() may "
        "be called, of messages stop()"
    )


def guarded(function: Callable[[], T]) -> T:
    """Call `function` as one call; `NestedCall` from the middle of another."""
    me = threading.get_ident()
    if me in INSIDE:
        raise refused()
    INSIDE[me] = None
    try:
        value = function()
        return value  # noqa: RET504  # a statement after the call and before the `finally`: an interrupt between them is met
    finally:
        try:
            del INSIDE[me]
        except KeyError:
            pass


def in_child() -> None:
    """In a forked child the other threads are gone, and their idents are used again."""
    INSIDE.clear()
