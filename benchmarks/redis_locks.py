"""Locks on Redis: against redis-py's Lock, python-redis-lock and a bare socket. Part of `python -m benchmarks redis`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import redis
import redis.asyncio
import redis_lock

import narrowboat
from benchmarks.measure import SHORT_ROUNDS, Row, at_most, median, versus
from benchmarks.redis_bare import Bare, packed

CYCLES, FEW = 1000, 50
NAMES, MANY = 16, 100

#: The least that a lock can be: a key with an owner. No queue, no fencing token, nobody woken.
_TAKE = b"return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', 30000)"
_FREE = b"if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end"


def rows(url: str) -> Iterator[Row]:
    """Every line about locks, on the server at `url`."""
    yield from one_caller(url)
    yield threads(url)
    yield from tasks(url)
    yield from hand_over(url)
    yield contenders(url)
    yield thousand_waiters(url)


def one_caller(url: str) -> Iterator[Row]:
    """One thread and one name, in short rounds."""
    with narrowboat.locks(url) as locks, redis.Redis.from_url(url) as client, Bare(url) as bare:
        lock = locks.lock("one")
        theirs = client.lock("one of redis-py", timeout=30)
        other = redis_lock.Lock(client, "one of python-redis-lock", expire=30)
        ping, call = packed(b"PING"), functools.partial(bare.call, b"EVALSHA")
        shas = [bare.call(b"SCRIPT", b"LOAD", each) for each in (_TAKE, _FREE)]

        def ours() -> int:
            for _ in range(FEW):
                lock.acquire().release()
            return FEW

        def pings() -> int:
            for _ in range(2 * FEW):
                bare.many(ping)
            return FEW

        def scripts() -> int:
            for _ in range(FEW):
                for sha in shas:
                    call(sha, b"1", b"one by hand", b"an owner")
            return FEW

        def cycle(their: Any) -> Callable[[], int]:
            def run() -> int:
                for _ in range(FEW):
                    their.acquire()
                    their.release()
                return FEW

            return run

        def against(what: str, their: Callable[[], int], at_least: float) -> Row:
            return versus(what, ours, their, at_least, SHORT_ROUNDS)

        yield against("redis: acquire+release against redis-py's Lock", cycle(theirs), 1.5)
        yield against("redis: acquire+release against python-redis-lock", cycle(other), 1.1)
        yield against("redis: acquire+release against two PINGs on a socket with hiredis", pings, 0.9)
        row = against("  the same, against SET and GET, DEL in scripts there", scripts, 0.0)
        yield Row(row.what, row.ours, row.other, row.ratio, "", True)


def threads(url: str) -> Row:
    """Sixteen threads, each with a name of its own."""
    with narrowboat.locks(url) as locks, redis.Redis.from_url(url) as client:
        each = CYCLES // 40

        def together(cycle: Callable[[int], object]) -> int:
            def run(number: int) -> None:
                for _ in range(each):
                    cycle(number)

            workers = [threading.Thread(target=run, args=(number,)) for number in range(NAMES)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            return each * NAMES

        mine = [locks.lock(f"name {number}") for number in range(NAMES)]
        theirs = [client.lock(f"their name {number}", timeout=30) for number in range(NAMES)]

        def their_cycle(number: int) -> None:
            theirs[number].acquire()
            theirs[number].release()

        return versus(
            f"redis: {NAMES} threads on {NAMES} names against redis-py's Lock",
            lambda: together(lambda number: mine[number].acquire().release()),
            lambda: together(their_cycle),
            4.0,
            SHORT_ROUNDS // 2,
        )


def tasks(url: str) -> Iterator[Row]:
    for number, at_least in ((1, 0.9), (MANY, 6.0)):
        each = CYCLES // 2 if number == 1 else 30

        async def ours(number: int = number, each: int = each) -> int:
            async with narrowboat.aio.locks(url) as locks:

                async def run(lock: narrowboat.aio.Lock) -> None:
                    for _ in range(each):
                        await (await lock.acquire()).release()

                await asyncio.gather(*(run(locks.lock(f"name {each}")) for each in range(number)))
            return number * each

        async def theirs(number: int = number, each: int = each) -> int:
            client = redis.asyncio.Redis.from_url(url)

            async def run(lock: redis.asyncio.lock.Lock) -> None:
                for _ in range(each):
                    await lock.acquire()
                    await lock.release()

            await asyncio.gather(*(run(client.lock(f"their name {each}", timeout=30)) for each in range(number)))
            await client.aclose()
            return number * each

        what = f"redis: {number} asyncio task{'s' if number > 1 else ''} against redis.asyncio's Lock"
        yield versus(what, lambda o=ours: asyncio.run(o()), lambda t=theirs: asyncio.run(t()), at_least)  # type: ignore[misc]  # bound now


#: What any hand-over by a message comes to: a script that publishes, and one by whoever hears it. No lock, no queue, no lease.
TELL, TAKE = "return redis.call('PUBLISH', 'bare', 'go')", "return redis.call('SET', 'bare', 'taken', 'PX', 100)"
WAITER = f"""
import sys, time, narrowboat, redis, redis_lock
url, kind = sys.argv[1:]
client = redis.Redis.from_url(url)
locks = narrowboat.locks(url)

