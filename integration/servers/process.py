"""One operating system process that this process owns: started, signalled and read, never found by its name.

It is dead when its owner dies, even of SIGKILL: the kernel sends it a signal then (`setpriv --pdeathsig`, where the
machine has it; elsewhere it is ended at exit only). What it prints goes to a file. It knows nothing of any server.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_started: weakref.WeakSet[Process] = weakref.WeakSet()
_launchers: dict[int, ThreadPoolExecutor] = {}


class Process:
    """A program to run, again and again with the same arguments.

    Args:
        argv: the program and its arguments.
        log: the file that its output is appended to.
        env: variables beside this process's own.
        cwd: its working directory; the log's folder unless told.
    """

    def __init__(
        self, argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.argv = tuple(argv)
        self._log = log
        self._env = dict(env or {})
        self._cwd = cwd or log.parent
        self._popen: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._paused = False

    @property
    def pid(self) -> int | None:
        """Its process id, None when it does not run."""
        return self._popen.pid if self._popen is not None and self.alive else None

    @property
    def alive(self) -> bool:
        """Whether it runs; a paused one does."""
        return self._popen is not None and self._popen.poll() is None

    def start(self) -> None:
        """Start it; nothing when it runs."""
        if self.alive:
            return
        self._owner = os.getpid()
        self._paused = False
        # The kernel's signal follows the thread that started the process, not its process: a thread of the test's own
        # that ends would take its server with it. So one thread that lives as long as the process starts them all.
        launcher = _launchers.setdefault(self._owner, ThreadPoolExecutor(1, thread_name_prefix="launch-servers"))
        self._popen = launcher.submit(self._launch).result()
        _started.add(self)

    def _launch(self) -> subprocess.Popen[bytes]:
        setpriv = shutil.which("setpriv")
        guard = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*guard, *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._cwd,
                env={**os.environ, **self._env},
                start_new_session=True,  # Ctrl-C in the terminal is for the tests; and its children can be ended with it
            )

    def terminate(self, bound: float) -> None:
        """Ask it to end (SIGTERM), and kill it when it has not after `bound` seconds."""
        if self._popen is None or not self.alive:
            return
        self.resume()  # a stopped process hears nothing
        self._signal(signal.SIGTERM)
        try:
            self._popen.wait(bound)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once (SIGKILL), with the children that are left of it."""
        if self._popen is None or self._owner != os.getpid():
            return
        self._signal(signal.SIGKILL)
        self._popen.wait()
        self._paused = False

    def pause(self) -> None:
        """Stop it where it stands (SIGSTOP): connections stay open and nobody answers, from this call's return on."""
        if self._popen is None or not self.alive or self._owner != os.getpid():
            return
        self._signal(signal.SIGSTOP)
        self._paused = True
        # The signal is only sent so far: until its last thread has seen it, a busy program may still answer. WNOWAIT
        # leaves the news of its end, if that is what came, to the Popen.
        os.waitid(os.P_PID, self._popen.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a paused one go on (SIGCONT)."""
        if self._paused:
            self._signal(signal.SIGCONT)
            self._paused = False

    def log(self) -> str:
        """What it has printed, in all its runs."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def close(self) -> None:
        """Nothing to give back: a process that has ended has left nothing."""

    def _signal(self, number: signal.Signals) -> None:
        # A forked child has these objects too, and must not end its parent's servers.
        if self._popen is not None and self._owner == os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._popen.pid, number)


@atexit.register
def _kill_all() -> None:
    for process in list(_started):
        if process.alive:
            process.kill()
