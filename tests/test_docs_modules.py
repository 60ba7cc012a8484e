"""The examples in the docstrings of the modules run, and give what they say."""

from __future__ import annotations

import doctest
import importlib
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = [ROOT / "src", *sorted(path for path in (ROOT / "backends").iterdir() if path.is_dir())]


def modules() -> list[str]:
    """Every module of the core, the kit and the backends that has an example."""
    return [
        ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
        for folder in FOLDERS
        for path in sorted(folder.rglob("*.py"))
        if ">>> " in path.read_text(encoding="utf-8")
    ]


@pytest.mark.parametrize("name", modules())
def test_the_examples_of_a_module_give_what_they_say(name: str) -> None:
    """Each in a namespace of its own; they need no server."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a client library about itself, when it is imported
        module = importlib.import_module(name)
    results = doctest.testmod(module)

    assert results.attempted > 0, f"{name} shows >>> where doctest does not find it"
    assert results.failed == 0


def test_modules_have_examples() -> None:
    """The look for them finds some, so that the test above is no empty list."""
    assert {"narrowboat", "narrowboat.dsn", "narrowboat.contract.messages"} <= set(modules())
