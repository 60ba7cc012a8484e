"""The loop under Kafka's connections, on real sockets: what breaks it, and what goes on."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

with warnings.catch_warnings():
    # kafka-python reads its schemas in a way that Python 3.11 calls deprecated; not ours to mend, and an error here.
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka.errors import KafkaConnectionError

    from narrowboat_kafka.library.loop import Loop

#: Seconds in which what should take no time is over on a busy machine.
LONG = 20.0


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    made.start()
    yield made
    made.stop(timeout_ms=LONG * 1000)
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def taken_away(loop: Loop) -> None:
    """What it waits with is not there any more, as in a program that closes files that it does not know."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, loop._selector.fileno())
    os.close(nothing)
    loop.wakeup()


class _Refuses(selectors.DefaultSelector):
    """One that fails a number of times, as a real one does where the kernel has no memory."""

    left = 0

    def select(self, timeout: float | None = None) -> Any:
        if type(self).left:
            type(self).left -= 1
            raise OSError(12, "Cannot allocate memory")
        return super().select(timeout)


def told(loop: Loop, work: Callable[..., Any], *arguments: object) -> tuple[Callable[[], Any], Any]:
    """Begin it there; what waits for its end."""
    future, done = loop.call_soon_with_future(work, *arguments), threading.Event()
    future.add_both(lambda _: done.set())

    def ended() -> Any:
        assert done.wait(LONG), "it waits for ever"
        return future

    return ended, future


async def _read(loop: Loop, line: socket.socket, waits: threading.Event) -> bytes:
    waits.set()
    await loop.ready_for(line, reading=True)
    return line.recv(100)


def test_who_waits_for_a_socket_is_told_and_the_loop_goes_on(
    loop: Loop, pair: tuple[socket.socket, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = pair
    for _ in range(3):
        waits = threading.Event()
        ended, _future = told(loop, _read, loop, ours, waits)
        assert waits.wait(LONG)
        loop.run(_nothing)  # a turn later it does wait
        with caplog.at_level(logging.WARNING, "narrowboat.kafka"):
            taken_away(loop)
            assert isinstance(ended().exception, KafkaConnectionError)
        ended, _future = told(loop, _read, loop, ours, threading.Event())
        theirs.sendall(b"x")
        assert ended().value == b"x"
    said = [record.getMessage() for record in caplog.records if record.name == "narrowboat.kafka"]
    assert len(said) == 3
    assert all("connections are begun anew" in each for each in said), said


async def _nothing() -> None:
    """Nothing."""


def test_times_and_calls_outlast_it(loop: Loop) -> None:
    async def sleeps() -> str:
        await loop.sleep(0.2)
        return "slept"

    ended, _future = told(loop, sleeps)
    taken_away(loop)
    assert ended().value == "slept"
    assert loop._thread is not None
    assert loop._thread.is_alive()


def test_one_that_is_refused_again_and_again_is_no_busy_loop_and_said_once(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    loop.config["selector"] = _Refuses
    _Refuses.left = 4
    begun = time.monotonic()
    with caplog.at_level(logging.WARNING, "narrowboat.kafka"):
        taken_away(loop)
        loop.run(_nothing)
        while _Refuses.left:
            assert time.monotonic() < begun + LONG
            loop.run(_nothing)
    assert time.monotonic() - begun >= 0.15, "it waited between its tries"
    assert len([record for record in caplog.records if record.name == "narrowboat.kafka"]) == 1


def test_a_mistake_of_its_caller_is_no_fault_of_the_loop() -> None:
    loop = Loop()

    async def again() -> None:
        loop.poll(0)

    future = loop.call_soon_with_future(again)
    loop.poll(1000, future)
    assert "Recursive" in str(future.exception)
    with contextlib.closing(loop):
        assert loop._selector.get_map()


def test_it_ends_when_it_is_broken() -> None:
    loop = Loop()
    loop.start()
    loop.config["selector"] = _Refuses
    _Refuses.left = 10**9
    try:
        taken_away(loop)
        thread = loop._thread
        loop.stop(timeout_ms=LONG * 1000)
        assert thread is not None
        assert not thread.is_alive()
    finally:
        _Refuses.left = 0
        loop.close()
