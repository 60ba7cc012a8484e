"""Programs of driver calls, drawn by hypothesis: two backends that run one have to agree on every answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

#: To explain a failure, hypothesis traces every line of every try: it takes longer than a test may.
AGREEMENT = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow], phases=set(Phase) - {Phase.explain}
)


def draw_steps(draw: st.DrawFn, kinds: Mapping[str, tuple[int, st.SearchStrategy[Any]]], least: int, most: int) -> list[Any]:
    """Between `least` and `most` steps of `kinds`, each a weight and a strategy, by name.

    Drawn by name, because a choice between strategies gives all of them the same weight.
    """
    weighted = st.sampled_from([kind for kind, (weight, _) in kinds.items() for _ in range(weight)])
    return [draw(kinds[kind][1]) for kind in draw(st.lists(weighted, min_size=least, max_size=most))]
