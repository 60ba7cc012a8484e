"""The I/O thread: pika's own event loop on a thread that belongs to one driver.

Everything that touches pika runs here; whoever wants something posts it. The thread also notices that the process stood
still (stopped, or its machine asleep): a server that heard nothing for two heartbeats may have closed our connections and
given our messages to others, so what is posted afterwards must not be sent on them.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from pika.adapters.select_connection import IOLoop

from narrowboat.errors import Unavailable
from narrowboat_rabbitmq.answer import Answer
from narrowboat_rabbitmq.options import SCHEME

#: Seconds before the loop goes on after an error: one that came again and again must not take a processor.
_BREATH = 0.05

logger = logging.getLogger("narrowboat.rabbitmq")


def without(error: Exception, what: str) -> Unavailable:
    """The error where this machine cannot give what the I/O thread needs: nothing was sent."""
    return Unavailable(
        f"RabbitMQ's I/O thread cannot begin: this machine has not {what} ({error}). Free some, or raise the limit (ulimit); "
        "then the call may be repeated.",
        backend=SCHEME,
        sent=False,
    )


class Loop:
    """See the module's text. `stood_still` is called on the thread when it did."""

    def __init__(self, name: str, heartbeat: float, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._heartbeat = heartbeat
        try:
            self._loop: Any = IOLoop()
        except OSError as error:
            raise without(error, "file descriptors") from error
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._mutex = threading.Lock()
        self._started = False
        self._closed = False
        self._last = clock()
        self._posted: deque[Callable[[], None]] = deque()
        self._rung = False  #: the thread is being woken: each time costs two system calls
        self.stood_still: list[Callable[[float], None]] = []
        self.failed: list[Callable[[Exception], None]] = []  #: told of an error on the thread, which goes on

    @property
    def raw(self) -> Any:
        """Pika's loop, for its connections."""
        return self._loop

    def post(self, work: Callable[[], None]) -> None:
        """Run `work` on the thread, soon. After `close` it is dropped."""
        if not self._started:
            self._start()
        try:
            self._posted.append(work)
            if not self._rung:
                self._rung = True
                self._loop.add_callback_threadsafe(self._drain)
        except BaseException:  # an interrupt: this is not done, and whoever comes next rings
            self._rung = False
            with contextlib.suppress(ValueError):
                self._posted.remove(work)
            raise

    def later(self, seconds: float, work: Callable[[], None]) -> Any:
        """Run `work` after a while; only on the thread."""
        return self._loop.call_later(seconds, lambda: self._perform(work))

    def forget(self, timer: Any) -> None:
        """Do not run it; only on the thread."""
        self._loop.remove_timeout(timer)

    def close(self, timeout: float) -> None:
        """End the thread. Idempotent."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            started = self._started
        if started:
            self._loop.add_callback_threadsafe(self._loop.stop)
            self._thread.join(timeout)
        else:
            self._loop.close()

    def _start(self) -> None:
        with self._mutex:
            if not self._started and not self._closed:
                self._last = self.clock()
                try:
                    self._thread.start()
                except RuntimeError as error:  # the machine has no thread left, or the interpreter is going
                    self._thread = threading.Thread(target=self._run, name=self._thread.name, daemon=True)
                    raise without(error, "a thread for it") from error
                self._started = True
                self._loop.add_callback_threadsafe(self._tick)

    def _run(self) -> None:
        while not self._closed:
            try:
                self._loop.start()
            except Exception as error:  # pika's own: a connection that ends while it opens may raise out of its callbacks
                if not self._closed:
                    self._failed(error)
                    Answer[None]().wait(_BREATH)
        self._loop.close()  # here, so that its sockets are closed also where nobody waited long enough

    def _tick(self) -> None:
        self._look()
        self._loop.call_later(self._heartbeat / 4, self._tick)

    def _look(self) -> None:
        now = self.clock()
        gap, self._last = now - self._last, now
        if gap > 2 * self._heartbeat:
            for told in self.stood_still:
                told(gap)

    def _drain(self) -> None:
        self._rung = False  # first: what is posted from now on rings again, or is found below
        posted = self._posted
        while posted:
            self._perform(posted.popleft())

    def _perform(self, work: Callable[[], None]) -> None:
        self._look()
        try:
            work()
        except Exception as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        """Nobody may end this thread: the connections begin anew, which ends whatever waits for them."""
        logger.exception("an error on the I/O thread; its connections begin anew")
        for told in self.failed:
            try:
                told(error)
            except Exception:
                logger.exception("an error on the I/O thread, while its connections began anew")
