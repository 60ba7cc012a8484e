"""What the renewal engine makes of a driver's doubts, on a clock that stands still, so that nothing else is renewed."""

from __future__ import annotations

import dataclasses
import gc
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

import narrowboat
import narrowboat_memory
from narrowboat import registry
from narrowboat.capabilities import Expiry
from narrowboat.clock import ManualClock
from narrowboat.contract import Context, Grant, LockProvider
from narrowboat.dsn import Url
from narrowboat.errors import NarrowboatError, Reason, Unavailable
from narrowboat.layers.faults import Faults
from narrowboat.layers.passing import PassingLocks
from narrowboat.locking import Locks


class Counted(PassingLocks):
    """Counts the renewals that reach the memory driver."""

    def __init__(self, inner: LockProvider, renewals: list[list[str]]) -> None:
        super().__init__(inner)
        self.renewals = renewals

    def renew(self, grants: Sequence[Grant]) -> list[Grant | NarrowboatError]:
        self.renewals.append(sorted(grant.name for grant in grants))
        return self.inner.renew(grants)


@pytest.fixture
def contexts() -> list[Context]:
    """What the core handed to each driver that it opened, oldest first."""
    return []


@pytest.fixture
def renewals() -> list[list[str]]:
    return []


@pytest.fixture
def claims() -> dict[str, Any]:
    """What the backend claims other than the memory's own."""
    return {}


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch, contexts: list[Context], renewals: list[list[str]], claims: dict[str, Any]) -> str:
    plain = narrowboat_memory.locks

    def opened(url: Url, options: Any, context: Context) -> LockProvider:
        contexts.append(context)
        return Counted(plain.open(url, options, context), renewals)

    backend = dataclasses.replace(
        plain,
        capabilities=lambda url, options: dataclasses.replace(plain.capabilities(url, options), **claims),
        open=opened,
    )
    monkeypatch.setitem(registry._loaded, (registry.LOCKS, "memory"), backend)
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def locks(url: str, clock: ManualClock, faults: Faults) -> Iterator[Locks]:
    with narrowboat.locks(url, clock=clock, wrap=faults.wrap) as locks:
        yield locks


def soon(condition: Callable[[], object]) -> bool:
    """Until it holds, within a bound."""
    for _ in range(1000):
        if condition():
            return True
        threading.Event().wait(0.01)
    return False


def evicted(locks: Locks, held: narrowboat.Held) -> None:
    """Break it behind its holder's back."""
    with narrowboat.locks(str(locks._core.url), clock=locks._core.clock) as operator:
        assert operator.evict(held.name, held.token)


def test_what_is_doubted_is_asked_about_at_once_and_the_answer_decides(
    locks: Locks, contexts: list[Context], renewals: list[list[str]]
) -> None:
    """The loss is told without the clock having moved, and nobody else is bothered."""
    held, other = locks.lock("a").acquire(), locks.lock("b").acquire()
    evicted(locks, held)
    assert not held.lost
    contexts[0].doubt(held._grant.owner)

    assert held.wait_lost(10)
    assert held.reason is Reason.EVICTED
    assert not other.lost
    assert renewals == [["a"]]


def test_a_false_alarm_costs_one_exchange(
    locks: Locks, clock: ManualClock, contexts: list[Context], renewals: list[list[str]]
) -> None:
    """The driver is not believed: what it doubts is renewed, and goes on."""
    held, _other = locks.lock("a").acquire(), locks.lock("b").acquire()
    clock.advance(1.0)
    contexts[0].doubt(held._grant.owner)
    assert soon(lambda: renewals and not held._under_way)

    assert not held.lost
    assert held.expires_in > 29.3  # of 30, less the margin: renewed just now
    assert renewals == [["a"]]


