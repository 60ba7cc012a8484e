"""The models in docs/models say what their page says they say: each check holds, and fails without each of its guards.

Skipped where a tool is not installed, and a failure there in `tox -e models` with CI=true.
"""

from __future__ import annotations

import os
import re

import pytest

from tools import models


@pytest.mark.parametrize("name", models.NAMES)
def test_each_model_holds_and_notices_the_loss_of_each_guard(name: str) -> None:
    """What it proves or simulates is found, and no guard is idle."""
    lack = models.missing(name)
    if "NARROWBOAT_MODELS" not in os.environ:
        pytest.skip("takes minutes: tox -e models")
    if lack is not None:
        if os.environ.get("CI"):
            pytest.fail(lack)
        pytest.skip(lack)
    share = float(os.environ["NARROWBOAT_MODELS"])
    assert [row for row in models.check(name, share) if not row.right] == []


@pytest.mark.parametrize("name", models.NAMES)
def test_each_model_says_what_it_stands_for_and_assumes(name: str) -> None:
    """Its first lines name files of this repository, and its page names it and each of its guards."""
    (path,) = models.MODELS.glob(f"{name}.*")
    text = path.read_text(encoding="utf-8")
    head = text.partition(f"module {name}")[0]
    assert "It stands for" in head
    assert "assumes" in head
    named = re.findall(r"`([a-z]+/[\w/]+(?:\.py|/))`", head)
    assert named
    for each in named:
        roots = [models.ROOT, models.ROOT / "src/narrowboat", models.ROOT / "backends/zookeeper/narrowboat_zookeeper"]
        roots.append(models.ROOT / "backends/kafka/narrowboat_kafka")
        assert any((root / each).exists() for root in roots), each
    page = (models.MODELS / "index.md").read_text(encoding="utf-8")
    assert f"`{path.name}`" in page
    assert [guard for guard in models.guards(text) if f"`{guard}`" not in page] == []
    assert len(models.guards(text)) >= 4
