"""A fence in a folder, for what the processes of one host write: files, devices, programs that they start.

    fence = FileFence("/var/lib/reports/fences")
    with fence.guarding("report", held.token):
        replace("report.csv", rows)

The check and what stands in the `with` are one step for the others, because an exclusive lock of the operating system is held
meanwhile. It ends with the process and with nothing else: a process that is stopped inside the `with` keeps others out until it
goes on or dies. What a process that dies inside has half written stays so; replace files by renaming.

Not for several hosts: locks and renames of network file systems do not promise this, so those are refused where Linux tells.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from narrowboat._engine import checks
from narrowboat._engine.forks import watch_forks
from narrowboat.errors import ConfigurationError, Conflict, LockTimeout, Unavailable
from narrowboat.fencing import decision

#: Seconds between two tries while another process is inside. Longer keeps waiters waiting, shorter costs processor time.
PAUSE = 0.01
#: Not 9p: sandboxes and virtual machines have their only host's disk by it.
_NETWORK = {"afs", "ceph", "cifs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs"}
_NETWORK_FUSE = ("fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.ceph", "fuse.rclone", "fuse.juicefs")
_MOUNTS = Path("/proc/self/mountinfo")
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW  # what stands there must be ours, and no program that is started inherits the lock


def network_file_system(mounts: str, device: int) -> str | None:
    """The type of the file system with that device number, by the text of Linux's `mountinfo`, if it is one of a network."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.splitlines():
        where, _, what = line.partition(" - ")
        kind = what.partition(" ")[0]
        if where.split(" ")[2:3] == [wanted] and (kind in _NETWORK or kind.startswith(_NETWORK_FUSE)):
            return kind
    return None


class Entry:
    """One `with` of one process: its descriptor, which holds the lock. For both faces; it never waits."""

    def __init__(self, folder: Path, name: str, token: int, timeout: float) -> None:
        self._name, self._token = decision.asked(name, token)
        self._timeout = checks.seconds("timeout", timeout, low=0, high=1e6, allowed="0 s to 1,000,000 s")
        # The readable part is for people. The digest tells names apart that differ in case, or after what a file's name holds.
        digest = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
        self._path = folder / f"{quote(name, safe='')[:100]}.{digest}.token"
        self._deadline = time.monotonic() + self._timeout
        self._mutex = threading.Lock()  # a cancelled task leaves `record` to its thread: the lock must outlive that
        self._descriptor = -1
        watch_forks(self)

    def forked(self) -> None:
        """In a child: close what it has of the lock, which would last until it ends. The parent's is not let go by that."""
        self._mutex = threading.Lock()
        self.close()

    def take(self) -> bool:
        """Whether the lock is ours now. `LockTimeout` when the time is up."""
        with self._files():
            if self._descriptor < 0:
                # Beside the token and never replaced: who waits for a file that is replaced holds one that nobody looks at.
                self._descriptor = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | _FLAGS, 0o666)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                pass
        if time.monotonic() >= self._deadline:
            raise LockTimeout(
                f"fence {self._name!r}: another process or thread of this host was inside for all of {self._timeout:g} s; "
                f"nothing was written. Is it stopped? `fuser {self._path.with_suffix('.lock')}` tells which it is",
                name=self._name,
            )
        return False

    def record(self) -> None:
        """Compare, and keep a greater token on the disk, before anything is written under it. Blocks for the disk."""
        with self._mutex, self._files():
            if self._descriptor < 0:
                return  # the task was cancelled before
            newest = self._newest()
            if newest is not None:
                decision.admit(self._name, self._token, newest)
            if newest != self._token:
                self._keep()

    def close(self) -> None:
        """Let the next in. Idempotent."""
        with self._mutex:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    @contextlib.contextmanager
    def _files(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Unavailable(
                f"fence {self._name!r}: cannot keep its token in {str(self._path.parent)!r}: {error.strerror}. Nothing was "
                "written; the folder must be there, with room, and let each writer create and read files",
                sent=False,
            ) from error

    def _newest(self) -> int | None:
        try:
            with open(os.open(self._path, os.O_RDONLY | _FLAGS), "rb") as file:
                text = file.read(100)
        except FileNotFoundError:
            return None
        found = decision.parse(text.decode("ascii", "replace").removesuffix("\n"))
        if found is None:
            raise Conflict(
                f"fence {self._name!r}: {str(self._path)!r} holds {text[:30]!r}, which is no token; nothing was written. "
                "Write the newest token that was used into it, or delete it while no holder is at work"
            )
        return found

    def _keep(self) -> None:
        new = self._path.with_suffix(".new")
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _FLAGS, 0o666), "w", encoding="ascii") as file:
            file.write(f"{self._token}\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)  # or a loss of power may bring the older token back
        except OSError as error:
            if error.errno != errno.EINVAL:  # a file system that cannot, and has nothing to be brought back
                raise
        finally:
            os.close(folder)


class Folder:
    """What both faces check when a fence is made."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(os.path.abspath(folder))
        if not self._folder.is_dir():
            raise ConfigurationError(
                f"FileFence: there is no folder {str(self._folder)!r}. Make it once, for all processes that write: "
                f"mkdir -p {self._folder}"
            )
        with contextlib.suppress(OSError):  # no Linux, or no /proc: there nobody tells, and the page says so
            kind = network_file_system(_MOUNTS.read_text(), self._folder.stat().st_dev)
            if kind is not None:
                raise ConfigurationError(
                    f"FileFence: {str(self._folder)!r} is on a network file system ({kind}), whose locks and renames do not "
                    "hold between hosts. Take a folder on a disk of this host, or a TableFence for several hosts"
                )


class FileFence(Folder):
    """A fence of the processes of one host, in a folder that is there: two small files for each name, which stay.

    Args:
        folder: one that every writer uses, on a disk of this host, with the right to create files in it.

    Raises:
        ConfigurationError: there is no such folder, or it is on a network file system.
    """

    @contextlib.contextmanager
    def guarding(self, name: str, token: int, *, timeout: float = 10.0) -> Iterator[None]:
        """A `with` whose body runs only if no newer token was here, and keeps all others of that name out meanwhile.

        Args:
            name: the fence's; the lock's name is a good one.
            token: `held.token`. It is kept on the disk before the body begins, and stays also where that raises.
            timeout: seconds to wait for others inside, of this name and host.

        Raises:
            StaleWrite: a greater token was here; the body did not run.
            LockTimeout: another process stayed inside; the body did not run.
            Unavailable: the folder is gone, full, or may not be written; the body did not run.
            Conflict: what is kept is no token.
        """
        entry = Entry(self._folder, name, token, timeout)
        try:
            while not entry.take():
                time.sleep(PAUSE)
            entry.record()
            yield
        finally:
            entry.close()
