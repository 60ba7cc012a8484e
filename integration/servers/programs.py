"""Where a server's program is on this machine: on the PATH, in a distribution's usual folder, or in the cache."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from integration.servers import cache

#: where servers are beside the PATH, which for a user often lacks them
SYSTEM = ("/usr/local/sbin", "/usr/sbin", "/sbin")


class NotInstalled(RuntimeError):
    """The machine does not have the program of a server; the text says how to get it."""

    def __init__(self, server: str, what: str, how: str = "") -> None:
        super().__init__(f"{what} is not on this machine: {how or f'run python -m integration.servers install {server}'}")


@dataclass(frozen=True)
class Program:
    """A program and the variables that it needs beside its user's."""

    path: Path
    env: Mapping[str, str] = field(default_factory=dict)


def roots(server: str) -> list[Path]:
    """Where the files of `server` may be, the cache first. What the system has is of its own version, so no other one's."""
    return [cache.folder(server), *([] if "@" in server else [Path("/")])]


def find(server: str, name: str) -> Program:
    """The program `name` of `server`, `NotInstalled` when it is nowhere. The cache wins: it was asked for."""
    root = cache.folder(server)
    for folder in ("usr/bin", "usr/sbin", "usr/local/bin", "bin"):
        path = root / folder / name
        if path.exists():
            return Program(path, {"LD_LIBRARY_PATH": library_path(root)} if library_path(root) else {})
    path_ = os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM])
    found = shutil.which(name, path=path_) if Path("/") in roots(server) else None
    if found is None:
        raise NotInstalled(server, name)
    return Program(Path(found))


def library_path(root: Path) -> str:
    """The folders of shared libraries under an unpacked system root, as the dynamic linker wants them.

    None for a root with a C library of its own: its programs know where it is (`suite`), and the system's own, which they
    start, would crash with it.
    """
    if list(root.glob("usr/lib/*-linux-gnu*/libc.so.6")):
        return ""
    folders = [*root.glob("usr/lib/*-linux-gnu*"), *root.glob("lib/*-linux-gnu*")]
    return ":".join(str(folder) for folder in sorted(folders) if folder.is_dir())


def java() -> Path:
    """The Java virtual machine."""
    home = os.environ.get("JAVA_HOME")
    found = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if not found or not Path(found).exists():
        raise NotInstalled("java", "java (11 or later, for ZooKeeper and Kafka; from your system's packages)")
    return Path(found)


def jars(server: str) -> Path:
    """The folder of a Java server's jars in the cache."""
    folder = cache.folder(server) / "lib"
    if not folder.exists():
        raise NotInstalled(server, f"the folder of {server}'s jars")
    java()
    return folder
