"""A face that was used and dropped without a close is told by a `ResourceWarning`, as an unclosed file is; nothing else is."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import narrowboat
import narrowboat.aio

pytestmark = pytest.mark.usefixtures("no_collector")  # what is dropped is gone at once: it is part of no cycle


@pytest.fixture
def told() -> Iterator[Callable[[], list[str]]]:
    """The warnings since the last look."""
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        def look() -> list[str]:
            found = [str(each.message) for each in caught if issubclass(each.category, ResourceWarning)]
            caught.clear()
            return found

        yield look


def locks() -> narrowboat.Locks:
    made = narrowboat.locks("memory://unclosed?prefix=a")
    made.ping()
    return made


def messaging() -> narrowboat.Messaging:
    made = narrowboat.broker("memory://unclosed?prefix=a")
    made.ping()
    return made


LOCKS, MESSAGING = "unclosed <Locks memory://unclosed?prefix=a>", "unclosed <Messaging memory://unclosed?prefix=a>"

#: What is made of a face, and used without it.
PARTS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], str]] = {
    "a lock": (locks, lambda face: face.lock("a"), LOCKS),
    "several locks": (locks, lambda face: face.all("a", "b"), LOCKS),
    "a possession": (locks, lambda face: face.lock("a").acquire(), LOCKS),
    "a queue": (messaging, lambda face: face.queue("a"), MESSAGING),
    "a topic": (messaging, lambda face: face.topic("a"), MESSAGING),
    "a subscription": (messaging, lambda face: face.topic("a").subscription("b"), MESSAGING),
    "dead letters": (messaging, lambda face: face.queue("a").dead_letters(), MESSAGING),
    "a consumer": (messaging, lambda face: face.queue("a").consume(), MESSAGING),
}


@pytest.mark.parametrize("part", PARTS)
def test_it_is_told_when_the_face_and_all_that_came_from_it_are_gone(part: str, told: Callable[[], list[str]]) -> None:
    """Whoever still has a lock or a queue goes on using it."""
    make, take, says = PARTS[part]
    face = make()
    core = face._core
    kept = take(face)
    del face
    assert told() == []
    if part == "a consumer":
        kept.close()
    del kept
    assert told() == [says]
    core.begin_close()
    core.finish_close()


@pytest.mark.parametrize("make", [locks, messaging])
def test_what_was_closed_is_not_told(make: Callable[[], Any], told: Callable[[], list[str]]) -> None:
    """Nor what was left by its `with`."""
    make().close()
    with make():
        pass
    assert told() == []


@pytest.mark.parametrize("make", [narrowboat.locks, narrowboat.broker, narrowboat.aio.locks, narrowboat.aio.broker])
def test_what_opened_nothing_is_not_told(make: Callable[[str], Any], told: Callable[[], list[str]]) -> None:
    """It connects at the first call."""
    make("redis://a")
    make("memory://unclosed")
    assert told() == []


@pytest.mark.parametrize("make", [narrowboat.aio.locks, narrowboat.aio.broker])
def test_on_asyncio_it_is_told_as_well_and_without_the_password(
    make: Callable[[str], Any], told: Callable[[], list[str]]
) -> None:
    """A thread was begun, also where there is no server."""
    cores = []

    async def main() -> None:
        face = make("redis://shop:geheim@127.0.0.1:1/0")
        cores.append(face._core)
        with pytest.raises(narrowboat.Unavailable):
            await face.ping()

    asyncio.run(main())
    gc.collect()  # the error's traceback
    name = "Locks" if make is narrowboat.aio.locks else "Messaging"
    assert told() == [f"unclosed <{name} redis://shop:***@127.0.0.1:1/0>"]
    cores[0].begin_close()
    cores[0].finish_close()


SCRIPT = """
import gc, os, sys, narrowboat
kept = narrowboat.locks("memory://kept"), narrowboat.broker("memory://kept")
for face in kept:
    face.ping()
if sys.argv[1] == "forked":
    if os.fork():
        os.wait()
    else:
        face.ping()
        del face, kept
        gc.collect()
        os._exit(0)
"""


@pytest.mark.parametrize("how", ["forked", "kept"])
def test_neither_a_forked_child_nor_the_end_of_the_program_is_told(how: str) -> None:
    """A face of a module is kept to the end; and what the parent opened is not the child's to close."""
    ended = subprocess.run(
        [sys.executable, "-W", "always", "-c", SCRIPT, how], check=False, capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
