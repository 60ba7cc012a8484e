"""What the tests of the command line share: a database of their own, and its locks and messages as a program sees them."""

from __future__ import annotations

import pytest

import narrowboat


@pytest.fixture
def url(tmp_path):
    """A database of its own."""
    return f"sqlite:///{tmp_path}/shop.db"


@pytest.fixture
def locks(url):
    """The same locks as a program's."""
    with narrowboat.locks(url) as locks:
        yield locks


@pytest.fixture
def broker(url):
    """The same messages as a program's."""
    with narrowboat.broker(url) as broker:
        yield broker
