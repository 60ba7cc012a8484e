"""Programs out of another Debian suite than the system's, with their own C library, in a folder that they run from.

For servers that are newer than the system's. Nothing is installed on the system and its package manager's lists are left
alone: a list and a state of its own are made for the suite, and removed. Each program is told where its interpreter and
libraries are (`patchelf`), so that it runs from that folder and from no other; no root and no chroot is needed. What a
program starts by name, a shell above all, is the system's.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from integration.servers import debian

#: the first bytes of an ELF file
_ELF = b"\x7fELF"
#: where an ELF file says what it is: 2 is a program, 3 a library or a program that may stand anywhere
_KIND = slice(16, 18)


def unpack(packages: Sequence[str], suite: str, into: Path, home: Path) -> None:
    """Unpack `packages` of `suite` with all that they need, the C library included, under `into`, to be run from `home`.

    Raises:
        AptFailed: the suite or a package is unknown, or cannot be downloaded.
    """
    work = into / "work"
    (work / "debs").mkdir(parents=True)
    try:
        options = _manager(suite, work)
        debian.apt(["apt-get", *options, "update", "-q"])
        wanted = debian.planned(packages, options)
        debian.apt(["apt-get", *options, "download", *wanted], cwd=work / "debs")
        for package in sorted((work / "debs").glob("*.deb")):
            debian.apt(["dpkg-deb", "--extract", str(package), str(into)])
        _settle(into, home, work)
    finally:
        shutil.rmtree(work)


def _manager(suite: str, work: Path) -> list[str]:
    """The options of a package manager that knows `suite` alone, and takes nothing for installed."""
    for folder in ("lists/partial", "archives/partial"):
        (work / folder).mkdir(parents=True)
    (work / "status").touch()
    (work / "sources.list").write_text(f"deb {_mirror()} {suite} main\n")
    told = {
        "Dir::State": work,
        "Dir::State::Lists": work / "lists",
        "Dir::State::status": work / "status",
        "Dir::Cache": work,
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Acquire::Check-Valid-Until": "false",  # a mirror's copy of a suite that moves may be some weeks old
    }
    return [word for name, value in told.items() for word in ("-o", f"{name}={value}")]


def _mirror() -> str:
    """Where this machine gets its packages."""
    known = debian.apt(["apt-get", "indextargets", "--format", "$(REPO_URI) $(LABEL)"]).splitlines()
    for line in known:
        address, _, label = line.partition(" ")
        if label == "Debian":
            return address
    raise debian.AptFailed("the package lists name no mirror of Debian itself: root can get them with apt-get update")


def _settle(into: Path, home: Path, work: Path) -> None:
    """Tell each program where it will find its interpreter and its libraries."""
    programs = list(_programs(into))  # before the tool is there, which is the system's
    debian.unpack(["patchelf"], work / "tools")
    patchelf = str(work / "tools" / "usr" / "bin" / "patchelf")
    linker = next(into.glob("usr/lib/*-linux-gnu*/ld-linux*.so.*"))
    libraries = home / linker.parent.relative_to(into)
    # DT_RPATH, which holds for what a program's libraries and plug-ins ask for, too.
    where = ["--force-rpath", "--set-rpath", str(libraries)]
    for program in programs:
        debian.apt([patchelf, "--set-interpreter", str(libraries / linker.name), *where, str(program)])


def _programs(root: Path) -> Iterator[Path]:
    for path in root.rglob("*"):
        if path.is_symlink() or not path.is_file() or not path.stat().st_mode & 0o100 or ".so" in path.name:
            continue
        with path.open("rb") as file:
            head = file.read(20)
            rest = file.read(4096)
        if head[:4] == _ELF and head[_KIND] in (b"\x02\x00", b"\x03\x00") and b"/ld-linux" in rest:
            yield path
