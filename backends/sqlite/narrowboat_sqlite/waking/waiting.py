"""The waiters of this process, so that a release can wake its neighbour directly, without a look at the clock or the disk.

Each provider keeps its own waiters here, because only it knows by which clock they wait. All providers of one file and
prefix in this process know each other as neighbours. Other processes' waiters are rows in the file and nothing else.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from narrowboat.contract.locks import Request
from narrowboat_sqlite.connection.shared import Shared


class _Waiter:
    __slots__ = ("looks_at", "told", "wake")

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.looks_at = math.inf  #: when it looks again by itself; until its attempt is answered, nobody knows
        self.told = False  #: woken since its last attempt: once is enough


class Waiting:
    """The waiters of one provider, by name and owner. From any thread.

    `begin` and `end` are called when the first waiter comes and when the last one has left.
    """

    def __init__(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        self._begin = begin
        self._end = end
        self._mutex = threading.Lock()
        self._names: dict[str, dict[str, _Waiter]] = {}
        self._began = False

    def arm(self, request: Request) -> bool:
        """Wake the owner from now on. Whether it was waiting already."""
        with self._mutex:
            owners = self._names.get(request.name)
            if owners is None:
                owners = self._names[request.name] = {}
            waiter = owners.get(request.owner)
            if waiter is None:
                owners[request.owner] = _Waiter(request.wake)
                return False
            waiter.wake = request.wake
            waiter.told = False
            waiter.looks_at = math.inf
            return True

    def will_look(self, name: str, owner: str, when: float) -> None:
        """The owner makes its next attempt then at the latest."""
        with self._mutex:
            waiter = self._names.get(name, {}).get(owner)
            if waiter is not None:
                waiter.looks_at = when

    def looks_at(self, name: str, owner: str) -> float:
        """When the owner makes its next attempt at the latest; -inf where it does not wait here."""
        with self._mutex:
            waiter = self._names.get(name, {}).get(owner)
            return -math.inf if waiter is None else waiter.looks_at

    def disarm(self, name: str, owner: str) -> None:
        """Forget the owner. Idempotent."""
        with self._mutex:
            owners = self._names.get(name)
            if owners is not None:
                owners.pop(owner, None)
                if not owners:
                    del self._names[name]
            if self._began and not self._names:
                self._end()
                self._began = False

    def watched(self) -> None:
        """A caller found the lock busy and will wait: from now on other processes' commits matter."""
        with self._mutex:
            if self._names and not self._began:
                self._begin()
                self._began = True  # after it: beginning twice does no harm, not at all does

    def names(self) -> list[str]:
        """The names that have waiters here."""
        with self._mutex:
            return list(self._names)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def wake(self, name: str, owners: Iterable[str]) -> None:
        """Wake those of `owners` that wait here for `name` and were not woken since their last attempt."""
        for owner in owners:
            with self._mutex:
                waiter = self._names.get(name, {}).get(owner)
            if waiter is not None and not waiter.told:
                waiter.wake()
                waiter.told = True  # after it: an interrupt between the two wakes twice rather than never


#: The providers of one file and prefix in this process.
_neighbours: Shared[Hashable, tuple[Any, ...]] = Shared()


def join(key: Hashable, provider: Any) -> None:
    """Let the others of that file and prefix know `provider`, until it leaves."""
    with _neighbours.mutex:
        _neighbours.found[key] = (*neighbours(key), provider)


def leave(key: Hashable, provider: Any) -> None:
    """The end of that. Idempotent."""
    with _neighbours.mutex:
        others = tuple(other for other in neighbours(key) if other is not provider)
        if others:
            _neighbours.found[key] = others
        else:
            _neighbours.found.pop(key, None)


def neighbours(key: Hashable) -> tuple[Any, ...]:
    """All providers of that file and prefix in this process, the asking one too."""
    return _neighbours.found.get(key, ())
