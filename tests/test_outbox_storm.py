"""An outbox and an inbox in a storm, on SQLite; the same on PostgreSQL is under `integration`, and larger ones run by hand."""

from __future__ import annotations

from pathlib import Path

from outbox_storm import Storm


def test_nothing_is_lost_doubled_or_made_up_whatever_is_killed(tmp_path: Path) -> None:
    """Programs, relays and consumers die between any two statements: each order that was committed is done once, in order."""
    broker = f"sqlite:///{tmp_path}/broker.db?dedup=0"
    audit = Storm(str(tmp_path / "shop.db"), broker, tmp_path, orders=300, kills=5, seed=7).run()
    print(audit)

    assert audit.orders == 300
    assert audit.faults == 0, audit
    assert audit.kills.total() > 5, audit
