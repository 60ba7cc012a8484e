"""The fork server: a process that has imported what a scenario's children need, and forks itself for each of them.

`python -m narrowboat.conformance.users.child` without a function's name is one. `processes` starts it and asks it. A fork goes
on behind `serve`, in the same `__main__`, as a child that was started does. It has its imports already, and nothing else of the
server. Where an import has begun a thread, which a fork would lose, the fork becomes a child by exec.

The server's standard input is the socket of the runner. A request is four descriptors: the child's standard streams, and a
socket of its own that has the rest as a line of JSON. On that socket the server tells the process id, and at the child's end
its exit code. It reaps the child once the runner has closed the socket: until then the process id is nobody else's. When the
runner goes away the server ends at once.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import select
import signal
import socket
import sys
import warnings
from collections.abc import Iterable
from typing import Any

import narrowboat
import narrowboat.aio
from narrowboat.conformance.checks.resources import thread_count


def serve() -> None:
    """Serve the runner at standard input, and end the process when it goes away. Returns in each fork."""
    Server(socket.socket(fileno=os.dup(0))).serve()


class Server:
    """Owns the runner's socket, and the children that are not reaped."""

    def __init__(self, runner: socket.socket) -> None:
        self._runner = runner
        self._children: dict[int, socket.socket | None] = {}  # by process id; None: the runner has forgotten it
        self._ended: set[int] = set()  # of these children
        self._warm: set[str] = set()  # schemes
        self._interrupt = signal.getsignal(signal.SIGINT)
        self._woken, self._wakes = socket.socketpair()
        self._wakes.setblocking(False)
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _nothing)
        if self._interrupt is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, _nothing)  # a terminal's Ctrl-C is for the runner, whose end is the server's

    def serve(self) -> None:
        """See the function."""
        while True:
            poll = select.poll()  # unlike epoll no descriptor, which a fork would have to close
            for each in self._sockets():
                poll.register(each, select.POLLIN)
            ready = {number for number, _ in poll.poll()}
            if self._woken.fileno() in ready:
                self._woken.recv(4096)
            self._look(ready)
            if self._runner.fileno() in ready and self._accept():
                return

    def _sockets(self) -> list[socket.socket]:
        return [self._runner, self._woken, *filter(None, self._children.values())]

    def _look(self, ready: set[int]) -> None:
        """Tell of the children that have ended, and reap those of which the runner knows it or does not want to."""
        for pid, its in list(self._children.items()):
            if pid not in self._ended and (code := _exit_code(pid)) is not None:
                self._ended.add(pid)
                _tell(its, code)
            if its is not None and its.fileno() in ready:  # the runner has closed it: it says nothing there
                its.close()
                self._children[pid] = None
            if self._children[pid] is None and pid in self._ended:
                with contextlib.suppress(ChildProcessError):  # `_exit_code` reaps where it cannot look
                    os.waitpid(pid, 0)
                del self._children[pid]
                self._ended.remove(pid)

    def _accept(self) -> bool:
        """Fork for the runner's next request. Whether this is the fork."""
        told, descriptors, _, _ = socket.recv_fds(self._runner, 1, 4)
        if not told:
            os._exit(0)  # nothing of the server is worth an orderly end, and a thread of an import may have none
        its = socket.socket(fileno=descriptors.pop())
        with its.makefile("rb") as lines:
            request = json.loads(lines.readline() or "null")
        if request is None:  # the runner went away in the middle
            its.close()
            _close(descriptors)
            return False
        self._import(request["program"], request["urls"])
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # each fork would write again what an import has printed
        alone = thread_count() == 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads: see `alone`
            pid = os.fork()
        if pid == 0:
            self._become(its, descriptors, request, alone=alone)
            return True
        _close(descriptors)
        self._children[pid] = its
        _tell(its, pid)
        return False

    def _import(self, program: str, urls: Iterable[str]) -> None:
        """Import what the child would. It will meet an error of that again, and tell it better."""
        importlib.invalidate_caches()
        with contextlib.suppress(Exception):
            importlib.import_module(program.partition(":")[0])
        for url in urls:
            scheme = url.partition(":")[0]
            if scheme not in self._warm:
                self._warm.add(scheme)
                for half in (narrowboat.locks, narrowboat.broker):
                    with contextlib.suppress(Exception):
                        half(url)  # imports the client library, and connects nothing

    def _become(self, its: socket.socket, descriptors: list[int], request: dict[str, Any], *, alone: bool) -> None:
        """In the fork: be as a process that was started."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, self._interrupt)
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        _close(descriptors)
        for each in (*self._sockets(), self._wakes, its):
            each.close()
        words = [*sys.orig_argv[1:], request["program"]]
        if not alone:
            os.execve(sys.executable, [sys.executable, *words], request["environment"])  # noqa: S606  # our own words
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.argv[1:] = [request["program"]]
        sys.orig_argv[1:] = words
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            fresh = _stream(getattr(sys, name), number)
            setattr(sys, name, fresh)
            setattr(sys, f"__{name}__", fresh)


def _stream(old: Any, number: int) -> io.TextIOWrapper:
    """The stream as Python makes it at its start, for what the descriptor is now. `old` has what the environment says."""
    mode = "w" if number else "r"
    raw = io.FileIO(number, mode, closefd=False)
    raw.name = old.name
    buffer = raw if isinstance(old.buffer, io.RawIOBase) else type(old.buffer)(raw)
    through = old.write_through
    made = io.TextIOWrapper(
        buffer,
        encoding=old.encoding,
        errors=old.errors,
        newline="\n",
        line_buffering=number == 2 and not through,
        write_through=through,
    )
    made.mode = mode  # type: ignore[misc]  # as Python does; its stubs say that it cannot be set
    return made


def _exit_code(pid: int) -> int | None:
    """The exit code of a child that has ended, negative for a signal. Where there is no `waitid` it is reaped by that."""
    if not hasattr(os, "waitid"):
        ended, status = os.waitpid(pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if ended else None
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def _tell(its: socket.socket | None, number: int) -> None:
    if its is not None:
        with contextlib.suppress(OSError):  # the runner has closed it
            its.sendall(b"%d\n" % number)


def _close(descriptors: Iterable[int]) -> None:
    for each in descriptors:
        os.close(each)


def _nothing(number: int, frame: object) -> None:
    pass
