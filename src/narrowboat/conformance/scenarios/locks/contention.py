"""Locks: exclusion under contention."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from narrowboat.conformance.checks.expect import fails, raises
from narrowboat.conformance.checks.history import Hold, Recorder, check
from narrowboat.conformance.checks.resources import Resources
from narrowboat.conformance.kit import Kit
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.scenarios.locks.children import counter
from narrowboat.conformance.users.children import Child
from narrowboat.errors import InvalidArgument, LeaseLost, LockTimeout


class _Section:
    """Counts who is inside."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.visits = 0

    async def visit(self, turns: int = 1) -> None:
        """Be inside for a few turns of the loop."""
        self.inside += 1
        self.visits += 1
        self.most = max(self.most, self.inside)
        for _ in range(turns):
            await asyncio.sleep(0)
        self.most = max(self.most, self.inside)
        self.inside -= 1


@scenario("L39", tier="S")
async def a_hundred_tasks_one_inside(kit: Kit) -> None:
    """A hundred tasks or threads of one process: never two inside at once, and all get in."""
    locks, section = kit.locks(), _Section()

    async def work() -> None:
        async with locks.lock("a", timeout=60):
            await section.visit(3)

    await kit.together(*(work() for _ in range(100)))
    assert section.most == 1, f"{section.most} inside at once"
    assert section.visits == 100


@scenario("L40", tier="S")
async def one_lock_object_for_many(kit: Kit) -> None:
    """Many tasks or threads share one `Lock` object: each has a possession of its own, never two inside at once."""
    lock, section = kit.locks().lock("a", timeout=60), _Section()
    tokens: list[int] = []

    async def work() -> None:
        for _ in range(10):
            async with lock as held:
                tokens.append(held.token)
                await section.visit()
                held.check()

    await kit.together(*(work() for _ in range(10)))
    assert section.most == 1
    assert len(set(tokens)) == 100
    assert tokens == sorted(tokens)


