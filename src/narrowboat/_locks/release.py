"""How a possession ends by the will of its holder, and what can be asked of it meanwhile: once for both faces.

A release marks its possession first, so that it is renewed no more whatever becomes of the release: at the latest after its
ttl the name is free. Two at once are one: the second waits for the first. One of unknown outcome may be made again, and the
core goes on trying by itself until the lease would have ended.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from narrowboat._engine.backoff import exponential
from narrowboat._engine.exchange import RUNNING, Call
from narrowboat._engine.later_events import events
from narrowboat._engine.runtime import Runtime, answer_of
from narrowboat._locks.core import LockCore
from narrowboat._locks.possession import HELD, LEAVING, LOST, RELEASED, Possession
from narrowboat.contract.locks import LockProvider, Released
from narrowboat.errors import LeaseLost, NarrowboatError, Reason

T = TypeVar("T")

#: Seconds before a release of unknown outcome is repeated.
RETRY = 0.01


async def release(core: LockCore, runtime: Runtime, held: Possession) -> None:
    """Free it: the outermost release of a nested one. A second release does nothing; a lost one raises `LeaseLost`."""
    others: list[Callable[[], None]] = []  # who waits for its end, if this is the one release that is sent
    call: Call | None = None
    answer: Any = None
    try:
        while held._releasing is not others:
            begun = core.clock()
            if held._state is LOST or (begun >= held._deadline and held.lost):
                raise held.loss()
            signal = None if held._releasing is None else runtime.signal()
            if held._begin_release(others, signal and signal.set):
                return
            if signal is not None and held._releasing is not others:
                await runtime.wait(signal, math.inf)
        for failures in (1, 2):
            call = Call(*core.ending(held))
            (answer,) = await runtime.call(core.releases, call)
            call.results = []  # an error leads to frames that know this call
            if answer is Released.RELEASED or (answer is Released.NOT_HELD and _by_an_earlier_one(core, held)):
                held._end(RELEASED)
                break
            if answer is Released.NOT_HELD:
                core.renewal.lose(held, Reason.EXPIRED if held._unknown else Reason.TAKEN)
                raise held.loss()
            held._release_unknown()
            if failures == 2 or not _worth_repeating(core, answer, begun):
                raise answer
            await runtime.wait(runtime.signal(), core.clock() + exponential(1, RETRY, RETRY, core.random))
    except Exception:
        if held._releasing is others and held._state is LEAVING:
            # Unknown; or not sent, where a signal handler's exception has struck.
            core.renewal.free(held._grant, held._taken_until)
        raise
    except BaseException:
        # Interrupted or cancelled: nobody shall hold it. Releasing it twice is harmless, the token is compared.
        if held._releasing is others:
            held._end(RELEASED)
            if call is None or call.state != RUNNING:
                runtime.undo(core.releases, *core.ending(held))
        raise
    finally:
        call = answer = None  # an error's traceback leads here: the two would keep each other, and what is held
        if held._releasing is others:
            held._end_release()
    if core.listeners:
        events.emit(core.listeners, events.Released(core.backend, held.name, held.token, held._seconds()))


def _by_an_earlier_one(core: LockCore, held: Possession) -> bool:
    """Whether what is gone was freed by a release whose answer was lost, and not by the end of its lease."""
    return held._unknown and core.clock() < held._deadline


def _worth_repeating(core: LockCore, answer: object, begun: float) -> bool:
    """Whether an error may be only a lost answer, and came so early that a release still ends in time."""
    return isinstance(answer, NarrowboatError) and answer.retryable and core.in_time(begun)


async def renew(core: LockCore, runtime: Runtime, held: Possession) -> None:
    """A fresh full lease, now. An error that is not `LeaseLost` means unknown: it is still ours until its deadline."""
    held.check()
    call = Call(core.RENEW, (held._to_renew(),))
    (answer,) = await runtime.call(core.releases, call)
    call.results = []  # an error leads to frames that know this call
    try:
        if isinstance(answer, tuple):
            core.renewal.renewed(held, answer[0], answer)
        elif isinstance(answer, LeaseLost):
            core.renewal.lose(held, answer.reason)
        else:
            raise answer
    finally:
        answer = None  # as above
    held.check()


async def wait_lost(core: LockCore, runtime: Runtime, held: Possession, timeout: float | None) -> bool:
    """Until it is lost (True), released, or the time is up (False)."""
    ends = math.inf if timeout is None else core.clock() + timeout
    signal = runtime.signal()

    def watcher(over: Possession) -> None:
        signal.set()

    if held._watch(watcher):
        try:
            while held._state is HELD and core.clock() < ends:
                await runtime.wait(signal, ends)
        finally:
            held._unwatch(watcher)
    return held.lost


async def ask(core: LockCore, runtime: Runtime, question: Callable[[LockProvider], T]) -> T:
    """A plain call: holders, evict, ping."""
    result: T = await answer_of(runtime, core.looks, Call(core.CALL, (question,)))
    return result
