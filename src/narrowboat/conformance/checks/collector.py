"""The collector of garbage at rest, where CPython breaks when a collection runs. For the kit's own machinery alone."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator

_mutex = threading.Lock()  # without it, the end of one block would switch the collector on in the middle of another


@contextlib.contextmanager
def resting() -> Iterator[None]:
    """Nothing in the process collects garbage during the block; other blocks of this kind wait for its end."""
    with _mutex:
        collected = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if collected:
                gc.enable()
