"""What `Locks`, `Lock`, `Held` and `AllLocks` say on both faces alike: all of them that waits for nothing.

The bases of `narrowboat.locking` and `narrowboat.aio.locking`, which add what blocks or is awaited.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from narrowboat._engine.holdable import Hinting
from narrowboat._engine.runtime import Runtime
from narrowboat._engine.unclosed import Unclosed
from narrowboat._locks.acquire import Acquisition
from narrowboat._locks.blocks import Blocks, Entered
from narrowboat._locks.composite import Together
from narrowboat._locks.core import LockCore
from narrowboat._locks.possession import Possession
from narrowboat._locks.terms import Terms
from narrowboat.capabilities import LockCapabilities
from narrowboat.contract.locks import Grant
from narrowboat.errors import InvalidArgument
from narrowboat.health import Connection

E = TypeVar("E", bound=Entered)
H = TypeVar("H", bound=Possession)
R = TypeVar("R", bound=Runtime)


class LocksFace(Generic[R]):
    """The base of `Locks`."""

    def __init__(self, core: LockCore, runtime: R) -> None:
        self._core = core
        self._runtime = runtime
        runtime.unclosed = Unclosed(core, "Locks")  # each lock and each possession has the runtime

    @property
    def capabilities(self) -> LockCapabilities:
        """What this backend claims."""
        return self._core.capabilities

    def health(self) -> Connection:
        """What calls have found out about the connection; it asks no backend, and is of one moment."""
        return self._core.reach.health()

    def _terms(self, name: str, **options: Any) -> Terms:
        return Terms(self._core.backend, self._core.capabilities, self._core.label, name, **options)

    def __repr__(self) -> str:
        return f"<Locks {self._core.url}>"


class Attempt(Protocol[E]):
    """An acquire under way, of one lock or of several together."""

    held: E | None

    async def run(self, *, trying: bool = False) -> E | None:
        """What was acquired; None only for a try that found it busy."""
        ...

    def abandon(self) -> None:
        """The caller goes, from any point: afterwards nothing is held and nothing waits. Idempotent; never suspends."""
        ...


class Lockable(Generic[E]):
    """The base of what is acquired. `_timeout`: seconds that it waits unless told otherwise."""

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._blocks: Blocks[E] = Blocks()

    def _begin(self, timeout: float | None) -> Attempt[E]:
        """An acquire that has not begun yet."""
        raise NotImplementedError


class LockFace(Lockable[H], Hinting, Generic[R, H]):
    """The base of `Lock`. The terms are checked; each acquire makes an `Acquisition` with them."""

    def __init__(self, core: LockCore, runtime: R, terms: Terms) -> None:
        super().__init__(terms.timeout)
        self._core = core
        self._runtime = runtime
        self._terms = terms

    @property
    def name(self) -> str:
        """The lock's name."""
        return self._terms.name

    def _begin(self, timeout: float | None) -> Acquisition[H]:
        return Acquisition(self._core, self._runtime, self._terms, timeout, self._make)

    def _make(self, core: LockCore, grant: Grant, sent: float, renew: bool, caller: object) -> H:
        """The face's own possession."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<Lock {self.name!r} {self._terms.mode.value} ttl={self._terms.ttl:g}>"


class AllLocksFace(Lockable[E], Generic[R, E, H]):
    """The base of `AllLocks`."""

    def __init__(self, core: LockCore, runtime: R, locks: Sequence[LockFace[R, H]], timeout: float | None) -> None:
        super().__init__(timeout)
        self._core = core
        self._runtime = runtime
        self._locks = locks

    def _begin(self, timeout: float | None) -> Together[E, H]:
        return Together([lock._begin(timeout) for lock in self._locks], timeout, self._make)

    def _make(self, held: Sequence[H]) -> E:
        """The face's own."""
        raise NotImplementedError


def watch(held: H, callback: Callable[[H], object], tell: Callable[[Callable[[H], object], Any], None]) -> None:
    """`tell(callback, held)` once it is over, at once if it is: `on_lost`."""
    if not callable(callback) or inspect.iscoroutinefunction(callback):
        raise InvalidArgument(f"on_lost({callback!r}): expected a plain function of one argument")
    watcher = functools.partial(tell, callback)  # it knows nothing of what is held, which would keep it
    if not held._watch(watcher):
        watcher(held)
