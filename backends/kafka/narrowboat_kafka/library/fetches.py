"""The fetches of one member, as the library keeps them: sent, answered, read in part, parked while a partition is paused.

How much is fetched and what becomes of it is not decided here. On the I/O thread only.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import kafka.errors as client

from narrowboat_kafka.client import Ear, TopicPartition
from narrowboat_kafka.format.stored import Stored
from narrowboat_kafka.library.fetched import Fetched
from narrowboat_kafka.library.met import border, met


class Fetches:
    """See the module's text. `consumer`: the library's, whose fetches these are. `ear`: hears of each answer."""

    def __init__(self, consumer: Any, ear: Ear) -> None:
        self._fetcher = consumer._fetcher
        self._assignment = consumer.assignment
        self._fetcher.PartitionRecords = partial(Fetched, ear=ear)
        self._ear = ear
        self._hooked: set[int] = set()  #: which futures call us, by their ids

    async def send(self, seconds: float) -> None:
        """Ask for more, of all partitions that have room. `seconds`: how long a server keeps a fetch that finds nothing."""
        self._fetcher.config["fetch_max_wait_ms"] = int(seconds * 1000)
        with border():
            await self._fetcher._send_fetches_async()
        for future in list(self._fetcher._fetch_futures):
            if id(future) not in self._hooked and not future.is_done:
                self._hooked.add(id(future))
                future.add_both(self._answer, id(future))

    def _answer(self, key: int, *_: object) -> None:
        self._hooked.discard(key)
        self._ear.news()

    def read(self, count: int) -> dict[TopicPartition, Sequence[Stored]]:
        """Up to `count` records that were fetched, and the rest of their batch, by partition."""
        try:
            found: dict[TopicPartition, Sequence[Stored]] = self._fetcher.fetched_records(count)[0]
            return found
        except client.TopicAuthorizationFailedError as error:
            # The library would ask again at once, and for ever.
            for tp in self._assignment():
                if tp.topic in error.args[0]:
                    self._ear.unreadable(tp, -1, met(error))
            return {}
        except client.KafkaError as error:
            raise met(error) from error

    def unread(self) -> list[TopicPartition]:
        """Partitions of which something that was fetched has not been read to its end. Nothing more is fetched of them."""
        fetcher = self._fetcher
        unread = [each.topic_partition for each in fetcher._completed_fetches]
        unread += (*fetcher._paused_completed_fetches, *fetcher._paused_partition_records)
        if fetcher._next_partition_records:
            unread.append(fetcher._next_partition_records.topic_partition)
        return unread
