"""The programs that lock scenarios run in child processes; see `narrowboat.conformance.users.child`.

Each is an `async def` that speaks the face it is told to, in the same way as a scenario does.
"""

# ruff: noqa: ASYNC222, ASYNC240  # a child has its loop to itself, and waits for a fork or a file on purpose

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import narrowboat
import narrowboat.aio
from narrowboat.capabilities import Support
from narrowboat.conformance.checks.resources import Resources
from narrowboat.conformance.faults.tap import Seen, tapped
from narrowboat.conformance.users.child import Link
from narrowboat.conformance.users.faces import wrap
from narrowboat.demo.stock import Stock
from narrowboat.errors import LeaseLost, NarrowboatError


def opened(url: str, face: str, **arguments: Any) -> narrowboat.aio.Locks:
    """Locks of that face, with the names and awaits of the asyncio one."""
    entry: Any = narrowboat if face == "sync" else narrowboat.aio
    return cast("narrowboat.aio.Locks", wrap(entry.locks(url, **arguments)))


async def looker(link: Link, url: str, face: str, name: str) -> None:
    """Tell the holders of `name`, and whether it can be taken; again on "look"; end when it could."""
    async with opened(url, face) as locks:
        shown = locks.capabilities.holders is not Support.ABSENT
        while True:
            holders = [[h.name, h.token, h.label] for h in await locks.holders(name)] if shown else []
            held = await locks.lock(name).try_acquire()
            link.tell("seen", holders=holders, taken=held is not None)
            if held is not None:
                return await held.release()
            await link.heard("look")


async def holder(
    link: Link,
    url: str,
    face: str,
    name: str,
    ttl: float,
    end: str = "return",
    limit: int | None = None,
    at_least: float = 0,
) -> None:
    """Hold `name`, tell it, and on "go" end: by returning, by an exit that runs nothing more, or by a release."""
    locks = opened(url, face)
    sent = time.monotonic()
    held = await locks.lock(name, ttl=ttl, limit=limit, at_least=at_least).acquire(timeout=30)
    link.tell("held", token=held.token, sent=sent, granted=time.monotonic())
    await link.heard("go")
    if end == "exit":
        os._exit(0)
    if end == "release":
        await held.release()
        await locks.close()


async def zombie(link: Link, url: str, face: str, name: str, ttl: float, record: str | None = None) -> None:
    """Hold `name`, be stopped meanwhile, and tell what the possession says afterwards and what its calls do.

    `record` is a stock record. The program writes to it with its token in the end, as one does that does not look first.
    """
    async with opened(url, face) as locks:
        held = await locks.lock(name, ttl=ttl).acquire(timeout=30)
        held.on_lost(lambda lost: link.tell("lost"))
        link.tell("held", token=held.token)
        looked, valid = time.monotonic(), 0.0  # when the latest look began, and the latest look that found the lock held
        while not held.lost:  # a paused holder goes on like this: it looks, and works if the lock is held
            valid = looked
            await asyncio.sleep(0.001)
            looked = time.monotonic()
        link.tell("noticed", reason=held.reason.value if held.reason else None, valid=valid)
        if record is not None:
            stock = Stock(Path(record))
            link.tell("wrote", outcome=stock.sell(0, "zombie", left=0, token=held.token).value)
            stock.close()
        for what, call in (("renew", held.renew), ("release", held.release)):
            try:
                await call()
                link.tell(what, error=None)
            except NarrowboatError as error:
                link.tell(what, error=type(error).__name__)
        await link.heard("end")


async def waiter(link: Link, url: str, face: str, name: str, ttl: float) -> None:
    """Wait for `name`, and tell when it waits at the backend."""
    seen = Seen()
    locks = opened(url, face, wrap=lambda driver: tapped(seen, driver))

    async def watch() -> None:
        while not seen.waiting(name):  # noqa: ASYNC110  # the driver's answer comes on a lane's thread
            await asyncio.sleep(0.002)
        link.tell("waiting")

    await asyncio.gather(watch(), locks.lock(name, ttl=ttl).acquire(timeout=60))


