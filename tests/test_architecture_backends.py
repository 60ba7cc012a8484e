"""The laws of the backends: what each stands on, the files that all have alike, and what options of one name mean.

They are read from the sources and from the entry points, so that a new backend is under them from its first line.
"""

from __future__ import annotations

import ast
import enum
import functools
import importlib
import inspect
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from source_trees import (
    BACKENDS,
    ROOT,
    forgotten,  # noqa: F401  # a fixture: pytest takes it from here
    imported,
    parsed,
    short,
    sources,
)

from narrowboat import registry


@pytest.mark.parametrize("path", sources(BACKENDS), ids=short)
def test_a_backend_knows_the_contract_and_nothing_behind_it(path: Path) -> None:
    """It imports no face, no other backend, and nothing private of the core: what drivers share is in `narrowboat.driver`."""
    mine = path.relative_to(BACKENDS).parts[1]
    allowed = {"contract", "capabilities", "clock", "driver", "dsn", "errors"}

    for name in imported(parsed(path)):
        top, _, rest = name.partition(".")
        if top.startswith("narrowboat_"):
            assert top == mine, f"{short(path)} imports the backend {top}"
        elif top == "narrowboat":
            assert rest.partition(".")[0] in allowed, f"{short(path)} imports {name}: a backend stands on {sorted(allowed)}"
            assert "._" not in name, f"{short(path)} imports {name}, which is private"


def test_built_in_backends_are_found_by_entry_points_alone() -> None:
    """Each folder under backends/ is registered by its scheme, as anybody's is."""
    packages = {path.name for path in BACKENDS.glob("*/narrowboat_*")}
    registered = {
        point.value.partition(":")[0].partition(".")[0]
        for group in (registry.LOCKS, registry.BROKERS)
        for point in entry_points(group=group)
    }

    assert packages and packages <= registered


#: Options of one name that are not of one type, and why that does not mislead.
SAME_NAME = {
    "durability": "what can be asked of a file and of a server differ; each word says what it means in one of them only",
    "session_ttl": "one server counts whole seconds and refuses others, the other takes fractions",
}
FOLDERS = sorted(path for path in BACKENDS.iterdir() if path.is_dir())
PRIVATE = re.compile("_[a-z0-9]\\w*", re.IGNORECASE)
#: Names with an underscore that the standard library promises.
PROMISED_PRIVATE = {"_replace", "_asdict", "_fields", "_make", "_value_", "_name_", "_abc_impl"}


def package(folder: Path) -> Path:
    (found,) = folder.glob("narrowboat_*")
    return found


def halves(folder: Path) -> dict[str, list[str]]:
    """What the backend registers: its halves, and the schemes of each."""
    found: dict[str, list[str]] = {}
    for half, group in (("locks", registry.LOCKS), ("broker", registry.BROKERS)):
        names = [point.name for point in entry_points(group=group) if point.value == f"{package(folder).name}:{half}"]
        if names:
            found[half] = sorted(names)
    return found


def top(module: str) -> str:
    return module.partition(".")[0]


@functools.cache
def foreign(folder: Path) -> set[str]:
    """The packages of others that the backend imports: its client library."""
    tops = {top(name) for path in sources(folder) for name in imported(parsed(path))}
    return {top for top in tops if not top.startswith("narrowboat")} - set(sys.stdlib_module_names) - {"__future__"}


def misplaced(folder: Path) -> list[str]:
    """Which files of the common plan are missing, and which are there without need."""
    wanted = {"__init__.py", "py.typed", "options.py", "errors.py"}
    wanted |= {"locks.py"} if "locks" in halves(folder) else set()
    wanted |= {"broker.py", "feed.py"} if "broker" in halves(folder) else set()
    wanted |= {"library.py"} if foreign(folder) else set()
    have = {path.name for path in package(folder).iterdir()}
    have |= {"library.py"} if "library" in have else set()  # a folder, where one file would hold two ideas
    needless = ({"locks.py", "broker.py", "feed.py", "library.py"} - wanted) & have | {
        name for name in have if re.fullmatch(r"(message|lock|broker)_(options|backend|provider|broker)\.py|backend\.py", name)
    }
    return [f"{name} is missing" for name in sorted(wanted - have)] + [f"{name} is needless" for name in sorted(needless)]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_every_backend_has_the_same_files(folder: Path) -> None:
    """Who knows one finds everything in the next: what it takes, what it refuses, each half, and its client library's whims."""
    assert not misplaced(folder)