def test_doubts_about_everything_are_one_exchange(locks: Locks, contexts: list[Context], renewals: list[list[str]]) -> None:
    """As when a session has ended."""
    held = [locks.lock(name).acquire() for name in "abc"]
    evicted(locks, held[1])
    contexts[0].doubt(None)

    assert held[1].wait_lost(10)
    assert [each.lost for each in held] == [False, True, False]
    assert renewals == [["a", "b", "c"]]


def test_doubts_during_a_renewal_are_looked_into_after_it(
    locks: Locks, contexts: list[Context], renewals: list[list[str]], faults: Faults
) -> None:
    """That renewal may have been answered before whatever brought the doubts about: it proves nothing."""
    held = locks.lock("a").acquire()
    gate = faults.hold("renew")
    contexts[0].doubt(held._grant.owner)
    assert gate.reached.wait(10)  # answered: it is held
    evicted(locks, held)
    for _ in range(100):
        contexts[0].doubt(held._grant.owner)
    assert soon(lambda: held._doubted)
    gate.open()

    assert held.wait_lost(10)
    assert renewals == [["a"], ["a"]]


def test_no_answer_is_no_loss(
    locks: Locks, clock: ManualClock, contexts: list[Context], renewals: list[list[str]], faults: Faults
) -> None:
    """A doubt that cannot be cleared up is tried again before the lease ends, as every renewal is."""
    held = locks.lock("a", ttl=9).acquire()
    faults.fail("renew", Unavailable("away"))
    contexts[0].doubt(held._grant.owner)
    assert soon(lambda: faults.struck and not held._under_way)

    assert not held.lost
    assert renewals == []
    clock.advance(2.0)
    assert soon(lambda: len(renewals) == 1)
    assert not held.lost


def test_a_lease_that_nobody_renews_is_not_lengthened_by_doubts(
    locks: Locks, contexts: list[Context], renewals: list[list[str]]
) -> None:
    """Renewing is the only way to ask, so nobody asks; it ends when it would have ended."""
    held, other = locks.lock("a", renew=False).acquire(), locks.lock("b").acquire()
    contexts[0].doubt(held._grant.owner)
    contexts[0].doubt(other._grant.owner)
    assert soon(lambda: len(renewals) == 1)

    assert renewals == [["b"]]
    assert not held.lost


@pytest.mark.parametrize("claims", [{"expiry": Expiry.SESSION}])
def test_in_a_session_it_is_asked_about_and_still_not_lengthened(
    locks: Locks, clock: ManualClock, contexts: list[Context], renewals: list[list[str]]
) -> None:
    """The session goes on whoever asks; the holder's own deadline stays where it was."""
    held = locks.lock("a", renew=False).acquire()
    clock.advance(1.0)
    before = held.expires_in
    contexts[0].doubt(held._grant.owner)
    assert soon(lambda: renewals and not held._under_way)
    assert held.expires_in == before

    evicted(locks, held)
    contexts[0].doubt(None)
    assert held.wait_lost(10)
    assert held.reason is Reason.EVICTED


def test_doubts_about_nothing_are_nothing(locks: Locks, contexts: list[Context], renewals: list[list[str]]) -> None:
    """About a stranger, about what was released, and after close: a driver need not know better."""
    held = locks.lock("a").acquire()
    other = locks.lock("b").acquire()
    held.release()
    contexts[0].doubt("a stranger")
    contexts[0].doubt(held._grant.owner)
    contexts[0].doubt(other._grant.owner)
    assert soon(lambda: len(renewals) == 1)
    locks.close()
    contexts[0].doubt(None)

    assert renewals == [["b"]]
    assert other.reason is Reason.CLOSED


def test_a_drivers_doubts_keep_nobody_alive(url: str, contexts: list[Context]) -> None:
    """A driver that outlives its core, in a thread of a client library, doubts in vain."""
    locks = narrowboat.locks(url, clock=ManualClock())
    locks.lock("a").acquire().release()
    locks.close()
    core = weakref.ref(locks._core)
    del locks
    gc.collect()

    contexts[0].doubt(None)
    assert core() is None
