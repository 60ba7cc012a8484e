"""The kit can fail: every broken backend is caught by each id that names its fault, and a backend that works by none."""

from __future__ import annotations

from typing import Any

import pytest
from mutants import (
    REFERENCE,
    WITHOUT_MUTANT,
    Mutant,
    Verdict,
    all_mutants,
    check_mutants,
    locks,
    messages,
    unnamed,
)

from narrowboat.conformance.catalogue import CATALOGUE, NEEDS_FAULT, NOT_OFFERED
from narrowboat.conformance.harness import Harness
from narrowboat.contract import LockProvider
from narrowboat.layers.passing import PassingBroker, PassingLocks

#: Seconds: the first test waits for all mutants, five minutes on a quiet machine.
pytestmark = pytest.mark.timeout(1500)


def harmless(driver: Any) -> Any:
    """A layer that breaks nothing."""
    return PassingLocks(driver) if isinstance(driver, LockProvider) else PassingBroker(driver)


@pytest.fixture(scope="module")
def verdicts() -> list[Verdict]:
    """Of all mutants in one run: they mostly wait for what does not come, and do so together."""
    return check_mutants()


@pytest.mark.parametrize("mutant", all_mutants(), ids=lambda mutant: mutant.name)
def test_it_is_caught_by_each_id_that_names_its_fault(mutant: Mutant, verdicts: list[Verdict]) -> None:
    mine = [verdict for verdict in verdicts if verdict.mutant == mutant.name]

    assert {(verdict.id, verdict.face) for verdict in mine} == {(id, face) for id in mutant.ids for face in mutant.faces}
    blind = [f"{verdict.id} {verdict.face}" for verdict in mine if not verdict.caught]
    assert not blind, f"{mutant.breaks} Not seen by: {', '.join(blind)}"
    assert all(verdict.why for verdict in mine)


def test_a_layer_that_breaks_nothing_is_caught_by_nothing() -> None:
    """The control: what catches the mutants does not catch whatever stands in front of a driver."""
    named = tuple(dict.fromkeys(id for mutant in all_mutants() for id in mutant.ids))
    parts = [named[start::6] for start in range(6)]
    controls = [Mutant(f"harmless {number}", "nothing", harmless, ids=ids) for number, ids in enumerate(parts)]

    caught = [f"{each.id} {each.face}: {each.why}" for each in check_mutants(controls, jobs=4, turns=0) if each.caught]

    assert not caught, "\n".join(caught)


def test_a_mutant_that_no_scenario_sees_is_not_called_caught() -> None:
    mutant = Mutant("harmless", "nothing", harmless, ids=("L01", "L02"), faces=("sync",))

    (one, two) = check_mutants([mutant])

    assert [(each.id, each.face, each.caught, each.why) for each in (one, two)] == [
        ("L01", "sync", False, ""),
        ("L02", "sync", False, ""),
    ]


def test_there_are_enough_of_them_and_no_two_have_one_name() -> None:
    names = [mutant.name for mutant in all_mutants()]

    assert len(names) == len(set(names))
    assert len(locks.MUTANTS) >= 40
    assert len(messages.MUTANTS) >= 40
    assert all(mutant.breaks.endswith(".") for mutant in all_mutants())


def test_each_is_about_one_half() -> None:
    """Lock mutants name lock ids, those of messages the others."""
    for mutants, letter in ((locks.MUTANTS, "L"), (messages.MUTANTS, "B")):
        assert {id[0] for mutant in mutants for id in mutant.ids} == {letter}


@pytest.mark.parametrize("ids", [(), ("L999",), ("B45",), ("L01", "B108")])
def test_a_mutant_needs_ids_that_are_owed(ids: tuple[str, ...]) -> None:
    with pytest.raises(TypeError, match="needs ids of the catalogue"):
        Mutant("nameless", "something", harmless, ids=ids)


def test_ids_that_no_mutant_names_are_listed() -> None:
    listed = unnamed()
    named = {id for mutant in all_mutants() for id in mutant.ids}

    assert set(listed) == set(CATALOGUE) - named - set(NOT_OFFERED) - set(NEEDS_FAULT)
    assert listed == [id for id in CATALOGUE if id in listed], "in the order of the catalogue"
    assert "L01" not in listed


def test_each_id_that_no_mutant_names_says_why() -> None:
    """A new id needs a mutant, or a reason why there can be none; an id that a mutant names needs no reason."""
    assert sorted(unnamed()) == sorted(WITHOUT_MUTANT)
    assert all(WITHOUT_MUTANT.values())


def test_breaking_a_harness_leaves_the_one_that_works() -> None:
    sound = Harness(REFERENCE)

    broken = sound.mutated(harmless)

    assert sound.wrap is None
    assert broken.wrap is harmless
    assert broken.url == sound.url
