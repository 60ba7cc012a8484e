"""For servers that refuse to run as root, where the tests do: they run as `nobody`, who has to reach what is root's.

Where the tests are an ordinary user's, everything here is as it was.
"""

from __future__ import annotations

import atexit
import functools
import os
import pwd
import shutil
import tempfile
from pathlib import Path

_NAME = "nobody"


def command() -> list[str]:
    """What begins a command that must not be root's. The kernel's signal at our death is asked for again."""
    if os.geteuid() != 0:
        return []
    user = pwd.getpwnam(_NAME)
    return ["setpriv", "--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups", "--pdeathsig", "KILL", "--"]


def own(directory: Path) -> None:
    """Give a directory and what is in it to the user that the server runs as."""
    if os.geteuid() != 0:
        return
    user = pwd.getpwnam(_NAME)
    for path in (directory, *directory.rglob("*")):
        os.chown(path, user.pw_uid, user.pw_gid)
    for path in directory.parents:  # pytest's own folders let nobody through
        if path.stat().st_uid == 0 and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o011)


def reached(root: Path) -> Path:
    """An installation where that user can enter it: itself, or a copy of what is in root's own cache, made once a process."""
    if os.geteuid() != 0 or all(path.stat().st_mode & 0o001 for path in (root, *root.parents)):
        return root
    return _copy(root)


@functools.cache
def _copy(root: Path) -> Path:
    copied = Path(tempfile.mkdtemp(prefix="narrowboat-installed-"))
    owner = os.getpid()
    atexit.register(lambda: shutil.rmtree(copied, ignore_errors=True) if os.getpid() == owner else None)
    shutil.copytree(root, copied, symlinks=True, dirs_exist_ok=True)
    copied.chmod(0o755)
    return copied
