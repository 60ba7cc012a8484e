"""Who is woken by another process's commit: interleavings of a feed that begins to wait and of what ends the watching."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker_calls import open_driver
from narrowboat.clock import ManualClock
from narrowboat_sqlite import broker as backend


@pytest.mark.parametrize("ended_by", ["look", "leave"])
def test_a_feed_that_begins_to_wait_while_the_watching_ends_is_watched(ended_by: str, tmp_path: Path) -> None:
    """It would otherwise hear of another process's message only when it looks by itself."""
    driver: Any = open_driver(backend, f"sqlite:///{tmp_path / 'broker.db'}?durability=normal", ManualClock())
    messages = driver._messages
    waiting: Callable[[], list[str]] = messages._bell.waiting

    def nobody_yet() -> list[str]:
        found = waiting()
        messages._bell.waiting = waiting
        messages.wait("orders", "a feed", lambda: None, 60.0)
        return found

    messages.wait("prices", "another", lambda: None, 60.0)
    messages.wait_no_more("prices", "another")
    messages._bell.waiting = nobody_yet
    if ended_by == "look":
        messages._look(None)
    else:
        messages.leave("prices", "another")
    assert waiting() == ["orders"]
    assert messages._look in messages._watcher._subscribers
    driver.close()
