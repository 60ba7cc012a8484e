"""The first call may come when the main thread has ended: a program that starts its workers and returns is a service."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from narrowboat import registry

#: Makes a face, starts a thread and ends; the thread makes the first call, to a server that is not there, and says what it met.
PROGRAM = """
import sys, threading, time
import narrowboat, narrowboat.aio
half, url, face = sys.argv[1:]
made = getattr(narrowboat.aio if face == "asyncio" else narrowboat, half)(url)
if face == "asyncio":
    import asyncio
def work():
    threading.main_thread().join()
    ping = made.ping if face == "sync" else lambda: asyncio.run(made.ping())
    for _ in range(2):
        try:
            ping()
            print("answered")
        except Exception as error:
            print(type(error).__name__)
threading.Thread(target=work).start()
"""


PLACES = [
    (half, scheme)
    for half, group in (("locks", registry.LOCKS), ("broker", registry.BROKERS))
    for scheme in registry.schemes(group)
    if not scheme.endswith("s")  # with TLS it is the same code
]


@pytest.mark.parametrize("face", ["sync", "asyncio"])
@pytest.mark.parametrize(("half", "scheme"), PLACES)
def test_the_first_call_after_the_main_thread_has_ended(half: str, scheme: str, face: str, tmp_path: Path) -> None:
    """It works, or fails as any call does whose server is not there; a module that comes too late is no excuse."""
    places = {"memory": "m", "sqlite": f"/{tmp_path / 'shop.db'}", "cassandra": "127.0.0.1:1/shop?timeout=1"}
    where = places.get(scheme, "127.0.0.1:1?timeout=1")
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, half, f"{scheme}://{where}", face],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    expected = "answered" if scheme in {"memory", "sqlite"} else "Unavailable"
    assert ended.stdout.split() == [expected, expected], ended.stderr
    assert "Traceback" not in ended.stderr