@asynccontextmanager
async def _counting(kit: Kit, names: str, *programs: dict[str, Any]) -> AsyncIterator[tuple[list[Child], Callable[[], int]]]:
    """Processes that count in files, one for each name and under its lock, as soon as all are ready; and what the files say."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in names]
        for file in files:
            file.write_text("0")
        common: dict[str, Any] = {"url": kit.locks_url, "face": kit.face, "names": list(names), "folder": folder}
        common["ttl"] = kit.lease(kit.claims.ttl_min, 5.0)
        children = [await kit.child(counter, **common, **program) for program in programs]
        for child in children:
            await child.event("ready")
        for child in children:
            child.tell("go")
        yield children, lambda: sum(int(file.read_text()) for file in files)


async def _counted(children: Sequence[Child]) -> list[dict[str, Any]]:
    return [await child.event("counted", within=90) for child in children]


@scenario("L41", tier="P", needs="scope=host", refused=demand, seconds=120)
async def processes_lose_no_update(kit: Kit) -> None:
    """Processes that read, pause and write a number in a file under a lock lose no update."""
    rounds = max(5, int(30 * kit.size))
    async with _counting(kit, "n", *[{"rounds": rounds, "tasks": 2}] * 4) as (children, total):
        counted = await _counted(children)
        assert total() == 4 * 2 * rounds, "updates were lost"
    tokens = [token for told in counted for token in told["tokens"]["n"]]
    assert len(set(tokens)) == len(tokens), "a token was given twice"


@scenario("L42", tier="P", needs="scope=host", refused=demand, seconds=120)
async def mixed_workers_over_two_locks(kit: Kit) -> None:
    """Workers over two locks, one of which leaves in the middle while it holds one: the rest go on, no update is lost."""
    rounds = max(6, int(20 * kit.size))
    stay: dict[str, Any] = {"rounds": rounds, "tasks": 2}
    async with _counting(kit, "xy", stay, stay, {"rounds": rounds, "leave_after": 3}) as ((*children, brief), total):
        left = await brief.event("leaves", within=60)
        counted = await _counted(children)
        assert total() == sum(told["done"] for told in counted) + left["done"], "updates were lost"
    assert all(told["done"] == 2 * rounds for told in counted)


@scenario("L43", tier="P", needs="scope=host", refused=demand, seconds=150)
async def three_hundred_contenders_in_ten_processes(kit: Kit) -> None:
    """Three hundred contenders in ten processes all finish, with few calls for each grant and few connections."""
    async with _counting(kit, "n", *[{"rounds": 1, "tasks": 30}] * 10) as (children, total):
        begun = time.monotonic()
        counted = await _counted(children)
        kit.measure("300 contenders in 10 processes", time.monotonic() - begun)
        assert total() == 300, "updates were lost"
    attempts = sum(told["attempts"] for told in counted) / 300
    kit.measure("attempts for each grant, 300 contenders", attempts, "attempts")
    kit.measure("files open in a contending process", max(told["files"] for told in counted), "files")
    assert attempts < 20, f"{attempts:.1f} attempts for each grant: a thundering herd"
    assert max(told["files"] for told in counted) < 30, "a connection for each contender"


@scenario("L44", tier="S", seconds=180)
async def ten_thousand_names_leave_nothing(kit: Kit) -> None:
    """Ten thousand names locked and released: no key, file, thread, task or memory is left of them."""
    locks = kit.locks()
    names = max(500, int(10_000 * kit.size))
    lanes = 50 if kit.face == "asyncio" else 8

    async def churn(first: int, count: int, part: int) -> None:
        for number in range(first + part, first + count, lanes):
            async with locks.lock(f"name {number}", ttl=60, timeout=60):
                pass

    async def round_of(first: int, count: int) -> None:
        await kit.together(*(churn(first, count, part) for part in range(lanes)))

    await round_of(0, 500)
    await kit.sleep(0.1)
    before = Resources.now()
    await round_of(500, names)
    await kit.sleep(0.1)
    after = Resources.now()
    assert not await kit.blocking(kit.harness.residue, kit.namespace), "names are left in the backend"
    grown = after.memory - before.memory
    kit.measure(f"memory grown by {names} names", grown / 1024, "KiB")
    # A face's own threads begin when they are first needed, which a busy machine may put off until now: one of each name.
    late = {name for name in after.names if name.startswith("narrowboat-")} - set(before.names)
    assert len(late) <= 5, f"threads of new names: {sorted(late)}"
    assert after.threads - len(late) <= before.threads + 1, f"threads: {before.names} before, {after.names} after"
    assert after.files <= before.files + 2, f"files: {before.files} before, {after.files} after"
    assert grown < 200 * names + 4 * 1024 * 1024, f"{grown} bytes for {names} names"


@scenario("L45", tier="S")
async def many_held_at_once(kit: Kit) -> None:
    """Hundreds of locks held on one client at once, all renewed, do not block each other or anybody."""
    locks = kit.locks()
    held = [await locks.lock(f"n{number}", ttl=max(1.0, kit.ttl)).acquire(timeout=10) for number in range(300)]
    await kit.eventually(lambda: kit.seen.members["renew"] >= 300, within=10, what="all are renewed")
    await kit.sleep(max(1.0, kit.ttl))
    assert not [each.name for each in held if each.lost]
    waiting = await kit.queued(kit.locks().lock("n7").acquire(timeout=30), "n7")
    await (await locks.lock("another").acquire(timeout=5)).release()
    for each in held:
        await each.release()
    await (await waiting).release()


@scenario("L46")
async def several_locks_at_once_never_deadlock(kit: Kit) -> None:
    """Several locks at once are all or none, taken in one order: opposite orders never deadlock, a failure frees all."""
    one, two = kit.locks(), kit.locks()

    async def take(locks: Any, names: list[str]) -> None:
        for _ in range(15):
            async with locks.all(*names, ttl=60, timeout=30) as held:
                assert len(held) == len(names)
                await asyncio.sleep(0)

    async with asyncio.timeout(kit.upper(40)):
        await kit.together(take(one, ["a", "b", "c"]), take(two, ["c", "b", "a"]), take(two, ["b", "a"]))

    busy = await kit.locks().lock("b").acquire(timeout=5)
    assert await one.all("a", "b", "c").try_acquire() is None
    await fails(LockTimeout, one.all("a", "b", "c", timeout=0.1).acquire())
    for name in ("a", "c"):
        assert await kit.free(name), f"{name} is still held after an acquire of all that failed"
    await busy.release()
    held = await one.all("a", "b", "c").acquire(timeout=5)
    assert [each.name for each in held] == ["a", "b", "c"]
    assert not await kit.free("b")
    await held.release()
    for name in ("a", "b", "c"):
        assert await kit.free(name)
    with raises(InvalidArgument):
        one.all()
    with raises(InvalidArgument):
        one.all("a", "a")


#: So many possessions make a history worth checking.
GRANTS = 20


@scenario("L47", tier="H", alone=True, seconds=120)
async def a_random_history_is_sound(kit: Kit) -> None:
    """Random acquires, tries, renewals, releases, cancellations, evictions and abandoned leases leave a sound history."""
    recorder = Recorder()
    faces = [kit.locks() for _ in range(4)]
    until = time.monotonic() + max(1.0, 4.0 * kit.size)
    users = [_User(kit, recorder, faces[number % 4], number, random.Random(4700 + number)) for number in range(8)]
    await kit.together(*(user.act(until) for user in users))
    verdict = check(recorder.holds, recorder.writes, free_bound=kit.upper(kit.ttl + kit.claims.expiry_lag + 2))
    kit.measure("grants in a checked history", verdict.grants, "grants")
    kit.measure("longest free time while somebody waited", verdict.longest_free)
    assert verdict.grants >= GRANTS, f"only {verdict.grants} grants: nothing was tested"
    assert not verdict.violations, "; ".join(verdict.violations[:5])
    assert {"acquire", "try", "cancel", "abandon"} <= {word for user in users for word in user.did}


class _Guard:
    """A resource that accepts no token older than the newest it has seen."""

    newest: dict[str, int]

    def __init__(self) -> None:
        self.newest = {}

    def write(self, name: str, token: int) -> bool:
        """Whether it was accepted."""
        if token < self.newest.get(name, -1):
            return False
        self.newest[name] = token
        return True


class _User:
    """One user of a few names, who does things at random, reproducibly."""

    guard = _Guard()

    def __init__(self, kit: Kit, recorder: Recorder, locks: Any, number: int, random: random.Random) -> None:
        self.kit = kit
        self.recorder = recorder
        self.locks = locks
        self.user = f"user {number}"
        self.random = random
        self.did: set[str] = set()
        self.seen_until = 0.0  # the end of the lease in hand, when it was last looked at

    async def act(self, until: float) -> None:
        """Until the time is up, and on while there is too little to check: a busy machine comes to few grants."""
        while time.monotonic() < until or self.recorder.grants < GRANTS:
            name = self.kit.namespace + self.random.choice("xyz")
            await self.random.choice([self.acquire, self.acquire, self.acquire, self.attempt, self.cancel, self.abandon])(name)

    async def acquire(self, name: str) -> None:
        """Wait, work, perhaps renew, perhaps be evicted, release."""
        self.did.add("acquire")
        hold = self.recorder.asks(name, self.user)
        held = await self._granted(self.locks.lock(name, ttl=self.kit.ttl).acquire(timeout=self.random.choice([0.01, 0.3, 5])))
        if held is None:
            self.recorder.gives_up(hold)
        else:
            await self._work(hold, held)

    async def attempt(self, name: str) -> None:
        """Try."""
        self.did.add("try")
        hold = self.recorder.asks(name, self.user)
        held = await self._granted(self.locks.lock(name, ttl=self.kit.ttl).try_acquire())
        if held is None:
            self.recorder.gives_up(hold)
        else:
            await self._work(hold, held)

    async def cancel(self, name: str) -> None:
        """Wait, and be cancelled after a moment; what was granted in that moment is given back."""
        self.did.add("cancel")
        task = self.kit.spawn(self.locks.lock(name, ttl=self.kit.ttl).acquire(timeout=5))
        await asyncio.sleep(self.random.random() * 0.004)
        await self.kit.cancel(task, within=10)
        if not task.cancelled():
            await (await task).release()

    async def abandon(self, name: str) -> None:
        """Take it with a short lease and go away: it is over when the holder's own clock says so."""
        self.did.add("abandon")
        ttl = max(self.kit.claims.ttl_min, 0.15)
        hold = self.recorder.asks(name, self.user)
        held = await self._granted(self.locks.lock(name, ttl=ttl, renew=False).try_acquire())
        if held is None:
            self.recorder.gives_up(hold)
            return
        self.recorder.granted(hold, held.token)
        self._write(hold, held)
        await asyncio.sleep(max(0.0, held.expires_in - 0.01))
        self._ends(hold, held)
        await self.kit.eventually(lambda: held.lost, what="the end of an abandoned lease")

    async def _granted(self, asking: Awaitable[Any]) -> Any:
        """What was granted. None: nothing in time, or so late on a busy machine that it was undone."""
        try:
            return await asking
        except (LockTimeout, LeaseLost):
            return None

    async def _work(self, hold: Hold, held: Any) -> None:
        self.recorder.granted(hold, held.token)
        self._write(hold, held)
        if self.random.random() < 0.3:
            await asyncio.sleep(self.random.random() * 0.01)
        try:
            if self.random.random() < 0.3:
                await held.renew()
            self._write(hold, held)
        except LeaseLost:
            pass
        self._ends(hold, held)
        try:
            await held.release()
        except LeaseLost:
            pass  # a machine that stood still for longer than the lease: the belief had ended before

    def _ends(self, hold: Hold, held: Any) -> None:
        """The belief ends now; where it had ended before this user came to look, with the lease that it had last seen."""
        now = time.monotonic()
        if hold.ended is None:
            hold.ended = now if not held.lost else max(hold.granted or now, min(now, self.seen_until))

    def _write(self, hold: Hold, held: Any) -> None:
        now, left = time.monotonic(), held.expires_in
        if held.lost:
            self._ends(hold, held)
        else:
            self.seen_until = now + left
            self.recorder.wrote(held.name, held.token, accepted=self.guard.write(held.name, held.token))


