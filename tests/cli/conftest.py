"""What the tests of the command line share: a database of their own, and its locks and messages as a program sees them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import narrowboat
from narrowboat.locking import Locks
from narrowboat.messaging import Messaging


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database of its own."""
    return f"sqlite:///{tmp_path}/shop.db"


@pytest.fixture
def locks(url: str) -> Iterator[Locks]:
    """The same locks as a program's."""
    with narrowboat.locks(url) as locks:
        yield locks


@pytest.fixture
def broker(url: str) -> Iterator[Messaging]:
    """The same messages as a program's."""
    with narrowboat.broker(url) as broker:
        yield broker
