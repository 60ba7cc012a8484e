"""The sources of the project as trees, for the tests that read laws from them: which files there are, and what stands in one.

A file is parsed once for all laws. A test file that asks for trees imports `forgotten` as well, or the trees stay in memory.
"""

from __future__ import annotations

import ast
import functools
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "src" / "narrowboat"
BACKENDS = ROOT / "backends"


@functools.cache
def sources(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


@functools.cache
def parsed(path: Path) -> ast.Module:
    """Parsed once for all laws of a file."""
    return ast.parse(path.read_text())


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """The trees are a million objects: no garbage collection looks at them in between, nor at all in later tests."""
    gc.disable()
    yield
    parsed.cache_clear()
    gc.enable()


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def docstrings(tree: ast.AST) -> set[int]:
    """The ids of the nodes that are docstrings, or texts that stand alone."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def words(tree: ast.AST) -> Iterator[str]:
    """Each identifier and each text outside docstrings."""
    skipped = docstrings(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Constant(value=str(text)) if id(node) not in skipped:
                yield text
            case ast.Import(names=aliases):
                yield from (alias.name for alias in aliases)
