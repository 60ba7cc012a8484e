"""The command that `narrowboat lock` runs, as a child process in a process group of its own.

The child is forked first and executes the command later: when it is forked there is no other thread and no connection
yet, so it may run Python between fork and exec, which a process with threads must not. There it asks the kernel to be
killed together with its parent (Linux only; elsewhere, and for the command's own children, a parent killed with SIGKILL
leaves them behind). When it is never started it goes away without a trace.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

_PR_SET_PDEATHSIG = 1


class Child:
    """One command: forked by the constructor, executed by `start`, or dropped by `abandon`."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        go_read, self._go = os.pipe()
        self._failed, failed_write = os.pipe()
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()  # also the process group's id
        if self.pid == 0:
            os.close(self._go)
            os.close(self._failed)
            _become(self._command, go_read, failed_write, parent)
        os.close(go_read)
        os.close(failed_write)
        with contextlib.suppress(OSError):  # the child does the same; the first one counts
            os.setpgid(self.pid, self.pid)

    def start(self, environment: Mapping[str, str]) -> None:
        """Execute the command. `OSError` (and no child any more) when the system cannot."""
        with open(self._go, "w", encoding="ascii") as go:
            go.write(json.dumps(dict(environment)))
        with open(self._failed, "rb") as failed:
            number = failed.read()  # ends when the command runs: the pipe is closed by exec
        if number:
            os.waitpid(self.pid, 0)
            raise OSError(int(number), os.strerror(int(number)), self._command[0])

    def abandon(self) -> None:
        """End it before it was started."""
        os.close(self._go)
        os.close(self._failed)
        os.waitpid(self.pid, 0)

    def signal(self, signum: int) -> bool:
        """Send the signal to the whole group; False when the group has no process left."""
        try:
            os.killpg(self.pid, signum)
        except ProcessLookupError:
            return False
        except PermissionError:  # macOS says so when only zombies are left; a set-uid command says so too
            return sys.platform != "darwin"
        return True

    def poll(self) -> int | None:
        """The wait status when the command has ended or stopped since the last look; it never blocks."""
        pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
        return status if pid else None


def _become(command: list[str], go: int, failed: int, parent: int) -> NoReturn:
    """In the child: wait for the word, then be the command."""
    code = 1
    try:
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        _die_with(parent)
        with open(go, encoding="ascii") as words:
            environment = words.read()
        if environment:
            for ignored in ("SIGPIPE", "SIGXFSZ"):  # Python ignores them; a command expects them to end it
                if hasattr(signal, ignored):
                    signal.signal(getattr(signal, ignored), signal.SIG_DFL)
            os.execvpe(command[0], command, json.loads(environment))  # noqa: S606  # to run it is what was asked
        code = 0
    except OSError as error:
        os.write(failed, str(error.errno or errno.EINVAL).encode())
    finally:
        os._exit(code)


def _die_with(parent: int) -> None:
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it was killed before the kernel was asked
        os._exit(1)
