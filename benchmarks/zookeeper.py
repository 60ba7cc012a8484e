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
from benchmarks.measure import Row, at_most, median, versus
from integration.servers import ZooKeeperServer

CYCLES = 60
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
    return versus(
        "one caller, acquire+release against kazoo", lambda: _cycles(mine, CYCLES), lambda: _cycles(theirs, CYCLES), 1.2
    )


def many_threads(locks: narrowboat.Locks, client: KazooClient) -> Row:
    mine = [locks.lock(f"many {number}") for number in range(THREADS)]
    theirs = [client.Lock(f"/peer/many{number}") for number in range(THREADS)]
    return versus(
        f"{THREADS} threads on {THREADS} names against kazoo", lambda: _side_by_side(mine), lambda: _side_by_side(theirs), 1.5
    )


def _side_by_side(each: Sequence[AbstractContextManager[object]]) -> int:
    threads = [threading.Thread(target=_cycles, args=(lock, CYCLES // 3)) for lock in each]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(each) * (CYCLES // 3)


def many_tasks(server: ZooKeeperServer) -> Row:
    """A hundred tasks on a hundred names, against the rate of one blocking caller."""

    async def cycles(locks: narrowboat.aio.Locks, number: int, count: int) -> None:
        lock = locks.lock(f"task {number}")
        for _ in range(count):
            async with lock:
                pass

    async def crowd() -> float:
        async with narrowboat.aio.locks(_url(server)) as locks:
            await asyncio.gather(*(cycles(locks, number, 1) for number in range(100)))
            begun = time.perf_counter()
            await asyncio.gather(*(cycles(locks, number, 10) for number in range(100)))
            return 1000 / (time.perf_counter() - begun)

    with narrowboat.locks(_url(server)) as locks:
        lock = locks.lock("alone")
        _cycles(lock, 5)
        one = many = 0.0
        for _ in range(3):
            begun = time.perf_counter()
            one = max(one, _cycles(lock, CYCLES) / (time.perf_counter() - begun))
            many = max(many, asyncio.run(crowd()))
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
    """From the release in one process to the waiter's grant in another: the median, ours against kazoo's."""
    with narrowboat.locks(_url(server)) as locks, _kazoo(server) as client:
        mine = locks.lock("hand")
        ours = _hands(
            _CHILD.format(
                setup=f"import narrowboat; lock = narrowboat.locks({_url(server)!r}).lock('hand')",
                acquire="held = lock.acquire()",
                release="held.release()",
            ),
            lambda: mine.acquire().release,
            lambda: bool(locks.holders("hand")[0].waiters),
        )
        theirs = _hands(
            _CHILD.format(
                setup=(
                    "from kazoo.client import KazooClient\n"
                    f"client = KazooClient('127.0.0.1:{server.port}'); client.start(); lock = client.Lock('/peer/hand')"
                ),
                acquire="lock.acquire()",
                release="lock.release()",
            ),
            lambda: _peer_release(client),
            lambda: len(client.get_children("/peer/hand")) > 1,
        )
    return Row(
        "hand-over between two processes against kazoo",
        f"{ours * 1000:.2f} ms",
        f"{theirs * 1000:.2f} ms",
        theirs / ours,
        ">= 1x",
        ours <= theirs,
    )


def _peer_release(client: KazooClient) -> Callable[[], object]:
    lock = client.Lock("/peer/hand")
    lock.acquire()
    release: Callable[[], object] = lock.release
    return release


def _hands(program: str, acquire: Callable[[], Callable[[], object]], waiting: Callable[[], bool]) -> float:
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    took = []
    for _ in range(HAND_OVERS):
        release = acquire()
        child.stdin.write("go\n")
        child.stdin.flush()
        while not waiting():
            time.sleep(0.002)
        time.sleep(0.002)  # the watch is sent after the place in the queue is seen
        begun = time.monotonic()
        release()
        took.append(float(child.stdout.readline()) - begun)
        child.stdout.readline()
    child.stdin.close()
    child.wait(10)
    return median(took)


def crowd(server: ZooKeeperServer) -> Row:
    """What the server is asked for each grant, while a hundred wait for one name."""

    async def all_of_them() -> int:
        async with narrowboat.aio.locks(_url(server)) as locks:
            held = await locks.lock("crowd").acquire()

            async def visit() -> None:
                async with locks.lock("crowd"):
                    pass

            before = _requests(server)
            waiting = [asyncio.create_task(visit()) for _ in range(WAITERS)]
            while (await locks.holders("crowd"))[0].waiters != WAITERS:
                before -= 3  # the question itself is three requests: sync, the queue, the holder
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
        before = _requests(server)
        time.sleep(6)
        asked = _requests(server) - before
        assert not any(each.lost for each in held)
    return at_most(f"{HELD} locks held, requests in one session time", asked, 20, "")


def _requests(server: ZooKeeperServer) -> int:
    """Packets that the server has received from all its clients, pings among them; less those of this question."""
    for line in server.command("mntr").splitlines():
        if line.startswith("zk_packets_received"):
            return int(line.split()[1])
    raise RuntimeError("the server does not count")
