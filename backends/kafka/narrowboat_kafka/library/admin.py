"""The library's administration, with what it keeps to itself: questions from the I/O thread, an end without a wait."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from kafka import KafkaAdminClient
from kafka.protocol.consumer import IsolationLevel

#: The earliest and the latest offset, as the server is asked for them.
EARLIEST, LATEST = -2, -1


class Admin(KafkaAdminClient):  # type: ignore[misc]  # the base class has no annotations
    """See the module's text."""

    async def offsets(self, partitions: Collection[Any], which: int, seconds: float) -> dict[Any, int]:
        """The earliest or latest offset of each, as far as it may be read. On the I/O thread."""
        asked = dict.fromkeys(partitions, which)
        found = await self._async_list_partition_offsets(asked, IsolationLevel.READ_COMMITTED, seconds * 1000)
        return {tp: each.offset for tp, each in found.items()}

    async def metadata(self, topics: list[str]) -> dict[str, Any]:
        """What the server says of these topics. On the I/O thread."""
        found: dict[str, Any] = await self._get_cluster_metadata(topics)
        return found

    def forget_coordinators(self) -> None:
        """Ask anew who keeps a group. The library asks once, and stays with the answer."""
        self._manager.cluster._coordinators.clear()

    def end(self) -> None:
        """Close its connections, without a word to the server."""
        self._closed = True
        self._client.close()
