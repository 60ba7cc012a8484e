"""Servers that talk nonsense, and what becomes of a program that calls them: for the tests of drivers.

A test file lists its cases, each a function that is given the connection after the client has said something, and runs them
with `main` in a process of its own, most beside each other: then the memory that they took is known, and a driver that waits
for ever costs the time of one. In the test, `outcomes(__file__)` gives what that process found.
"""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # at run time in `main` alone, so that its memory counts
    from narrowboat.locking import Locks

#: Seconds: the operation timeout of each case, and for how long a call waits for its lock.
TIMEOUT, WAIT = 1.0, 3.0
#: Seconds that a call may take: an attempt, another one, and the withdrawal; and what a busy machine adds.
LONGEST = WAIT + 4 * TIMEOUT + 4.0
#: Bytes of the process that ran all cases.
MEMORY = 200 * 1024 * 1024

NOISE = random.Random(7).randbytes(65536)


def most_memory() -> int:
    """Bytes that this process had at most. The kernel's ru_maxrss would count the tests' process, which started it, as well."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


#: talks to a client that has said something
Case = Callable[[socket.socket], None]
#: what the cases came to, by name, and what the process complained of
Found = tuple[dict[str, dict[str, Any]], str]


class Server:
    """Listens, and lets `case` talk to each client in a thread of its own. Counts who came."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.clients = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            self.clients += 1
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(30)
            connection.recv(65536)
            self._case(connection)
        except OSError:
            pass  # the client has had enough
        finally:
            connection.close()


def silence(connection: socket.socket) -> None:
    """Until the client goes."""
    while connection.recv(65536):
        pass


def then(*parts: bytes) -> Case:
    """A case that sends these, and then nothing until the client goes."""

    def case(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)
        silence(connection)

    return case


def endless(head: bytes, chunk: bytes) -> Case:
    """A case that sends `head` and never stops sending `chunk`."""

    def case(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(chunk)

    return case


def drip(head: bytes, piece: bytes = b"x") -> Case:
    """A case that sends `head` and then a piece every few milliseconds: no single wait is long."""

    def case(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(piece)
            time.sleep(0.005)

    return case


def main(
    cases: Mapping[str, Case], url: str, call: Callable[[Locks], object], alone: Sequence[str] = (), again: float = 5.0
) -> None:
    """In the process of its own: what `call(locks)` came to in each case, as JSON. `alone`: those that take memory.

    How long it took leaves out what the machine stood still: all cases together keep a core busy.
    `again`: for so many seconds it is called again, until somebody comes to the server anew.
    """
    import narrowboat  # here, so that its memory counts, and nobody else's
    from narrowboat.conformance.watch import watch

    clock = watch()
    found: dict[str, dict[str, Any]] = {}

    def run(name: str, case: Case) -> None:
        server = Server(case)
        begun = time.monotonic()
        error = None
        try:
            with narrowboat.locks(url.format(port=server.port)) as locks:
                try:
                    call(locks)
                except Exception as raised:
                    error = raised
                took = clock.spent(begun)
                anew = server.clients
                ends = time.monotonic() + again
                while server.clients == anew and case is not silence and time.monotonic() < ends:
                    try:
                        call(locks)  # to a driver without a living thread nobody would come any more
                    except narrowboat.NarrowboatError:
                        pass
            found[name] = {
                "typed": isinstance(error, narrowboat.NarrowboatError),
                "error": f"{type(error).__name__}: {error}",
                "took": took,
                "anew": server.clients > anew,
            }
        except BaseException as raised:
            found[name] = {"typed": False, "error": f"{type(raised).__name__}: {raised}", "took": 0.0, "anew": False}

    threads = [threading.Thread(target=run, args=each) for each in cases.items() if each[0] not in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in alone:
        run(name, cases[name])
    found[""] = {"memory": most_memory()}
    print(json.dumps(found))


def silences(url: str, seconds: float) -> list[float]:
    """How long each of three calls took that follow each other on a server that says nothing, with `seconds` for each."""
    import narrowboat

    took = []
    with narrowboat.locks(url, timeout=seconds) as locks:
        for call in (locks.ping, lambda: locks.holders("a"), lambda: locks.evict("a", 1)):
            begun = time.monotonic()
            with pytest.raises(narrowboat.errors.Unavailable):
                call()
            took.append(time.monotonic() - begun)
    assert took[0] > seconds - 0.1
    return took


def outcomes(file: str) -> Found:
    """What the cases of a test file came to, by name; "" has the memory. And whatever the process complained of."""
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, timeout=120, check=True)
    return json.loads(done.stdout), done.stderr
