"""What `pytest --pyargs narrowboat.conformance --url URL` collects: one item for each scenario and face."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from narrowboat.conformance.items import Item


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The items, from the options that the plugin has added."""
    from narrowboat.conformance.plugin import items

    metafunc.parametrize("item", items(metafunc.config))


def test_conformance(item: Item) -> None:
    """One scenario on one face."""
    item.check()
