"""Locks on Consul: against py-consul's PUT acquire and PUT release, on an agent that this run starts."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import consul

import narrowboat
import narrowboat.aio
from benchmarks.measure import Row, at_most, median, versus
from integration.servers import ConsulServer

CYCLES = 200
THREADS = 16
HAND_OVERS = 40


def rows(folder: Path) -> Iterator[Row]:
    """Every line about Consul."""
    with ConsulServer(persistent=False) as server:
        host, port = server.address
        client = consul.Consul(host=host, port=port)
        with narrowboat.locks(server.url) as locks:
            locks.ping()
            yield one_caller(locks, client)
            yield many_threads(locks, client)
            yield many_tasks(server.url, client)
            yield held_together(server)
        yield hand_over(server.url)


def peer(client: consul.Consul, key: str, cycles: int) -> int:
    """What the natural program does: one session, an acquire and a release for each cycle."""
    session = client.session.create(ttl=10, behavior="delete", lock_delay=0)
    try:
        for _ in range(cycles):
            if not client.kv.put(key, "x", acquire=session):
                raise RuntimeError("the peer did not get its own lock")
            client.kv.put(key, "x", release=session)
    finally:
        client.session.destroy(session)
        client.kv.delete(key)
    return cycles


def ours(locks: narrowboat.Locks, name: str, cycles: int) -> int:
    """The same through the face."""
    lock = locks.lock(name)
    for _ in range(cycles):
        lock.acquire().release()
    return cycles


def one_caller(locks: narrowboat.Locks, client: consul.Consul) -> Row:
    return versus(
        "consul: acquire+release, one caller, against py-consul",
        lambda: ours(locks, "one", CYCLES),
        lambda: peer(client, "peer", CYCLES),
        2.0,
    )


def _at_once(work: list[threading.Thread]) -> None:
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()


def many_threads(locks: narrowboat.Locks, client: consul.Consul) -> Row:
    each = CYCLES // 2

    def mine() -> int:
        _at_once([threading.Thread(target=ours, args=(locks, f"t{n}", each)) for n in range(THREADS)])
        return THREADS * each

    return versus(
        "consul: 16 threads on 16 names, against py-consul's one caller", mine, lambda: peer(client, "peer", CYCLES), 8.0
    )


def many_tasks(url: str, client: consul.Consul) -> Row:
    async def main() -> int:
        async with narrowboat.aio.locks(url) as locks:

            async def work(name: str) -> None:
                for _ in range(10):
                    await (await locks.lock(name).acquire()).release()

            await asyncio.gather(*(work(f"a{n}") for n in range(100)))
        return 1000

    return versus(
        "consul: 100 tasks on 100 names, against py-consul's one caller",
        lambda: asyncio.run(main()),
        lambda: peer(client, "peer", CYCLES),
        8.0,
    )


def held_together(server: ConsulServer) -> Row:
    """A thousand locks of one provider: one session."""
    with narrowboat.locks(server.url, prefix="many") as locks:
        held = [locks.lock(f"n{number}").acquire() for number in range(1000)]
        sessions = len(consul.Consul(host=server.address[0], port=server.address[1]).session.list()[1])
        time.sleep(8)  # two rounds of renewals: what is measured is that they are still held
        kept = sum(not one.lost for one in held)
        if kept != len(held):
            raise RuntimeError(f"{len(held) - kept} of {len(held)} were lost")
        for one in held:
            one.release()
    return at_most("consul: sessions for 1,000 locks held at once (and one of the benchmark's own)", sessions, 2, "sessions")


CHILD = """
import sys, time, narrowboat
with narrowboat.locks(sys.argv[1]) as locks:
    for line in sys.stdin:
        held = locks.lock("baton").acquire(timeout=30)
        print(time.monotonic(), flush=True)
        held.release()
"""


def hand_over(url: str) -> Row:
    """From a release in one process to the grant in another that waits: the median."""
    took = []
    child = subprocess.Popen([sys.executable, "-c", CHILD, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    with narrowboat.locks(url) as locks:
        for _ in range(HAND_OVERS):
            held = locks.lock("baton").acquire(timeout=30)
            child.stdin.write("go\n")
            child.stdin.flush()
            time.sleep(0.05)  # until it waits; what is measured begins at the release
            released = time.monotonic()
            held.release()
            took.append((float(child.stdout.readline()) - released) * 1000)
    child.stdin.close()
    child.wait()
    return at_most("consul: hand-over to another process, median", median(took), 5.0, "ms")
