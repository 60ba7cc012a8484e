"""The shop's programs in processes of their own, and what they say. Tests wait for a line of it, and never for a time."""

from __future__ import annotations

import queue
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parent.parent
ENOUGH = 120.0  #: seconds for anything: what a killed worker had comes back when its lease of 15 s has ended
WORKER = ("narrowboat", "run", "shop.worker:worker")
WEB = ("uvicorn", "shop.web:app", "--port", "0", "--no-access-log")
WEB_AT = r"running on (http://\S+)"  #: where it listens, which it says once it has started


class Programs:
    """Those of one test. In the end they are told to end, and do, unless they were killed."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self._lines: queue.SimpleQueue[tuple[subprocess.Popen[str], str]] = queue.SimpleQueue()
        self._readers: dict[subprocess.Popen[str], threading.Thread] = {}

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Run a module of Python in the shop's folder. All that it says is read, so it waits for no reader."""
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._readers[process] = threading.Thread(target=self._read, args=[process])
        self._readers[process].start()
        return process

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.said.append(line)
            self._lines.put((process, line))

    def wait(self, pattern: str) -> tuple[subprocess.Popen[str], re.Match[str]]:
        """The next line of any of them in which that is found, and whose it is. Lines before it are dropped."""
        try:
            while True:
                process, line = self._lines.get(timeout=ENOUGH)
                if found := re.search(pattern, line):
                    return process, found
        except queue.Empty:
            raise AssertionError(f"no line with {pattern!r} in {''.join(self.said)}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self._readers:
            process.terminate()
        late = []
        for process, reader in self._readers.items():
            try:
                process.wait(ENOUGH)
            except subprocess.TimeoutExpired:
                late.append(process.args)
                process.kill()
            reader.join()
            assert process.stdout is not None
            process.stdout.close()
        assert late == [], "".join(self.said)
        ends = [process.returncode for process in self._readers]
        # uvicorn ends by the signal that it got
        assert set(ends) <= {0, -signal.SIGTERM, -signal.SIGKILL}, "".join(self.said)
