"""The examples in the pages run, and print what the pages say.

Each block that is marked `python` is run, in order, one page in one namespace, in an empty folder. A block marked `text` right
after it is what it prints. One with a title `test_*.py` is a file of tests, which pytest runs. One with a title `examples/...`
is quoted, and stands so in that file. Fragments that cannot run alone are marked `py`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import narrowboat

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<prints>.*?)^```\n)?", re.DOTALL | re.MULTILINE)
TITLED = re.compile(r'^```\w+ title="(?P<title>[^"]+)"\n(?P<code>.*?)^```\n', re.DOTALL | re.MULTILINE)
#: Their blocks are files of projects of their own; test_write_a_backend.py builds those.
ELSEWHERE = {"write-a-backend.md", "write-a-backend-on-files.md"}

CLOSED_HERE = (narrowboat.Locks, narrowboat.Messaging, sqlite3.Connection)


def pages() -> list[Path]:
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("backends/*/README.md")]
    return [page for page in sorted(found) if page.name not in ELSEWHERE and BLOCK.search(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_examples_of_a_page_run_and_print_what_it_says(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the page, each block seeing the names of those before it."""
    monkeypatch.chdir(tmp_path)
    level = logging.getLogger("narrowboat").level
    text = page.read_text(encoding="utf-8")
    namespace: dict[str, object] = {"__name__": "__main__"}
    opened: dict[int, Any] = {}

    try:
        for block in BLOCK.finditer(text):
            line = text.count("\n", 0, block.start()) + 1
            printed = io.StringIO()
            code = compile("\n" * line + block["code"], str(page), "exec")  # so that a traceback shows the page's line
            with contextlib.redirect_stdout(printed):
                exec(code, namespace)
            opened |= {id(value): value for value in namespace.values() if isinstance(value, CLOSED_HERE)}
            if block["prints"] is not None:
                assert printed.getvalue() == block["prints"], f"{page.name}, line {line}"
    finally:
        logging.getLogger("narrowboat").setLevel(level)  # a page may set it, and later tests listen
        for value in opened.values():  # a page ends as a program does, without closing; its threads would stay in ours
            value.close()


def titled() -> list[Any]:
    """The blocks with titles, of all pages."""
    return [
        pytest.param(page, block["title"], block["code"], id=f"{page.stem}-{block['title']}")
        for page in sorted(ROOT.glob("docs/**/*.md"))
        if page.name not in ELSEWHERE
        for block in TITLED.finditer(page.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize(("page", "title", "code"), titled())
def test_a_block_with_a_title_is_what_its_title_says(page: Path, title: str, code: str, tmp_path: Path) -> None:
    """Tests that pass, in a folder of their own; or a part of an example that stands so in it."""
    if title.startswith("examples/"):
        assert code in (ROOT / title).read_text(encoding="utf-8"), f"{page.name}: {title} has no such lines"
        return
    assert re.fullmatch(r"test_\w+\.py", title), f"{page.name}: {title} is neither tests nor an example"
    (tmp_path / title).write_text(code)
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "narrowboat_pytest", "-p", "no:cacheprovider", "."]
    alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # another plugin may warn of this empty project
    done = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_page_has_examples() -> None:
    """The look for blocks finds some, so that the test above is no empty list."""
    names = {page.name for page in pages()}

    assert {"README.md", "tutorial.md", "fencing.md", "testing.md", "workers.md"} <= names
    assert titled()
