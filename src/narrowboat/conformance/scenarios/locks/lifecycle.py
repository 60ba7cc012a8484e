"""Locks: URLs, refusals, the end of a provider, and the absence of leftovers after it."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import narrowboat
from narrowboat import registry
from narrowboat.capabilities import WaitOrder
from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails, raises
from narrowboat.conformance.checks.resources import Resources, our_threads
from narrowboat.conformance.faults.network import reachable, with_hosts
from narrowboat.conformance.harness import with_query
from narrowboat.conformance.lock_kit import LockKit
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.scenarios.locks.children import forks_in_use
from narrowboat.errors import AccessDenied, Closed, ConfigurationError, NarrowboatError, Reason, Unavailable, Unsupported

_SECRET = "hunter2-of-the-kit"  # noqa: S105  # no real password: the scenarios look for it in texts


def _texts(error: BaseException) -> str:
    """All that a log could show of an error: its texts, those of its causes and contexts, and their tracebacks."""
    told = ["".join(traceback.format_exception(error))]
    seen: BaseException | None = error
    while seen is not None:
        told += [str(seen), repr(seen), repr(seen.args)]
        seen = seen.__cause__ or seen.__context__
    return "\n".join(told)


@scenario("L110")
async def a_bad_url_is_one_clear_error(kit: LockKit) -> None:
    """An unknown scheme, port, option or value is one ConfigurationError that names it, in a line and without a secret."""
    url, scheme = kit.locks_url, kit.harness.scheme
    for bad, named in (
        (f"{scheme}x://user:{_SECRET}@host/", scheme),
        (f"{scheme}://user:{_SECRET}@host:port/", "port"),
        (f"{scheme}://user:{_SECRET}@host:99999/", "port"),
        (f"{scheme}://us:er:{_SECRET}/@host", ""),
        (with_query(url, "no_such_option=1"), "no_such_option"),
        (with_query(url, "timeuot=1"), "timeout"),
        (with_query(url, f"timeout={_SECRET}"), "timeout"),
        (with_query(url, "timeout=-1"), "timeout"),
        (with_query(url, "timeout=nan"), "timeout"),
        (with_query(url, "timeout=1&timeout=2"), "twice"),
        (with_query(url, "require=fencign"), "fencign"),
        (with_query(url, f"require={_SECRET}"), "require"),
        (with_query(url, f"password={_SECRET}&pasword={_SECRET}"), ""),
        ("no url at all", "scheme"),
        ("", ""),
    ):
        with raises(ConfigurationError, what=f"{bad!r} was accepted") as caught:
            kit.locks(url=bad)
        assert named in str(caught.error), f"the error does not name {named!r}: {caught.error}"
        assert _SECRET not in _texts(caught.error), "the password is in the texts of the error or of its cause"
        assert len(str(caught.error).splitlines()) == 1, f"the error is not one line: {caught.error}"
    with raises(ConfigurationError, NarrowboatError):
        kit.locks(no_such_option=1)
    assert not kit.seen.calls, "the driver was used"
    missing = registry.missing(registry.LOCKS, scheme, ModuleNotFoundError("No module named 'client'", name="client"))
    assert "pip install" in str(missing), f"the error does not say what to install: {missing}"
    await (await kit.locks(timeout=7).lock("a").acquire(timeout=5)).release()  # the control: a good option is taken


@scenario("L111", tier="T")
async def a_wrong_address_is_a_typed_error_in_time(kit: LockKit) -> None:
    """At an address where no server listens, every call fails in time with one typed error that says: try again."""
    if not reachable(kit.locks_url):  # a backend without an address refuses one in its URL, before it does anything
        with raises(ConfigurationError) as refused:
            await kit.locks(url=with_hosts(kit.locks_url, [f"user:{_SECRET}@127.0.0.1:9"])).ping()
        assert _SECRET not in str(refused.error)
        return
    timeout = 1.0
    locks = kit.locks(url=with_hosts(kit.locks_url, ["127.0.0.1:9"]), timeout=timeout)  # the discard port: nobody listens
    calls = (
        locks.ping,
        locks.lock("a", timeout=5).acquire,
        locks.lock("a").try_acquire,
        lambda: locks.holders("a"),
        lambda: locks.evict("a", 1),
    )
    for call in calls:
        with kit.within(2 * timeout + 1.0, "a call of a server that is not there"):
            error = await fails((Unavailable, Unsupported), call())
        if isinstance(error, Unavailable):
            assert error.retryable
            assert error.backend == kit.harness.scheme
    with kit.within(2 * timeout + 1.0, "a close without a server"):
        await locks.close()


@scenario("L111", tier="R", faults={Fault.CREDENTIALS})
async def a_user_without_rights_is_told(kit: LockKit) -> None:
    """A user whose password or rights are not accepted gets AccessDenied in time, and works again once the user has them."""
    await kit.blocking(kit.harness.revoke)
    try:
        locks = kit.locks(timeout=2)
        with kit.within(5.0, "the refusal of a user without rights"), raises(AccessDenied) as caught:
            await locks.lock("a").acquire(timeout=5)
        assert not caught.error.retryable
    finally:
        await kit.blocking(kit.harness.permit)
    await (await kit.locks().lock("a").acquire(timeout=kit.upper(10))).release()


@scenario("L112")
async def what_locks_do_not_claim_is_refused(kit: LockKit) -> None:
    """`require=` of a missing claim is Unsupported before any I/O, in the URL too; `require=` of a claim is accepted."""
    claims = kit.claims
    for name in ("fencing", "shared", "semaphore", "holders", "evict"):
        in_url = functools.partial(kit.locks, url=with_query(kit.locks_url, f"require={name}"))
        for opened in (functools.partial(kit.locks, require=name), in_url):
            if kit.can(name):
                opened()
                continue
            with raises(Unsupported, what=f"{name} was accepted") as caught:
                opened()
            assert name in str(caught.error)
    for claim in (f"ttl_max={claims.ttl_max * 2:g}", f"expiry_lag={claims.expiry_lag / 2:g}"):
        with raises(Unsupported, what=claim):
            kit.locks(require=claim)
    for claim in (f"scope={claims.scope.value}", f"survives={claims.survives.value}", f"ttl_max={claims.ttl_max / 2:g}"):
        kit.locks(require=claim)
    with raises(Unsupported, ConfigurationError) as unknown:
        kit.locks(require="fencign")
    assert "fencign" in str(unknown.error), f"the error does not name the near miss: {unknown.error}"
    assert not kit.seen.calls, f"the driver was used: {dict(kit.seen.calls)}"


# -- the end ----------------------------------------------------------------------------------------------------------


@scenario("L113")
async def close_ends_everything(kit: LockKit) -> None:
    """`close` frees the locks that are held, ends waiters and later calls with Closed, and does nothing the second time."""
    locks, other = kit.locks(), kit.locks()
    held = await locks.lock("mine").acquire(timeout=5)
    busy = await other.lock("busy").acquire(timeout=5)
    waiting = [kit.spawn(locks.lock("busy").acquire(timeout=60)) for _ in range(3)]
    await kit.until_waiting("busy", 3 if kit.claims.order is WaitOrder.FIFO else 1)
    with kit.within(6.0, "close"):
        await locks.close()
    for task in waiting:
        await fails(Closed, kit.soon(task), what="a waiter of a provider that was closed")
    assert (held.lost, held.reason) == (True, Reason.CLOSED)
    assert await kit.free("mine"), "the lock that was held is not free after the close"
    calls: list[Callable[[], Any]] = [
        locks.ping,
        lambda: locks.lock("a").acquire(timeout=1),
        lambda: locks.lock("a").try_acquire(),
    ]
    if kit.can("holders"):
        calls.append(locks.holders)
    if kit.can("evict"):
        calls.append(lambda: locks.evict("a", 1))
    for call in calls:
        await fails(Closed, call(), what="a call after close()")
    await locks.close()
    await kit.together(*(locks.close() for _ in range(3)))
    await busy.release()
    assert await kit.free("busy"), "a waiter of the closed provider blocks the queue of the others"


@scenario("L113")
async def close_while_calls_are_under_way(kit: LockKit) -> None:
    """A close in the middle of acquires and releases does not hang, and afterwards nobody holds anything."""
    locks = kit.locks()

    async def work(number: int) -> int:
        done = 0
        try:
            while True:
                async with locks.lock(f"a{number % 3}", timeout=30):
                    done += 1
        except (Closed, narrowboat.LeaseLost):
            return done

    tasks = [kit.spawn(work(number)) for number in range(6)]
    await kit.eventually(lambda: kit.seen.members["release"] > 20, what="work goes on")
    await locks.close()
    done = await kit.soon(asyncio.gather(*tasks), 10)
    assert sum(done) > 10
    await kit.until_free("a0", "a1", "a2", what="the provider was closed")


@scenario("L114", alone=True)
async def locks_leave_nothing_after_close(kit: LockKit) -> None:
    """After a close no thread, file, task or warning of Narrowboat is left, however the locks were used before."""

    async def use() -> None:
        locks, other = kit.locks(), kit.locks()
        held = [await locks.lock(f"a{number}", ttl=max(kit.ttl, 1.0)).acquire(timeout=5) for number in range(5)]
        waiting = await kit.queued(other.lock("a0").acquire(timeout=60), "a0")
        await kit.cancel(waiting)
        told = kit.told_of(held[1])
        await held[0].release()
        await locks.close()  # with four held
        await kit.eventually(lambda: told, what="the watcher was told")
        await other.close()
        kit.drivers.clear()

    others = our_threads()

    async def used(times: int) -> None:
        for _ in range(times):
            await kit.spawn(use())
        left = functools.partial(our_threads, others)
        await kit.eventually(
            lambda: not left(), what=lambda: f"our threads end, and are left: {[each.name for each in left()]}"
        )

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        await used(1)
        before = Resources.now()
        await used(5)
        await kit.eventually(lambda: Resources.now().files <= before.files, what=f"files are closed, {before.files} before")
        await kit.eventually(lambda: not before.left(), what=lambda: f"threads end: {before.left()}")
        after = Resources.now()
        assert after.tasks <= before.tasks, f"{after.tasks - before.tasks} tasks are left"
        gc.collect()
    complaints = [str(each.message) for each in told if _about_us(each)]
    assert not complaints, f"warnings: {complaints}"


def _about_us(warning: warnings.WarningMessage) -> bool:
    text = str(warning.message)
    return issubclass(warning.category, ResourceWarning) or "never awaited" in text or "was destroyed" in text


# -- loops, threads, forks, imports -----------------------------------------------------------------------------------


@scenario("L115")
async def two_event_loops_and_many_threads_share_a_provider(kit: LockKit) -> None:
    """One provider serves two event loops, or two threads, at once, and they exclude each other."""
    locks = kit.locks()
    held = await locks.lock("a").acquire(timeout=5)
    got: list[Any] = []
    tried = threading.Event()

    async def elsewhere() -> None:
        assert await locks.lock("a").try_acquire() is None
        tried.set()
        async with locks.lock("a", timeout=kit.upper(20)) as mine:
            got.append(mine.token)

    # On the sync face the task of `elsewhere` has a thread of its own; on the other one it gets a loop of its own.
    other = kit.spawn(elsewhere() if kit.face == "sync" else kit.blocking(asyncio.run, elsewhere()))
    await kit.eventually(lambda: tried.is_set() or other.done(), within=10, what="the try of the other loop or thread")
    if other.done():
        await other  # raises the error that the other met
    await kit.until_waiting("a")
    assert not got
    await held.release()
    await other
    assert got
    assert got[0] > held.token
    assert await kit.free("a")


@scenario("L115")
async def a_possession_can_be_handed_on(kit: LockKit) -> None:
    """A lock that one thread or task acquired, another may check, renew and release; then the first may acquire it again."""
    locks = kit.locks()

    async def acquire() -> Any:
        return await locks.lock("a").acquire(timeout=5)

    for _ in range(3):
        held = await kit.spawn(acquire())
        await kit.spawn(kit.keeps(held))
    own = await acquire()
    await kit.spawn(kit.keeps(own))
    await (await acquire()).release()


@scenario("L115", tier="P", needs="scope=host", refused=demand, faults={Fault.PROCESS})
async def a_provider_in_use_can_be_forked(kit: LockKit) -> None:
    """After a process that has used locks forks, both it and its child go on with the same `Locks` object."""
    child, told = await kit.started(forks_in_use, "forked")
    assert told["code"] == 0, "the fork could not use the locks"
    assert await child.exit() == 0


_IMPORTS = """
import json, sys
before = set(sys.modules)
{what}
print(json.dumps(sorted(name.partition(".")[0] for name in set(sys.modules) - before)))
"""


@scenario("L116")
async def the_core_imports_no_backend(kit: LockKit) -> None:
    """`import narrowboat` and the look-up of a backend import only the standard library and the backend's own entry."""
    core = await _imported("import narrowboat")
    strangers = core - sys.stdlib_module_names - {"narrowboat"}
    assert not strangers, f"import narrowboat imports {', '.join(sorted(strangers))}"
    assert "asyncio" not in core, "import narrowboat imports asyncio, which a sync program does not need"
    found = await _imported(f"from narrowboat.registry import lock_backend; lock_backend({kit.harness.scheme!r})")
    await kit.locks().ping()
    package = type(kit.drivers[0]).__module__.partition(".")[0]
    strangers = found - sys.stdlib_module_names - {"narrowboat", package}
    assert not strangers, f"the look-up of a backend imports {', '.join(sorted(strangers))}"


async def _imported(what: str) -> set[str]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _IMPORTS.format(what=what), stdout=pipe, stderr=pipe)
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode(errors="replace")[-2000:]
    return set(json.loads(out))
