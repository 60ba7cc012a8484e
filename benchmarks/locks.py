"""Locks: against filelock (the lock people have without a server) and the bare driver."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import filelock

import narrowboat
from benchmarks.measure import Row, at_most, median, versus
from narrowboat.contract import Grant, Mode, Request

CYCLES = 1500


def rows(folder: Path) -> Iterator[Row]:
    """Every line about locks."""
    yield against_filelock(folder)
    yield face_against_driver(folder)
    yield thread_hand_over()
    yield process_hand_over(folder)
    yield thousand_tasks()
    yield from ten_thousand_names(folder)


def _cycle(lock: narrowboat.Lock) -> int:
    for _ in range(CYCLES):
        lock.acquire().release()
    return CYCLES


def against_filelock(folder: Path) -> Row:
    other = filelock.FileLock(str(folder / "peer.lock"))

    def peer() -> int:
        for _ in range(CYCLES):
            with other:
                pass
        return CYCLES

    with narrowboat.locks("memory://bench") as locks:
        lock = locks.lock("a")
        return versus("memory: acquire+release against filelock", lambda: _cycle(lock), peer, 2.0)


def face_against_driver(folder: Path) -> Row:
    """What the face adds to a cycle, as the driver's share of the whole: 0.5 means that it costs as much as the driver."""
    with narrowboat.locks(f"sqlite:///{folder / 'face.db'}", durability="normal") as locks:
        locks.ping()
        lock = locks.lock("a")
        driver = locks._core.driver.get()

        def bare() -> int:
            for number in range(CYCLES):
                request = Request("b", f"owner-{number}", 30.0, Mode.EXCLUSIVE, None, True, _nothing, "bench")
                (grant,) = driver.attempt([request])
                assert isinstance(grant, Grant)
                driver.release([grant])
            return CYCLES

        return versus("sqlite normal: face over bare driver (costs less than the driver)", lambda: _cycle(lock), bare, 0.5)


def _nothing() -> None:
    pass


def thread_hand_over(rounds: int = 200) -> Row:
    taken: list[float] = []
    with narrowboat.locks("memory://hand-over") as locks:
        lock = locks.lock("a")
        for _ in range(rounds):
            held = lock.acquire()

            def wait() -> None:
                with lock:
                    taken.append(time.perf_counter())

            thread = threading.Thread(target=wait)
            thread.start()
            while not locks.holders("a")[0].waiters:
                time.sleep(0.0002)
            time.sleep(0.001)
            released = time.perf_counter()
            held.release()
            thread.join()
            taken[-1] -= released
    return at_most("memory: hand-over to a waiting thread, median", median(taken) * 1000, 0.3, "ms")


WAITER = """
import sys, time, narrowboat
locks = narrowboat.locks(sys.argv[1])
lock = locks.lock("a")
for line in sys.stdin:
    print("ready", flush=True)
    held = lock.acquire()
    print(time.clock_gettime(time.CLOCK_MONOTONIC), time.process_time(), flush=True)
    held.release()
"""


def process_hand_over(folder: Path, rounds: int = 60) -> Row:
    url = f"sqlite:///{folder / 'processes.db'}?durability=normal"
    taken: list[float] = []
    child = subprocess.Popen([sys.executable, "-c", WAITER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None and child.stdout is not None
    with narrowboat.locks(url) as locks:
        lock = locks.lock("a")
        for _ in range(rounds):
            held = lock.acquire()
            child.stdin.write("go\n")
            child.stdin.flush()
            child.stdout.readline()
            while not locks.holders("a")[0].waiters:
                time.sleep(0.001)
            time.sleep(0.01)
            released = time.clock_gettime(time.CLOCK_MONOTONIC)
            held.release()
            taken.append(float(child.stdout.readline().split()[0]) - released)
    child.stdin.close()
    child.wait()
    return at_most("sqlite: hand-over between two processes, median", median(taken) * 1000, 5.0, "ms")


def thousand_tasks() -> Row:
    async def main() -> tuple[int, bool]:
        served: list[int] = []
        async with narrowboat.aio.locks("memory://thousand") as locks:
            lock = locks.lock("a")

            async def wait(number: int) -> None:
                async with lock:
                    served.append(number)

            holder = await lock.acquire()
            tasks = [asyncio.create_task(wait(number)) for number in range(1000)]
            while (await locks.holders("a"))[0].waiters != 1000:
                await asyncio.sleep(0.01)
            threads = threading.active_count()
            await holder.release()
            await asyncio.gather(*tasks)
        return threads, served == sorted(served)

    threads, in_order = asyncio.run(main())
    row = at_most(f"1,000 asyncio waiters ({'in order' if in_order else 'OUT OF ORDER'}): threads in all", threads, 6, "")
    return row if in_order else Row(row.what, row.ours, "", None, row.target, False)


def ten_thousand_names(folder: Path) -> Iterator[Row]:
    for url in ("memory://names", f"sqlite:///{folder / 'names.db'}?durability=normal"):
        with narrowboat.locks(url) as locks:

            def churn(locks: narrowboat.Locks = locks) -> None:
                for number in range(10_000):
                    locks.lock(f"name-{number}").acquire().release()

            churn()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            churn()
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            assert locks.holders() == []
        yield at_most(f"{url.partition(':')[0]}: 10,000 names once more, peak memory grows by", grown / 1024, 2.0, "MiB")
