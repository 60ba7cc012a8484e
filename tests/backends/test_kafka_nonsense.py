"""Servers that talk nonsense instead of Kafka, or stop in the middle: a typed error, in time, in little memory.

Each is tried by one broker object, all beside each other in a process of their own, which tells how much memory it took.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

import narrowboat
from at_once import CONTEXT, end_together, opened
from bounds import upper
from narrowboat import registry
from narrowboat.conformance.watch import watch
from narrowboat.contract import Address, Kind
from narrowboat.dsn import Url
from narrowboat_kafka.connections import Connections
from narrowboat_kafka.errors import translate
from narrowboat_kafka.format.records import Record
from narrowboat_kafka.options import Options
from narrowboat_kafka.publishing.publisher import Publisher

#: Seconds for one call, and what may come on top where four other things are going on.
TIMEOUT, SLACK = 2.0, 6.0
#: Bytes that the process may take beside what its imports take.
MEMORY = 200 * 2**20

Talk = Callable[[socket.socket], None]


# -- what such a server says ------------------------------------------------------------------------------------------


def _request(line: socket.socket) -> tuple[int, int, int]:
    """What is asked: the number of the call, its version, the number of the request."""
    data = _exactly(line, struct.unpack(">i", _exactly(line, 4))[0])
    key, version, number = struct.unpack_from(">hhi", data)
    return key, version, number


def _exactly(line: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = line.recv(size - len(data))
        if not part:
            raise ConnectionError("gone")
        data += part
    return data


def _answer(line: socket.socket, number: int, body: bytes) -> None:
    line.sendall(struct.pack(">ii", len(body) + 4, number) + body)


#: Versions that it knows: of metadata only the one whose texts have lengths with a sign.
_VERSIONS = [(18, 0, 0), (3, 1, 1), (10, 0, 2), (2, 1, 5), (60, 0, 0)]


def _versions(error: int = 0) -> bytes:
    return struct.pack(">hi", error, len(_VERSIONS)) + b"".join(struct.pack(">hhh", *each) for each in _VERSIONS)


def _greeted(line: socket.socket) -> int:
    """Answer for the versions as Kafka does; the number of the request that comes after."""
    while True:
        key, version, number = _request(line)
        if key != 18:
            return number
        _answer(line, number, _versions(35 if version else 0))


def _says(*parts: bytes) -> Talk:
    def talk(line: socket.socket) -> None:
        for part in parts:
            line.sendall(part)
        line.recv(1)
        time.sleep(TIMEOUT * 2)

    return talk


def _for_ever(part: bytes, begin: bytes = b"") -> Talk:
    def talk(line: socket.socket) -> None:
        line.sendall(begin)
        while True:
            line.sendall(part)

    return talk


def _to_first(body: Callable[[int], bytes]) -> Talk:
    """Answer the first request with these bytes, whatever they are."""

    def talk(line: socket.socket) -> None:
        _, _, number = _request(line)
        line.sendall(body(number))
        time.sleep(TIMEOUT * 2)

    return talk


def _to_metadata(body: bytes) -> Talk:
    def talk(line: socket.socket) -> None:
        while True:
            _answer(line, _greeted(line), body)

    return talk


def _dripping(line: socket.socket) -> None:
    _, _, number = _request(line)
    for byte in struct.pack(">ii", 1000, number) + bytes(1000):
        line.sendall(bytes([byte]))
        time.sleep(0.1)


def _announced(line: socket.socket) -> None:
    """A hundred megabytes for metadata, and they come."""
    number = _greeted(line)
    line.sendall(struct.pack(">ii", 100_000_000, number))
    while True:
        line.sendall(bytes(65536))


def _silent(line: socket.socket) -> None:
    time.sleep(TIMEOUT * 3)


_broker = struct.pack(">i", 1) + struct.pack(">h", 9) + b"127.0.0.1" + struct.pack(">i", 1) + struct.pack(">h", -1)

TALKS: dict[str, Talk] = {
    "closes at once": lambda line: None,
    "says nothing": _silent,
    "noise": _says(random.Random(1).randbytes(4096)),
    "noise without end": _for_ever(random.Random(2).randbytes(65536)),
    "zeros without end": _for_ever(bytes(65536)),
    "a web server": _says(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"),
    "another kind of server": _says(b"-ERR unknown command\r\n"),
    "a port for TLS": _says(b"\x15\x03\x03\x00\x02\x02\x0a"),
    "half of a length": _says(b"\x00\x00"),
    "a length of two gigabytes": _says(b"\x7f\xff\xff\xff"),
    "two gigabytes": _for_ever(bytes(65536), b"\x7f\xff\xff\xff"),
    "a negative length": _says(b"\xff\xff\xff\xf0" + bytes(64)),
    "an empty answer": _to_first(lambda number: struct.pack(">i", 0)),
    "an answer that nobody asked for": _says(struct.pack(">ii", 4, 7)),
    "an answer to something else": _to_first(lambda number: struct.pack(">ii", 10, number + 1) + bytes(6)),
    "half of an answer": _to_first(lambda number: struct.pack(">ii", 1000, number) + bytes(10)),
    "an answer byte by byte": _dripping,
    "versions without end": _to_first(lambda number: struct.pack(">iihi", 10, number, 0, 2**31 - 1)),
    "versions that are cut off": _to_first(lambda number: struct.pack(">iihih", 12, number, 0, 3, 1)),
    "no versions": _to_first(lambda number: struct.pack(">iihi", 10, number, 0, 0)),
    "metadata of a hundred megabytes": _announced,
    "metadata that are cut off": _to_metadata(struct.pack(">i", 3)),
    "metadata with brokers without end": _to_metadata(struct.pack(">i", 2**31 - 1) + _broker),
    "metadata with a host of negative length": _to_metadata(struct.pack(">iih", 2**31 - 1, 1, -7) + bytes(100)),
    "metadata without brokers": _to_metadata(struct.pack(">i", 0) + struct.pack(">ii", -1, 0)),
    "metadata with a host that is no text": _to_metadata(
        struct.pack(">iih", 1, 1, 2) + b"\xff\xfe" + struct.pack(">ih", 1, -1) + struct.pack(">ii", 1, 0)
    ),
    "metadata of a broker that is elsewhere": _to_metadata(struct.pack(">i", 1) + _broker + struct.pack(">ii", 1, 0)),
}


@contextlib.contextmanager
def _server(talk: Talk) -> Iterator[int]:
    """Somebody who listens and says that to whoever comes; its port."""

    def serve(line: socket.socket) -> None:
        with line, contextlib.suppress(OSError, struct.error):
            talk(line)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]


# -- the process ------------------------------------------------------------------------------------------------------


def _try_all() -> None:
    """Try each, all at once; tell what came of it as JSON."""
    import narrowboat_kafka.driver  # noqa: F401  # before the clock runs

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found: dict[str, Any] = {}

    def attempt(name: str, talk: Talk) -> None:
        with _server(talk) as port, narrowboat.broker(f"kafka://127.0.0.1:{port}?timeout={TIMEOUT}") as broker:
            begun = time.monotonic()
            try:
                broker.ping()
                met = "nothing"
            except narrowboat.NarrowboatError as error:
                met = f"{type(error).__name__}: {error}"
            except BaseException as error:
                met = f"untyped {type(error).__name__}: {error}"
            found[name] = (met, watch().spent(begun))  # what is lost to others on the machine is not ours

    watch()  # its clocks tick from here on
    threads = [threading.Thread(target=attempt, args=each) for each in TALKS.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(json.dumps({"found": found, "memory": memory}), flush=True)
    os._exit(0)  # the servers talk on


@pytest.fixture(scope="module")
def tried() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize("name", TALKS)
def test_it_is_a_typed_error_in_time(tried: dict[str, Any], name: str) -> None:
    met, seconds = tried["found"].get(name, ("it did not end", 0.0))
    assert met.startswith(("Unavailable", "ConfigurationError")), met
    assert seconds < TIMEOUT + SLACK
    assert len(met) < 1000


def test_a_port_for_tls_is_told(tried: dict[str, Any]) -> None:
    assert "kafkas://" in tried["found"]["a port for TLS"][0]


def test_a_handshake_that_nobody_answers_ends_in_time() -> None:
    """A server that is stopped, or a host that drops what it is sent, accepts the connection all the same."""
    with _server(_silent) as port, narrowboat.broker(f"kafkas://127.0.0.1:{port}?timeout={TIMEOUT}") as broker:
        begun = time.monotonic()
        with pytest.raises(narrowboat.Unavailable, match="handshake"):
            broker.ping()
        assert time.monotonic() - begun < upper(TIMEOUT + SLACK)


@contextlib.contextmanager
def _falls_silent() -> Iterator[tuple[int, threading.Event]]:
    """The port of a server that says who it is, until the event is set."""
    silent = threading.Event()

    def talk(line: socket.socket) -> None:
        me = struct.pack(">iih", 1, 1, 9) + b"127.0.0.1" + struct.pack(">ih", line.getsockname()[1], -1)
        while True:
            number = _greeted(line)
            if not silent.is_set():
                _answer(line, number, me + struct.pack(">ii", 1, 0))

    with _server(talk) as port:
        yield port, silent


def test_calls_that_look_up_declarations_end_together_when_the_server_falls_silent() -> None:
    """Each asks with a mutex, three of them with the same one (B134)."""
    with _falls_silent() as (port, silent):
        broker = opened(registry.broker_backend("kafka"), f"kafka://127.0.0.1:{port}")
        try:
            silent.set()
            orders, others = Address(Kind.QUEUE, "orders"), Address(Kind.QUEUE, "others")
            end_together(
                *(partial(broker.alter, each, lease=5.0, max_deliveries=None) for each in (orders, orders, orders, others))
            )
        finally:
            broker.close()


def test_calls_that_need_a_producer_end_together_when_the_server_falls_silent() -> None:
    """One makes it, the others wait for that."""
    with _falls_silent() as (port, silent):
        connections = Connections(Url.parse(f"kafka://127.0.0.1:{port}"), Options(), CONTEXT)
        publisher = Publisher(connections)

        def publish() -> None:
            (failed,) = publisher.publish([Record("orders", None, None, b"never", [], 0)])
            assert failed is not None and not failed.left
            raise translate(failed.error, "publishing")

        try:
            silent.set()
            end_together(publish, publish, publish)
        finally:
            publisher.close(time.monotonic())
            connections.close(TIMEOUT)


def test_all_of_them_together_take_little_memory(tried: dict[str, Any]) -> None:
    assert tried["memory"] < MEMORY


def test_no_more_files_is_told_as_such() -> None:
    code = (
        "import resource, narrowboat, narrowboat_kafka.driver, os, sys\n"
        "broker = narrowboat.broker('kafka://127.0.0.1:1?timeout=1')\n"
        "kept = [os.dup(0) for _ in range(3)]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (kept[-1] + 1, 4096))\n"
        "try: broker.ping()\n"
        "except narrowboat.Unavailable as error: print(error)\n"
        "broker.close()\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "Too many open files" in done.stdout, done.stdout + done.stderr[-1000:]
    assert "raise its limits" in done.stdout


if __name__ == "__main__":
    _try_all()
