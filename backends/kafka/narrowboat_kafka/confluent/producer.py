"""What is written: one idempotent producer, with an outcome for each record. See `client.Producer`.

One thread polls, on which the library calls back for each record. A caller hands its records over and waits for the last of
them. When its time is over, the library is told to give up all that it holds (`purge`), and says of each record whether it
was still waiting here. That ends the producer: it is spent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka import Producer as Library

from narrowboat_kafka.client import SOON, Code, Failed, KafkaError
from narrowboat_kafka.confluent.errors import Local, told
from narrowboat_kafka.confluent.handle import Troubles, drop, hold
from narrowboat_kafka.confluent.settings import Log
from narrowboat_kafka.format.records import Record

#: Seconds for which a caller makes the library send at once. It sees to that on threads of its own.
_PUSH = 0.001
#: Seconds between two looks for room.
_ROOM = 0.005
#: After these it stores nothing any more, or nothing in that partition.
_SPENT = frozenset(
    {
        Code.TIMED_OUT_HERE,
        Code.OUT_OF_ORDER_SEQUENCE_NUMBER,
        Code.INVALID_PRODUCER_EPOCH,
        Code.UNKNOWN_PRODUCER_ID,
        Code.PRODUCER_FENCED,
    }
)
#: What is said of a record of which the library said nothing in time: it was being sent.
_OPEN = Failed(KafkaError(Code.TIMED_OUT_HERE, "the server did not answer in time", retriable=True), True)
#: It was in the queue here, where it is again when the connection breaks that it was sent on.
_QUEUED = frozenset({Local.PURGE_QUEUE, Local.UNKNOWN_TOPIC, Local.UNKNOWN_PARTITION})


class _Call:
    """The records of one call. The library calls back on whichever thread polls: nothing is counted, lists only grow."""

    def __init__(self, count: int, troubles: Troubles) -> None:
        self.ended = threading.Event()
        self._count = count
        self._settled: list[int] = []
        self._failed: dict[int, Failed] = {}
        self._begun = time.monotonic()
        self._troubles = troubles

    def done(self, index: int, error: Any, message: Any) -> None:
        """The library calls this for each record."""
        if error is not None:
            code = error.code()
            left = code not in _QUEUED or self._troubles.broke_since(self._begun)
            self._failed[index] = Failed(self._reason(error, code), left)
        self._settled.append(index)
        if len(self._settled) == self._count:
            self.ended.set()

    def refuse(self, index: int, error: KafkaError) -> None:
        """One that was not taken."""
        self._failed[index] = Failed(error, left=False)
        self.done(index, None, None)

    def answers(self) -> list[Failed | None]:
        """What became of each. One of which nothing was heard may have arrived."""
        ended = self.ended.is_set()
        if ended and not self._failed:
            return [None] * self._count
        answers: list[Failed | None] = [None if ended else _OPEN] * self._count
        for index in list(self._settled):
            answers[index] = self._failed.get(index)
        return answers

    def _reason(self, error: Any, code: int) -> KafkaError:
        if code not in (Local.PURGE_QUEUE, Local.PURGE_INFLIGHT):
            return told(error)
        last = self._troubles.fatal or self._troubles.last
        text = "the server did not take it in time" if last is None else f"the server did not take it in time: {last}"
        return KafkaError(Code.TIMED_OUT_HERE if last is None or last.code < 0 else last.code, text, retriable=True)


class Producer:
    """See the module's text. `config`: of the library's."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._troubles = Troubles()
        self._handle: Any = hold(Library({**config, "error_cb": self._troubles.heard}, logger=Log(self._troubles.failed)))
        self._spent = False
        self._ending = False
        self._pushing = threading.Lock()
        self._mutex = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def is_spent(self) -> bool:
        """Whether the next message is to go through a new one."""
        return self._spent or self._troubles.fatal is not None

    def publish(self, records: Sequence[Record], until: float) -> list[Failed | None]:
        """Store each; None for each that is stored."""
        handle = self._handle
        if handle is None or self._ending:
            return [Failed(KafkaError(Code.PRODUCER_ENDED, "the producer was closed"), left=False)] * len(records)
        self._poll()
        call = _Call(len(records), self._troubles)
        produce, done = handle.produce, call.done
        for index, (topic, partition, key, value, headers, timestamp) in enumerate(records):
            # Without a partition the key decides. A timestamp of 0 would be that of this moment.
            place, reported = -1 if partition is None else partition, partial(done, index)
            taken = topic, value, key, place, reported, None, timestamp or 1, headers
            try:
                produce(*taken)
            except BufferError:  # it holds enough: what was sent has to be answered first
                self._await_room(handle, call, index, taken, until)
            except KafkaException as error:
                call.refuse(index, told(error))
        if self._pushing.acquire(blocking=False):
            # One alone has nothing to wait for. Where another caller pushes, what is here goes with that.
            try:
                handle.flush(_PUSH)
            finally:
                self._pushing.release()
        if not call.ended.wait(max(0.0, until - time.monotonic())):
            self._spent = True
            handle.purge(in_queue=True, in_flight=True, blocking=False)
            call.ended.wait(SOON)
        answers = call.answers()
        if any(each is not None and getattr(each.error, "code", None) in _SPENT for each in answers):
            self._spent = True
        return answers

    def _await_room(self, handle: Any, call: _Call, index: int, taken: tuple[Any, ...], until: float) -> None:
        """Hand it over as soon as there is room for it."""
        while not self._spent and time.monotonic() < until:
            time.sleep(_ROOM)
            try:
                handle.produce(*taken)
                return
            except BufferError:
                pass
            except KafkaException as error:
                call.refuse(index, told(error))
                return
        call.refuse(index, KafkaError(Code.TIMED_OUT_HERE, "there was no room for it in time", retriable=True))

    # -- its thread -----------------------------------------------------------------------------------------------

    def _poll(self) -> None:
        """Let the thread run that the library calls back on."""
        if self._thread is None:
            with self._mutex:
                if self._thread is None:
                    thread = threading.Thread(target=self._work, name="narrowboat-kafka-producer", daemon=True)
                    thread.start()
                    self._thread = thread

    def _work(self) -> None:
        handle = self._handle
        while not self._ending:
            handle.poll(0.2)
        self._handle = None
        drop(handle)

    # -- the end --------------------------------------------------------------------------------------------------

    def end(self, seconds: float) -> None:
        """Close it. What it still tries to send is given up after so long."""
        until = time.monotonic() + seconds
        handle, self._spent = self._handle, True
        if handle is None:
            return
        if len(handle):
            handle.flush(seconds)
            handle.purge(in_queue=True, in_flight=True, blocking=False)
        self._ending = True
        self._poll()  # its end is the handle's
        thread, handle = self._thread, None
        if thread is not None:
            thread.join(max(SOON, until - time.monotonic()))

    def disown(self) -> None:
        """In a forked child: its threads and its connections are the parent's."""
        self._spent = self._ending = True
        self._mutex, self._pushing = threading.Lock(), threading.Lock()
