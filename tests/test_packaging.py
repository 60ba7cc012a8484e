"""What is shipped: the wheel and the source distribution, built here and looked into.

They are built by hatchling itself, without the isolated environment that `pip` would make, so no network is needed.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = [ROOT / "src" / "narrowboat", *sorted(path.parent for path in ROOT.glob("backends/*/narrowboat_*/__init__.py"))]


def build(kind: str, root: Path, folder: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)], cwd=root, check=True, capture_output=True
    )
    (made,) = folder.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


def sources() -> Iterator[str]:
    """Each file of the packages that has to be shipped, by its name in the wheel."""
    for package in PACKAGES:
        for path in sorted(package.rglob("*")):
            if path.suffix in {".py", ".sql", ".lua", ".html", ".css"} or path.name == "py.typed":
                yield path.relative_to(package.parent).as_posix()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


def shipped(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    """Sources, statements of the databases and marks for type checkers; no tests, no caches, no pages."""
    assert shipped(wheel) == {*sources(), "narrowboat_pytest.py"}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_every_package_tells_type_checkers_that_it_is_annotated(package: Path, wheel: Path) -> None:
    """By the file `py.typed`."""
    assert f"{package.name}/py.typed" in shipped(wheel)


def test_the_core_needs_nothing(wheel: Path) -> None:
    """Whatever the wheel requires is required by an extra alone."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(name).decode())

    assert all("extra ==" in needed for needed in metadata.get_all("Requires-Dist", []))
    assert {"all", "cli", "conformance"} <= set(metadata.get_all("Provides-Extra", []))
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"


def test_the_wheel_works_without_anything_installed(wheel: Path) -> None:
    """An interpreter that knows nothing else imports it; its command says in one line how to get the command line."""
    script = (
        f"import sys; sys.path.insert(0, {str(wheel)!r})\n"
        "import narrowboat, narrowboat.aio, narrowboat_memory\n"
        "from narrowboat._script import main; sys.exit(main())"
    )

    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], check=False, capture_output=True, text=True)

    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert "which is not installed: pip install --upgrade '.[cli]' in a clone of Narrowboat" in line


def test_the_source_distribution_holds_what_a_packager_needs(sdist: Path) -> None:
    """Licence, pages, tests and their configuration; nothing of the machinery that builds the project."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert {"LICENSE", "README.md", "CHANGELOG.md", "PKG-INFO", "pyproject.toml", "tox.ini", "docs/index.md"} <= names
    assert "tests/test_packaging.py" in names
    assert not [name for name in names if name.startswith((".ci", ".git/", ".venv", ".tox")) or "__pycache__" in name]


def test_the_source_distribution_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    """Without version control beside it, which is where files are forgotten."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (root,) = tmp_path.iterdir()
    folder = tmp_path / "again"

    assert shipped(build("wheel", root, folder)) == shipped(wheel)
