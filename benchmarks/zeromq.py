"""`narrowboat serve`, side by side with the SQLite file that it serves: `python -m benchmarks zeromq`.

The server is a process of its own and syncs each commit, as the file beside it does. The rounds are short and taken in turns.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import zmq

import narrowboat
from benchmarks.measure import SHORT_ROUNDS, Row, at_most, median, versus
from integration.servers import ZeroMQServer
from integration.servers.ports import LOOPBACK
from integration.servers.process import Process

#: Publishes of a round, threads that publish at once, and messages of a batch.
ONE_BY_ONE, THREADS, BATCH = 20, 16, 100
WAKES, IDLE, SECONDS = 30, 1000, 20.0


def rows(folder: Path) -> Iterator[Row]:
    """Every line about `narrowboat serve`."""
    with ZeroMQServer(folder / "served") as server:
        with narrowboat.broker(server.url) as wire, narrowboat.broker(f"sqlite:///{folder / 'bare.db'}") as bare:
            yield from publishing(wire.queue("orders"), bare.queue("orders"))
        with narrowboat.locks(server.url) as wired, narrowboat.locks(f"sqlite:///{folder / 'bare.db'}") as file:
            yield versus(
                "zeromq: lock and release, one caller, against sqlite://",
                lambda: _cycles(wired),
                lambda: _cycles(file),
                0.3,
                SHORT_ROUNDS,
            )
        yield wake(server.url)
        yield idle(server)


def _publish(queue: narrowboat.Queue[bytes], count: int = ONE_BY_ONE) -> int:
    for _ in range(count):
        queue.publish(b"x" * 100)
    return count


def _batches(queue: narrowboat.Queue[bytes]) -> int:
    queue.publish_many([b"x" * 100] * BATCH)
    return BATCH


def _together(queue: narrowboat.Queue[bytes]) -> int:
    threads = [threading.Thread(target=_publish, args=(queue,)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return THREADS * ONE_BY_ONE


def _cycles(locks: narrowboat.Locks) -> int:
    lock = locks.lock("baton")
    for _ in range(ONE_BY_ONE):
        lock.acquire().release()
    return ONE_BY_ONE


def publishing(wire: narrowboat.Queue[bytes], bare: narrowboat.Queue[bytes]) -> Iterator[Row]:
    """One by one, in batches, and by many threads at once."""
    yield versus(
        "zeromq: publish, one caller, against sqlite://",
        lambda: _publish(wire),
        lambda: _publish(bare),
        0.3,
        SHORT_ROUNDS,
    )
    yield versus(
        f"zeromq: publish in batches of {BATCH}, against sqlite://",
        lambda: _batches(wire),
        lambda: _batches(bare),
        0.8,
        SHORT_ROUNDS,
    )
    yield versus(
        f"zeromq: publish by {THREADS} threads, against one",
        lambda: _together(wire),
        lambda: _publish(wire),
        3.0,
        SHORT_ROUNDS // 4,
    )


def wake(url: str) -> Row:
    """From a publish to the consumer that waits for it: the median, of two connections."""
    took = []
    with narrowboat.broker(url) as broker, narrowboat.broker(url) as other, broker.queue("wake").consume() as consumer:
        for _ in range(WAKES):
            came: list[float] = []

            def wait(came: list[float] = came) -> None:
                message = consumer.receive(timeout=30)
                came.append(time.perf_counter())
                if message is not None:
                    message.ack()

            thread = threading.Thread(target=wait)
            thread.start()
            time.sleep(0.05)  # until it waits; what is measured begins at the publish
            begun = time.perf_counter()
            other.queue("wake").publish(b"x")
            thread.join()
            took.append((came[0] - begun) * 1000)
    return at_most("zeromq: an idle consumer is woken, median, the publish included", median(took), 5.0, "ms")


def idle(server: ZeroMQServer) -> Row:
    """What clients cost the server that are connected and want nothing: they say a word every 5 s."""
    context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, IDLE + 10)
    sockets = []
    try:
        for number in range(IDLE):
            socket = context.socket(zmq.DEALER)
            socket.linger = 0
            socket.connect(f"tcp://{LOOPBACK}:{server.port}")
            said = {"session": f"{number:032x}", "connection": 1, "half": "locks", "namespace": "idle"}
            socket.send(json.dumps([0, "hello", 1, said | {"options": {}, "survives": "power"}]).encode())
            sockets.append(socket)
        for socket in sockets:
            socket.recv()
        begun, spent = time.monotonic(), _cpu(server)
        turn = 0
        while time.monotonic() < begun + SECONDS:  # spread over the 5 s, as a thousand programs would
            for socket in sockets[turn % 50 :: 50]:
                socket.send(b'[0,"beat"]')
            turn += 1
            time.sleep(0.1)  # 50 of them are 5 s
        share = (_cpu(server) - spent) / (time.monotonic() - begun) * 100
    finally:
        for socket in sockets:
            socket.close()
        context.term()
    return at_most(f"zeromq: {IDLE:,} idle clients, share of a core of the server", share, 5.0, "%")


def _cpu(server: ZeroMQServer) -> float:
    assert isinstance(server.runner, Process)
    fields = Path(f"/proc/{server.runner.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
