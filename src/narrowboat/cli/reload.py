"""A command that is started again whenever a Python file of a folder changes. For development: it looks, twice a second."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from types import FrameType

from narrowboat.cli.exits import code_of_status
from narrowboat.cli.output import complain

#: Seconds between two looks. Less costs a processor for no use.
LOOK = 0.5
#: What is passed on to the command. When the terminal goes away it drains as well.
PASSED = {signal.SIGTERM: signal.SIGTERM, signal.SIGINT: signal.SIGINT, signal.SIGHUP: signal.SIGTERM}


class Reloading:
    """One folder, and the command. A signal ends the command, and then it is not started again."""

    def __init__(self, folder: str, command: Sequence[str]) -> None:
        self._folder = folder
        self._command = command
        self._ending: signal.Signals | None = None
        self._child: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Until a signal; the exit code of the last command."""
        for number in PASSED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._end)
        while True:
            before = dict(files(self._folder))
            # A session of its own: Ctrl-C of the terminal would reach it twice, and the second one ends the wait.
            child = subprocess.Popen(self._command, start_new_session=True)  # noqa: S603  # our own words
            self._child = child
            if self._ending is not None:  # it came before there was anybody to pass it on to
                child.send_signal(self._ending)
            while (changed := self._changed(before)) is None and self._ending is None:
                self._look(child)
            if changed is not None and self._ending is None:
                child.terminate()
            status = child.wait()
            if self._ending is not None:
                return status if status >= 0 else code_of_status(-status)
            complain(f"{changed} has changed: started again")

    def _look(self, child: subprocess.Popen[bytes]) -> None:
        """Wait for the next look. A child that has ended by itself has said why; a change starts it again."""
        if child.poll() is None:
            try:
                child.wait(timeout=LOOK)
            except subprocess.TimeoutExpired:
                return
        time.sleep(LOOK)

    def _changed(self, before: dict[str, int]) -> str | None:
        now = dict(files(self._folder))
        return next((path for path in {**before, **now} if before.get(path) != now.get(path)), None)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._ending = PASSED[signal.Signals(number)]
        child = self._child
        if child is not None and child.returncode is None:
            child.send_signal(self._ending)


def files(folder: str) -> Iterator[tuple[str, int]]:
    """Each Python file below `folder` with its time of change; not those of hidden folders and of environments."""
    for place, folders, names in os.walk(folder):
        folders[:] = [
            name for name in folders if name[0] != "." and name not in ("__pycache__", "node_modules", "venv", "site-packages")
        ]
        for name in names:
            if name.endswith(".py"):
                path = os.path.join(place, name)
                try:
                    yield os.path.relpath(path, folder), os.stat(path).st_mtime_ns
                except OSError:
                    continue  # deleted meanwhile
