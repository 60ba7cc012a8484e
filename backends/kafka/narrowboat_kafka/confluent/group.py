"""One member of one group, as librdkafka keeps it: joins, is alive, hears of rebalances, commits. It reads no message.

One thread owns the consumer. It looks every few hundredths of a second whether a rebalance is due, and does in between what
it is asked for. While a rebalance waits for what the member does on the loop, it goes on doing what it is asked for: that is
how the member reads and commits offsets before partitions come and go.

Its partitions are paused as soon as they come: what lies in them is read by `fetcher.py`, which is in no group.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

from confluent_kafka import OFFSET_END, Consumer

from narrowboat_kafka.client import KafkaError, TopicPartition
from narrowboat_kafka.confluent.errors import Local, told
from narrowboat_kafka.confluent.handle import drop, hold
from narrowboat_kafka.confluent.loop import Future, Loop
from narrowboat_kafka.confluent.settings import Log

log = logging.getLogger("narrowboat.kafka")

T = TypeVar("T")

#: Seconds between two looks for a rebalance.
_LOOK = 0.04
#: How many looks there are to one question that lets a heartbeat go out.
_WAKE = 3
#: Seconds between two tries of what has to succeed before a partition can be read.
_AGAIN = 0.2
#: Seconds for which an error of the group is told to who asks.
_TOLD = 3.0

Hear = Callable[[list[TopicPartition]], Awaitable[None]]


class Hears(NamedTuple):
    """What is run on the loop when partitions come and go."""

    assigned: Hear
    revoked: Hear
    lost: Hear


class Group:
    """See the module's text. `config`: of the consumer."""

    def __init__(self, config: dict[str, Any], loop: Loop, hears: Hears) -> None:
        self.joined = threading.Event()
        self._config = config
        self._loop = loop
        self._hears = hears
        self._met: tuple[float, KafkaError] | None = None
        self._jobs: queue.SimpleQueue[tuple[Callable[[Any], Any], Future] | None] = queue.SimpleQueue()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="narrowboat-kafka-group", daemon=True)
        self._thread.start()

    # -- on the loop's thread -------------------------------------------------------------------------------------

    def ask(self, work: Callable[[Any], T]) -> Future:
        """Let the thread do that with the consumer, and await what it returns."""
        future = self._loop.future()
        self._jobs.put((work, future))
        return future

    def subscribe(self, topics: list[str]) -> Future:
        """Ask for a share of these topics."""
        revoked, lost = partial(self._gone, self._hears.revoked), partial(self._gone, self._hears.lost)
        return self.ask(lambda consumer: consumer.subscribe(topics, on_assign=self._assigned, on_revoke=revoked, on_lost=lost))

    @property
    def failure(self) -> KafkaError | None:
        """What the group was refused for, not long ago."""
        met = self._met
        return met[1] if met is not None and met[0] > time.monotonic() - _TOLD else None

    # -- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            consumer = hold(Consumer(self._config, logger=Log()))
            turn = 0
            while not self._ending:
                self._work(consumer, _LOOK)
                turn += 1
                if turn % _WAKE == 0:
                    # The library's thread sleeps for up to a second, however often a heartbeat is due. A question wakes it.
                    consumer.assignment()
                for message in consumer.consume(100, 0):
                    self._note(message.error())
            consumer.close()
            drop(consumer)
        except Exception as error:
            self._met = (float("inf"), told(error))
            log.error("a member of a group has ended: %s", self._met[1])

    def _work(self, consumer: Any, seconds: float) -> None:
        """Do what is asked for. Wait so long for that; `None` among it ends the wait."""
        try:
            job = self._jobs.get(timeout=seconds)
            while job is not None:
                work, future = job
                try:
                    found = work(consumer)
                except Exception as error:
                    self._settle(future.failure, told(error))
                else:
                    self._settle(future.success, found)
                job = self._jobs.get_nowait()
        except queue.Empty:
            pass

    def _settle(self, how: Callable[[Any], object], what: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits for it
            self._loop.call_soon_threadsafe(how, what)

    def _note(self, error: Any) -> None:
        """An event of the group that is no message. What passes by itself is nothing to tell."""
        if error is None or error.code() == Local.PARTITION_EOF:
            return
        met = told(error)
        if not met.retriable:
            self._met = (time.monotonic(), met)

    # -- rebalances, on the thread, within a call of the consumer --------------------------------------------------

    def _assigned(self, consumer: Any, partitions: list[Any]) -> None:
        while not self._hear(consumer, self._hears.assigned, partitions) and not self._ending:
            self._work(consumer, _AGAIN)
        for each in partitions:
            each.offset = OFFSET_END
        consumer.incremental_assign(partitions)
        if partitions:
            consumer.pause(partitions)
        self._met = None
        self.joined.set()

    def _gone(self, hear: Hear, consumer: Any, partitions: list[Any]) -> None:
        self._hear(consumer, hear, partitions)
        consumer.incremental_unassign(partitions)

    def _hear(self, consumer: Any, hear: Hear, partitions: list[Any]) -> bool:
        """Let the loop do that, and do meanwhile what it asks for. Whether it went well."""
        try:
            done = self._loop.begin(hear, [TopicPartition(each.topic, each.partition) for each in partitions])
        except RuntimeError:  # the loop was closed
            return True
        done.add_done_callback(lambda _: self._jobs.put(None))
        while not done.done():
            self._work(consumer, 1.0)
        error = done.exception()
        if error is None:
            return True
        log.debug("partitions %s: %s", partitions, error)
        if isinstance(error, KafkaError):
            self._met = (time.monotonic(), error)
        return False

    # -- the end, from any thread ---------------------------------------------------------------------------------

    def end(self) -> None:
        """Leave the group. `wait` for it."""
        self._ending = True
        self._jobs.put(None)

    def wait(self, seconds: float) -> None:
        """So long. It goes on by itself where the server does not answer."""
        self._thread.join(seconds)
