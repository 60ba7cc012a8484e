"""Who has to know that the process was forked: in the child every lock, lane, queue and connection is the parent's."""

from __future__ import annotations

import os
import weakref
from typing import Any, Protocol

from narrowboat._engine.inside import in_child


class Forkable(Protocol):
    """What has to know that it woke up in a forked child."""

    def forked(self) -> None:
        """Replace every lock, lane and queue; drop the driver; lose every possession."""
        ...


_living: weakref.WeakSet[Any] = weakref.WeakSet()


def watch_forks(face: Forkable) -> None:
    """Call `face.forked()` in every child that is forked while it lives."""
    _living.add(face)


def _after_fork_in_child() -> None:
    in_child()
    for face in list(_living):
        face.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
