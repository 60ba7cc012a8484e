"""One member of one group, as the library keeps it: its coordinator, its subscription, and what it knows of topics.

The rest of the backend decides what is done and when; this does it. It hands out no message and remembers none. All of it
belongs to the I/O thread, but for `close`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import KafkaTimeoutError

__all__ = ["AsyncConsumerRebalanceListener", "CooperativeStickyAssignor", "Group"]


class Group:
    """See the module's text. `consumer`: a `KafkaConsumer` that has subscribed to nothing yet."""

    def __init__(self, name: str, consumer: Any) -> None:
        self.name = name
        self._consumer = consumer
        self._coordinator = consumer._coordinator
        self._fetcher = consumer._fetcher
        self._subscription = consumer._subscription
        self._manager = consumer._manager
        self._cluster = consumer._manager.cluster

    # -- membership -----------------------------------------------------------------------------------------------

    def subscribe(self, topics: Sequence[str], listener: AsyncConsumerRebalanceListener) -> None:
        """Ask for a share of these topics. `listener` hears which partitions come and go."""
        self._consumer.subscribe(topics, listener=listener)

    async def find_coordinator(self, seconds: float) -> None:
        """Find the server that keeps the group; `KafkaTimeoutError` where none is found in time."""
        if not await self._coordinator.ensure_coordinator_ready_async(timeout_ms=max(1, seconds * 1000)):
            raise KafkaTimeoutError(f"no coordinator of the group {self.name!r} was found in time")

    @property
    def has_to_join(self) -> bool:
        """Whether a rebalance is under way, or we are no member yet."""
        return bool(self._coordinator.need_rejoin())

    async def join(self, seconds: float) -> None:
        """Take part in the rebalance; `KafkaTimeoutError` where it does not end in time."""
        if not await self._coordinator.ensure_active_group_async(timeout_ms=seconds * 1000):
            raise KafkaTimeoutError(f"the group {self.name!r} could not be joined in time")

    def keep_up(self) -> None:
        """Show that this process is alive, and find positions that the server does not have."""
        self._coordinator.poll_heartbeat()
        self._fetcher.reset_offsets_if_needed()
        self._fetcher.maybe_validate_positions()
        self._fetcher.validate_offsets_if_needed()

    def forget_assignment(self) -> None:
        """Claim nothing at the next join. The assignor would ask for what it had, against its new owner."""
        for assignor in self._coordinator._assignors.values():
            assignor.member_assignment = None

    @property
    def is_lost(self) -> bool:
        """Whether the group goes on without us."""
        return bool(self._coordinator._generation.is_lost())

    def close(self, seconds: float) -> None:
        """Leave the group and close its connections. Not on the I/O thread."""
        try:
            self._consumer.close(autocommit=False, timeout_ms=max(1, int(1000 * seconds)))
        finally:
            self._consumer._client.close()  # the library leaves it open where the group could not be left

    # -- offsets --------------------------------------------------------------------------------------------------

    async def committed(self, partitions: Collection[Any], seconds: float) -> dict[Any, Any]:
        """Offset and metadata of each partition, as the group has committed them."""
        found: dict[Any, Any] = await self._coordinator.fetch_committed_offsets_async(partitions, timeout_ms=seconds * 1000)
        return found

    async def commit(self, offsets: dict[Any, Any]) -> None:
        """Commit offset and metadata of each partition, in one request, once."""
        await self._coordinator._send_offset_commit_request(offsets)

    # -- positions ------------------------------------------------------------------------------------------------

    @property
    def topics(self) -> Collection[str]:
        """What we have subscribed to."""
        found: Collection[str] = self._subscription.subscription
        return found

    def assigned(self) -> Collection[Any]:
        """The partitions that the group has given us."""
        found: Collection[Any] = self._subscription.assigned_partitions()
        return found

    def is_assigned(self, tp: Any) -> bool:
        """Whether the group has given us that partition."""
        return bool(self._subscription.is_assigned(tp))

    def seek(self, tp: Any, offset: int) -> None:
        """Fetch from that offset on."""
        self._subscription.seek(tp, offset)

    def pause(self, tp: Any) -> None:
        """Fetch no more of it."""
        self._subscription.pause(tp)

    def resume(self, tp: Any) -> None:
        """Fetch of it again."""
        self._subscription.resume(tp)

    # -- topics ---------------------------------------------------------------------------------------------------

    def partitions_of(self, topic: str) -> Collection[int]:
        """The numbers of a topic's partitions, as last heard; none where it is not known."""
        return self._cluster.partitions_for_topic(topic) or ()

    def topic_id(self, topic: str) -> object:
        """Which topic of that name it is: one that was made anew has another. None where it is not known."""
        return self._cluster.topic_id(topic)

    def ask_for_topics(self) -> None:
        """Let the server be asked about the topics soon."""
        self._cluster.request_update()

    async def know_topics(self) -> None:
        """Ask the server about the topics. A request that is under way is shared, and may be older than a subscription."""
        await self._cluster.refresh_metadata()

    async def hear_of_topics(self, seconds: float) -> None:
        """Ask, and wait so long for the answer at most."""
        await self._manager.wait_for(self._cluster.request_update(), seconds * 1000)
