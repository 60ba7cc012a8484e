"""What Narrowboat brings to pytest: fixtures for tests of programs that use it, and the options of the conformance kit.

    def test_an_invoice_is_billed_once(narrowboat_locks, narrowboat_broker, narrowboat_clock): ...

The fixtures give locks and a broker in memory, in a space of each test's own, under a clock that the test moves. For real time
override `narrowboat_clock`; for a server open the faces yourself.

pytest loads this module in every run of everybody who has Narrowboat installed. So it imports nothing of it: a fixture does,
when a test asks for it. And it adds the kit's options and the kit's own plugin only when `narrowboat.conformance` is asked for:
a conftest inside the package would come too late ("unrecognized arguments"), and options that are always there would clash with
a project's own `--url`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import narrowboat
    from narrowboat import aio
    from narrowboat.clock import Clock, ManualClock

PACKAGE = "narrowboat.conformance"


@pytest.fixture
def narrowboat_url() -> str:
    """The URL of this test's own space in memory, for a program that opens its locks and its broker itself."""
    return f"memory://test-{uuid.uuid4().hex}"


@pytest.fixture
def narrowboat_clock() -> ManualClock:
    """The clock of this test's leases, timeouts and delays: it stands still until `narrowboat_clock.advance(seconds)`.

    A fixture of this name in a conftest.py replaces it; one that returns None gives real time.
    """
    from narrowboat.clock import ManualClock

    return ManualClock()


@pytest.fixture
def narrowboat_locks(narrowboat_url: str, narrowboat_clock: Clock | None) -> Iterator[narrowboat.Locks]:
    """Locks in memory, in this test's own space."""
    import narrowboat

    with narrowboat.locks(narrowboat_url, clock=narrowboat_clock) as locks:
        yield locks


@pytest.fixture
def narrowboat_broker(narrowboat_url: str, narrowboat_clock: Clock | None) -> Iterator[narrowboat.Messaging]:
    """A broker in memory, in this test's own space."""
    import narrowboat

    with narrowboat.broker(narrowboat_url, clock=narrowboat_clock) as broker:
        yield broker


@pytest.fixture
def narrowboat_aio_locks(narrowboat_url: str, narrowboat_clock: Clock | None) -> Iterator[aio.Locks]:
    """The asyncio twin of `narrowboat_locks`, in the same space: for tests run by pytest-asyncio, anyio or `asyncio.run`."""
    from narrowboat import aio

    locks = aio.locks(narrowboat_url, clock=narrowboat_clock)
    yield locks
    _close(locks)


@pytest.fixture
def narrowboat_aio_broker(narrowboat_url: str, narrowboat_clock: Clock | None) -> Iterator[aio.Messaging]:
    """The asyncio twin of `narrowboat_broker`, in the same space: for tests run by pytest-asyncio, anyio or `asyncio.run`."""
    from narrowboat import aio

    broker = aio.broker(narrowboat_url, clock=narrowboat_clock)
    yield broker
    _close(broker)


def _close(face: aio.Locks | aio.Messaging) -> None:
    """On a loop of our own: that of the test may have ended. `asyncio.run` would take the thread's current loop from others."""
    import asyncio

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(face.close())
    finally:
        loop.close()


def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser, args: list[str]) -> None:
    """Add the options if the kit is asked for."""
    if not any(arg == PACKAGE or arg.startswith((f"{PACKAGE}.", f"{PACKAGE}::")) for arg in args):
        return
    group = parser.getgroup("narrowboat", "Narrowboat conformance")
    group.addoption("--url", dest="url", help="the backend to verify, such as sqlite:////tmp/verify.db")
    group.addoption("--only", action="append", default=[], help="ids or scenarios, separated by commas: L12,B40")
    tiers = "tiers by letter: C core, T timing, S stress, P processes, N network, R server, H histories"
    group.addoption("--tier", action="append", default=[], help=tiers)
    group.addoption("--half", choices=["locks", "messages"], help="one half instead of both")
    group.addoption("--face", choices=["sync", "asyncio"], help="one face instead of both")
    group.addoption("--size", type=float, default=1.0, help="scales the rounds of stress scenarios; 1 is the full size")
    group.addoption("--report-json", dest="report_json", metavar="PATH", help="write the run as JSON")
    group.addoption("--report-html", dest="report_html", metavar="PATH", help="write the run as a page")
    early_config.pluginmanager.import_plugin(f"{PACKAGE}.plugin")
