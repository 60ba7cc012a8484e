"""The backends of docs/write-a-backend*.md, followed literally: their files, installed, pass the conformance kit."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
FILE = re.compile(r"^`(?P<path>[\w./]+)`:\n\n```\w+\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
#: A block of the page that is no file, and what it prints.
EXAMPLE = re.compile(
    r":\n\n```python\n(?P<code>(?:(?!^```).)*?)^```\n\n```text\n(?P<prints>.*?)^```$", re.DOTALL | re.MULTILINE
)
#: The row of the report that the first page explains, and the line whose absence makes it.
ROW = re.compile(r"^```text\n(?P<row>L74 sync broken.*?)^```$", re.DOTALL | re.MULTILINE)
#: Ids of the process tier, without the three hundred contenders: they take minutes of a busy machine.
PROCESSES = "L41,L67,L68,L73,L75,L82,L83,L84,B63,B64,B65,B66"
NUMBERS = re.compile(r":\d+(?=; tier)|(?<=, after )[\d.]+ s\n")
COUNTED = "            names.last += 1\n"


class Project(NamedTuple):
    """The files of one page, installed."""

    folder: Path
    package: str
    url: str


def made(page: Path, folder: Path) -> Path:
    """The files of the page, and beside them what an installer writes: metadata with the page's own entry points."""
    for match in FILE.finditer(page.read_text(encoding="utf-8")):
        path = folder / match["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(match["text"], encoding="utf-8")
    install(folder)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The first page's."""
    return Project(made(DOCS / "write-a-backend.md", tmp_path_factory.mktemp("tinyboat")), "tinyboat", "tiny://proof")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The second page's, on a file system in memory where there is one, as the page says."""
    folder = made(DOCS / "write-a-backend-on-files.md", tmp_path_factory.mktemp("folderboat"))
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as data:
        yield Project(folder, "folderboat", f"folder:///{data}")


@pytest.fixture(params=["tiny", "files"])
def project(request: pytest.FixtureRequest) -> Project:
    """Each page's."""
    found: Project = request.getfixturevalue(request.param)
    return found


def install(folder: Path) -> None:
    """Write what an installer writes."""
    declared = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = folder / f"{declared['name']}-{declared['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {declared['name']}\nVersion: {declared['version']}\n")
    groups = declared["entry-points"].items()
    (info / "entry_points.txt").write_text(
        "\n".join(f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items()) for group, points in groups)
    )


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """This Python, with the project's folder before all others."""
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def verify(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A run of the kit."""
    return run(project.folder, "-m", "narrowboat", "verify", project.url, *arguments)


def test_the_page_holds_a_whole_project(project: Project) -> None:
    """Every file that a backend has is on the page."""
    found = {path.relative_to(project.folder).as_posix() for path in project.folder.rglob("*.*")}
    modules = {f"{project.package}/{name}.py" for name in ("__init__", "options", "locks", "broker")}

    assert modules | {"pyproject.toml", f"test_{project.package}.py"} <= found


def on_both_faces(project: Project, *arguments: str) -> None:
    """Leases take their time, so the two faces run side by side."""
    with ThreadPoolExecutor() as pool:
        for done in pool.map(lambda face: verify(project, *arguments, "--face", face), ("sync", "asyncio")):
            assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
            assert re.search(r"\b1\d{2} held, \d{2} refused\b", done.stdout), done.stdout[-2000:]


def test_the_first_page_passes_the_conformance_kit_on_both_faces(tiny: Project) -> None:
    """All tiers, the stress scenarios at a smaller size."""
    on_both_faces(tiny, "--size", "0.1")


def test_the_second_page_passes_the_conformance_kit_on_both_faces(files: Project) -> None:
    """What needs no other process: the core, and leases."""
    on_both_faces(files, "--tier", "C,T")


def test_what_the_second_page_shares_survives_processes_that_die(files: Project) -> None:
    """Processes that share one lock, are killed with a lock or a message, are stopped past a lease, or are forked."""
    done = verify(files, "--size", "0.1", "--face", "sync", "--only", PROCESSES)

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"\b\d{2} held in\b", done.stdout), done.stdout[-2000:]


def test_the_pages_own_test_runs_the_kit(project: Project) -> None:
    """As the page says; here only two ids of it."""
    tests = project.folder / f"test_{project.package}.py"
    tests.write_text(re.sub(r'Harness\("[^"]+"\)', f'Harness("{project.url}"), only=["L01", "B01"]', tests.read_text()))

    done = run(project.folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests.name)

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"(?m)^[4-9] passed", done.stdout), done.stdout[-2000:]


def test_it_has_every_method_of_the_contract(project: Project) -> None:
    """A class without an abstract method of the contract could not be made."""
    done = run(
        project.folder,
        "-c",
        "import sys, narrowboat\n"
        "with narrowboat.locks(sys.argv[1]) as locks, locks.lock('x') as held: assert held.token == 1\n"
        "with narrowboat.broker(sys.argv[1]) as broker:\n"
        "    broker.queue('q').publish(b'1'); assert broker.queue('q').depth().ready == 1\n",
        f"{project.url}?prefix=methods",
    )

    assert done.returncode == 0, done.stderr


def test_the_broken_row_that_the_page_explains_is_what_the_kit_prints(tiny: Project, tmp_path: Path) -> None:
    """With the one line taken out that the page names; all but the kit's line numbers and the seconds that it took."""
    page = DOCS / "write-a-backend.md"
    broken = tiny._replace(folder=made(page, tmp_path))
    locks = broken.folder / "tinyboat" / "locks.py"
    assert locks.read_text().count(COUNTED) == 1
    locks.write_text(locks.read_text().replace(COUNTED, ""))
    row = ROW.search(page.read_text())
    assert row is not None

    done = verify(broken, "--only", "L74", "--face", "sync")

    assert done.returncode == 1, done.stderr
    assert NUMBERS.sub("", row["row"]) in NUMBERS.sub("", done.stdout)


def test_the_example_for_servers_prints_what_the_page_says(tmp_path: Path) -> None:
    """The block that is no file of the project."""
    examples = list(EXAMPLE.finditer((DOCS / "write-a-backend.md").read_text()))
    assert len(examples) == 1

    done = run(tmp_path, "-c", examples[0]["code"])

    assert done.stdout == examples[0]["prints"], done.stderr
