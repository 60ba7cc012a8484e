"""Deliberately broken backends, each of which the kit must catch: the proof that the kit can fail.

A mutant is a layer in front of the real in-memory driver that breaks one promise, with the ids that name that promise.
`check_mutants` runs each mutant against exactly those ids, and against none of them may it survive. The lock mutants are in
`mutants_locks`, those of messages in `mutants_broker`.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterable
from typing import Any

from narrowboat.conformance.catalogue import CATALOGUE, NEEDS_FAULT, NOT_OFFERED
from narrowboat.conformance.harness import Harness
from narrowboat.conformance.runner import Outcome, load, run_one

#: What mutants are made of: the reference, which all scenarios hold on.
REFERENCE = "memory://"


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A broken backend."""

    name: str
    breaks: str  #: what is broken, in one line
    wrap: Callable[[Any], Any]  #: from the real driver to the broken one
    ids: tuple[str, ...]  #: each of these must catch it, on each face
    faces: tuple[str, ...] = ("sync", "asyncio")

    def __post_init__(self) -> None:
        unknown = [id for id in self.ids if id not in CATALOGUE or id in NOT_OFFERED]
        if unknown or not self.ids:
            raise TypeError(f"mutant {self.name}: needs ids of the catalogue; unknown: {', '.join(unknown) or 'none given'}")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of one mutant under one id on one face."""

    mutant: str
    id: str
    face: str
    caught: bool
    why: str  #: how it was caught


def all_mutants() -> list[Mutant]:
    """Of both halves."""
    found: list[Mutant] = []
    for module in ("mutants_locks", "mutants_broker"):
        found += importlib.import_module(f"narrowboat.conformance.{module}").MUTANTS
    return found


def check_mutants(
    mutants: Iterable[Mutant] | None = None, *, url: str = REFERENCE, faces: Iterable[str] | None = None, size: float = 0.1
) -> list[Verdict]:
    """Run each mutant against the ids that name its fault. A verdict that is not `caught` means that the kit is blind."""
    table = load()
    verdicts = []
    for mutant in all_mutants() if mutants is None else mutants:
        harness = Harness(url).mutated(mutant.wrap)
        for id in mutant.ids:
            scenarios = [scenario for scenario in table if id in scenario.ids]
            for face in mutant.faces if faces is None else [face for face in mutant.faces if face in faces]:
                whys = []
                for scenario in scenarios:
                    row = run_one(harness, scenario, face, size=size)[0]
                    if row.outcome is Outcome.BROKEN:
                        whys.append(f"{scenario.name}: {row.why.strip().splitlines()[-1]}")
                        break  # one scenario of the id is enough, and a broken backend takes its time
                verdicts.append(Verdict(mutant.name, id, face, bool(whys), "; ".join(whys)))
    return verdicts


def unnamed() -> list[str]:
    """The owed ids that no mutant names: nothing proves that their scenarios can fail."""
    named = {id for mutant in all_mutants() for id in mutant.ids}
    return [id for id in CATALOGUE if id not in named and id not in NOT_OFFERED and id not in NEEDS_FAULT]
