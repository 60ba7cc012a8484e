"""What is written: through one idempotent producer, with an outcome for each message. From any thread but the loop's.

A producer is made for the first message. One that stores nothing any more is retired: the next message gets a new one, and
what others have sent with the old one may end yet.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from narrowboat.errors import Unavailable
from narrowboat_kafka.alone import Alone
from narrowboat_kafka.client import SOON, Failed, KafkaError, Producer
from narrowboat_kafka.connections import Connections
from narrowboat_kafka.format.records import Record


class Publisher:
    """See the module's text."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._making = Alone(connections.place, connections.timeout)  #: outside of the mutex, which is held meanwhile
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
        except (KafkaError, Unavailable) as error:  # the server cannot be reached
            return [Failed(error, left=False)] * len(records)
        answers = producer.publish(records, time.monotonic() + self._connections.timeout)
        if producer.is_spent:
            self._retire(producer)
        return answers

    def _current(self) -> Producer:
        producer = self._producer
        if producer is None:
            with self._making.at("a producer", "publishing"), self._mutex:
                if self._closed:
                    raise self._connections.closed()
                producer = self._producer
                if producer is None:
                    producer = self._producer = self._connections.producer()
        return producer

    def _retire(self, producer: Producer) -> None:
        """The next message gets a new one: this one does not get through any more. What others sent with it may end yet."""
        if self._producer is not producer:
            return  # and maybe another one is being made
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
