"""docs/write-a-backend.md, followed literally: its files, installed as a package, pass the conformance kit."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "write-a-backend.md"
FILE = re.compile(r"^`(?P<path>[\w./]+)`:\n\n```\w+\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the page, and beside them what an installer writes: metadata with the page's own entry points."""
    folder = tmp_path_factory.mktemp("tinyboat")
    for match in FILE.finditer(PAGE.read_text(encoding="utf-8")):
        path = folder / match["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(match["text"], encoding="utf-8")
    install(folder)
    return folder


def install(folder: Path) -> None:
    import tomllib

    declared = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = folder / f"{declared['name']}-{declared['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {declared['name']}\nVersion: {declared['version']}\n")
    groups = declared["entry-points"].items()
    (info / "entry_points.txt").write_text(
        "\n".join(f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items()) for group, points in groups)
    )


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_page_holds_a_whole_project(project: Path) -> None:
    """Every file that the page names is there."""
    found = {path.relative_to(project).as_posix() for path in project.rglob("*.*") if "dist-info" not in str(path)}

    assert {"pyproject.toml", "tinyboat/__init__.py", "tinyboat/locks.py", "tinyboat/broker.py", "test_tinyboat.py"} <= found


def test_it_passes_the_conformance_kit_on_both_faces(project: Path) -> None:
    """All tiers, the stress scenarios at a smaller size. Leases take their time, so the two faces run side by side."""

    def verify(face: str) -> subprocess.CompletedProcess[str]:
        return run(project, "-m", "narrowboat", "verify", "tiny://proof", "--size", "0.1", "--face", face)

    with ThreadPoolExecutor() as pool:
        for done in pool.map(verify, ("sync", "asyncio")):
            assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
            assert re.search(r"\b1\d{2} held, \d{2} refused\b", done.stdout), done.stdout[-2000:]


def test_the_pages_own_test_runs_the_kit(project: Path) -> None:
    """As the page says; here only two ids of it."""
    tests = project / "test_tinyboat.py"
    tests.write_text(tests.read_text().replace('"tiny://proof")', '"tiny://proof"), only=["L01", "B01"]'))

    done = run(project, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests.name)

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"(?m)^[4-9] passed", done.stdout), done.stdout[-2000:]


def test_it_type_checks_against_the_contract(project: Path) -> None:
    """Signatures of the page's classes are those of the contract, by Python's own eyes: each abstract method is there."""
    done = run(
        project,
        "-c",
        "import narrowboat\n"
        "with narrowboat.locks('tiny://a') as locks, locks.lock('x') as held: assert held.token == 1\n"
        "with narrowboat.broker('tiny://a') as broker:\n"
        "    broker.queue('q').publish(b'1'); assert broker.queue('q').depth().ready == 1\n",
    )

    assert done.returncode == 0, done.stderr
