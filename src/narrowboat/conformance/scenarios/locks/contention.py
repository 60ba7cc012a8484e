"""Locks: exclusion under contention."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from narrowboat.conformance.checks.expect import fails, raises
from narrowboat.conformance.checks.history import Hold, Recorder, check
from narrowboat.conformance.checks.resources import Resources
from narrowboat.conformance.lock_kit import LockKit, Section
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.scenarios.locks.children import counter
from narrowboat.errors import InvalidArgument, LeaseLost, LockTimeout


@scenario("L39", "L02", tier="S", seconds=120)
async def one_of_many_tries_gets_it(kit: LockKit) -> None:
    """Eight connections try one name at the same moment, many times: never do two of them get it, and who got it keeps it."""
    tries = [kit.locks() for _ in range(8)]
    for locks in tries:
        await locks.ping()
    won = 0
    for turn in range(max(20, int(100 * kit.size))):
        # Four turns in five find a record that somebody has left: what guards the making of one guards no other step.
        name = f"a{turn - turn % 5}"
        got = await kit.together(*(locks.lock(name, ttl=60).try_acquire() for locks in tries))
        held = [each for each in got if each is not None]
        assert len(held) <= 1, f"{len(held)} of {len(tries)} connections got one free lock"
        won += len(held)
        for each in held:
            await kit.lets_go(each)
    assert won, "nobody ever got a free lock"


@scenario("L39", tier="S")
async def a_hundred_tasks_one_inside(kit: LockKit) -> None:
    """Of a hundred tasks or threads of one process, never two are inside at once, and all get in."""
    locks, section = kit.locks(), Section()

    async def work() -> None:
        async with locks.lock("a", timeout=60):
            # One in ten stays for long enough that another, who was let in beside it, comes on a busy machine too.
            await section.visit(3, stay=0.0 if section.visits % 10 else 0.02)

    await kit.together(*(work() for _ in range(100)))
    assert section.most == 1, f"{section.most} users were inside at once"
    assert section.visits == 100


@scenario("L40", tier="S")
async def one_lock_object_for_many(kit: LockKit) -> None:
    """Many tasks or threads share one `Lock` object: each has a possession of its own, and never two are inside at once."""
    lock, section = kit.locks().lock("a", timeout=60), Section()
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


#: Seconds that a call may take on a machine that does not stand still.
_OPERATION = 5.0


class _Count(NamedTuple):
    """The result of processes that counted in files."""

    told: list[dict[str, Any]]  #: what each of them told at its end
    total: int  #: the sum of the numbers in the files
    took: float  #: seconds, from the moment at which all were ready


async def _count(kit: LockKit, names: str, *programs: dict[str, Any], within: float = 90) -> _Count:
    """Let processes count, each lock guarding a file of its name, and wait until each has counted or left."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in names]
        for file in files:
            file.write_text("0")
        terms: dict[str, Any] = {"names": [*names], "folder": folder, "ttl": kit.lease(kit.claims.ttl_min, 5.0)}
        # A call that waits its turn among so many takes longer where the machine gives each process less of itself.
        terms["timeout"] = _OPERATION * kit.stretch
        started = await kit.together(*(kit.started(counter, "ready", **terms, **each) for each in programs))
        begun = time.monotonic()
        for child, _ in started:
            child.tell("go")
        told = [await child.event("counted", "leaves", within=within) for child, _ in started]
        return _Count(told, sum(int(file.read_text()) for file in files), time.monotonic() - begun)


@scenario("L41", tier="P", needs="scope=host", refused=demand, seconds=120)
async def processes_lose_no_update(kit: LockKit) -> None:
    """Processes that read, pause and write a number in a file under a lock lose no update."""
    rounds = max(5, int(30 * kit.size))
    count = await _count(kit, "n", *[{"rounds": rounds, "tasks": 2}] * 4)
    assert count.total == 4 * 2 * rounds, "updates were lost"
    tokens = [token for told in count.told for token in told["tokens"]["n"]]
    assert len(set(tokens)) == len(tokens), "a token was given twice"


@scenario("L42", tier="P", needs="scope=host", refused=demand, seconds=120)
async def mixed_workers_over_two_locks(kit: LockKit) -> None:
    """Of the workers over two locks one leaves while it holds a lock: the others go on, and no update is lost."""
    rounds = max(6, int(20 * kit.size))
    stay: dict[str, Any] = {"rounds": rounds, "tasks": 2}
    count = await _count(kit, "xy", stay, stay, {"rounds": rounds, "leave_after": 3}, within=60)
    assert [told["event"] for told in count.told] == ["counted", "counted", "leaves"]
    assert count.total == sum(told["done"] for told in count.told), "updates were lost"
    assert all(told["done"] == 2 * rounds for told in count.told[:2])


