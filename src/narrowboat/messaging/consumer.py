"""One consumer's messages: to iterate, to receive one by one, or in batches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

from narrowboat._engine.holdable import SyncOnly
from narrowboat._engine.runtime import run
from narrowboat._messages.checks import check_count, check_wait
from narrowboat._messages.consumer import Consumer
from narrowboat.errors import Closed
from narrowboat.messaging.message import Batch, Message, Seconds

T = TypeVar("T")


class Messages(SyncOnly, Generic[T]):
    """What `consume()` gives; any number of threads may take from it. Leave its `with`, or `close()` it.

    Leaving settles nothing: what was not settled goes back at once, and what was not started goes back uncounted where
    the backend claims that.
    """

    def __init__(self, consumer: Consumer[Message[T]], idle: float | None) -> None:
        self._consumer = consumer
        self._idle = math.inf if idle is None else idle

    def receive(self, timeout: Seconds | None = None) -> Message[T] | None:
        """The next message; None when none came within `timeout` seconds, or after `stop`.

        Args:
            timeout: None waits for ever, 0 looks exactly once.

        Raises:
            Closed: this or the broker was closed.
            Unavailable: the backend did not answer until the time was up.
        """
        wait = check_wait("timeout", timeout)
        consumer = self._consumer
        got: list[Message[T]] = []
        try:
            consumer.take_buffered_one(got)
            if not got:
                ends = math.inf if wait is None else consumer.core.clock() + wait
                run(consumer.receive(1, ends, got))
            return got[0] if got else None
        except BaseException:
            consumer.window.put_back(got)
            raise

    def batches(self, most: int = 100, *, wait: Seconds = 0.05) -> Iterator[Batch[T]]:
        """Batches of 1 to `most` messages, until `stop`, `close` or the idle time: the fast way.

        Args:
            most: no batch is larger than this, nor than what `prefetch` leaves.
            wait: seconds to wait for more once there is one message.
        """
        most = check_count("most", most, 1, 1_000_000)
        linger = check_wait("wait", wait)
        return self._batches(most, math.inf if linger is None else linger)

    def _batches(self, most: int, linger: float) -> Iterator[Batch[T]]:
        while got := self._next(most, linger):
            yield Batch(got)

    def __iter__(self) -> Iterator[Message[T]]:
        while got := self._next(1, 0.0):
            yield got[0]

    def _next(self, count: int, linger: float) -> list[Message[T]]:
        """Nothing when the iteration ends. That the broker was closed is an error: a loop must not end as if it were done."""
        consumer = self._consumer
        got: list[Message[T]] = []
        if consumer.life.closed and not consumer.core.closed:
            return got
        try:
            if count == 1:
                consumer.take_buffered_one(got)
            if not got:
                run(consumer.receive(count, consumer.core.clock() + self._idle, got, linger))
            return got
        except BaseException as error:
            consumer.window.put_back(got)
            if isinstance(error, Closed) and consumer.life.closed and not consumer.core.closed:
                return got
            raise

    def __del__(self) -> None:
        consumer = self._consumer
        if not consumer.used and not consumer.life.closed:  # dropped before it was asked for a message: no caller will close it
            consumer.closing.abandon()

    def stop(self) -> None:
        """End the iteration, from any thread or signal handler. What was handed out can still be settled."""
        self._consumer.closing.stop()

    def close(self) -> None:
        """Give back what is not settled and stop. Idempotent."""
        try:
            run(self._consumer.closing.close())
        except BaseException:  # interrupted before its first step as well
            self._consumer.closing.abandon()
            raise

    def __enter__(self) -> Messages[T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        consumer: Consumer[Any] = self._consumer
        return f"<Messages from {consumer.path!r}, {len(consumer.window.unsettled)} unsettled>"
