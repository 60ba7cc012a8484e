"""What the kit asks of SQLite only with a harness that may do with files what it likes: rows of others, and new files."""

from __future__ import annotations

from pathlib import Path

import pytest

from narrowboat.conformance import verify
from sqlite_harness import SqliteHarness


@pytest.mark.parametrize("id", ["L120", "B120", "L129", "B126"])
@pytest.mark.timeout(900)
def test_rows_of_others_and_files_that_nobody_has_opened(tmp_path: Path, id: str) -> None:
    """Each kind of row is planted in a file that is in use; many first users make the tables of a new file at once."""
    report = verify(SqliteHarness(f"sqlite:///{tmp_path / 'kit.db'}"), only=[id])
    assert report.ok, "\n\n".join(f"{row.id} {row.scenario} {row.face}: {row.why}" for row in report.broken)
    assert {row.outcome.value for row in report.rows if row.id == id} == {"held"}
