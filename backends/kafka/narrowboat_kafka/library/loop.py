"""One thread on which the library's coroutines and ours run: its connections, times, and calls from other threads.

It is what kafka-python calls a backend: version 3.1 takes one by its option `net` (`NetBackend` names what it calls), and 3.0
calls the same. Nothing of the library's own loop is used.

Its turns are `turns.py`'s, sockets `wire.py`'s; what is sent is the library's. A producer of version 3.0 turns its loop with a
thread of its own (`poll`).
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import kafka.errors as client

from narrowboat_kafka.client import Code, KafkaError
from narrowboat_kafka.library.awaited import Future, Wakeup, outcome
from narrowboat_kafka.library.met import met
from narrowboat_kafka.library.turns import Turns
from narrowboat_kafka.library.wire import connected

try:
    from kafka.net.backend import NetBackend
except ImportError:  # version 3.0 calls the same, of any class

    class NetBackend:  # type: ignore[no-redef]  # one of the two, by version
        """What 3.1 calls a loop."""


#: Seconds beside a limit of the library's for which a caller waits: what runs there is to notice that limit first.
_GRACE = 5.0


class Loop(Turns, NetBackend):  # type: ignore[misc]  # the base class has no annotations
    """See the module's text."""

    #: Why the connection that was begun last was not made; None where it was, or is still being made.
    failure: BaseException | None = None
    #: The server of that one answered, and hung up: what it does where it does not know user or password.
    turned_away = False

    def __init__(self) -> None:
        super().__init__()
        self._stop = False
        self._waiters: set[concurrent.futures.Future[Any]] = set()
        self._thread: threading.Thread | None = None

    # -- its thread -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin its thread. Idempotent."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="narrowboat-kafka", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop:
                self.turn(None)
            while self.ready and not self.closed:
                self.turn(0)
        finally:
            self._fail_waiters()

    def _fail_waiters(self) -> None:
        for waiter in list(self._waiters):
            self._waiters.discard(waiter)
            with contextlib.suppress(concurrent.futures.InvalidStateError):
                waiter.set_exception(client.KafkaConnectionError("the loop has ended"))

    def stop(self, timeout_ms: float | None = None) -> None:
        """End its thread, and wait so long for that at most."""
        thread = self._thread
        if thread is not None and not self.on_io_thread():
            self._stop = True
            self.wakeup()
            thread.join(None if timeout_ms is None else max(0.0, timeout_ms / 1000))
            self._thread = None
            self._fail_waiters()

    def close(self) -> None:
        """End it, and whatever runs on it. Idempotent."""
        if self.closed:
            return
        self.stop()
        self.end_turns()

    def on_io_thread(self) -> bool:
        """Whether the caller is on its thread."""
        return threading.current_thread() is self._thread

    # -- what coroutines await ------------------------------------------------------------------------------------

    def future(self) -> Any:
        """One that is not settled yet."""
        return Future()

    create_future = future

    def new_wakeup(self) -> Wakeup:
        """One that nobody has notified yet."""
        return Wakeup(self)

    async def sleep(self, delay: float) -> None:
        """Let others run for so long; 0: for one turn."""
        await self.until(time.monotonic() + delay, Future())

    async def until(self, when: float | None, future: Future, late: Exception | None = None) -> Any:
        """Await `future`, which is settled then (monotonic), with that error or with nothing; None: never."""
        timer = None if when is None else self.call_at(when, lambda: future.settle(late))
        try:
            return await future
        finally:
            if timer is not None:
                self.cancel(timer)

    async def await_for(self, future: Any, timeout_ms: float | None, raise_error: bool = True) -> Any:
        """What `future` becomes, which may be another loop's; `KafkaTimeoutError` after so long. It goes on by itself."""
        mine = Future()
        future.add_callback(lambda value: mine.is_done or mine.success(value))
        future.add_errback(mine.settle)
        late = client.KafkaTimeoutError(f"no answer within {timeout_ms} ms")
        try:
            return await self.until(None if timeout_ms is None else time.monotonic() + timeout_ms / 1000, mine, late)
        except Exception:
            if raise_error:
                raise

    async def aside(self, work: Callable[..., Any], *arguments: object, **named: object) -> Any:
        """What a function that blocks comes to. It runs on a thread of its own, and may wait for this one."""
        future = Future()

        def run() -> None:
            try:
                found = partial(future.success, work(*arguments, **named))
            except BaseException as error:
                found = partial(future.failure, error)
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                self.call_soon(found)

        threading.Thread(target=run, name="narrowboat-kafka-question", daemon=True).start()
        return await future

    # -- from other threads ---------------------------------------------------------------------------------------

    def begin(self, work: Any, *arguments: object) -> concurrent.futures.Future[Any]:
        """Run it there; what it returns, or what that is settled with, comes in a future for any thread."""
        done: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def over(settle: Callable[[Any], None], found: Any) -> None:
            self._waiters.discard(done)
            with contextlib.suppress(concurrent.futures.InvalidStateError):  # the loop has ended meanwhile, and said so
                settle(found)

        future = self.call_soon_with_future(work, *arguments)
        self._waiters.add(done)
        future.add_callback(over, done.set_result)
        future.add_errback(over, done.set_exception)
        if self._stop:
            self._fail_waiters()
        return done

    def call_soon_with_future(self, work: Any, *arguments: object) -> Any:
        """Run it there; what it returns comes in a future of the loop's."""
        future = Future()

        async def run() -> None:
            try:
                found = await outcome(work, arguments)
            except BaseException as error:
                future.failure(error)
            else:
                future.success(found)

        self.call_soon(run)
        return future

    def run(self, work: Any, *arguments: object, timeout_ms: float | None = None) -> Any:
        """Run it there and wait for what it returns. Where it has no thread, this one turns it."""
        if self.on_io_thread():
            raise RuntimeError("the loop's own thread cannot wait for what runs on it")
        if self._thread is None:
            future = self.call_soon_with_future(work, *arguments)
            self.poll(timeout_ms, future)
            if not future.is_done:
                raise client.KafkaTimeoutError(f"no answer within {timeout_ms} ms")
            if future.exception is not None:
                raise future.exception
            return future.value
        done = self.begin(work, *arguments)
        try:
            return done.result(None if timeout_ms is None else timeout_ms / 1000 + _GRACE)
        except TimeoutError:
            if done.done():
                raise  # its own
            raise client.KafkaTimeoutError(f"no answer within {timeout_ms} ms") from None

    def call(self, work: Callable[..., Awaitable[Any]], *arguments: object) -> Any:
        """Run it there and wait for what it returns."""
        try:
            return self.run(work, *arguments)
        except client.KafkaError as error:
            raise met(error) from error

    def call_until(self, until: float, work: Callable[..., Awaitable[Any]], *arguments: object) -> Any:
        """The same, and wait until then at most. It goes on by itself."""
        done = self.begin(work, *arguments)
        try:
            return done.result(max(0.0, until - time.monotonic()))
        except client.KafkaError as error:
            raise met(error) from error
        except TimeoutError:
            if done.done():
                raise
            raise KafkaError(Code.TIMED_OUT_HERE, "the server did not answer in time", retriable=True) from None

    # -- sockets --------------------------------------------------------------------------------------------------

    async def ready_for(self, sock: Any, timeout_at: float | None = None, *, reading: bool) -> None:
        """Until it can be read or written; `KafkaTimeoutError` then (monotonic)."""
        future = Future()
        self.watch(sock, future.settle if reading else None, None if reading else future.settle)
        try:
            await self.until(timeout_at, future, client.KafkaTimeoutError("it was not ready in time"))
        finally:
            self.watch(sock, None, None)

    async def getaddrinfo(self, host: str, port: int) -> Any:
        """Where that is. The thread waits for it: it is what `hosts` or a name server of the machine says."""
        return socket.getaddrinfo(host, port, socket.AF_UNSPEC, socket.SOCK_STREAM)

    async def create_connection(
        self, protocol: Any, host: str, port: int, *, ssl: Any = None, socket_options: Any = (), timeout_at: float | None = None
    ) -> None:
        """Connect to it, and tell `protocol` (`connection_made`)."""
        wire = await connected(self, host, port, context=ssl, options=socket_options, until=timeout_at)
        try:
            protocol.connection_made(wire)
        except Exception as error:
            wire.abort(error)
            raise


class SharedLoop(Loop):
    """One that many clients of the library share. None of them ends it: `end` does."""

    def stop(self, timeout_ms: float | None = None) -> None:
        """Nothing: a client has ended."""

    def close(self) -> None:
        """Nothing: a client has ended."""

    def end(self, seconds: float) -> None:
        """End it, and wait so long for its thread at most."""
        super().stop(timeout_ms=1000 * seconds)
        super().close()
