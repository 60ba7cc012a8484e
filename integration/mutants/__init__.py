"""Backends with one line of their own hardest code changed, and the ids of the kit that must see it, on a real server.

    python -m integration.mutants redis kafka      # these, on servers that are started for it; all without a name
    python -m integration.mutants redis --only "release frees any token"

The mutants of `tests/mutants` stand in front of a driver, or change the one in memory: they prove that a scenario can fail.
These change a script, a statement or a decision of one backend: they prove that the kit sees the faults that its author would
make. A whole run takes minutes for each backend, so no default run has it. `tests/test_source_mutants.py` runs a few of sqlite,
and checks that the text of every mutant is still in its file.

Each runs as: the ids of all mutants hold on the backend as it is; on a copy with the change at least one of its own is broken.
"""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

from narrowboat.conformance.catalogue import CATALOGUE, NOT_OFFERED

#: The folder of the packages that are changed.
BACKENDS = Path(__file__).resolve().parents[2] / "backends"
#: The backends that have a table here, one module each.
NAMES = ("redis", "postgresql", "zookeeper", "consul", "cassandra", "rabbitmq", "kafka", "zeromq", "sqlite")


class TextGone(Exception):
    """The text that a mutant changes is no longer in its file, or not exactly once: the mutant proves nothing."""


@dataclasses.dataclass(frozen=True)
class SourceMutant:
    """One change of a backend's source."""

    breaks: str  #: what is wrong then, in a few words; its name
    file: str  #: below the backend's package
    old: str  #: stands there exactly once
    new: str  #: stands there instead
    ids: tuple[str, ...]  #: those that must see it; one is enough

    def __post_init__(self) -> None:
        unknown = [id for id in self.ids if id not in CATALOGUE or id in NOT_OFFERED]
        if unknown or not self.ids:
            raise TypeError(f"mutant {self.breaks!r} needs ids of the catalogue; unknown: {', '.join(unknown) or 'none given'}")
        if self.old == self.new:
            raise TypeError(f"mutant {self.breaks!r} changes nothing")

    def apply(self, package: Path) -> None:
        """Change a copy of the backend's `package`. `TextGone` where it cannot, and nothing is changed."""
        file = package / self.file
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        if text.count(self.old) != 1:
            found = text.count(self.old)
            raise TextGone(f"mutant {self.breaks!r}: {self.file} has {found} times, not once, what it changes: {self.old!r}")
        file.write_text(text.replace(self.old, self.new), encoding="utf-8")


def mutant(breaks: str, file: str, old: str, new: str, *ids: str) -> SourceMutant:
    """A `SourceMutant`, as the tables write it."""
    return SourceMutant(breaks, file, old, new, ids)


def package_of(backend: str) -> Path:
    """The folder of that backend's package."""
    return BACKENDS / backend / f"narrowboat_{backend}"


def table(backend: str) -> list[SourceMutant]:
    """The mutants of that backend."""
    found: list[SourceMutant] = importlib.import_module(f"integration.mutants.{backend}").MUTANTS
    return found