class Bare:
    def __init__(self):
        self.take = client.script_load({TAKE!r})
        self.ear = client.pubsub(ignore_subscribe_messages=True)
        self.ear.subscribe("bare")
        self.ear.get_message(timeout=5)
    def acquire(self):
        while self.ear.get_message(timeout=None) is None:
            pass
        client.evalsha(self.take, 1, "bare")
    def release(self):
        pass

lock = {{"narrowboat": lambda: locks.lock("a"), "redis-py": lambda: client.lock("theirs", timeout=30),
        "python-redis-lock": lambda: redis_lock.Lock(client, "other", expire=30), "bare": Bare}}[kind]()
for line in sys.stdin:
    print("ready", flush=True)
    held = lock.acquire()
    print(time.monotonic(), flush=True)
    (held if kind == "narrowboat" else lock).release()
"""


def hand_over(url: str, rounds: int = 60) -> Iterator[Row]:
    """From the release in one process to the return of the acquire in another."""
    with narrowboat.locks(url) as locks, redis.Redis.from_url(url) as client:
        mine = locks.lock("a")
        theirs = client.lock("theirs", timeout=30)
        others = redis_lock.Lock(client, "other", expire=30)
        tell = client.script_load(TELL)
        found = {}
        for kind in ("narrowboat", "bare", "redis-py", "python-redis-lock"):
            taken: list[float] = []
            with subprocess.Popen(
                [sys.executable, "-c", WAITER, url, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as child:
                assert child.stdin is not None and child.stdout is not None
                for _ in range(rounds if kind in ("narrowboat", "bare") else rounds // 3):
                    release: Callable[[], object]
                    if kind == "narrowboat":
                        release = mine.acquire().release
                    elif kind == "bare":
                        release = functools.partial(client.evalsha, tell, 0)
                    else:
                        peer = theirs if kind == "redis-py" else others
                        peer.acquire()
                        release = peer.release
                    child.stdin.write("go\n")
                    child.stdin.flush()
                    child.stdout.readline()
                    time.sleep(0.02)
                    released = time.monotonic()
                    release()
                    taken.append(float(child.stdout.readline()) - released)
                    time.sleep(0.005)
                child.stdin.close()
            found[kind] = median(taken) * 1000
        row = at_most("redis: hand-over between two processes, median", found["narrowboat"], 0.5, "ms")
        yield Row(
            row.what, row.ours, f"{found['redis-py']:.3g} ms", found["redis-py"] / found["narrowboat"], row.target, row.met
        )
        for what, kind in (
            ("and python-redis-lock", "python-redis-lock"),
            ("and bare PUBLISH, get_message, EVALSHA of redis-py", "bare"),
        ):
            ratio = found[kind] / found["narrowboat"]
            aim, met = (">= 1x", ratio >= 1.0) if kind == "bare" else ("", True)
            yield Row(f"  the same, {what}", row.ours, f"{found[kind]:.3g} ms", ratio, aim, met)


#: What scripts call inside is counted by the server as well, and sent by nobody.
_SENT = ("evalsha", "eval", "ping", "subscribe", "script|load", "hello")


def contenders(url: str, grants: int = 5) -> Row:
    """A hundred threads in one process and four providers of it, on one name."""
    with contextlib.ExitStack() as stack, redis.Redis.from_url(url) as client:
        providers = [stack.enter_context(narrowboat.locks(url)) for _ in range(4)]

        def contend(number: int) -> None:
            lock = providers[number % 4].lock("contended")
            for _ in range(grants):
                with lock:
                    pass

        workers = [threading.Thread(target=contend, args=(number,)) for number in range(MANY)]
        client.config_resetstat()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        counted = client.info("commandstats")
        sent = sum(counted.get(f"cmdstat_{name}", {}).get("calls", 0) for name in _SENT)
    return at_most(f"redis: {MANY} contenders on one name, commands sent for each grant", sent / (MANY * grants), 6.0, "")


def thousand_waiters(url: str) -> Row:
    async def main() -> int:
        with redis.Redis.from_url(url) as client, narrowboat.locks(url) as looking:
            looking.holders()  # on a connection of its own, which a listing has beside the hot calls
            before = int(client.info("clients")["connected_clients"])
            async with narrowboat.aio.locks(url) as locks:
                lock = locks.lock("crowded")

                async def wait() -> None:
                    async with lock:
                        pass

                held = await lock.acquire()
                waiting = [asyncio.create_task(wait()) for _ in range(1000)]
                while looking.holders("crowded")[0].waiters != 1000:
                    await asyncio.sleep(0.05)
                used = int(client.info("clients")["connected_clients"]) - before
                await held.release()
                await asyncio.gather(*waiting)
        return used

    return at_most("redis: 1,000 asyncio waiters on one name, connections", asyncio.run(main()), 3, "")
