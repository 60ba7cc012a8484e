"""The processes of children, as the runner sees them: forks of a fork server, with pipes, a process id and an exit code.

A fork server serves one kind of start: the schemes of the URLs, the working directory, and the variables that are read at a
start. The first start of a kind begins one. It ends when another kind is asked for and it has no children, and with the runner.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping

#: How the variables begin that are read at a start. A fork gets its other variables from the runner as they are then.
EARLY = ("PYTHON", "LANG", "LC_", "TZ", "LD_", "DYLD_", "MALLOC_", "GLIBC_", "OPENSSL_", "SSL_", "NARROWBOAT_", "COVERAGE_")


class ServerGone(Exception):
    """The fork server ended before its child: nobody knows the child's exit code."""


class ForkServer:
    """The process of a fork server, and the socket that it serves."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.socket, theirs = socket.socketpair()
        command = [sys.executable, "-m", "narrowboat.conformance.users.child"]
        with theirs:  # an import may print: that is not for the runner's standard output
            self.process = subprocess.Popen(command, stdin=theirs.fileno(), stdout=2, env=environment)  # noqa: S603  # our own words
        self.children = 0  # that have not ended, as the runner knows

    def close(self) -> None:
        """End it. Its children end when their pipes do."""
        self.socket.close()
        self.process.kill()
        self.process.wait()

    def forget(self) -> None:
        """In a fork of the runner: it is the parent's."""
        self.socket.close()
        self.process.returncode = 0  # else it complains that it still runs


class Process:
    """One child's process: what the kit needs of `asyncio.subprocess.Process`. Made by `start`, for one event loop."""

    def __init__(self, server: ForkServer) -> None:
        self._server = server
        self.pid = 0
        self.returncode: int | None = None

    async def begin(self, request: Mapping[str, object]) -> None:
        """Ask the server for it. An `OSError` or `ServerGone` leaves nothing open."""
        with contextlib.ExitStack() as undo:
            undo.callback(_ended, self._server)
            control, (stdin, *outputs) = self._ask(json.dumps(request).encode() + b"\n", undo)
            told, writer = await asyncio.open_connection(sock=control)
            undo.callback(writer.close)
            self.stdin, _ = await asyncio.get_running_loop().connect_write_pipe(asyncio.BaseProtocol, stdin)
            undo.callback(self.stdin.close)
            self.stdout, self.stderr = [await _reader(pipe, undo) for pipe in outputs]
            self.pid = await _number(told)
            self._status = asyncio.create_task(self._wait(told, writer))
            undo.pop_all()

    def _ask(self, line: bytes, undo: contextlib.ExitStack) -> tuple[socket.socket, list[io.FileIO]]:
        """Send the request. The socket on which the server answers, and this side of the three pipes."""
        with contextlib.ExitStack() as theirs:
            pipes, others = [], []
            for number in range(3):
                read, write = os.pipe()
                mine, other = (read, write) if number else (write, read)
                pipes.append(undo.enter_context(os.fdopen(mine, "rb" if number else "wb", 0)))
                theirs.callback(os.close, other)
                others.append(other)
            control, server = socket.socketpair()
            undo.callback(control.close)
            theirs.callback(server.close)
            socket.send_fds(self._server.socket, [b"\0"], [*others, server.fileno()])
            control.sendall(line)  # at once: the server waits for the whole line, and serves nobody else meanwhile
        return control, pipes

    async def _wait(self, told: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.returncode = await _number(told)
        finally:
            writer.close()
            self.stdin.close()
            _ended(self._server)

    async def wait(self) -> int:
        """The exit code; negative for the signal that ended it. `ServerGone` if nobody knows it."""
        await asyncio.shield(self._status)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Signal it, unless it has ended. Until `_wait` knows that, the server keeps the process id."""
        if not self._status.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


async def start(program: str, urls: Iterable[str], variables: Mapping[str, str]) -> Process:
    """A process that runs `program`, as `users.child` does.

    Args:
        program: package.module:function.
        urls: of the backends that it will use: the server imports their clients.
        variables: of the environment, beside the runner's own.
    """
    environment = {**os.environ, **variables}
    schemes = tuple(sorted({url.partition(":")[0] for url in urls}))
    early = tuple(sorted(each for each in environment.items() if each[0] in variables or each[0].startswith(EARLY)))
    process = Process(_server((schemes, os.getcwd(), early), environment))
    await process.begin({"program": program, "urls": list(urls), "environment": environment})
    return process


async def _number(told: asyncio.StreamReader) -> int:
    line = b""
    with contextlib.suppress(ConnectionError):
        line = await told.readline()
    if not line:
        raise ServerGone("a process of the scenario is not known any more: the kit's fork server has ended; was it killed?")
    return int(line)


async def _reader(pipe: object, undo: contextlib.ExitStack) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    undo.callback(transport.close)
    return reader


# -- the servers of this process ----------------------------------------------------------------------------------

Kind = tuple[tuple[str, ...], str, tuple[tuple[str, str], ...]]

_mutex = threading.Lock()
_servers: dict[Kind, ForkServer] = {}


def _server(kind: Kind, environment: Mapping[str, str]) -> ForkServer:
    """The server of that kind, with one child more. The others that have none end when it begins."""
    with _mutex:
        found = _servers.get(kind)
        if found is not None and found.process.poll() is not None:
            _servers.pop(kind).close()
            found = None
        if found is None:
            for other in [each for each, server in _servers.items() if not server.children]:
                _servers.pop(other).close()
            found = _servers[kind] = ForkServer(environment)
        found.children += 1
        return found


def _ended(server: ForkServer) -> None:
    with _mutex:
        server.children -= 1


def _close() -> None:
    while _servers:
        _servers.popitem()[1].close()


def _forget() -> None:
    global _mutex
    _mutex = threading.Lock()  # a thread that the fork does not have may hold the copied one
    while _servers:
        _servers.popitem()[1].forget()


atexit.register(_close)
os.register_at_fork(after_in_child=_forget)
