"""Records of others under a lock's name: the scenario holds on a driver that treats them right, and catches each that does not.

Nobody else can write into the memory of this process, so a layer in front of the memory driver plays both: what was left there,
and what a driver makes of it.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import pytest

from narrowboat.conformance import Harness
from narrowboat.conformance.runner import Outcome, Row, load, run_one
from narrowboat.contract.locks import Busy, Grant, Holder, Mode, Request
from narrowboat.errors import Conflict, NarrowboatError, Unavailable
from narrowboat.layers.passing import PassingLocks

_KINDS = 3


class Haunted(PassingLocks):
    """Foreign records by name, as a driver has to treat them."""

    records: dict[str, int] = {}
    _tokens = itertools.count(10**15)

    def attempt(self, requests: Sequence[Request]) -> list[Grant | Busy | NarrowboatError]:
        sound = iter(self.inner.attempt([each for each in requests if each.name not in self.records]))
        return [self.refusal(each.name) if each.name in self.records else next(sound) for each in requests]

    def refusal(self, name: str) -> NarrowboatError:
        return Conflict(f"lock {name!r}: something stands there that is not ours; see holders(), evict it", backend="memory")

    def holders(self, name: str | None) -> list[Holder]:
        theirs = [self.shown(each) for each in self.records if name in (None, each)]
        return sorted([*self.inner.holders(name), *theirs], key=lambda holder: holder.name)

    def shown(self, name: str) -> Holder:
        return Holder(name, self.records[name], "", Mode.EXCLUSIVE, None, 0.0, None, None, foreign=True)

    def evict(self, name: str, token: int) -> bool:
        if self.records.get(name) == token:
            del self.records[name]
            return True
        return self.inner.evict(name, token)


class SaysTryAgain(Haunted):
    """Calls it unavailable, so that everybody tries for ever."""

    def refusal(self, name: str) -> NarrowboatError:
        return Unavailable(f"lock {name!r}: cannot be read", backend="memory")


class Overwrites(Haunted):
    """Takes no notice of what is there."""

    def attempt(self, requests: Sequence[Request]) -> list[Grant | Busy | NarrowboatError]:
        return self.inner.attempt(requests)


class HidesIt(Haunted):
    """Does not list what it cannot read."""

    def holders(self, name: str | None) -> list[Holder]:
        return self.inner.holders(name)


class CallsItOurs(Haunted):
    """Lists it as one of ours."""

    def shown(self, name: str) -> Holder:
        return dataclasses.replace(super().shown(name), foreign=False)


class EvictsByName(Haunted):
    """Removes it whatever the token."""

    def evict(self, name: str, token: int) -> bool:
        return self.records.pop(name, None) is not None or self.inner.evict(name, token)


class CannotEvict(Haunted):
    """Only what is ours can be evicted."""

    def evict(self, name: str, token: int) -> bool:
        return self.inner.evict(name, token)


class ListsNothing(Haunted):
    """One foreign record, and nobody's holders can be listed."""

    def holders(self, name: str | None) -> list[Holder]:
        if self.records:
            raise ValueError("cannot be parsed")
        return self.inner.holders(name)


class HauntedHarness(Harness):
    """The memory backend behind one of the layers, with something that is planted."""

    def __init__(self, layer: type[Haunted]) -> None:
        self.records: dict[str, int] = {}
        super().__init__("memory://", wrap=lambda driver: self._haunt(layer(driver)))

    def _haunt(self, layer: Haunted) -> Haunted:
        layer.records = self.records
        return layer

    def plant_record(self, namespace: str, name: str, kind: int) -> bool:
        if kind < _KINDS:
            self.records[name] = 10**15 + kind
        return kind < _KINDS


def outcomes(layer: type[Haunted]) -> list[Row]:
    (scenario,) = [each for each in load() if "L120" in each.ids]
    return [run_one(HauntedHarness(layer), scenario, face)[0] for face in ("sync", "asyncio")]


def test_a_driver_that_treats_them_as_it_should_holds() -> None:
    assert [row.why for row in outcomes(Haunted)] == ["", ""]


BROKEN = [SaysTryAgain, Overwrites, HidesIt, CallsItOurs, EvictsByName, CannotEvict, ListsNothing]


@pytest.mark.parametrize("layer", BROKEN, ids=lambda layer: layer.__name__)
def test_a_driver_that_does_not_is_caught(layer: type[Haunted]) -> None:
    assert [row.outcome for row in outcomes(layer)] == [Outcome.BROKEN, Outcome.BROKEN]


def test_without_a_harness_that_plants_it_is_not_exercised() -> None:
    (scenario,) = [each for each in load() if "L120" in each.ids]
    assert run_one(Harness("sqlite:///x.db"), scenario, "sync")[0].outcome is Outcome.NOT_EXERCISED
    assert run_one(Harness("memory://"), scenario, "sync")[0].outcome is Outcome.NOT_OFFERED  # no other program is there
