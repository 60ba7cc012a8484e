"""Mutants of backends' sources: each still changes what it says, and the kit sees those of sqlite, which need no server."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from mutants import all_mutants

from integration.mutants import NAMES, SourceMutant, TextGone, package_of, table
from integration.mutants.trial import tried
from narrowboat.conformance.catalogue import CATALOGUE

ALL = [pytest.param(name, each, id=f"{name}: {each.breaks}") for name in NAMES for each in table(name)]
#: Those of sqlite whose ids need no time: a few, as each starts a process and the others wait for leases.
QUICK = ("two namespaces of locks meet", "the next of a key does not move up", "a purge drops what is in flight")


@pytest.mark.parametrize(("backend", "mutant"), ALL)
def test_its_text_is_there_once(backend: str, mutant: SourceMutant) -> None:
    """Otherwise it would run the backend as it is."""
    text = (package_of(backend) / mutant.file).read_text(encoding="utf-8")

    assert text.count(mutant.old) == 1
    assert mutant.ids, "an id has to name its fault"


def test_there_are_enough_of_them_and_no_two_of_a_backend_have_one_name() -> None:
    for name in NAMES:
        breaks = [each.breaks for each in table(name)]
        assert len(breaks) >= 8, name
        assert len(breaks) == len(set(breaks)), name
    assert len(ALL) + len(all_mutants()) >= 200


def test_a_mutant_whose_text_is_gone_fails_loudly(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one = 1\none = 1\n")
    mutant = SourceMutant("nothing", "a.py", "two = 2", "two = 3", ("L01",))

    for changed in (mutant, dataclasses.replace(mutant, old="one = 1"), dataclasses.replace(mutant, file="b.py")):
        with pytest.raises(TextGone, match="not once, what it changes"):
            changed.apply(tmp_path)
    assert (tmp_path / "a.py").read_text() == "one = 1\none = 1\n"


@pytest.mark.parametrize(("new", "ids"), [("2", ()), ("2", ("L999",)), ("2", ("B45",)), ("1", ("L01",))])
def test_a_mutant_needs_ids_and_a_change(new: str, ids: tuple[str, ...]) -> None:
    with pytest.raises(TypeError, match="mutant 'nothing'"):
        SourceMutant("nothing", "a.py", "1", new, ids)


@pytest.mark.timeout(900)
def test_sqlite_as_it_is_holds(tmp_path: Path) -> None:
    """The control: what catches the mutants does not catch whatever is copied."""
    ids = {id for each in table("sqlite") if each.breaks in QUICK for id in each.ids}

    seen = tried("sqlite", f"sqlite:///{tmp_path / 'kit.db'}", ids)

    assert not seen.broken
    assert {*seen.held, *seen.open} == ids <= set(CATALOGUE)


@pytest.mark.parametrize("mutant", [each for each in table("sqlite") if each.breaks in QUICK], ids=lambda each: each.breaks)
@pytest.mark.timeout(900)
def test_the_kit_sees_it(tmp_path: Path, mutant: SourceMutant) -> None:
    assert tried("sqlite", f"sqlite:///{tmp_path / 'kit.db'}", mutant.ids, mutant, first=True).broken
