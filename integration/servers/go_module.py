"""Consul, built from its Go module: `consul_module/go.mod` beside this file requires it, `go.sum` has its checksums.

Its own go.mod has `replace` lines, so `go install` refuses it; a module of ours that requires it builds it. The first
build takes minutes on two cores.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

_MODULE = Path(__file__).parent / "consul_module"
_PACKAGE = "github.com/hashicorp/consul"


class BuildFailed(RuntimeError):
    """Go did not build the program; its own words are in the text."""


def build_consul(into: Path) -> None:
    """Build the program to `into`/bin/consul."""
    go = shutil.which("go")
    if go is None:
        raise BuildFailed("go is not on this machine: install Go 1.25 or later")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("go.mod", "go.sum"):
            shutil.copy(_MODULE / name, folder)  # go may write to its module's folder
        done = subprocess.run(
            [go, "build", "-o", str(into / "bin" / "consul"), "-ldflags", "-s -w", _PACKAGE],
            cwd=folder,
            env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=1800,
        )
    if done.returncode != 0:
        raise BuildFailed(f"go build {_PACKAGE} failed:\n{done.stderr[-2000:]}")
