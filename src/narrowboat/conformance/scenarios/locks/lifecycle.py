"""Locks: URLs, refusals, the end of a provider and what is left after it."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading
import time
import traceback
import warnings
from typing import Any

import narrowboat
from narrowboat import registry
from narrowboat.capabilities import Support, WaitOrder
from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.checks.expect import fails, raises
from narrowboat.conformance.checks.resources import Resources, our_threads
from narrowboat.conformance.faults.network import reachable, with_hosts
from narrowboat.conformance.kit import Kit, plain
from narrowboat.conformance.scenario import demand, scenario
from narrowboat.conformance.scenarios.locks.children import forks_in_use
from narrowboat.dsn import Url
from narrowboat.errors import AccessDenied, Closed, ConfigurationError, NarrowboatError, Reason, Unavailable, Unsupported

_SECRET = "hunter2-of-the-kit"  # noqa: S105  # nobody's password, looked for in texts


def _texts(error: BaseException) -> str:
    """All that a log could show of it: the error, its cause and context, and their tracebacks."""
    told = ["".join(traceback.format_exception(error))]
    seen: BaseException | None = error
    while seen is not None:
        told += [str(seen), repr(seen), repr(seen.args)]
        seen = seen.__cause__ or seen.__context__
    return "\n".join(told)


def _option(url: str, option: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{option}"


@scenario("L110")
async def a_bad_url_is_one_clear_error(kit: Kit) -> None:
    """An unknown scheme, port, option or value is one ConfigurationError that names it and what is allowed, no secret in it."""
    url, scheme = kit.locks_url, kit.harness.scheme
    for bad, named in (
        (f"{scheme}x://user:{_SECRET}@host/", scheme),
        (f"{scheme}://user:{_SECRET}@host:port/", "port"),
        (f"{scheme}://user:{_SECRET}@host:99999/", "port"),
        (f"{scheme}://us:er:{_SECRET}/@host", ""),
        (_option(url, "no_such_option=1"), "no_such_option"),
        (_option(url, "timeuot=1"), "timeout"),
        (_option(url, f"timeout={_SECRET}"), "timeout"),
        (_option(url, "timeout=-1"), "timeout"),
        (_option(url, "timeout=nan"), "timeout"),
        (_option(url, "timeout=1&timeout=2"), "twice"),
        (_option(url, "require=no_such_claim"), "no_such_claim"),
        (_option(url, f"password={_SECRET}&pasword={_SECRET}"), ""),
        ("no url at all", "scheme"),
        ("", ""),
    ):
        with raises(ConfigurationError, what=f"{bad!r} was accepted") as caught:
            kit.locks(url=bad)
        told = _texts(caught.error)
        assert named in str(caught.error), f"{named!r} is not named in: {caught.error}"
        if f"{_SECRET}@" in bad or f"{_SECRET}/@" in bad or f"password={_SECRET}" in bad:
            shown = str(caught.error) + repr(caught.error)
            assert _SECRET not in shown, "the password is in the error's text"
            assert _SECRET not in "\n".join(line for line in told.splitlines() if "kit.locks(" not in line), "and in its cause"
        assert len(str(caught.error).splitlines()) == 1, f"not one line: {caught.error}"
    with raises(ConfigurationError, NarrowboatError):
        kit.locks(no_such_option=1)
    assert not kit.seen.calls, "the driver was used"
    missing = registry.missing(registry.LOCKS, scheme, ModuleNotFoundError("No module named 'client'", name="client"))
    assert "pip install" in str(missing), f"what to install is not in: {missing}"
    held = await kit.locks(timeout=7).lock("a").acquire(timeout=5)  # the control: a good option is taken
    await held.release()


@scenario("L111", tier="T")
async def a_wrong_address_is_a_typed_error_in_time(kit: Kit) -> None:
    """Where nobody listens, every call fails in time with one typed error that can be tried again, without a secret."""
    nowhere = with_hosts(kit.locks_url, f"user:{_SECRET}@127.0.0.1:9".split())
    timeout = 1.0
    time.monotonic()
    if not reachable(kit.locks_url):
        # A backend without an address of its own: one in its URL is a mistake, told before anything is done.
        with raises(ConfigurationError) as refused:
            locks = kit.locks(url=nowhere)
            await locks.ping()
        assert _SECRET not in str(refused.error)
        return
    nowhere = with_hosts(kit.locks_url, ["127.0.0.1:9"])  # the discard port: nobody listens there
    locks = kit.locks(url=nowhere, timeout=timeout)
    calls = (
        locks.ping,
        locks.lock("a", timeout=5).acquire,
        locks.lock("a").try_acquire,
        lambda: locks.holders("a"),
        lambda: locks.evict("a", 1),
    )
    for call in calls:
        with kit.within(2 * timeout + 1.0, "a server that is not there is noticed"):
            error = await fails((Unavailable, Unsupported), call())
        if isinstance(error, Unavailable):
            assert error.retryable
            assert error.backend == kit.harness.scheme
    with kit.within(2 * timeout + 1.0, "closing hung on a server that is not there"):
        await locks.close()


@scenario("L111", tier="R", faults={Fault.CREDENTIALS})
async def a_user_without_rights_is_told(kit: Kit) -> None:
    """Whose password or rights are not accepted is told AccessDenied in time, and works again once he has them."""
    await kit.blocking(kit.harness.revoke)
    try:
        locks = kit.locks(timeout=2)
        with kit.within(5.0, "who has no rights is told"), raises(AccessDenied) as caught:
            await locks.lock("a").acquire(timeout=5)
        assert not caught.error.retryable
    finally:
        await kit.blocking(kit.harness.permit)
    await (await kit.locks().lock("a").acquire(timeout=kit.upper(10))).release()


@scenario("L112")
async def what_locks_do_not_claim_is_refused(kit: Kit) -> None:
    """`require=` of what is not claimed is Unsupported before any I/O, in the URL too; what is claimed is accepted."""
    claims = kit.claims
    for name in ("fencing", "shared", "semaphore", "holders", "evict"):
        wanted: tuple[dict[str, Any], ...] = ({"require": name}, {"url": _option(kit.locks_url, f"require={name}")})
        for arguments in wanted:
            if getattr(claims, name) is Support.ABSENT:
                with raises(Unsupported, what=f"{name} was accepted") as caught:
                    kit.locks(**arguments)
                assert name in str(caught.error)
            else:
                kit.locks(**arguments)
    for claim in (f"ttl_max={claims.ttl_max * 2:g}", f"expiry_lag={claims.expiry_lag / 2:g}"):
        with raises(Unsupported, what=claim):
            kit.locks(require=claim)
    for claim in (f"scope={claims.scope.value}", f"survives={claims.survives.value}", f"ttl_max={claims.ttl_max / 2:g}"):
        kit.locks(require=claim)
    with raises(Unsupported, ConfigurationError) as unknown:
        kit.locks(require="no_such_claim")
    assert "no_such_claim" in str(unknown.error)
    assert not kit.seen.calls, f"the driver was used: {dict(kit.seen.calls)}"


# -- the end ----------------------------------------------------------------------------------------------------------


@scenario("L113")
async def close_ends_everything(kit: Kit) -> None:
    """`close` frees what is held, wakes who waits with Closed, and refuses what comes later with Closed; again: nothing."""
    locks, other = kit.locks(), kit.locks()
    held = await locks.lock("mine").acquire(timeout=5)
    busy = await other.lock("busy").acquire(timeout=5)
    waiting = [kit.spawn(locks.lock("busy").acquire(timeout=60)) for _ in range(3)]
    await kit.until_waiting("busy", 3 if kit.claims.order is WaitOrder.FIFO else 1)
    with kit.within(6.0, "close"):
        await locks.close()
    for task in waiting:
        async with asyncio.timeout(kit.upper(5)):
            await fails(Closed, task, what="a waiter of a provider that was closed")
    assert (held.lost, held.reason) == (True, Reason.CLOSED)
    assert await kit.free("mine"), "what was held is not free after the close"
    for call in (
        lambda: locks.lock("a").acquire(timeout=1),
        lambda: locks.lock("a").try_acquire(),
        locks.ping,
        locks.holders,
        lambda: locks.evict("a", 1),
    ):
        if call is not locks.ping and Support.ABSENT in (kit.claims.holders, kit.claims.evict):
            continue
        await fails(Closed, call(), what="used after close()")
    await locks.close()
    await kit.together(*(locks.close() for _ in range(3)))
    await busy.release()
    assert await kit.free("busy"), "a waiter of the closed provider blocks the queue"


@scenario("L113")
async def close_while_calls_are_under_way(kit: Kit) -> None:
    """A close in the middle of acquires and releases hangs nothing; afterwards nobody holds anything."""
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
    async with asyncio.timeout(kit.upper(10)):
        done = [await task for task in tasks]
    assert sum(done) > 10
    for number in range(3):
        await kit.eventually(lambda number=number: kit.free(f"a{number}"), what="free after the close")  # type: ignore[misc]  # bound now


@scenario("L114", alone=True)
async def locks_leave_nothing_after_close(kit: Kit) -> None:
    """After a close no thread, file, task or warning of ours is left, however the locks were used before."""

    async def use() -> None:
        locks, other = kit.locks(), kit.locks()
        held = [await locks.lock(f"a{number}", ttl=max(kit.ttl, 1.0)).acquire(timeout=5) for number in range(5)]
        waiting = await kit.queued(other.lock("a0").acquire(timeout=60), "a0")
        await kit.cancel(waiting)
        told: list[Any] = []
        held[1].on_lost(told.append)
        await held[0].release()
        await locks.close()  # with four held
        await kit.eventually(lambda: told, what="the watcher was told")
        await other.close()
        kit.drivers.clear()

    others = our_threads()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        await kit.spawn(use())
        await _until_ended(kit, others)
        before = Resources.now()
        for _ in range(5):
            await kit.spawn(use())
        await _until_ended(kit, others)
        await kit.eventually(lambda: Resources.now().files <= before.files, what=f"files are closed, {before.files} before")
        after = Resources.now()
        assert after.tasks <= before.tasks, f"{after.tasks - before.tasks} tasks are left"
        assert after.threads <= before.threads, f"threads are left: {before.left()}"
        gc.collect()
    complaints = [str(each.message) for each in told if _about_us(each)]
    assert not complaints, f"warnings: {complaints}"


async def _until_ended(kit: Kit, others: list[threading.Thread]) -> None:
    try:
        await kit.eventually(lambda: not our_threads(others), what="our threads end")
    except AssertionError as error:
        raise AssertionError(f"{error}, left: {[thread.name for thread in our_threads(others)]}") from None


def _about_us(warning: warnings.WarningMessage) -> bool:
    text = str(warning.message)
    return issubclass(warning.category, ResourceWarning) or "never awaited" in text or "was destroyed" in text


# -- loops, threads, forks, imports -----------------------------------------------------------------------------------


@scenario("L115")
async def two_event_loops_and_many_threads_share_a_provider(kit: Kit) -> None:
    """One provider serves two event loops, or two threads, at once, and they exclude each other."""
    locks = kit.locks()
    held = await locks.lock("a").acquire(timeout=5)
    got: list[Any] = []
    ready = threading.Event()

    def elsewhere() -> None:
        if kit.face == "sync":
            mine = plain(locks)
            assert mine.lock("a").try_acquire() is None
            ready.set()
            with mine.lock("a", timeout=kit.upper(20)) as mine_now:
                got.append(mine_now.token)
            return

        async def main() -> None:
            assert await locks.lock("a").try_acquire() is None
            ready.set()
            async with locks.lock("a", timeout=kit.upper(20)) as mine_now:
                got.append(mine_now.token)

        asyncio.run(main())

    other = kit.spawn(kit.blocking(elsewhere))
    await kit.eventually(lambda: ready.is_set() or other.done(), within=10, what="the other loop or thread gets so far")
    if other.done():
        await other  # raises what went wrong there
    await kit.until_waiting("a")
    assert not got
    await held.release()
    await other
    assert got
    assert got[0] > held.token
    assert await kit.free("a")


@scenario("L115")
async def a_possession_can_be_handed_on(kit: Kit) -> None:
    """What one thread or task acquired, another may check, renew and release; then the first may acquire it again."""
    locks = kit.locks()

    async def acquire() -> Any:
        return await locks.lock("a").acquire(timeout=5)

    async def release(held: Any) -> None:
        held.check()
        await held.renew()
        await held.release()

    for _ in range(3):
        held = await kit.spawn(acquire())
        assert not await kit.free("a")
        await kit.spawn(release(held))
        assert await kit.free("a")
    own = await acquire()
    await kit.spawn(release(own))
    await (await acquire()).release()


@scenario("L115", tier="P", needs="scope=host", refused=demand, faults={Fault.PROCESS})
async def a_provider_in_use_can_be_forked(kit: Kit) -> None:
    """A process that has used locks forks: both it and its child go on with the same `Locks` object."""
    child = await kit.child(forks_in_use, url=kit.locks_url, face=kit.face)
    told = await child.event("forked")
    assert told["code"] == 0, "the fork could not use the locks"
    assert await child.exit() == 0


_IMPORTS = """
import json, sys
before = set(sys.modules)
{what}
print(json.dumps(sorted(name.partition(".")[0] for name in set(sys.modules) - before)))
"""


@scenario("L116")
async def the_core_imports_no_backend(kit: Kit) -> None:
    """`import narrowboat`, and looking a backend up, import nothing but the standard library and the backend's own entry."""
    core = await _imported("import narrowboat")
    strangers = core - sys.stdlib_module_names - {"narrowboat"}
    assert not strangers, f"import narrowboat imports {', '.join(sorted(strangers))}"
    assert "asyncio" not in core, "import narrowboat imports asyncio, which a sync program does not need"
    scheme = Url.parse(kit.locks_url).scheme
    found = await _imported(f"from narrowboat.registry import lock_backend; lock_backend({scheme!r})")
    package = type(kit.drivers[0]).__module__.partition(".")[0] if kit.drivers else ""
    if not package:
        await kit.locks().ping()
        package = type(kit.drivers[0]).__module__.partition(".")[0]
    strangers = found - sys.stdlib_module_names - {"narrowboat", package}
    assert not strangers, f"a backend that is only looked up imports {', '.join(sorted(strangers))}"


async def _imported(what: str) -> set[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _IMPORTS.format(what=what),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode(errors="replace")[-2000:]
    return set(json.loads(out))
