"""Asks what groups have committed, from outside: with a consumer for each group, that joins nothing and reads nothing.

The library's administration has a question for that, and ends the process (a null pointer) when the server that it asks is not
the group's coordinator any more, or not yet. A consumer looks for the new one. A few that were used last are kept, since
each has to find the coordinator first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Any

from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as Place

from narrowboat_kafka.client import KafkaError, TopicPartition
from narrowboat_kafka.confluent.errors import border, told
from narrowboat_kafka.confluent.handle import drop, hold
from narrowboat_kafka.confluent.settings import Log

#: How many are kept.
_KEPT = 8


class Bystanders:
    """See the module's text. `config`: of the consumer that asks about a group. Called from any thread but the loop's."""

    def __init__(self, config: Callable[[str], dict[str, Any]]) -> None:
        self._config = config
        self._mutex = threading.Lock()
        self._idle: dict[str, Any] | None = {}  #: by group, in the order of their use; None once this has ended

    def ask(self, group: str, partitions: Collection[TopicPartition], seconds: float) -> list[Any]:
        """What the group has committed of each, as the library gives it; within so many seconds."""
        with self._mutex:
            consumer = self._idle.pop(group, None) if self._idle is not None else None
        if consumer is None:
            consumer = hold(Consumer(self._config(group), logger=Log()))
        try:
            with border():
                found: list[Any] = consumer.committed([Place(*tp) for tp in partitions], seconds)
                return found
        finally:
            refused = _refusal(consumer)
            if refused is None:
                self._keep(group, consumer)  # also one that found no coordinator yet: it looks for that on and on
            else:
                _end(consumer)
                raise refused

    def _keep(self, group: str, consumer: Any) -> None:
        surplus = consumer
        with self._mutex:
            if self._idle is not None and group not in self._idle:
                self._idle[group] = consumer
                surplus = self._idle.pop(next(iter(self._idle))) if len(self._idle) > _KEPT else None
        if surplus is not None:
            _end(surplus)

    def end(self) -> None:
        """Close them. It may take as long as the system's resolver does."""
        with self._mutex:
            idle, self._idle = self._idle or {}, None
        for consumer in idle.values():
            _end(consumer)


def _refusal(consumer: Any) -> KafkaError | None:
    """What the group was refused for. The consumer looks for its coordinator on and on, whatever it is told."""
    for message in consumer.consume(100, 0):
        met = None if message.error() is None else told(message.error())
        if met is not None and not met.retriable:
            return met
    return None


def _end(consumer: Any) -> None:
    consumer.close()
    drop(consumer)
