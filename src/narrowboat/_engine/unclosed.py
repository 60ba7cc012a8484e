"""The warning about what was opened and never closed, as Python's files and sockets give it.

A mark stands with a face and with all that comes from it, such as a lock, a possession or a consumer. When the last of them is
gone, nobody can close what they used, and its threads and connections stay. The core has no strong reference to the mark: its
threads keep the core alive. A face that is kept to the end of the program is no mistake.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from typing import Protocol

from narrowboat.dsn import Url


class Open(Protocol):
    """What a face stands on."""

    url: Url
    closed: bool

    @property
    def opened(self) -> bool:
        """Whether it has a connection or a thread."""
        ...


class Unclosed:
    """Warns when it is dropped, unless `core` was closed, or opened nothing. Not in a forked child: the parent closes it."""

    __slots__ = ("__weakref__", "_core", "_face", "_process")

    def __init__(self, core: Open, face: str) -> None:
        self._core = core
        self._face = face
        self._process = os.getpid()

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # The collector may strike anywhere, with any mutex held: this only reads. At the very end the modules' names are None.
        core = self._core
        if not is_finalizing() and core.opened and not core.closed and os.getpid() == self._process:
            warnings.warn(f"unclosed <{self._face} {core.url}>", ResourceWarning, stacklevel=2, source=self)
