"""A fence in a folder, for what the processes of one host write, for asyncio: the twin of `narrowboat.fencing.file`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from narrowboat.aio._threads import in_thread
from narrowboat.fencing.file import PAUSE, Entry, Folder


class FileFence(Folder):
    """A fence of the processes of one host, in a folder that is there: two small files for each name, which stay.

    Args:
        folder: one that every writer uses, on a disk of this host, with the right to create files in it.

    Raises:
        ConfigurationError: there is no such folder, or it is on a network file system.
    """

    @contextlib.asynccontextmanager
    async def guarding(self, name: str, token: int, *, timeout: float = 10.0) -> AsyncIterator[None]:
        """An `async with` whose body runs only if no newer token was here, and keeps all others of that name out meanwhile.

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
            while not entry.take():  # noqa: ASYNC110  # another process has it, and the system tells no event
                await asyncio.sleep(PAUSE)
            await in_thread(entry.record)
            yield
        finally:
            entry.close()
