"""A driver's mutex that a call waits for no longer than it has time.

For a mutex that is held while a server is asked. Where the server is silent, each call behind a plain `with mutex` would wait
for those before it, and then for the server itself. With `turn` it gives up at its own deadline. What is asked behind it has
the rest of the call's time, so that a deadline is computed before the mutex is waited for.

It keeps no order among those who wait. A mutex that is held for memory alone needs none of this.

    >>> import threading
    >>> from narrowboat.errors import Unavailable
    >>> mutex = threading.Lock()
    >>> def late():
    ...     return Unavailable("another call still waits for the server; nothing was sent", sent=False)
    >>> with turn(mutex, 5.0, late):
    ...     with turn(mutex, 0.01, late):
    ...         print("both are inside")
    Traceback (most recent call last):
    narrowboat.errors.Unavailable: another call still waits for the server; nothing was sent
    >>> mutex.locked()
    False
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from narrowboat.errors import Unavailable


def turn(mutex: threading.Lock, seconds: float, late: Callable[[], BaseException]) -> AbstractContextManager[object]:
    """Hold `mutex` in a `with`, also where an interrupt strikes while it is taken or given back.

    Args:
        mutex: what only one call may hold.
        seconds: for which it is waited at most; a mutex that is free is taken also where none are left.
        late: makes the error that is raised where it was not to be had. Nothing was sent then: `Unavailable(..., sent=False)`.
    """
    if not mutex.locked():
        # The waiters' way costs 10 us, a third of an exchange with a server on the same machine. Where two calls see it free
        # at once, one waits for a call that began with it, which has no more time than it has itself.
        return mutex
    return _waited(mutex, seconds, late)


@contextlib.contextmanager
def _waited(mutex: threading.Lock, seconds: float, late: Callable[[], BaseException]) -> Iterator[None]:
    held: list[bool] = []
    try:
        # `extend(map(...))` leaves no point for an interrupt between taking it and noting that.
        held.extend(map(mutex.acquire, (True,), (min(max(0.0, seconds), threading.TIMEOUT_MAX),)))
        if not held[0]:
            raise late()
        yield
    finally:
        if held and held[0]:
            mutex.release()


def behind(place: object, doing: str, *, backend: str) -> Unavailable:
    """The error of a call whose time was over while another one still waited for the server.

    Args:
        place: the server, as texts name it, without its secrets.
        doing: what the call was doing.
        backend: its scheme.
    """
    return Unavailable(
        f"{place} did not answer in time while {doing}: a call before this one still waits for it. Nothing was sent. "
        "See whether the server is up and reachable, or give it longer with timeout=. The call may be repeated.",
        backend=backend,
        sent=False,
    )
