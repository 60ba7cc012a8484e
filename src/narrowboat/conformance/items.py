"""The kit as pytest items, for a third party's own tests:

    from narrowboat.conformance import Harness, suite

    test_conformance = suite(Harness("mine://localhost"))

There is one item for each scenario and face, and one that fails when an owed id has no scenario. An item is skipped only by
the runner's own decision, made before it starts: the harness cannot make the fault that the scenario needs, or nothing is there
that it could befall.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from narrowboat.conformance.harness import Harness
from narrowboat.conformance.runner import Gate, Outcome, Row, Selection, plan, unproven
from narrowboat.conformance.scenario import FACES, Scenario
from narrowboat.conformance.verification import select

MANIFEST = "every-owed-id-has-a-scenario"


def suite(
    harness: Harness | str,
    *,
    only: Iterable[str] = (),
    tiers: Iterable[str] = (),
    faces: Iterable[str] = FACES,
    size: float = 1.0,
    half: str | None = None,
) -> Callable[..., None]:
    """A parametrised test function that runs the kit against `harness`, or against a URL. The words are those of `verify`."""
    import pytest  # `verify` works without it

    target = Harness(harness) if isinstance(harness, str) else harness
    items = parameters(target, select(only, tiers, faces, size, half))

    @pytest.mark.parametrize("item", items)
    def test_conformance(item: Item) -> None:
        item.check()

    return test_conformance


class Item:
    """One scenario on one face."""

    def __init__(self, gate: Gate, scenario: Scenario, face: str, size: float) -> None:
        self.harness = gate.harness
        self._gate = gate
        self._size = size
        self.scenario = scenario
        self.face = face
        self.rows: list[Row] = []

    @property
    def id(self) -> str:
        """What pytest calls it: the catalogue's ids, the scenario's name and the face."""
        return f"{'+'.join(self.scenario.ids)}-{self.scenario.name}-{self.face}"

    def check(self) -> None:
        """Run it. Fail when it is broken, skip when it was not exercised or not offered."""
        import pytest

        self.rows = self._gate.run(self.scenario, self.face, size=self._size)
        row = self.rows[0]
        if row.outcome is Outcome.BROKEN:
            ids = ", ".join(self.scenario.ids)
            pytest.fail(f"{ids} on the {self.face} face: {self.scenario.text}\n{row.why}", pytrace=False)
        if row.outcome in (Outcome.NOT_EXERCISED, Outcome.NOT_OFFERED):
            pytest.skip(f"{row.outcome.value}: {row.why}")


class Manifest:
    """The item that fails when the catalogue owes an id that no scenario proves."""

    id = MANIFEST

    def check(self) -> None:
        """Fail, with these ids."""
        missing = unproven()
        assert not missing, f"owed, and no scenario proves it: {', '.join(missing)}"


def parameters(harness: Harness, selection: Selection) -> list[Any]:
    """The items as `pytest.param`s."""
    import pytest

    gate = Gate(harness)
    items: list[Item | Manifest] = [Item(gate, *each, selection.size) for each in plan(harness, selection)]
    if selection.whole:
        items.append(Manifest())
    return [pytest.param(item, id=item.id) for item in items]