@scenario("L43", tier="P", needs="scope=host", refused=demand, seconds=150)
async def three_hundred_contenders_in_ten_processes(kit: LockKit) -> None:
    """Three hundred contenders in ten processes all finish, with few calls for each grant and few connections."""
    count = await _count(kit, "n", *[{"rounds": 1, "tasks": 30}] * 10)
    kit.measure("300 contenders in 10 processes", count.took)
    assert count.total == 300, "updates were lost"
    attempts = sum(told["attempts"] for told in count.told) / 300
    files = max(told["files"] for told in count.told)
    kit.measure("attempts for each grant, 300 contenders", attempts, "attempts")
    kit.measure("files open in a contending process", files, "files")
    assert attempts < 20, f"each grant took {attempts:.1f} attempts, which is a thundering herd"
    assert files < 30, f"a process with 30 contenders has {files} files open: a connection for each contender"


@scenario("L44", tier="S", seconds=180)
async def ten_thousand_names_leave_nothing(kit: LockKit) -> None:
    """Ten thousand names are locked and released, and no key, file, thread or memory is left of them."""
    locks = kit.locks()
    names = max(500, int(10_000 * kit.size))
    lanes = 50 if kit.face == "asyncio" else 8

    async def locked(numbers: range) -> None:
        for number in numbers:
            async with locks.lock(f"name {number}", ttl=60, timeout=60):
                pass

    await kit.together(*(locked(range(lane, 500, lanes)) for lane in range(lanes)))
    await kit.sleep(0.1)
    before = Resources.now()
    await kit.together(*(locked(range(500 + lane, 500 + names, lanes)) for lane in range(lanes)))
    await kit.sleep(0.1)
    after = Resources.now()
    assert not await kit.blocking(kit.harness.residue, kit.namespace), "names are left in the backend"
    grown = after.memory - before.memory
    kit.measure(f"memory grown by {names} names", grown / 1024, "KiB")
    # A face starts its own threads when it first needs them. A busy machine may put that off until now: one of each name.
    late = before.left()
    ours = {name for name in late if name.startswith("narrowboat-")}
    assert len(ours) <= 5, f"threads that were not there before: {late}"
    assert len(late) <= len(ours) + 1, f"threads that were not there before: {late}"
    assert after.files <= before.files + 2, f"files: {before.files} before, {after.files} after"
    assert grown < 200 * names + 4 * 1024 * 1024, f"{grown} bytes for {names} names"


@scenario("L45", tier="S")
async def many_held_at_once(kit: LockKit) -> None:
    """Hundreds of locks that one client holds at once, all renewed, block neither each other nor other users."""
    locks = kit.locks()
    held = [await locks.lock(f"n{number}", ttl=max(1.0, kit.ttl)).acquire(timeout=10) for number in range(300)]
    await kit.eventually(lambda: kit.seen.members["renew"] >= 300, within=10, what="all are renewed")
    await kit.sleep(max(1.0, kit.ttl))
    assert not [each.name for each in held if each.lost]
    waiting = await kit.waits("n7", timeout=30)
    await (await locks.lock("another").acquire(timeout=5)).release()
    for each in held:
        await each.release()
    await (await waiting).release()


@scenario("L46")
async def several_locks_at_once_never_deadlock(kit: LockKit) -> None:
    """Several locks at once are all granted or none: opposite orders never deadlock, and a failure frees all."""
    one, two = kit.locks(), kit.locks()

    async def take(locks: Any, names: list[str]) -> None:
        for _ in range(15):
            async with locks.all(*names, ttl=60, timeout=30) as held:
                assert len(held) == len(names)
                await asyncio.sleep(0)

    await kit.soon(kit.together(take(one, ["a", "b", "c"]), take(two, ["c", "b", "a"]), take(two, ["b", "a"])), 40)

    async with kit.lock("b"):
        assert await one.all("a", "b", "c").try_acquire() is None
        await fails(LockTimeout, one.all("a", "b", "c", timeout=0.1).acquire())
        for name in ("a", "c"):
            assert await kit.free(name), f"{name} is still held after an acquire of all that failed"
    async with one.all("a", "b", "c", timeout=5) as held:
        assert [each.name for each in held] == ["a", "b", "c"]
        assert not await kit.free("b")
    for name in ("a", "b", "c"):
        assert await kit.free(name)
    with raises(InvalidArgument):
        one.all()
    with raises(InvalidArgument):
        one.all("a", "a")


#: So many possessions make a history worth checking.
GRANTS = 20


@scenario("L47", tier="H", alone=True, seconds=120)
async def a_random_history_is_sound(kit: LockKit) -> None:
    """Random acquires, tries, renewals, releases, cancellations and abandoned leases leave a sound history."""
    recorder = Recorder()
    faces = [kit.locks() for _ in range(4)]
    until = time.monotonic() + max(1.0, 4.0 * kit.size)
    newest: dict[str, int] = {}
    users = [_User(kit, recorder, newest, faces[number % 4], number) for number in range(8)]
    await kit.together(*(user.act(until) for user in users))
    verdict = check(recorder.holds, recorder.writes, free_bound=kit.upper(kit.ttl + kit.claims.expiry_lag + 2))
    kit.measure("grants in a checked history", verdict.grants, "grants")
    kit.measure("longest free time while somebody waited", verdict.longest_free)
    assert verdict.grants >= GRANTS, f"only {verdict.grants} grants: nothing was tested"
    assert not verdict.violations, "; ".join(verdict.violations[:5])
    assert {"acquire", "try", "cancel", "abandon"} <= {word for user in users for word in user.did}


