"""Deliberately broken backends, each of which the kit must catch: the proof that the kit can fail.

A mutant is a layer in front of the real in-memory driver that breaks one promise, with the ids that name that promise.
`check_mutants` runs each mutant against exactly those ids, and against none of them may it survive. The tables are in
`locks` and `messages`. Which ids no mutant names is told by `unnamed`, and why by `WITHOUT_MUTANT`.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from narrowboat.conformance.catalogue import CATALOGUE, NEEDS_FAULT, NOT_OFFERED
from narrowboat.conformance.harness import Harness
from narrowboat.conformance.runner import Outcome, Row, load, run_one
from narrowboat.conformance.scenario import FACES, Scenario

#: What mutants are made of: the reference, which all scenarios hold on.
REFERENCE = "memory://"

#: How often a mutant is tried where the machine stood still: its scenario was not exercised, or waited with a bound that was
#: extended beyond what the mutant does.
TURNS = 5

_CORE = "the core keeps it: no driver is asked"
_PROCESSES = "its processes open the backend by themselves, without the layer, and memory is no other process's"

#: Why no mutant names an id: most of all because a layer in front of a driver cannot break what is not a driver's to keep.
WITHOUT_MUTANT = {
    "L09": f"{_CORE} at a second release",
    "L25": f"{_CORE}, the arguments are checked before",
    "L26": f"{_CORE} by who is cancelled before his first step",
    "L27": "a driver that is slow to withdraw a waiter delays no task: the core leaves that to another thread",
    "L41": _PROCESSES,
    "L42": _PROCESSES,
    "L43": _PROCESSES,
    "L51": "what is counted is the renewals that the core makes; that the lock is free afterwards is L81's",
    "L53": f"{_CORE}, the possession knows that it was released",
    "L56": f"{_CORE}, the possession knows that it was released",
    "L67": _PROCESSES,
    "L68": _PROCESSES,
    "L72": "the holder's clock is the core's; that the driver's leases end by the same clock is L48's",
    "L73": _PROCESSES,
    "L77": _PROCESSES,
    "L80": _PROCESSES,
    "L82": _PROCESSES,
    "L83": _PROCESSES,
    "L84": _PROCESSES,
    "L110": "a URL is taken apart before there is a driver",
    "L111": "memory has no address: its URL is refused before there is a driver",
    "L112": "claims are compared before there is a driver",
    "L116": "what is imported is seen before there is a driver",
    "L125": f"{_CORE} about callbacks and listeners",
    "L126": f"{_CORE} for a call that is refused or put off",
    "L127": "how long a driver's own call takes is L90's; how many of them the core makes, no driver decides",
    "L131": _PROCESSES,
    "B09": f"{_CORE}, what is published is encoded and checked before",
    "B25": f"{_CORE} at a second settlement",
    "B27": f"{_CORE} for what a consumer that was left has in its hands; that a driver does so meanwhile is B26's",
    "B63": _PROCESSES,
    "B64": _PROCESSES,
    "B65": _PROCESSES,
    "B66": _PROCESSES,
    "B88": f"{_CORE} after a close",
    "B89": "it is about what is done before there is a driver",
    "B92": "the core closes a driver once, however often it is closed itself",
    "B96": f"{_CORE} by who is cancelled before his first step",
    "B109": "a URL is taken apart before there is a driver",
    "B110": "claims are compared before there is a driver",
    "B124": "signals are the core's: no driver hears of them",
    "B125": "signals are the core's: no driver hears of them",
    "B134": "how many driver calls its callers wait for, no driver decides",
    "B113": "it measures, and decides nothing",
}


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A broken backend."""

    name: str
    breaks: str  #: what is broken, in one line
    wrap: Callable[[Any], Any]  #: from the real driver to the broken one
    ids: tuple[str, ...]  #: each of these must catch it, on each face
    faces: tuple[str, ...] = FACES

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
    for half in ("locks", "messages"):
        found += importlib.import_module(f"mutants.{half}").MUTANTS
    return found


