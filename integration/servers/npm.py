"""What comes from npm, by the `package-lock.json` in `npm/<name>`: it has the checksum of each package, and npm takes no other.

No script of a package is run. These are no servers: the official parser of AsyncAPI documents, and the simulator of the models.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

_PACKAGES = Path(__file__).parent / "npm"


class NpmFailed(RuntimeError):
    """npm did not install the packages; its own words are in the text."""


def packages(name: str) -> Callable[[Path], None]:
    """What installs the packages of `npm/<name>` into a folder."""

    def install(into: Path) -> None:
        npm = shutil.which("npm")
        if npm is None:
            raise NpmFailed("npm is not on this machine: install Node.js 18 or later")
        for file in ("package.json", "package-lock.json"):
            shutil.copy(_PACKAGES / name / file, into)
        done = subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=into,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=900,
        )
        if done.returncode != 0:
            raise NpmFailed(f"npm ci failed for {name}:\n{(done.stdout + done.stderr)[-2000:]}")

    return install
