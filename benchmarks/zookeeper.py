"""Locks on ZooKeeper: against kazoo's own Lock, on a server that this run starts."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from kazoo.client import KazooClient

import narrowboat
import narrowboat.aio
from benchmarks.measure import Row, at_most, best, median
from integration.servers import ZooKeeperServer

#: Short turns, many of them, and their medians: a disk that syncs each write is too noisy for a few long ones.
CYCLES, TURNS = 30, 30
THREADS = 16
HAND_OVERS = 40
WAITERS = 100
HELD = 1000


def rows(folder: Path) -> Iterator[Row]:
    """Every line about ZooKeeper."""
    with ZooKeeperServer() as server, _kazoo(server) as client, narrowboat.locks(_url(server)) as locks:
        locks.ping()
        yield one_caller(locks, client)
        yield many_threads(locks, client)
        yield many_tasks(server)
        yield hand_over(server)
        yield crowd(server)
        yield held_together(server)


def _url(server: ZooKeeperServer, query: str = "session_ttl=20") -> str:
    return f"{server.url_for(path='bench')}?create=true&{query}&tick=0.5"


@contextmanager
def _kazoo(server: ZooKeeperServer) -> Iterator[KazooClient]:
    client = KazooClient(hosts=f"127.0.0.1:{server.port}", timeout=20)
    client.start(timeout=20)
    try:
        yield client
    finally:
        client.stop()
        client.close()


def _cycles(lock: AbstractContextManager[object], cycles: int) -> int:
    for _ in range(cycles):
        with lock:
            pass
    return cycles


def one_caller(locks: narrowboat.Locks, client: KazooClient) -> Row:
    mine, theirs = locks.lock("one"), client.Lock("/peer/one")
    return _turns(
        "one caller, acquire+release against kazoo", lambda: _cycles(mine, CYCLES), lambda: _cycles(theirs, CYCLES), 1.2
    )


def _turns(what: str, ours: Callable[[], int], other: Callable[[], int], at_least: float) -> Row:
    ours()  # the first of each makes what stays
    other()
    rates = [(best(ours), best(other)) for _ in range(TURNS)]
    mine, theirs = median([rate for rate, _ in rates]), median([rate for _, rate in rates])
    return Row(what, f"{mine:,.0f}/s", f"{theirs:,.0f}/s", mine / theirs, f">= {at_least:g}x", mine >= theirs * at_least)


def many_threads(locks: narrowboat.Locks, client: KazooClient) -> Row:
    mine = [locks.lock(f"many {number}") for number in range(THREADS)]
    theirs = [client.Lock(f"/peer/many{number}") for number in range(THREADS)]
    return _turns(
        f"{THREADS} threads on {THREADS} names against kazoo", lambda: _side_by_side(mine), lambda: _side_by_side(theirs), 1.5
    )


def _side_by_side(each: Sequence[AbstractContextManager[object]]) -> int:
    threads = [threading.Thread(target=_cycles, args=(lock, CYCLES // 6)) for lock in each]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(each) * (CYCLES // 6)


def many_tasks(server: ZooKeeperServer) -> Row:
    """A hundred tasks on a hundred names, against the rate of one blocking caller."""

    async def cycles(locks: narrowboat.aio.Locks, number: int, count: int) -> None:
        lock = locks.lock(f"task {number}")
        for _ in range(count):
            async with lock:
                pass

    async def crowd(lock: narrowboat.Lock) -> tuple[float, float]:
        one, many = [], []
        async with narrowboat.aio.locks(_url(server)) as locks:
            await asyncio.gather(*(cycles(locks, number, 1) for number in range(100)))
            for _ in range(TURNS // 2):
                begun = time.perf_counter()
                await asyncio.gather(*(cycles(locks, number, 5) for number in range(100)))
                many.append(500 / (time.perf_counter() - begun))
                one.append(best(lambda: _cycles(lock, CYCLES)))
        return median(one), median(many)

    with narrowboat.locks(_url(server)) as locks:
        lock = locks.lock("alone")
        _cycles(lock, 5)
        one, many = asyncio.run(crowd(lock))
    return Row("100 asyncio tasks against one caller", f"{many:,.0f}/s", f"{one:,.0f}/s", many / one, ">= 3x", many >= 3 * one)


_CHILD = """
import sys, time
{setup}
while sys.stdin.readline():
    {acquire}
    print(time.monotonic(), flush=True)
    {release}
    print("released", flush=True)
