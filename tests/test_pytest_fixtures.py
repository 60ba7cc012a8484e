"""The fixtures of the pytest plugin: a space and a clock of each test's own, both faces in it, all closed afterwards."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

import narrowboat
from narrowboat import aio
from narrowboat.clock import ManualClock

CLOSED = """
import asyncio, pytest
from narrowboat.errors import Closed

seen = {}

async def use(locks, broker):
    held = await locks.lock("a").acquire()
    await broker.queue("q").publish(b"1")
    return held

def test_first(narrowboat_locks, narrowboat_broker, narrowboat_aio_locks, narrowboat_aio_broker):
    seen.update(locks=narrowboat_locks, broker=narrowboat_broker)
    seen.update(aio_locks=narrowboat_aio_locks, aio_broker=narrowboat_aio_broker)
    seen["held"] = narrowboat_locks.lock("b").acquire()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)  # a plugin's, which later tests go on with
    seen["loop"], seen["aio_held"] = loop, loop.run_until_complete(use(narrowboat_aio_locks, narrowboat_aio_broker))

def test_second():
    assert asyncio.get_event_loop() is seen["loop"]
    assert seen["held"].reason.value == seen["aio_held"].reason.value == "closed"
    for call in (seen["locks"].ping, seen["broker"].ping):
        with pytest.raises(Closed):
            call()
    for call in (seen["aio_locks"].ping, seen["aio_broker"].ping):
        with pytest.raises(Closed):
            seen["loop"].run_until_complete(call())
    seen["loop"].close()
"""

REAL_TIME = """
import pytest

@pytest.fixture
def narrowboat_clock():
    return None

def test_a_lease_ends_by_itself(narrowboat_locks):
    held = narrowboat_locks.lock("a", ttl=0.1, renew=False).acquire()
    assert held.wait_lost(10)
"""


def run(folder: Path, text: str) -> None:
    """Run `text` as the only test file of a project, with the plugin alone; a warning is a failure."""
    (folder / "test_it.py").write_text(text)
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "narrowboat_pytest", "-p", "no:cacheprovider", "."]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("time", ["first", "second"])
def test_two_tests_never_meet(time: str, narrowboat_locks: narrowboat.Locks, narrowboat_broker: narrowboat.Messaging) -> None:
    """The same names are free and empty in each."""
    assert narrowboat_locks.lock("report").try_acquire() is not None
    narrowboat_broker.queue("orders").publish(b"1")
    assert narrowboat_broker.queue("orders").depth().ready == 1


def test_both_faces_of_a_test_are_in_its_space_and_under_its_clock(
    narrowboat_url: str,
    narrowboat_clock: ManualClock,
    narrowboat_locks: narrowboat.Locks,
    narrowboat_broker: narrowboat.Messaging,
    narrowboat_aio_locks: aio.Locks,
    narrowboat_aio_broker: aio.Messaging,
) -> None:
    """Who opens the URL meets them as well."""
    held = narrowboat_locks.lock("report", ttl=30, renew=False).acquire()
    narrowboat_broker.queue("orders").publish(b"1", delay=60)

    async def main() -> bytes:
        assert await narrowboat_aio_locks.lock("report").try_acquire() is None
        async with narrowboat_aio_broker.queue("orders").consume() as messages:
            assert await messages.receive(timeout=0) is None
            narrowboat_clock.advance(60)
            message = await messages.receive(timeout=0)
            await message.ack()
        assert held.lost and await narrowboat_aio_locks.lock("report").try_acquire() is not None
        return bytes(message.body)

    assert asyncio.run(main()) == b"1"
    with narrowboat.locks(narrowboat_url) as same:
        assert same.lock("report").try_acquire() is None


def test_what_a_test_leaves_is_closed_after_it(tmp_path: Path) -> None:
    """On both faces, also when the loop of the test goes on, and without a word from Python about what was left open."""
    run(tmp_path, CLOSED)


def test_a_clock_of_the_projects_own_replaces_it(tmp_path: Path) -> None:
    """None is the machine's."""
    run(tmp_path, REAL_TIME)