@scenario("L75", tier="S", seconds=120)
async def a_hundred_contenders_get_growing_tokens(kit: Kit) -> None:
    """A hundred contenders on several connections: tokens are unique, grow, and agree with the order in real time."""
    recorder = Recorder()
    faces = [kit.locks() for _ in range(5)]

    async def contend(number: int) -> None:
        hold = recorder.asks("a", f"user {number}")
        held = await faces[number % 5].lock("a", ttl=60).acquire(timeout=60)
        recorder.granted(hold, held.token)
        await asyncio.sleep(0)
        recorder.ends(hold)
        await held.release()

    await kit.together(*(contend(number) for number in range(100)))
    verdict = check(recorder.holds)
    assert verdict.grants == 100
    assert not verdict.violations, "; ".join(verdict.violations[:5])
    in_order = sorted(recorder.holds, key=lambda hold: hold.granted or 0)
    tokens = [hold.token or 0 for hold in in_order]
    assert tokens == sorted(tokens), "the order of the tokens is not that of the grants"
    if kit.can("fencing"):
        assert len(set(tokens)) == 100


@scenario("L75", tier="P", needs=("scope=host", "fencing"), refused=demand, seconds=120)
async def processes_get_growing_tokens(kit: Kit) -> None:
    """Tokens are unique and grow across processes, and each process sees them grow."""
    async with _counting(kit, "n", *[{"rounds": 5, "tasks": 5}] * 4) as (children, _):
        counted = await _counted(children)
    tokens = [told["tokens"]["n"] for told in counted]
    every = [token for mine in tokens for token in mine]
    assert len(every) == 100
    assert len(set(every)) == 100, "a token was given twice"
    assert all(mine == sorted(mine) for mine in tokens), "a process saw tokens go back"
