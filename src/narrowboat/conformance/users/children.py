"""A scenario's child processes: start them, talk to them, wait for their events, stop, continue and kill them."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any

from narrowboat.conformance.users import processes
from narrowboat.conformance.watch import Watch


class ChildFailed(Exception):
    """A child raised, or ended without the event that was waited for."""


class Child:
    """One child process; see `narrowboat.conformance.users.child`. Made by `Kit.child`, which also ends it."""

    def __init__(self, process: processes.Process, program: str, watch: Watch) -> None:
        self._process = process
        self._program = program
        self._watch = watch
        self._events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._kept: list[dict[str, Any]] = []
        self.errors = b""
        self._reader = asyncio.create_task(self._read())
        self._drain = asyncio.create_task(self._collect())

    @classmethod
    async def start(
        cls, program: Callable[..., Any], arguments: dict[str, Any], watch: Watch, env: dict[str, str], urls: Iterable[str] = ()
    ) -> Child:
        """Run `program`, a function at the top level of an importable module, in a process of its own.

        `urls` are those of the backends that it will use: it finds their clients imported.
        """
        name = f"{program.__module__}:{program.__qualname__}"
        process = await processes.start(name, list(urls), env)
        child = cls(process, name, watch)
        child._write(arguments)  # not on the command line, which every user of the machine can read: a URL has a password
        return child

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def tell(self, word: str, **values: Any) -> None:
        """Say `word` to the child."""
        self._write({"word": word, **values})

    async def event(self, *names: str, within: float = 20.0) -> dict[str, Any]:
        """The next event of that name (any of the names); others are kept for later calls. `ChildFailed` if none comes."""
        for event in self._kept:
            if event["event"] in names:
                self._kept.remove(event)
                return event
        begun = time.monotonic()
        while True:
            try:
                async with self._watch.timeout(max(within - self._watch.spent(begun), 0.01)):
                    told = await self._events.get()
            except TimeoutError:
                raise ChildFailed(f"{self._program}: no {' or '.join(names)} within {within:g} s; {self._told()}") from None
            if told is None:
                self._events.put_nowait(None)
                raise ChildFailed(f"{self._program}: ended before {' or '.join(names)}; {self._told()}")
            if told["event"] in names:
                return told
            if told["event"] == "failed":
                raise ChildFailed(f"{self._program}: {told['error']}\n{told['trace']}")
            self._kept.append(told)

    def kill(self) -> float:
        """SIGKILL: no handler runs, nothing is flushed. The time by the monotonic clock."""
        self._signal(signal.SIGKILL)
        return time.monotonic()

    def terminate(self) -> None:
        """SIGTERM."""
        self._signal(signal.SIGTERM)

    def stop(self) -> None:
        """SIGSTOP, and wait until the process stands still: nothing in it runs until `resume`."""
        self._signal(signal.SIGSTOP)
        deadline = time.monotonic() + 5
        while not _stands(self.pid) and time.monotonic() < deadline:
            time.sleep(0.001)

    def resume(self) -> float:
        """SIGCONT. The time by the monotonic clock, just before it."""
        now = time.monotonic()
        self._signal(signal.SIGCONT)
        return now

    async def exit(self, within: float = 20.0) -> int:
        """Wait for the end of the process. Its exit code; negative for the signal that ended it."""
        async with self._watch.timeout(within):
            return await self._process.wait()

    async def close(self) -> None:
        """Kill the process if it lives, and close its pipes."""
        self._signal(signal.SIGKILL)
        try:
            await self._process.wait()
        finally:
            await asyncio.gather(self._reader, self._drain, return_exceptions=True)

    def _write(self, said: dict[str, Any]) -> None:
        self._process.stdin.write(json.dumps(said).encode() + b"\n")

    def _signal(self, number: int) -> None:
        self._process.send_signal(number)

    def _told(self) -> str:
        return f"it told {[event['event'] for event in self._kept]}; {self.errors.decode(errors='replace')[-2000:]}"

    async def _read(self) -> None:
        async for line in self._process.stdout:
            self._events.put_nowait(json.loads(line))
        self._events.put_nowait(None)

    async def _collect(self) -> None:
        async for line in self._process.stderr:
            self.errors = (self.errors + line)[-20000:]


def _stands(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] in ("T", "t", "Z")  # Z: it has ended
    except OSError:
        return True  # there is no /proc here, or the process is gone: do not wait
