"""The kit as pytest items, for a third party's own tests:

    from narrowboat.conformance import Harness, suite

    test_conformance = suite(Harness("mine://localhost"))

One item for each scenario and face, and one that fails when an owed id has no scenario. An item is skipped only by the
runner's own decision, made before it starts: the harness cannot make the fault that it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from narrowboat.conformance.harness import Harness
from narrowboat.conformance.runner import Gate, Outcome, Row, plan, unproven
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
    """A parametrised test function that runs the kit against `harness`, or against a URL; arguments as for `verify`."""
    import pytest

    target = Harness(harness) if isinstance(harness, str) else harness
    items = parameters(target, only, tiers, faces, size, half)

    @pytest.mark.parametrize("item", items)
    def test_conformance(item: Item) -> None:
        item.check()

    return test_conformance


class Item:
    """One scenario on one face."""

    def __init__(self, gate: Gate, scenario: Scenario, face: str, size: float) -> None:
        self.harness = gate.harness
        self._gate = gate
        self.scenario = scenario
        self.face = face
        self.size = size
        self.rows: list[Row] = []

    @property
    def id(self) -> str:
        """For pytest: the catalogue's ids and the face."""
        return f"{'+'.join(self.scenario.ids)}-{self.scenario.name}-{self.face}"

    def check(self) -> None:
        """Run it; fail when it is broken, skip when the fault it needs cannot be made."""
        import pytest

        self.rows = self._gate.run(self.scenario, self.face, size=self.size)
        row = self.rows[0]
        if row.outcome is Outcome.BROKEN:
            pytest.fail(
                f"{', '.join(self.scenario.ids)} on the {self.face} face: {self.scenario.text}\n{row.why}", pytrace=False
            )
        if row.outcome is Outcome.NOT_EXERCISED:
            pytest.skip(f"{row.outcome.value}: {row.why}")


class Manifest:
    """The item that no scenario can be forgotten."""

    id = MANIFEST

    def check(self) -> None:
        """Fail when the catalogue owes an id that no scenario proves."""
        missing = unproven()
        assert not missing, f"owed, and no scenario proves it: {', '.join(missing)}"


def parameters(
    harness: Harness,
    only: Iterable[str],
    tiers: Iterable[str],
    faces: Iterable[str],
    size: float = 1.0,
    half: str | None = None,
) -> list[Any]:
    """The items as `pytest.param`s."""
    import pytest

    selection = select(only, tiers, faces, size, half)
    gate = Gate(harness)
    items: list[Item | Manifest] = [Item(gate, scenario, face, size) for scenario, face in plan(harness, selection)]
    if selection.whole:
        items.append(Manifest())
    return [pytest.param(item, id=item.id) for item in items]
