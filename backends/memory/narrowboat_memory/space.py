"""The named spaces of this process: everybody who opens the same name shares one, for as long as the process lives.

What a space holds (leases and queues, or messages) is its kind's business; here is only who shares with whom. A forked
child starts with empty spaces: a copy of its parent's would look like possession, and its mutexes may be held by threads
that the child does not have.
"""

from __future__ import annotations

import os
import threading
from typing import Any, TypeVar

Kind = TypeVar("Kind")

_spaces: dict[tuple[type[Any], str, str], Any] = {}
_guard = threading.Lock()


def space(kind: type[Kind], name: str, prefix: str) -> Kind:
    """The space of that kind, name and prefix; made by `kind()` when somebody asks for it first."""
    with _guard:
        found = _spaces.get((kind, name, prefix))
        if found is None:
            found = _spaces[kind, name, prefix] = kind()
        made: Kind = found
        return made


def _after_fork_in_child() -> None:
    global _spaces, _guard
    _spaces = {}
    _guard = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
