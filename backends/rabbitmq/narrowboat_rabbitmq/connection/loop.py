"""The I/O thread of one driver: pika's own event loop, and how callers hand work to it and wait for its answers.

Everything that touches pika runs here; callers post it. The thread also notices when the process stood still (stopped, or its
machine asleep): a server that heard nothing for two heartbeats may have closed our connections and given our messages to
others, so what is posted afterwards must not be sent on them. It knows neither connections nor messages.
"""

from __future__ import annotations

import _thread
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from pika.adapters.select_connection import IOLoop

from narrowboat.driver.threads import LazyThread
from narrowboat.errors import Unavailable
from narrowboat_rabbitmq.options import SCHEME

T = TypeVar("T")

#: Seconds before the loop goes on after an error: one that came again and again must not take a processor.
_PAUSE = 0.05

logger = logging.getLogger("narrowboat.rabbitmq")


class Answer(Generic[T]):
    """A future: one thread waits for it, the I/O thread resolves it with a value or an error, and the first of them wins."""

    __slots__ = ("_gate", "error", "given", "value")

    def __init__(self) -> None:
        self._gate = _thread.allocate_lock()
        self._gate.acquire()
        self.given = False
        self.value: T | None = None
        self.error: BaseException | None = None

    def give(self, value: T) -> None:
        """Resolve it with `value`."""
        if not self.given:
            self.value = value
            self.given = True
            self._gate.release()

    def fail(self, error: BaseException) -> None:
        """Resolve it with an error."""
        if not self.given:
            self.error = error
            self.given = True
            self._gate.release()

    def wait(self, seconds: float) -> bool:
        """Whether it was resolved within `seconds`."""
        if self.given:
            return True
        if self._gate.acquire(timeout=max(0.0, seconds)):
            self._gate.release()
        return self.given


def pause(seconds: float) -> None:
    """Wait in a caller's thread, where an interrupt may end the wait."""
    Answer[None]().wait(seconds)


class Loop:
    """See the module's text. Any thread may post; `later` and `forget` belong to the I/O thread."""

    def __init__(self, name: str, heartbeat: float, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._heartbeat = heartbeat
        try:
            self._loop: Any = IOLoop()
        except OSError as error:
            raise _out_of(error, "file descriptors") from error
        self._thread = LazyThread(name, self._run, wake=lambda: self._loop.add_callback_threadsafe(self._loop.stop))
        self._started = False
        self._last = clock()
        self._posted: deque[Callable[[], None]] = deque()
        self._rung = False  #: the thread is being woken, which costs two system calls each time
        self.stood_still: list[Callable[[float], None]] = []  #: called on the thread, with the seconds
        self.failed: list[Callable[[Exception], None]] = []  #: called with an error on the thread, which goes on

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
        except BaseException:  # an interrupt: this is not done, and the next post rings
            self._rung = False
            with contextlib.suppress(ValueError):
                self._posted.remove(work)
            raise

    def later(self, seconds: float, work: Callable[[], None]) -> Any:
        """Run `work` after `seconds`. Returns the timer, for `forget`."""
        return self._loop.call_later(seconds, lambda: self._perform(work))

    def forget(self, timer: Any) -> None:
        """Cancel a timer."""
        self._loop.remove_timeout(timer)

    def close(self, timeout: float) -> None:
        """End the thread, and wait for it for `timeout` seconds. Idempotent."""
        begun = self._started
        self._started = True  # nobody begins it any more
        self._thread.end(timeout)
        if not begun:
            self._loop.close()

    def _start(self) -> None:
        try:
            self._thread.start()
        except RuntimeError as error:  # the machine has no thread left, or the interpreter is going
            raise _out_of(error, "a thread for it") from error
        self._started = True

    def _run(self) -> None:
        self._last = self.clock()
        self._loop.add_callback_threadsafe(self._tick)
        while not self._thread.ended:
            try:
                self._loop.start()
            except Exception as error:  # pika's own: a connection that ends while it opens may raise out of its callbacks
                if not self._thread.ended:
                    self._failed(error)
                    pause(_PAUSE)
        self._loop.close()  # here, so that its sockets are closed also where nobody waited long enough

    def _tick(self) -> None:
        self._look()
        self._loop.call_later(self._heartbeat / 4, self._tick)

    def _look(self) -> None:
        now = self.clock()
        gap, self._last = now - self._last, now
        if gap > 2 * self._heartbeat:
            for tell in self.stood_still:
                tell(gap)

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
        """Keep the thread alive: the connections begin anew, which ends whatever waits for them."""
        logger.exception("an error on the I/O thread; its connections begin anew")
        for tell in self.failed:
            try:
                tell(error)
            except Exception:
                logger.exception("an error on the I/O thread, while its connections began anew")


def _out_of(error: Exception, what: str) -> Unavailable:
    """The error where this machine cannot give what the I/O thread needs."""
    return Unavailable(
        f"RabbitMQ's I/O thread cannot begin: this machine has not {what} ({error}). Free some, or raise the limit (ulimit); "
        "then the call may be repeated.",
        backend=SCHEME,
        sent=False,
    )