class _User:
    """One user of a few names, which works at random, reproducibly.

    All users write to one resource, which accepts no token older than the `newest` that it has seen under a name.
    """

    def __init__(self, kit: LockKit, recorder: Recorder, newest: dict[str, int], locks: Any, number: int) -> None:
        self.kit = kit
        self.recorder = recorder
        self.newest = newest
        self.locks = locks
        self.user = f"user {number}"
        self.random = random.Random(4700 + number)
        self.did: set[str] = set()
        self.seen_until = 0.0  # the end of the lease in hand, when it was last looked at

    async def act(self, until: float) -> None:
        """Until the time is up, and on while there is too little to check: a busy machine comes to few grants."""
        while time.monotonic() < until or self.recorder.grants < GRANTS:
            name = self.kit.namespace + self.random.choice("xyz")
            what = self.random.choice(["acquire", "acquire", "acquire", "try", "cancel", "abandon"])
            self.did.add(what)
            if what == "cancel":
                await self._cancel(name)
            else:
                await self._hold(name, what)

    async def _cancel(self, name: str) -> None:
        """Wait, and be cancelled after a moment; a grant of that moment is given back."""
        task = self.kit.spawn(self.locks.lock(name, ttl=self.kit.ttl).acquire(timeout=5))
        await asyncio.sleep(self.random.random() * 0.004)
        await self.kit.cancel(task, within=10)
        if not task.cancelled():
            await (await task).release()

    async def _hold(self, name: str, what: str) -> None:
        """Acquire with some patience, or try; then work and release, or abandon the lease."""
        ttl = max(self.kit.claims.ttl_min, 0.15) if what == "abandon" else self.kit.ttl
        lock = self.locks.lock(name, ttl=ttl, renew=what != "abandon")
        hold = self.recorder.asks(name, self.user)
        try:
            if what == "acquire":
                held = await lock.acquire(timeout=self.random.choice([0.01, 0.3, 5]))
            else:
                held = await lock.try_acquire()
        except (LockTimeout, LeaseLost):  # not in time, or granted so late on a busy machine that it was undone
            held = None
        if held is None:
            self.recorder.gives_up(hold)
            return
        self.recorder.granted(hold, held.token)
        self._write(hold, held)
        if what == "abandon":  # it is over when the holder's own clock says so
            await asyncio.sleep(max(0.0, held.expires_in - 0.01))
            self._ends(hold, held)
            await self.kit.eventually(lambda: held.lost, what="the end of an abandoned lease")
        else:
            await self._work(hold, held)

    async def _work(self, hold: Hold, held: Any) -> None:
        """Perhaps pause, perhaps renew, and release. A machine that stood still may end the lease at any of these."""
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
            pass

    def _ends(self, hold: Hold, held: Any) -> None:
        """The holder's belief ends now; or it ended, before this user came to look, with the lease that it had last seen."""
        now = time.monotonic()
        if hold.ended is None:
            hold.ended = now if not held.lost else max(hold.granted or now, min(now, self.seen_until))

    def _write(self, hold: Hold, held: Any) -> None:
        now, left = time.monotonic(), held.expires_in
        if held.lost:
            self._ends(hold, held)
            return
        self.seen_until = now + left
        accepted = held.token >= self.newest.get(held.name, -1)
        if accepted:
            self.newest[held.name] = held.token
        self.recorder.wrote(held.name, held.token, accepted=accepted)


@scenario("L75", tier="S", seconds=120)
async def a_hundred_contenders_get_growing_tokens(kit: LockKit) -> None:
    """A hundred contenders on several connections: tokens are unique, grow, and agree with the order in real time."""
    recorder = Recorder()
    faces = [kit.locks() for _ in range(5)]

    async def contend(number: int) -> None:
        hold = recorder.asks("a", f"user {number}")
        async with faces[number % 5].lock("a", ttl=60, timeout=60) as held:
            recorder.granted(hold, held.token)
            await asyncio.sleep(0)
            recorder.ends(hold)

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
async def processes_get_growing_tokens(kit: LockKit) -> None:
    """Tokens are unique and grow across processes, and each process sees them grow."""
    count = await _count(kit, "n", *[{"rounds": 5, "tasks": 5}] * 4)
    tokens = [told["tokens"]["n"] for told in count.told]
    every = [token for mine in tokens for token in mine]
    assert len(every) == 100
    assert len(set(every)) == 100, "a token was given twice"
    assert all(mine == sorted(mine) for mine in tokens), "a process saw tokens go back"
