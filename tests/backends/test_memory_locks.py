"""The memory driver: the rules of every embedded one, and what is its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from lock_rules import LockRules, Opened, attempt, busy, granted, released, request
from narrowboat.clock import ManualClock, SystemClock
from narrowboat.contract.backend import Context
from narrowboat.contract.locks import Busy, Grant
from narrowboat.dsn import Url, parse_options
from narrowboat.errors import ConfigurationError
from narrowboat_memory.locks import MemoryLocks, locks
from narrowboat_memory.options import Options
from narrowboat_memory.space import space


def opened_url(text: str, clock: ManualClock | None = None) -> MemoryLocks:
    url = Url.parse(text)
    used = clock or SystemClock()
    made = locks.open(url, parse_options(url, Options, {}), Context(clock=used, timeout=5.0, watch=used.watch))
    assert isinstance(made, MemoryLocks)
    return made


@pytest.fixture
def spot(request: Any) -> str:
    """A space that no other test has."""
    return f"space-{os.urandom(6).hex()}"


class TestMemoryLocks(LockRules):
    """The rules, on a space of its own."""

    @pytest.fixture
    def opened(self, spot: str) -> Opened:
        return lambda clock=None, prefix="": opened_url(f"memory://{spot}?prefix={prefix}", clock)

    @pytest.fixture
    def residue(self, spot: str) -> Callable[[], int]:
        kind = type(opened_url(f"memory://{spot}")._space)
        return lambda: len(space(kind, spot, "").names)


def test_the_same_name_is_the_same_space_and_another_one_is_not(spot: str) -> None:
    """Who opens the same name shares; the empty name is the process's own."""
    grant = granted(opened_url(f"memory://{spot}"), request())

    busy(opened_url(f"memory://{spot}"), request(wait=False))
    other = granted(opened_url(f"memory://{spot}-2"), request(spot, wait=False))
    default = granted(opened_url("memory://"), request(spot, wait=False))
    released(opened_url("memory://"), default)
    released(opened_url(f"memory://{spot}-2"), other)
    released(opened_url(f"memory://{spot}"), grant)


@pytest.mark.parametrize(
    "text", ["memory://name/path", "memory://a,b", "memory://user@name", "memory://name:80", "memory+x://"]
)
def test_a_url_that_says_more_than_a_name_is_refused(text: str) -> None:
    """One clear error, before anything is opened."""
    url = Url.parse(text)

    with pytest.raises(ConfigurationError, match="memory://"):
        locks.capabilities(url, Options())


def test_each_lease_ends_by_the_clock_of_its_holder(spot: str) -> None:
    """A test's clock moves its own leases and nobody else's."""
    clock = ManualClock()
    mine, theirs = opened_url(f"memory://{spot}", clock), opened_url(f"memory://{spot}")
    granted(theirs, request("theirs"))
    granted(mine, request("mine"))
    clock.advance(10)

    assert isinstance(attempt(theirs, request("mine", wait=False)), Grant)
    assert isinstance(attempt(mine, request("theirs", wait=False)), Busy)


def test_a_forked_child_starts_with_empty_spaces(spot: str) -> None:
    """Nothing of the parent's looks held in the child, and a mutex that a thread of the parent had does not stop it."""
    provider = opened_url(f"memory://{spot}")
    granted(provider, request())
    locked, done = threading.Event(), threading.Event()

    def hold() -> None:
        with provider._mutex:
            locked.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    locked.wait(30)
    child = os.fork()
    if child == 0:
        answer = attempt(opened_url(f"memory://{spot}"), request(wait=False))
        os._exit(0 if isinstance(answer, Grant) else 1)
    done.set()
    thread.join(30)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(provider.holders("a")) == 1
