"""Lock drivers that let in a user that they must not let in, or mix up names or namespaces."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from mutants import Mutant
from mutants.layers import Answer, Asks, Joins, Renames, Shared, named
from narrowboat.contract.locks import Busy, Holder, LockProvider, Mode, Request
from narrowboat.errors import Conflict
from narrowboat.layers.passing import PassingLocks


class GrantsTwice(Renames):
    """Lets a second holder in beside the first."""

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """A user that finds the lock busy gets the second place."""
        answers = super().attempt(requests)
        for place, (request, answer) in enumerate(zip(requests, answers, strict=True)):
            if isinstance(answer, Busy):
                self.withdraw([request])
                self._kept[request.owner] = f"{request.name} (second)"
                answers[place] = super().attempt([request])[0]
        return answers


class ConnectionsDoNotExclude(Renames):
    """Excludes the users of one connection from each other, and no other user."""

    _numbers = itertools.count()

    def __init__(self, inner: LockProvider) -> None:
        super().__init__(inner)
        self._number = next(self._numbers)

    def kept_as(self, request: Request) -> str:
        """A name of this connection's own."""
        return f"{request.name} ({self._number})"


class SharedExcludesNobody(Renames):
    """Lets readers in beside a writer, and a writer beside readers."""

    def kept_as(self, request: Request) -> str:
        """Readers meet elsewhere."""
        return f"{request.name} (shared)" if request.mode is Mode.SHARED else request.name


class SharedExcludesShared(Asks):
    """Lets one reader in at a time."""

    def change(self, request: Request) -> Request:
        """A writer's request."""
        return request._replace(mode=Mode.EXCLUSIVE) if request.mode is Mode.SHARED else request


class OnePermitTooMany(Asks):
    """Gives out one permit more than a semaphore has."""

    def change(self, request: Request) -> Request:
        """A larger one."""
        return request if request.limit is None else request._replace(limit=request.limit + 1)


class SizesNeverDisagree(GrantsTwice):
    """Accepts a contender who believes in another size of the semaphore."""

    def attempt(self, requests: Sequence[Request]) -> list[Answer]:
        """A user that disagrees gets a semaphore of its own."""
        answers = Renames.attempt(self, requests)
        for place, (request, answer) in enumerate(zip(requests, answers, strict=True)):
            if isinstance(answer, Conflict):
                self._kept[request.owner] = f"{request.name} ({request.limit})"
                answers[place] = Renames.attempt(self, [request])[0]
        return answers


class NamesCut(Renames):
    """Keeps the first forty characters of a name."""

    def kept_as(self, request: Request) -> str:
        """Cut."""
        return request.name[:40]


class NamesFoldCase(Renames):
    """Takes names that differ in case for one."""

    def kept_as(self, request: Request) -> str:
        """Folded."""
        return request.name.lower()


class NamespacesMeet(Joins, PassingLocks):
    """Keeps the locks of all namespaces in one."""

    _all: Shared[LockProvider] = Shared()


class HoldersSeesNobody(PassingLocks):
    """Says that nobody holds anything."""

    def holders(self, name: str | None) -> list[Holder]:
        """Nobody."""
        return []


class HoldersForgetsWho(PassingLocks):
    """Says that a name is held, and not who holds it."""

    def holders(self, name: str | None) -> list[Holder]:
        """Without labels."""
        return [dataclasses.replace(holder, label="") for holder in self.inner.holders(name)]


MUTANTS: list[Mutant] = [
    named(GrantsTwice, "L01", "L02", "L03", "L05", "L07", "L39", "L40", "L46", "L47", "L108", "L109"),
    named(ConnectionsDoNotExclude, "L02", "L17", "L75"),
    named(SharedExcludesNobody, "L108"),
    named(SharedExcludesShared, "L108"),
    named(OnePermitTooMany, "L109"),
    named(SizesNeverDisagree, "L109"),
    named(NamesCut, "L105", "L106"),
    named(NamesFoldCase, "L106"),
    named(NamespacesMeet, "L107"),
    named(HoldersSeesNobody, "L01", "L13", "L15"),
    named(HoldersForgetsWho, "L13", "L14", "L15"),
]
