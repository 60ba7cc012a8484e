"""Short histories on memory behind layers that break it: each is found, by a rule that it breaks. It takes minutes."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutants import Mutant, locks, messages

from narrowboat.conformance import Harness
from narrowboat.conformance.histories import history
from narrowboat.errors import ConfigurationError

#: The rule that finds a mutant, by the mutant's name.
FOUND = {
    "grants twice": "one holder",
    "one permit too many": "one holder",
    "shared excludes nobody": "one holder",
    "token shrinks": "fencing tokens",
    "token reused": "fencing tokens",
    "ack is a nack": "settled for good",
    "nack loses": "none lost",
    "attempts not counted": "attempts grow",
    "confirms too early": "none lost",
}
MUTANTS = {mutant.name: mutant for mutant in (*locks.MUTANTS, *messages.MUTANTS) if mutant.name in FOUND}


@pytest.mark.parametrize("name", FOUND)
def test_a_broken_backend_is_found(name: str, tmp_path: Path) -> None:
    """With a minimal history and a picture of it beside the events."""
    mutant: Mutant = MUTANTS[name]
    half = "locks" if mutant.ids[0].startswith("L") else "broker"
    harness = Harness("memory://mutants", wrap=mutant.wrap)

    result = history(harness, seconds=4, seed=1, folder=tmp_path, halves=[half], drain=10)

    assert FOUND[name] in {finding.rule for finding in result.verdict.findings}, result.text()
    assert {path.suffix for path in result.files} == {".jsonl", ".svg"}
    assert all(path.exists() for path in result.files)


def test_a_layer_is_not_left_out_in_silence(tmp_path: Path) -> None:
    """Processes of their own would open the backend without it."""
    harness = Harness(f"sqlite:///{tmp_path}/kit.db", wrap=lambda driver: driver)
    with pytest.raises(ConfigurationError, match="its layer cannot be handed to the processes"):
        history(harness, seconds=1, seed=1, folder=tmp_path)
