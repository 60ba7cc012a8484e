"""The turns of a loop: sockets that can be read or written, times that have come, and the functions and coroutines that run.

It outlasts its own faults. A wait for sockets fails where the kernel has no memory to wait with, or where the program has
closed a file that was not its own. Then a new selector is taken, whoever waited for a socket is told that the connection is
lost, and the clients connect anew; who waits for a time or for another coroutine goes on. What ends a thread on purpose
(`SystemExit`) still does.

It has no thread: who turns it is `loop.py`'s matter, or a producer's of version 3.0 (`poll`).
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import kafka.errors as client

from narrowboat_kafka.library.awaited import Handle

log = logging.getLogger("narrowboat.kafka")

#: Seconds between two tries where the first did not help, and the most that they become.
_PAUSE, _PAUSE_MAX = 0.05, 0.5
#: Timers that were cancelled and not met yet, before they are looked for: every request has one.
_STALE = 200

Told = Callable[["Exception | None"], object]


class Turns:
    """See the module's text. `selector`: makes what it waits for sockets with."""

    def __init__(self, selector: Callable[[], Any] = selectors.DefaultSelector) -> None:
        self.config = {"selector": selector}
        self._turning = threading.Lock()
        self._turner = 0  #: which thread turns it, or did last
        self.closed = False  #: nothing runs on it any more
        self._failures = 0  #: turns that have failed since the last that went well
        self.ready: deque[Handle] = deque()  #: what the next turn runs
        self._timers: list[tuple[float, int, Handle]] = []
        self._stale = 0
        self._numbers = itertools.count()
        self._tasks: set[Handle] = set()  #: nothing else keeps a coroutine that waits
        self._begin_waiting()

    def _begin_waiting(self) -> None:
        self._selector = self.config["selector"]()
        self._news, self._bell = socket.socketpair()
        self._news.setblocking(False)
        self._bell.setblocking(False)
        self._selector.register(self._news, selectors.EVENT_READ, (self._heard, None))

    # -- its turns ------------------------------------------------------------------------------------------------

    def poll(self, timeout_ms: float | None = None, future: Any = None) -> None:
        """Turn it on this thread, where it has none: once, or until that is done."""
        until = None if timeout_ms is None else time.monotonic() + timeout_ms / 1000
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            self.turn(0.0 if future is not None and future.is_done else left)
            if future is None or future.is_done or (until is not None and time.monotonic() >= until):
                return

    def turn(self, seconds: float | None) -> None:
        """Wait so long for something to do, and do it. None: until there is something."""
        if not self._turning.acquire(blocking=False):
            again = self._turner == threading.get_ident()
            raise RuntimeError(f"{'Recursive' if again else 'Concurrent'} access to the loop: somebody turns it already")
        try:
            self._turner = threading.get_ident()
            self._wait(seconds)
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                self.ready.append(heapq.heappop(self._timers)[2])
            for _ in range(len(self.ready)):
                self._step(self.ready.popleft())
        finally:
            self._turning.release()

    def _wait(self, seconds: float | None) -> None:
        if self.ready:
            seconds = 0.0
        elif self._timers:
            left = max(0.0, self._timers[0][0] - time.monotonic())
            seconds = left if seconds is None else min(left, seconds)
        try:
            found = self._selector.select(seconds)
        except Exception as error:
            if not self.closed:
                self._begin_anew(error)
            return
        self._failures = 0
        for key, events in found:
            reader, writer = key.data
            if events & selectors.EVENT_WRITE and writer is not None:
                _tell(writer, None)
            if events & selectors.EVENT_READ and reader is not None:
                _tell(reader, None)

    def _step(self, handle: Handle) -> None:
        if handle.over:
            return
        try:
            asked = handle.step()
            if not handle.over:
                self._tasks.add(handle)
                asked.add_both(self._go_on, handle)
                return
        except StopIteration:
            pass
        except Exception:
            log.exception("what reads and writes for Kafka met a mistake of its own")
        handle.end()
        self._tasks.discard(handle)

    def _go_on(self, handle: Handle, _: object) -> None:
        self.ready.append(handle)
        self._wake()

    def _begin_anew(self, error: Exception) -> None:
        if self._failures:
            time.sleep(min(_PAUSE_MAX, _PAUSE * 2 ** min(self._failures, 10)))
        else:
            log.warning("what reads and writes for Kafka failed (%r): all connections are begun anew", error)
        self._failures += 1
        told: list[Told] = []
        with contextlib.suppress(Exception):
            told = [each for key in self._selector.get_map().values() for each in key.data if each not in (None, self._heard)]
        for closing in (self._selector, self._news, self._bell):
            with contextlib.suppress(Exception):
                closing.close()
        # Where even this is refused, the next turn fails at once, and tries it again.
        with contextlib.suppress(OSError):
            self._begin_waiting()
        lost = client.KafkaConnectionError(f"the connection was lost with the loop: {error!r}")
        for each in dict.fromkeys(told):
            _tell(each, lost)

    # -- what runs on it ------------------------------------------------------------------------------------------

    def call_soon(self, work: Any, *arguments: object) -> Handle:
        """Run a function, or a coroutine function, in the next turn. From any thread."""
        if self.closed:
            raise RuntimeError("the loop was closed")
        handle = Handle((lambda: work(*arguments)) if arguments else work)
        self.ready.append(handle)
        self._wake()
        return handle

    call_soon_threadsafe = call_soon

    def _wake(self) -> None:
        if self._turner != threading.get_ident():
            self.wakeup()

    def wakeup(self) -> None:
        """Let it take its next turn now. From any thread."""
        with contextlib.suppress(OSError):  # full: it has enough to hear; closed: it is over, or has a new one
            self._bell.send(b"\0")

    def _heard(self, _: object) -> None:
        with contextlib.suppress(BlockingIOError):
            self._news.recv(4096)

    def call_later(self, delay: float, work: Any) -> Handle:
        """Run it once so many seconds are over."""
        return self.call_at(time.monotonic() + delay, work)

    def call_at(self, when: float, work: Any) -> Handle:
        """Run it then (monotonic)."""
        handle = Handle(work)
        heapq.heappush(self._timers, (when, next(self._numbers), handle))
        if self._timers[0][2] is handle:
            self._wake()
        return handle

    def cancel(self, task: Handle) -> None:
        """Run it no more. Idempotent."""
        if task.over:
            return
        task.end()
        self._tasks.discard(task)
        self._stale += 1  # or it waited for something else, and is counted once too often
        if self._stale > _STALE and self._stale * 2 > len(self._timers) and self._turner == threading.get_ident():
            self._timers = [each for each in self._timers if not each[2].over]
            heapq.heapify(self._timers)
            self._stale = 0

    # -- sockets -----

    def watch(self, sock: Any, reader: Told | None, writer: Told | None) -> None:
        """Call them, each time that it can be read or written, until this is called again. Both None: no more.

        They are called with an error once where it cannot be waited for any more.
        """
        events = (selectors.EVENT_READ if reader else 0) | (selectors.EVENT_WRITE if writer else 0)
        try:
            if not events:
                self._selector.unregister(sock)
            elif sock in self._selector.get_map():
                self._selector.modify(sock, events, (reader, writer))
            else:
                self._selector.register(sock, events, (reader, writer))
        except (KeyError, ValueError):  # it is not known there, or closed
            if events:
                raise

    def end_turns(self) -> None:
        """Nothing is turned any more, and what waits is over."""
        self.closed = True
        for task in list(self._tasks):
            self.cancel(task)
        for each in (self._selector, self._news, self._bell):
            with contextlib.suppress(OSError):
                each.close()


def _tell(told: Told, error: Exception | None) -> None:
    try:
        told(error)
    except Exception:
        log.exception("what reads and writes for Kafka met a mistake of its own")
