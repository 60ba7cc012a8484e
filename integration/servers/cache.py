"""Where installed servers are kept: `$XDG_CACHE_HOME/narrowboat/servers`, or the same under `~/.cache`.

An installation is a folder that appears in one step, when it is whole: what was interrupted is not taken for installed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def folder(server: str) -> Path:
    """The folder of one server; it is there when the server is installed."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "narrowboat" / "servers" / server


def keep(server: str, make: Callable[[Path], None]) -> Path:
    """The folder of `server`, filled by `make` when it is not there yet.

    Returns:
        The folder. When `make` raises, nothing is kept.
    """
    final = folder(server)
    if final.exists():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=f".{server}-", dir=final.parent))
    try:
        make(making)
        making.chmod(0o755)
        try:
            making.rename(final)
        except OSError:
            if not final.exists():  # else another process was faster, with the same result
                raise
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return final
