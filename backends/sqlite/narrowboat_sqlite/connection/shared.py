"""State that the drivers of one process share: a mapping and its mutex. In a forked child both are new.

The child has none of the parent's threads, so a mutex that one of them held would never be free there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, MutableMapping
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Shared(Generic[K, V]):
    """Hold `mutex` to change `found`. Made when its module is imported, and kept for as long as the process lives."""

    mutex: threading.Lock
    found: MutableMapping[K, V]

    def __init__(self, kept: Callable[[], MutableMapping[K, V]] = dict) -> None:
        self._kept = kept
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self.mutex = threading.Lock()
        self.found = self._kept()
