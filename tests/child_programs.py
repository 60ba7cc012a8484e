"""Programs of the kit's child processes, and how a test speaks with one. Children import this file: it needs no pytest."""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from narrowboat.conformance.users.child import Link
from narrowboat.conformance.users.children import Child
from narrowboat.conformance.watch import watch

HERE = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}


def spoken(talk: Callable[[Child], Awaitable[Any]], program: Callable[..., Any], **arguments: Any) -> Any:
    """What `talk` returns, in an event loop of its own, with a child that runs `program`."""

    async def run() -> Any:
        child = await Child.start(program, arguments, watch(), HERE)
        try:
            return await talk(child)
        finally:
            await child.close()

    return asyncio.run(run())


def server_of(child: Child) -> int:
    """The process id of its fork server."""
    return child._process._server.process.pid


async def exit_of(child: Child) -> int:
    """Its exit code, once it has ended."""
    return await child.exit()


def echo(link: Link, url: str, number: int) -> None:
    """Tell what came, then wait."""
    link.tell("got", url=url, number=number)
    link.tell("told", value=link.wait("go")["value"])


def exits(link: Link, code: int) -> None:
    """End by an exit code."""
    sys.exit(code)


def waits(link: Link) -> None:
    """Tell, and wait for a word or a signal."""
    link.tell("waiting")
    link.wait("go")


class _Last:
    def __del__(self) -> None:
        os.write(2, b"finalised\n")


def ends_well(link: Link) -> None:
    """Leave an atexit handler, a text that is not flushed, and an object to the finalisation."""
    atexit.register(os.write, 2, b"atexit\n")
    vars(sys.modules[__name__])["kept"] = _Last()
    sys.stderr.write("no newline")
    print("printed")


def looks(link: Link) -> None:
    """Tell what a process finds at its start."""
    streams = [(sys.stdin, sys.__stdin__), (sys.stdout, sys.__stdout__), (sys.stderr, sys.__stderr__)]
    link.tell(
        "seen",
        streams=[
            [
                *(stream.name, stream.mode, stream.fileno(), stream.encoding, stream.errors, stream.line_buffering),
                *(stream.write_through, stream.newlines, type(stream.buffer).__name__, stream is other, repr(stream)),
            ]
            for stream, other in streams
        ],
        signals=[f"{number!r} {signal.getsignal(number)}" for number in sorted(signal.valid_signals())],
        blocked=sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        wakeup=signal.set_wakeup_fd(-1),
        argv=sys.argv,
        whole=sys.orig_argv,
        path=sys.path,
        folder=os.getcwd(),
        environment={name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
        files=sorted(os.listdir("/proc/self/fd"), key=int),
        pipes=[os.readlink(f"/proc/self/fd/{number}").partition(":")[0] for number in range(3)],
        threads=sorted(thread.name for thread in threading.enumerate()),
        native=len(os.listdir("/proc/self/task")),
        flags=repr(sys.flags),
        main=sys.modules["__main__"].__spec__.name if sys.modules["__main__"].__spec__ else None,
        groups=[os.getpgid(0), os.getsid(0)],
        strange=[name for name in sys.modules if name.endswith((".processes", ".children"))],
    )


def tells_variable(link: Link, name: str) -> None:
    """Tell a variable and the directory, as the process and as a program that it starts see them."""
    code = "import os, sys; print(os.environ.get(sys.argv[1]), os.getcwd())"
    inner = subprocess.run(
        [sys.executable, "-c", code, name], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
    )
    link.tell("variable", own=f"{os.environ.get(name)} {os.getcwd()}", inner=inner.stdout.strip())
