"""Programs out of Debian packages, unpacked into a folder of the user's cache.

Nothing is installed on the system: no service is started, no user is made, no file outside the folder changes, and no
root is needed. What the system has already is used from there; what it lacks is unpacked beside the program.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

#: `Inst name (version ...)`; one that has its present version in brackets first is there already, only older
_INSTALLED_BY = re.compile(r"^Inst (\S+) \(", re.MULTILINE)


class AptFailed(RuntimeError):
    """The package manager did not do what was asked; its own words are in the text."""


def available() -> bool:
    """Whether this machine has Debian's package manager."""
    return all(shutil.which(program) for program in ("apt-get", "dpkg-deb"))


def unpack(packages: Sequence[str], into: Path) -> None:
    """Download `packages`, with what they depend on and this machine lacks, and unpack them under `into`.

    Raises:
        AptFailed: a package is unknown, or cannot be downloaded.
    """
    downloads = into / "downloads"
    downloads.mkdir(parents=True)
    try:
        _download(packages, downloads)
    except AptFailed as error:
        # A new machine knows no package yet, and an old one knows versions that are no longer given away.
        _update(error)
        _download(packages, downloads)
    for package in sorted(downloads.glob("*.deb")):
        apt(["dpkg-deb", "--extract", str(package), str(into)])
    shutil.rmtree(downloads)


def planned(packages: Sequence[str], options: Sequence[str] = ()) -> list[str]:
    """`packages` and what would be installed with them; `options` are the package manager's."""
    plan = apt(["apt-get", *options, "--simulate", "--no-install-recommends", "install", *packages])
    # A package that the system has is in no plan, and is wanted all the same: its own files are what is asked for.
    return sorted({*_INSTALLED_BY.findall(plan), *packages})


def _download(packages: Sequence[str], into: Path) -> None:
    apt(["apt-get", "download", *planned(packages)], cwd=into)


def _update(reason: AptFailed) -> None:
    if os.geteuid() != 0:
        raise AptFailed(f"{reason}\nIf the package lists are missing or old, root can get new ones: apt-get update") from reason
    apt(["apt-get", "update", "-q"])


def apt(command: Sequence[str], cwd: Path | None = None) -> str:
    """Run a program of the package manager; what it printed. `AptFailed`, with its own words, when it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=600)
    if done.returncode != 0:
        tail = "\n  ".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise AptFailed(f"{' '.join(command)} failed:\n  {tail}")
    return done.stdout