async def _granted(lock: Any) -> Any:
    """A possession. A grant that took longer than its lease was undone, on a machine with too much to do: it asks again."""
    while True:
        try:
            return await lock.acquire()
        except LeaseLost:
            continue


async def counter(
    link: Link,
    url: str,
    face: str,
    names: Sequence[str],
    folder: str,
    rounds: int,
    ttl: float,
    timeout: float,  # of each operation
    tasks: int = 1,
    leave_after: int | None = None,
) -> None:
    """Read, pause and write a number in a file under each lock: an update is lost if two are in there at once.

    `leave_after`: end the process after so many rounds while it holds a lock, without a release.
    """
    seen = Seen()
    locks = opened(url, face, timeout=timeout, wrap=lambda driver: tapped(seen, driver))
    link.tell("ready")
    await link.heard("go")
    done = 0
    tokens: dict[str, list[int]] = {name: [] for name in names}

    async def work(number: int) -> None:
        nonlocal done
        for turn in range(rounds):
            name = names[(number + turn) % len(names)]
            path = Path(folder, name)
            async with await _granted(locks.lock(name, ttl=ttl, timeout=120)) as held:
                before = int(path.read_text())
                if leave_after is not None and done >= leave_after:
                    link.tell("leaves", done=done)
                    os._exit(0)
                await asyncio.sleep(0.0005)
                path.write_text(str(before + 1))
                tokens[name].append(held.token)
                done += 1

    await asyncio.gather(*(asyncio.create_task(work(number)) for number in range(tasks)))
    link.tell("counted", done=done, tokens=tokens, attempts=seen.members["attempt"], files=Resources.now().files)
    await locks.close()


async def forks(link: Link, url: str, face: str, name: str, ttl: float) -> None:
    """Hold `name` with a short lease, fork, and tell what the fork believes and can do; then what the parent still has."""
    async with opened(url, face) as locks:
        held = await locks.lock(name, ttl=ttl).acquire(timeout=30)
        link.tell("held", token=held.token)
        pid = link.fork(lambda: _in_the_fork(link, url, held))
        until = time.monotonic() + 2.5 * ttl  # the parent's renewal must go on
        while time.monotonic() < until:
            await asyncio.sleep(0.05)
            held.check()
        _, status = os.waitpid(pid, 0)
        other = await opened(url, face).lock(name).try_acquire()
        link.tell("parent", lost=held.lost, taken=other is not None, fork=os.waitstatus_to_exitcode(status))
        await held.release()


def _in_the_fork(link: Link, url: str, held: Any) -> None:
    told: dict[str, Any] = {"lost": held.lost, "reason": held.reason.value if held.reason else None}
    try:
        held.check()
        told["check"] = None
    except LeaseLost as error:
        told["check"] = error.reason.value
    with narrowboat.locks(url) as own:  # a new connection works in the fork
        own.lock("of the fork").acquire(timeout=10).release()
    link.tell("fork", works=True, **told)
    del held  # the fork frees nothing of the parent's, even when it forgets the possession
    gc.collect()


async def forks_in_use(link: Link, url: str, face: str) -> None:
    """Use locks, fork, and use the same `Locks` object in the fork."""
    del face  # an event loop does not survive a fork: only the sync face can be forked after use
    with narrowboat.locks(url) as locks:
        locks.lock("before").acquire(timeout=10).release()
        pid = link.fork(lambda: locks.lock("in the fork").acquire(timeout=10).release())
        locks.lock("after").acquire(timeout=10).release()
        _, status = os.waitpid(pid, 0)
        link.tell("forked", code=os.waitstatus_to_exitcode(status))


async def successor(link: Link, url: str, face: str, name: str, ttl: float) -> None:
    """Take `name` once, tell the token, and be killed or end."""
    async with opened(url, face) as locks:
        held = await locks.lock(name, ttl=ttl).acquire(timeout=30 + 2 * ttl)
        link.tell("held", token=held.token)
        await link.heard("go")
        await held.release()
    link.tell("released")