"""


def hand_over(server: ZooKeeperServer) -> Row:
    """From the release in one process to the waiter's grant in another: the medians of ours and kazoo's, in turns."""
    with narrowboat.locks(_url(server)) as locks, _kazoo(server) as client:
        mine = locks.lock("hand")
        ours = _Other(
            setup=f"import narrowboat; lock = narrowboat.locks({_url(server)!r}).lock('hand')",
            acquire="held = lock.acquire()",
            release="held.release()",
        )
        theirs = _Other(
            setup=f"from kazoo.client import KazooClient; client = KazooClient('127.0.0.1:{server.port}'); client.start()",
            acquire="lock = client.Lock('/peer/hand'); lock.acquire()",
            release="lock.release()",
        )
        took: tuple[list[float], list[float]] = ([], [])
        for _ in range(HAND_OVERS):
            took[0].append(ours.hand_over(mine.acquire().release, lambda: bool(locks.holders("hand")[0].waiters)))
            lock = client.Lock("/peer/hand")
            lock.acquire()
            took[1].append(theirs.hand_over(lock.release, lambda: len(client.get_children("/peer/hand")) > 1))
        ours.close()
        theirs.close()
    mine_took, theirs_took = median(took[0]), median(took[1])
    return Row(
        "hand-over between two processes against kazoo",
        f"{mine_took * 1000:.2f} ms",
        f"{theirs_took * 1000:.2f} ms",
        theirs_took / mine_took,
        ">= 1x",
        mine_took <= theirs_took,
    )


class _Other:
    """Another process that waits for the lock when it is told to, and tells when it has it."""

    def __init__(self, **parts: str) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-c", _CHILD.format(**parts)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def hand_over(self, release: Callable[[], object], waiting: Callable[[], bool]) -> float:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write("go\n")
        self._child.stdin.flush()
        while not waiting():
            time.sleep(0.002)
        time.sleep(0.05)  # the watch is sent after the place in the queue is seen
        begun = time.monotonic()
        release()
        took = float(self._child.stdout.readline()) - begun
        self._child.stdout.readline()
        return took

    def close(self) -> None:
        self._child.communicate(timeout=10)


def crowd(server: ZooKeeperServer) -> Row:
    """What the server is asked for each grant, while a hundred wait for one name."""

    async def all_of_them() -> int:
        async with narrowboat.aio.locks(_url(server)) as locks:
            held = await locks.lock("crowd").acquire()

            async def visit() -> None:
                async with locks.lock("crowd"):
                    pass

            before, nodes = _requests(server), _counted(server, "zk_znode_count")
            waiting = [asyncio.create_task(visit()) for _ in range(WAITERS)]
            while _counted(server, "zk_znode_count") < nodes + WAITERS:  # each has its place in the queue
                await asyncio.sleep(0.05)
            await held.release()
            await asyncio.gather(*waiting)
            return _requests(server) - before

    each = asyncio.run(all_of_them()) / WAITERS
    return at_most(f"{WAITERS} waiters on one name, requests for each grant", each, 8, "")


def held_together(server: ZooKeeperServer) -> Row:
    """A thousand locks in one session: what their renewals ask of the server in one session time."""
    with narrowboat.locks(_url(server, "session_ttl=6")) as locks:
        held = [locks.lock(f"held {number}").acquire() for number in range(HELD)]
        time.sleep(1.5)  # each is watched, once, shortly after its grant
        before = _requests(server)
        time.sleep(6)
        asked = _requests(server) - before
        assert not any(each.lost for each in held)
    return at_most(f"{HELD} locks held, requests in one session time", asked, 20, "")


def _requests(server: ZooKeeperServer) -> int:
    """Packets that the server has received from all its clients, pings among them; less those of this question."""
    return _counted(server, "zk_packets_received")


def _counted(server: ZooKeeperServer, what: str) -> int:
    for line in server.command("mntr").splitlines():
        if line.startswith(what):
            return int(line.split()[1])
    raise RuntimeError(f"the server does not count {what}")
