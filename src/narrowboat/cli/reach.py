"""Opening the backend that a command works on: one that this process shares with others.

A backend that lives inside one process would take every command and do nothing: a lock that excludes nobody, messages
that are gone with the command. That is refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import narrowboat
from narrowboat.capabilities import Capabilities, Scope
from narrowboat.errors import Unsupported
from narrowboat.locking import Locks
from narrowboat.messaging import Messaging


@contextlib.contextmanager
def open_locks(url: str | None) -> Iterator[Locks]:
    """The locks behind `url`; None reads NARROWBOAT_LOCKS_URL."""
    with narrowboat.locks(url) as locks:
        check_reach(locks.capabilities)
        yield locks


@contextlib.contextmanager
def open_broker(url: str | None) -> Iterator[Messaging]:
    """The messages behind `url`; None reads NARROWBOAT_BROKER_URL."""
    with narrowboat.broker(url) as broker:
        check_reach(broker.capabilities)
        yield broker


def check_reach(capabilities: Capabilities) -> None:
    """Raise `Unsupported` for a backend that no other process can reach."""
    if capabilities.scope is Scope.PROCESS:
        raise Unsupported(
            "this backend lives inside one process, so no other process could ever meet what this command does there: "
            "take another, such as sqlite:///shop.db"
        )
