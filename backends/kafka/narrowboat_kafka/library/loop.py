"""The library's loop, on which connections are read and written, with what it leaves out: it outlasts its own faults.

An exception out of the library's loop ends its thread. Callers that wait for it then wait for ever, and nothing can be asked
any more. It comes where the kernel has no memory to wait with, where the program has closed a file that was not its
own, or from a mistake in the library. Here the loop then takes a new selector, coroutines that waited for a socket get a
lost connection, and the clients connect anew. Coroutines that wait for a time or for each other go on.

It knows no connection and no message. What ends the thread on purpose (`SystemExit`) still does.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import kafka.errors as client
from kafka.future import Future
from kafka.net.selector import NetworkSelector, TaskState
from kafka.net.wakeup_notifier import WakeupNotifier

from narrowboat_kafka.client import Code, KafkaError
from narrowboat_kafka.library.met import met

log = logging.getLogger("narrowboat.kafka")

#: Seconds between two tries where the first did not help, and the most that they become.
_PAUSE, _PAUSE_MAX = 0.05, 0.5


class Loop(NetworkSelector):  # type: ignore[misc]  # the base class has no annotations
    """See the module's text."""

    _selector: Any
    _failures = 0  #: turns that have failed since the last that went well

    def future(self) -> Any:
        """One that is not settled yet."""
        return Future()

    def new_wakeup(self) -> Wakeup:
        """One that nobody has notified yet."""
        return Wakeup(self)

    def call_soon(self, work: Any, *arguments: object) -> Any:
        """Run it in the next turn."""
        return super().call_soon(_bound(work, arguments) if arguments else work)

    def call_soon_threadsafe(self, work: Any, *arguments: object) -> Any:
        """The same from any thread."""
        return super().call_soon_threadsafe(_bound(work, arguments) if arguments else work)

    def call(self, work: Callable[..., Awaitable[Any]], *arguments: object) -> Any:
        """Run it there and wait for what it returns."""
        try:
            return self.run(work, *arguments)
        except client.KafkaError as error:
            raise met(error) from error

    def call_until(self, until: float, work: Callable[..., Awaitable[Any]], *arguments: object) -> Any:
        """The same, and wait until then at most. It goes on by itself."""
        future, done = self.call_soon_with_future(work, *arguments), threading.Event()
        future.add_both(lambda _: done.set())
        if not done.wait(max(0.0, until - time.monotonic())):
            raise KafkaError(Code.TIMED_OUT_HERE, "the server did not answer in time", retriable=True)
        if future.exception is not None:
            raise met(future.exception) if isinstance(future.exception, client.KafkaError) else future.exception
        return future.value

    def _poll_once(self, timeout: float | None = None) -> None:
        try:
            super()._poll_once(timeout)
        except Exception as error:
            if self._stop:
                self._ready.clear()  # it ends, and would otherwise try for ever to run what is ready before
            elif self._closed or self._poll_lock.locked():  # held: a caller polls within a poll, which is its mistake
                raise
            else:
                self._begin_anew(error)
        else:
            self._failures = 0

    def _begin_anew(self, error: Exception) -> None:
        if self._failures:
            time.sleep(min(_PAUSE_MAX, _PAUSE * 2 ** min(self._failures, 10)))
        else:
            log.warning("what reads and writes for Kafka failed (%r): all connections are begun anew", error)
        self._failures += 1
        with contextlib.suppress(Exception):
            self._selector.close()
        # Where even this is refused, the next turn fails at once, and tries it again.
        with contextlib.suppress(OSError):
            self._selector = self.config["selector"]()
            self._rebuild_wakeup_socketpair()
        for task in list(self._pending_tasks):
            if task.state is TaskState.WAIT_IO:
                task.inject_exc(client.KafkaConnectionError(f"the connection was lost with the loop: {error!r}"))
                self._add_ready_task(task)


def _bound(work: Callable[..., Any], arguments: tuple[object, ...]) -> Callable[[], Any]:
    """With its arguments, as something that the loop runs."""

    async def run() -> None:
        made = work(*arguments)
        if inspect.isawaitable(made):
            await made

    return run


class Wakeup(WakeupNotifier):  # type: ignore[misc]  # the base class has no annotations
    """A coroutine awaits it for some seconds, or until `notify` or `now` is called."""

    def now(self) -> None:
        """Wake the coroutine at once, where `notify` takes a turn of the loop. On the I/O thread."""
        self._wakeup()