def check_mutants(
    mutants: Iterable[Mutant] | None = None,
    *,
    url: str = REFERENCE,
    faces: Iterable[str] = FACES,
    size: float = 0.1,
    jobs: int = 24,
    turns: int = TURNS,
) -> list[Verdict]:
    """Run each mutant against the ids that name its fault. A verdict that is not `caught` means that the kit is blind.

    Args:
        mutants: all, unless given.
        url: of the backend that is broken.
        faces: "sync", "asyncio".
        size: of the stress scenarios.
        jobs: how many run at a time: a broken backend is mostly found by waiting for what does not come. What counts
            threads or measures runs alone all the same, or its neighbours would be caught in place of the mutant.
        turns: how often what proved nothing, because the machine stood still, is tried alone; 0: not again.

    Returns:
        One verdict for each mutant, face and id, in that order.
    """
    chosen, sides = list(all_mutants() if mutants is None else mutants), tuple(faces)
    trials = [
        _Trial(mutant, face, Harness(url).mutated(mutant.wrap), size, turns)
        for mutant in chosen
        for face in mutant.faces
        if face in sides
    ]
    with ThreadPoolExecutor(jobs, thread_name_prefix="conformance-mutant") as pool:
        for future in [pool.submit(trial.run, alone=False) for trial in trials]:
            future.result()
    for trial in trials:
        trial.run(alone=True)
    return [verdict for trial in trials for verdict in trial.verdicts()]


class _Trial:
    """One mutant on one face. A scenario that names several of its ids runs once; one that catches an id is enough for it."""

    def __init__(self, mutant: Mutant, face: str, harness: Harness, size: float, turns: int) -> None:
        self.mutant = mutant
        self.face = face
        self._harness = harness
        self._size = size
        self._turns = turns
        self._caught: dict[str, str] = {}
        self._unproven: set[str] = set()  #: scenarios that proved nothing beside others, because the machine stood still

    def run(self, *, alone: bool) -> None:
        """The scenarios that may run beside others, or those that may not, as long as an id of theirs is still to be caught.

        On a machine with too much to do, what proved nothing beside others runs again alone.
        """
        for scenario in load():
            wanted = [id for id in scenario.ids if id in self.mutant.ids and id not in self._caught]
            if wanted and (scenario.alone is alone or scenario.name in self._unproven):
                row = self._exercised(scenario, max(1, self._turns) if alone else 1)
                if self._turns and _proves_nothing(row):
                    self._unproven.add(scenario.name)
                if row.outcome is Outcome.BROKEN:
                    why = f"{scenario.name}: {row.why.strip().splitlines()[-1]}"
                    self._caught |= dict.fromkeys(wanted, why)

    def _exercised(self, scenario: Scenario, turns: int) -> Row:
        """Its row; where the machine stood still, which proves nothing either way, that of another run."""
        for _ in range(turns):
            row = run_one(self._harness, scenario, self.face, size=self._size)[0]
            if not _proves_nothing(row):
                break
        return row

    def verdicts(self) -> list[Verdict]:
        """Of each id."""
        names = ((id, self._caught.get(id)) for id in self.mutant.ids)
        return [Verdict(self.mutant.name, id, self.face, why is not None, why or "") for id, why in names]


def _proves_nothing(row: Row) -> bool:
    """Whether another run may catch what this one has not, on a machine that stood still in it."""
    return row.outcome is Outcome.NOT_EXERCISED or (row.outcome is Outcome.HELD and row.stood_still > 0.1)


def unnamed() -> list[str]:
    """The owed ids that no mutant names: nothing proves that their scenarios can fail. `WITHOUT_MUTANT` says why."""
    named = {id for mutant in all_mutants() for id in mutant.ids}
    return [id for id in CATALOGUE if id not in named and id not in NOT_OFFERED and id not in NEEDS_FAULT]