@pytest.mark.parametrize(
    "folder", [each for each in FOLDERS if any(package(each).glob("*/client.py"))], ids=lambda path: path.name
)
def test_a_backend_that_stands_on_types_knows_no_client(folder: Path) -> None:
    """Its `client.py` says what it needs of one. Only the folders that have a `client.py` with one import a client library."""
    inside = {path.parent for path in package(folder).glob("*/client.py")}
    outside = [path for path in sources(folder) if not inside & set(path.parents)]
    knowing = [short(path) for path in outside if foreign(folder) & {top(name) for name in imported(parsed(path))}]

    assert package(folder) / "client.py" in outside and foreign(folder)
    assert not knowing


def needed(path: Path, files: set[str]) -> set[str]:
    """The files of its own backend that a file imports."""
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & files
            found |= inner or {node.module} & files
    return found


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_no_two_files_of_a_backend_need_each_other(folder: Path) -> None:
    """Imports lead one way, those that only a checker sees counted: what broker and feed share stands in a file below both."""
    parts = {path: path.relative_to(folder).with_suffix("").parts for path in sources(folder)}
    files = {".".join(part).removesuffix(".__init__"): path for path, part in parts.items()}
    needs = {name: needed(path, set(files)) - {name} for name, path in files.items()}
    while free := [name for name, others in needs.items() if not others & needs.keys()]:
        for name in free:
            del needs[name]

    assert not needs, f"these files stand in a circle, or on one: {sorted(needs)}"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_the_entry_objects_are_what_the_package_is_asked_for(folder: Path) -> None:
    """A submodule of the same name, imported later, would hide one: so the package imports it from there at once."""
    for half in halves(folder):
        name = package(folder).name
        late = f"importlib.import_module('{name}.{half}')" if (package(folder) / f"{half}.py").exists() else ""
        script = f"import importlib, {name} as package\nbefore = package.{half}\n{late}\nassert package.{half} is before"
        subprocess.run([sys.executable, "-c", f"{script} and hasattr(before, 'open')"], check=True)


def private_names(folder: Path) -> Iterator[tuple[Path, int, str]]:
    """Each use of a private name that the backend has not defined itself."""
    trees = {path: parsed(path) for path in sources(folder)}
    ours = set(PROMISED_PRIVATE)
    for node in (node for tree in trees.values() for node in ast.walk(tree)):
        match node:
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
                | ast.Name(id=name, ctx=ast.Store())
            ):
                ours.add(name)
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                ours.add(name)
            case ast.Assign(targets=[ast.Name(id="__slots__")], value=value):
                ours.update(ast.literal_eval(value))
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and PRIVATE.fullmatch(node.attr) and node.attr not in ours:
                yield path, node.lineno, node.attr
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in foreign(folder):
                parts = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
                yield from ((path, node.lineno, part) for part in parts if PRIVATE.fullmatch(part))


def overridden(folder: Path) -> Iterator[tuple[Path, str]]:
    """Each private method of a client library's class that a class of the backend's replaces, with the file it is in."""
    for path in sources(folder):
        module = importlib.import_module(".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"))
        for kind in vars(module).values():
            if inspect.isclass(kind) and kind.__module__ == module.__name__:
                bases = [base for base in kind.__mro__ if base.__module__.partition(".")[0] in foreign(folder)]
                for name in vars(kind):
                    if PRIVATE.fullmatch(name) and name not in PROMISED_PRIVATE and any(name in vars(base) for base in bases):
                        yield path, f"{kind.__name__}.{name}"


@functools.cache
def strewn(folder: Path) -> list[str]:
    """The private names of others outside `library.py`, or the folder of that name."""

    def outside(path: Path) -> bool:
        return not path.relative_to(package(folder)).parts[0].startswith("library")

    found = [f"{short(path)}:{line} {name}" for path, line, name in private_names(folder) if outside(path)]
    return found + [f"{short(path)} {name}" for path, name in overridden(folder) if outside(path)]


@pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")  # kafka-python reads its schemas by it
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_what_a_client_library_does_not_promise_is_used_in_one_file(folder: Path) -> None:
    """`library.py`, where each such name stands with its reason, and is tried by a contract test."""
    assert not strewn(folder)
    if foreign(folder):
        assert (ROOT / "tests" / "backends" / f"test_{folder.name}_library.py").exists()


def test_one_option_has_one_type_in_all_backends() -> None:
    """The program stays and the URL changes: what is asked by the same name is the same thing."""
    found: dict[str, dict[str, set[str]]] = {}
    for folder in FOLDERS:
        for half in halves(folder):
            options = getattr(importlib.import_module(package(folder).name), half).options
            for name, hint in typing.get_type_hints(options).items():
                text = str(hint)
                if inspect.isclass(hint) and issubclass(hint, enum.Enum):
                    text = "|".join(str(each.value) for each in hint)
                found.setdefault(name, {}).setdefault(text, set()).add(folder.name)

    differing = {name: types for name, types in found.items() if len(types) > 1}
    assert set(differing) == set(SAME_NAME), differing
