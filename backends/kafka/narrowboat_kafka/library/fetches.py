"""The fetches of one member, as the library keeps them: sent, answered, read in part, parked while a partition is paused.

How much is fetched and what becomes of it is not decided here. On the I/O thread only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from narrowboat_kafka.format.stored import Stored
from narrowboat_kafka.library.fetched import Fetched
from narrowboat_kafka.library.group import Group


class Fetches:
    """See the module's text.

    Args:
        group: whose fetches these are.
        records: makes the records of one partition out of an answer, in place of the library's own class.
        answered: called for each answer.
    """

    def __init__(self, group: Group, *, records: Callable[..., Fetched], answered: Callable[[], None]) -> None:
        self._fetcher = group._fetcher
        self._fetcher.PartitionRecords = records
        self._answered = answered
        self._hooked: set[int] = set()  #: which futures call us, by their ids

    async def send(self, seconds: float) -> None:
        """Ask for more, of all partitions that have room. `seconds`: how long a server keeps a fetch that finds nothing."""
        self._fetcher.config["fetch_max_wait_ms"] = int(seconds * 1000)
        await self._fetcher._send_fetches_async()
        for future in list(self._fetcher._fetch_futures):
            if id(future) not in self._hooked and not future.is_done:
                self._hooked.add(id(future))
                future.add_both(self._answer, id(future))

    def _answer(self, key: int, *_: object) -> None:
        self._hooked.discard(key)
        self._answered()

    def read(self, count: int) -> dict[Any, list[Stored]]:
        """Up to `count` records that were fetched, and the rest of their batch, by partition."""
        found: dict[Any, list[Stored]] = self._fetcher.fetched_records(count)[0]
        return found

    def unread(self) -> list[Any]:
        """Partitions of which something that was fetched has not been read to its end. Nothing more is fetched of them."""
        fetcher = self._fetcher
        unread = [each.topic_partition for each in fetcher._completed_fetches]
        unread += (*fetcher._paused_completed_fetches, *fetcher._paused_partition_records)
        if fetcher._next_partition_records:
            unread.append(fetcher._next_partition_records.topic_partition)
        return unread
