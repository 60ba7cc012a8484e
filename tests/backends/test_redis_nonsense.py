"""Servers that talk nonsense, too much, too slowly or not at all, on both halves: a typed error, in time, in little memory.

The servers are made here, on loopback. All cases run beside each other, in one child whose memory is measured.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import narrowboat
from narrowboat.conformance.watch import watch
from narrowboat.errors import NarrowboatError

#: Seconds that a call may take, and what a busy machine may add to that.
TIMEOUT, SLACK = 1.0, 6.0
#: MiB that all cases together may take on top of the interpreter with everything imported.
MEMORY = 200

HELLO = b"*6\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"

#: What is answered to each command, in turn; the last for ever.
Answer = bytes | Callable[[socket.socket], None]


def endless(head: bytes, chunk: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(chunk)

    return answer


def drip(data: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        for byte in itertools.chain(data, itertools.repeat(data[-1])):
            connection.sendall(bytes([byte]))
            time.sleep(0.02)

    return answer


FIRST: dict[str, list[Answer]] = {
    "garbage": [os.urandom(4096)],
    "zeros": [b"\0" * 4096],
    "http": [b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"],
    "silence": [b""],
    "an endless line": [endless(b"+", b"a" * 65536)],
    "an endless error": [endless(b"-ERR ", b"a" * 65536)],
    "an endless array": [endless(b"*1000000000\r\n", b":1\r\n" * 10000)],
    "an endless array of few": [endless(b"*200000\r\n", b"$400\r\n" + b"a" * 400 + b"\r\n")],
    "arrays in arrays": [endless(b"", b"*1\r\n" * 10000)],
    "a huge text": [endless(b"$2147483000\r\n", b"a" * 65536)],
    "a large text": [endless(b"$40000000\r\n", b"a" * 65536)],
    "a drip": [drip(b"+")],
    "a dripping array": [drip(b"*100\r\n:1\r\n:1\r\n")],
    "half an answer": [b"*14\r\n$6\r\nserver\r\n$5\r\nre"],
    "a number": [b":5\r\n"],
    "nothing": [b"$-1\r\n"],
    "an empty array": [b"*0\r\n"],
    "numbers": [b"*4\r\n:1\r\n:2\r\n:3\r\n:4\r\n"],
    "an error of 100 kB": [b"-ERR " + b"x" * 100_000 + b"\r\n"],
    "no version": [HELLO.replace(b"7.0.0", b"newer")],
    "a negative length": [b"*-7\r\n"],
    "a length that is none": [b"$1e9\r\n"],
}
THEN: dict[str, Answer] = {
    "a number": b":7\r\n",
    "a text": b"$3\r\nabc\r\n",
    "a status": b"+OK\r\n",
    "nothing": b"$-1\r\n",
    "an array of numbers": b"*3\r\n:1\r\n:2\r\n:3\r\n",
    "arrays in an array": b"*2\r\n*1\r\n*0\r\n*0\r\n",
    "too large a token": b"$30\r\n" + b"9" * 30 + b"\r\n",
    "an error in an array": b"*2\r\n-ERR a\r\n-ERR b\r\n",
    "ok and nothing": b"*1\r\n$2\r\nok\r\n",
    "ok and odd sizes": b"*6\r\n$2\r\nok\r\n$1\r\n1\r\n$0\r\n\r\n$5\r\nabcde\r\n$1\r\nx\r\n$3\r\nabc\r\n",
    "ok and sizes beyond": b"*5\r\n$2\r\nok\r\n$1\r\n1\r\n$0\r\n\r\n$24\r\n" + b"\x7f" * 24 + b"\r\n$1\r\nx\r\n",
    "an error of 100 kB": b"-ERR " + b"x" * 100_000 + b"\r\n",
    "an endless line": endless(b"+", b"a" * 65536),
    "an endless array": endless(b"*1000000000\r\n", b":1\r\n" * 10000),
    "a drip": drip(b"$5\r\na"),
    "garbage": os.urandom(4096),
}
#: What is allowed, and large.
LARGE = {"a large text", "an endless array of few"}
CASES = FIRST | {f"after a greeting, {name}": [HELLO, answer] for name, answer in THEN.items()}


class Fake:
    """Accepts, and answers whatever it is sent with the next of its answers."""

    def __init__(self, answers: list[Answer]) -> None:
        self._answers = answers
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            for answer in itertools.chain(self._answers, itertools.repeat(self._answers[-1])):
                if not connection.recv(65536):
                    return
                if isinstance(answer, bytes):
                    connection.sendall(answer)
                else:
                    answer(connection)
        except OSError:
            pass  # we were hung up on
        finally:
            connection.close()


def calls(port: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """A call of each kind, each with a face of its own."""
    url = f"redis://127.0.0.1:{port}/0?timeout={TIMEOUT:g}"

    def locks(call: Callable[[narrowboat.Locks], Any]) -> Callable[[], Any]:
        def made() -> Any:
            with narrowboat.locks(url) as face:
                return call(face)

        return made

    def broker(call: Callable[[Any], Any]) -> Callable[[], Any]:
        def made() -> Any:
            with narrowboat.broker(url) as face:
                return call(face.queue("q"))

        return made

    yield "try_acquire", locks(lambda face: face.lock("n", ttl=30).try_acquire())
    yield "holders", locks(lambda face: face.holders("n"))
    yield "publish", broker(lambda queue: queue.publish(b"x"))
    yield "depth", broker(lambda queue: queue.depth())
    yield "consume", broker(lambda queue: queue.consume())


def outcome(case: str, what: str, call: Callable[[], Any]) -> dict[str, Any]:
    begun = time.monotonic()
    try:
        found = call()
        if what == "try_acquire" and found is not None:
            found = f"a token of {found.token}"
        error, text, typed = "", repr(found), True
    except BaseException as raised:
        error, text, typed = type(raised).__name__, str(raised), isinstance(raised, NarrowboatError)
    took = watch().spent(begun)  # what is lost to others on the machine is not ours
    return {"case": case, "call": what, "error": error, "text": text[:3000], "typed": typed, "took": took}


def main() -> None:
    """The child: every case and call at once; what each came to, and the memory it all took."""

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results: list[dict[str, Any]] = []
    todo = [(case, *each) for case, answers in CASES.items() for each in calls(Fake(answers).port)]
    watch()  # its clocks tick from here on
    gate = threading.Semaphore(24)  # more of them at once would measure the machine
    alone = threading.Lock()  # what may take much, takes it once

    def run(case: str, what: str, call: Callable[[], Any]) -> None:
        with alone if case in LARGE else gate:
            results.append(outcome(case, what, call))

    threads = [threading.Thread(target=run, args=each, daemon=True) for each in todo]
    for thread in threads:
        thread.start()
    ends = time.monotonic() + 200
    for thread in threads:
        thread.join(max(0.0, ends - time.monotonic()))
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    print(json.dumps({"asked": len(todo), "memory": memory, "results": results}), flush=True)
    os._exit(0)


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=280, check=False)
    assert done.stdout, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    found["stderr"] = done.stderr
    return found


def test_every_call_comes_back(told: dict[str, Any]) -> None:
    """In one operation timeout and what closing adds; none hangs, and no thread dies of what it read."""
    assert len(told["results"]) == told["asked"]
    late = [(each["case"], each["call"], each["took"]) for each in told["results"] if each["took"] > 2 * TIMEOUT + SLACK]
    assert not late
    assert "Traceback" not in told["stderr"], told["stderr"][-3000:]


def test_memory_is_bounded(told: dict[str, Any]) -> None:
    """Of all of them together, though what is allowed to be large is so one by one."""
    assert told["memory"] < MEMORY


@pytest.mark.parametrize("case", CASES)
def test_an_error_is_typed_and_short(told: dict[str, Any], case: str) -> None:
    """One of ours, with a text that can be read."""
    found = [each for each in told["results"] if each["case"] == case]
    assert found
    for each in found:
        assert each["typed"], each
        assert len(each["text"]) < 2500, each
        if case in FIRST:
            assert each["error"], each
        elif each["call"] == "try_acquire":
            assert each["error"] or each["text"] == "None", "a lock was granted by nonsense"


if __name__ == "__main__":
    main()
