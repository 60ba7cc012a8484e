"""Each test has a shop of its own: a table file, and a space in memory for its locks and messages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from shop import store, web


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> store.Store:
    """The file, with ten kettles."""
    monkeypatch.setenv("SHOP_DB", str(tmp_path / "shop.db"))
    monkeypatch.setattr(web, "STOCK", {"kettle": 10})
    tables = store.store()
    tables.create(web.STOCK)
    return tables


@pytest.fixture
def environment(tables: store.Store, narrowboat_url: str, monkeypatch: pytest.MonkeyPatch) -> store.Store:
    """The same, and a program that opens its own locks and broker opens those of this test."""
    monkeypatch.setenv("NARROWBOAT_LOCKS_URL", narrowboat_url)
    monkeypatch.setenv("NARROWBOAT_BROKER_URL", narrowboat_url)
    return tables


@pytest.fixture
def client(environment: store.Store) -> Iterator[TestClient]:
    """The application, started and in the end stopped."""
    with TestClient(web.app) as client:
        yield client
