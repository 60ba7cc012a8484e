"""What is built from Go modules: Consul, and the program that asks Porcupine about histories of locks.

`consul_module` and `porcupine_module` beside this file require them, and their `go.sum` has the checksums. Consul's own go.mod
has `replace` lines, so `go install` refuses it; a module of ours that requires it builds it. Its first build takes minutes on
two cores, Porcupine's a few seconds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

_HERE = Path(__file__).parent


class BuildFailed(RuntimeError):
    """Go did not build the program; its own words are in the text."""


def build_consul(into: Path) -> None:
    """Build the program to `into`/bin/consul."""
    _build("consul", "github.com/hashicorp/consul", into)


def build_porcupine(into: Path) -> None:
    """Build the program to `into`/bin/porcupine. For tests alone: it is asked beside the checker of the kit."""
    _build("porcupine", ".", into)


def _build(name: str, package: str, into: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise BuildFailed("go is not on this machine: install Go 1.25 or later")
    with tempfile.TemporaryDirectory() as folder:
        for file in (_HERE / f"{name}_module").iterdir():
            shutil.copy(file, folder)  # go may write to its module's folder
        done = subprocess.run(
            [go, "build", "-o", str(into / "bin" / name), "-ldflags", "-s -w", package],
            cwd=folder,
            env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=1800,
        )
    if done.returncode != 0:
        raise BuildFailed(f"go build {package} failed:\n{done.stderr[-2000:]}")
