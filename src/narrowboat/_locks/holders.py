"""Who holds what in this process, by name and by thread or task: what a caller may nest in, or would wait for itself over.

A possession is known by weak reference, so that one that nobody has any more goes out of here by itself. Permits of a semaphore
belong to nobody and are not known here. Who holds a name elsewhere, only the backend can tell.
"""

from __future__ import annotations

import weakref

from narrowboat._locks.possession import HELD, Possession
from narrowboat._locks.terms import Terms
from narrowboat.contract.locks import Mode
from narrowboat.errors import AlreadyHeld, InvalidArgument


class Holders:
    """See the module's text."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self.held: dict[tuple[str, int], list[weakref.ref[Possession]]] = {}  #: by name and caller

    def find_reentrant(self, terms: Terms, caller: object) -> Possession | None:
        """What this caller already holds of that name and may nest in; `AlreadyHeld` where it would wait for itself."""
        entries = self.held.get((terms.name, id(caller)))
        if not entries:
            return None
        for reference in tuple(entries):
            possession = reference()
            if possession is None or possession._state is not HELD or possession.lost:
                continue
            if possession._caller() is not caller or not possession._is_callers():
                continue
            have = possession._grant.mode
            if terms.reentrant and (have is Mode.EXCLUSIVE or have is terms.mode):
                _check_minimum(terms, possession)
                return possession
            if Mode.EXCLUSIVE in (have, terms.mode):
                upgrade = "; a shared lock cannot be upgraded, release it first" if have is Mode.SHARED else ""
                raise AlreadyHeld(
                    f"lock {terms.name!r}: this thread or task holds it already ({have.value}, token {possession.token}) "
                    f"and would wait for itself{upgrade or '; use reentrant=True to nest'}",
                    name=terms.name,
                    backend=self._backend,
                )
        return None

    def register(self, possession: Possession) -> None:
        """Its caller holds it."""
        if possession._grant.mode is Mode.SEMAPHORE:
            return
        key = possession._key
        # Not the possession's own reference, which the renewal keeps: this one goes with its entry, and is then called no more.
        self.held.setdefault(key, []).append(weakref.ref(possession, lambda gone: self._drop(key, gone)))

    def unregister(self, possession: Possession) -> None:
        """It is released or lost."""
        if possession._finalizer is not None:
            possession._finalizer.detach()
        self._drop(possession._key, possession._ref)  # equal to the entry while both are alive

    def _drop(self, key: tuple[str, int], reference: weakref.ref[Possession]) -> None:
        # May run at any allocation (a weak reference's callback), so it takes no lock: single dict and list steps only.
        entries = self.held.get(key)
        if entries is not None:
            try:
                entries.remove(reference)
            except ValueError:
                pass
            if not entries:
                self.held.pop(key, None)


def _check_minimum(terms: Terms, outer: Possession) -> None:
    """What is nested has no lease of its own, so it cannot stay taken for longer than what it nests in."""
    if terms.at_least > outer._at_least:
        raise InvalidArgument(
            f"lock {terms.name!r}: at_least={terms.at_least:g} s, nested in one of {outer._at_least:g} s by the same thread or "
            "task. The minimum is counted from the outermost acquire: give it that at_least"
        )
