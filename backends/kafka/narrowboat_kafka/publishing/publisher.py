"""What is written: through one idempotent producer, with an outcome for each message. From any thread but the I/O thread.

A producer is made for the first message. One that stores nothing any more is retired: the next message gets a new one, and
what others have sent with the old one may end yet.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import kafka.errors as client

from narrowboat_kafka.connections import SOON, Connections
from narrowboat_kafka.format.records import Record
from narrowboat_kafka.library.producer import Producer, verdict

#: Errors after which a producer stores nothing any more, or nothing in that partition: a topic that was deleted and made
#: anew under it, a server that forgot where it had been.
_STUCK = (
    client.KafkaTimeoutError,
    client.ProducerFencedError,
    client.InvalidProducerEpochError,
    client.OutOfOrderSequenceNumberError,
    client.UnknownProducerIdError,
    client.IllegalStateError,
)


class Failed(Exception):
    """A record that was not stored, or maybe was. `left`: it may have reached the server."""

    def __init__(self, error: Exception, *, left: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.left = left


class Publisher:
    """See the module's text."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._mutex = threading.Lock()
        self._producer: Producer | None = None
        self._retiring: list[threading.Thread] = []
        self._closed = False

    def publish(self, records: Sequence[Record]) -> list[Failed | None]:
        """Store each record; None for each that all replicas in step have. Blocks for one operation timeout at most."""
        if not records:
            return []
        try:
            producer = self._current()
        except client.KafkaError as error:  # the server cannot be reached
            return [Failed(error, left=False)] * len(records)
        until = time.monotonic() + self._connections.timeout
        # One alone has nothing to wait for. Many are gathered into few requests, and the last of those goes when all are there.
        with producer.at_once() if len(records) == 1 else nullcontext():
            sent = _hand_over(producer, records)
            with producer.at_once():
                answers = [_answer(future, until) for future in sent]
        stuck = any(answer is not None and isinstance(answer.error, _STUCK) and answer.left for answer in answers)
        if stuck or producer.has_ended:
            self._retire(producer)
        return answers

    def _current(self) -> Producer:
        producer = self._producer
        if producer is None:
            with self._mutex:
                if self._closed:
                    raise self._connections.closed()
                producer = self._producer
                if producer is None:
                    producer = self._producer = self._connections.producer()
        return producer

    def _retire(self, producer: Producer) -> None:
        """The next message gets a new one: this one does not get through any more. What others sent with it may end yet."""
        with self._mutex:
            if self._producer is not producer or self._closed:
                return
            self._producer = None
            timeout = self._connections.timeout
            retiring = threading.Thread(target=producer.end, args=(timeout,), name="narrowboat-kafka-retiring", daemon=True)
            self._retiring = [thread for thread in self._retiring if thread.is_alive()] + [retiring]
            retiring.start()

    def close(self, until: float) -> None:
        """End the producers, by then if the server does not answer. Idempotent."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
        if self._producer is not None:
            self._producer.end(_left(until))
        for thread in self._retiring:
            thread.join(_left(until))


def _left(until: float) -> float:
    """Seconds until then, and a moment in any case."""
    return max(SOON, until - time.monotonic())


def _hand_over(producer: Producer, records: Sequence[Record]) -> list[Any]:
    """Give them to the producer: for each, its future or why it was not taken."""
    sent: list[Any] = []
    send = producer.send
    for topic, partition, key, value, headers, timestamp in records:
        try:
            sent.append(send(topic, value, key, headers, partition, timestamp))
        except Exception as error:
            sent.append(Failed(error, left=False))
            if isinstance(error, client.KafkaTimeoutError):
                # The server does not answer: each further one would wait as long.
                sent += [Failed(error, left=False)] * (len(records) - len(sent))
                break
    return sent


def _answer(future: Any, until: float) -> Failed | None:
    """Wait for what became of one."""
    if isinstance(future, Failed):
        return future
    met = None
    if future.is_done:
        met = future.exception
    else:
        try:
            # The library ends every batch within its delivery timeout, which is ours; this is a net under it.
            future.get(max(0.0, until - time.monotonic()) + 1.0)
        except Exception as error:
            met = error
    if met is None:
        return None
    why, left = verdict(met, future)
    return Failed(why, left=left)
