"""A command that is started again whenever a Python file of a folder changes. For development: it looks, twice a second."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence

from narrowboat.cli.exits import Exit, code_of_status
from narrowboat.cli.output import complain
from narrowboat.cli.relay import Relay

#: Seconds between two looks. Less costs a processor for no use.
LOOK = 0.5
#: What ends it, and what is passed on to the command for that. When the terminal goes away it drains as well.
PASSED = {
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGINT: signal.SIGINT,
    signal.SIGHUP: signal.SIGTERM,
    signal.SIGQUIT: signal.SIGTERM,
}


class Reloading:
    """One folder, and the command. A signal ends the command, and then it is not started again."""

    def __init__(self, folder: str, command: Sequence[str]) -> None:
        self._folder = folder
        self._command = command
        self._ending: signal.Signals | None = None
        self._alone = False  # there was no command to which it could be passed on
        self._until, self._ours = os.pipe()  # the command ends when we do, however that comes

    def run(self) -> int:
        """Until a signal; the exit code of the last command."""
        with Relay() as relay:
            relay.collect()
            while True:
                before, changed = dict(files(self._folder)), None
                command = [*self._command, "--until-closed", str(self._until)]
                # A session of its own: Ctrl-C of the terminal would reach it twice, and the second one ends the wait.
                child = subprocess.Popen(command, start_new_session=True, pass_fds=[self._until])  # noqa: S603  # our own words
                while changed is None and self._ending is None:
                    self._look(child, relay)
                    changed = self._changed(before)
                if self._ending is None:
                    child.terminate()
                while child.poll() is None:
                    self._look(child, relay)
                if self._ending is not None:
                    return self._code(child.returncode)
                complain(f"{changed} has changed: started again")

    def _look(self, child: subprocess.Popen[bytes], relay: Relay) -> None:
        """Wait for the next look. A child that has ended by itself has said why; a change starts it again."""
        for number in map(signal.Signals, relay.wait(LOOK)):
            if number in PASSED:
                if self._ending is None:
                    self._ending, self._alone = PASSED[number], child.poll() is not None
                child.send_signal(PASSED[number])
            elif number == signal.SIGTSTP:
                os.kill(os.getpid(), signal.SIGSTOP)

    def _code(self, status: int) -> int:
        """The command's own; where none ran that would have drained, what it ends with then."""
        if self._alone or status == -(self._ending or 0):
            return Exit.OK if self._ending == signal.SIGTERM else Exit.SIGNALLED + signal.SIGINT
        return status if status >= 0 else code_of_status(-status)

    def _changed(self, before: dict[str, int]) -> str | None:
        now = dict(files(self._folder))
        return next((path for path in {**before, **now} if before.get(path) != now.get(path)), None)


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
