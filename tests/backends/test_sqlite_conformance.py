"""What the kit asks of SQLite only with a harness that may write into its file: L120 and B120."""

from __future__ import annotations

from pathlib import Path

import pytest

from narrowboat.conformance import verify
from sqlite_harness import SqliteHarness


@pytest.mark.parametrize("id", ["L120", "B120"])
@pytest.mark.timeout(900)
def test_what_another_program_left_in_the_file_costs_itself_alone(tmp_path: Path, id: str) -> None:
    """Each kind of row is planted in a file that is in use."""
    report = verify(SqliteHarness(f"sqlite:///{tmp_path / 'kit.db'}"), only=[id])
    assert report.ok, "\n\n".join(f"{row.id} {row.scenario} {row.face}: {row.why}" for row in report.broken)
    assert {row.outcome.value for row in report.rows if row.id == id} == {"held"}
