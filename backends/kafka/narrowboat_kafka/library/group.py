"""One member of one group, as the library keeps it: its coordinator, its subscription, its fetches, what it knows of topics.

The rest of the backend decides what is done and when; this does it. It hands out no message and remembers none. All of it
belongs to the I/O thread, but for `close`.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import Any

import kafka.errors as client
from kafka import AsyncConsumerRebalanceListener
from kafka import TopicPartition as LibraryPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from narrowboat_kafka.client import Code, Committed, Ear, KafkaError, TopicPartition
from narrowboat_kafka.library.admin import known, packed
from narrowboat_kafka.library.connection import NetClient
from narrowboat_kafka.library.fetches import Fetches
from narrowboat_kafka.library.met import border, met

__all__ = ["CooperativeStickyAssignor", "Group"]

#: Seconds for which a join waits until its topics are known; between two questions for one that is gone.
_KNOW = 2.0


class Group(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # the base class has no annotations
    """See the module's text.

    `consumer`: a `KafkaConsumer` that has subscribed to nothing yet. `assignor`: the one that it was given. `connections`: its
    client. `ear`: who hears of it.
    """

    def __init__(self, name: str, consumer: Any, assignor: Any, connections: NetClient, ear: Ear) -> None:
        self.name = name
        self._ear = ear
        self._consumer = consumer
        self._assignor = assignor
        self._coordinator = consumer._coordinator
        self._fetcher = consumer._fetcher
        self._connections = connections
        self._cluster = connections.manager.cluster
        self._topics: Sequence[str] = ()
        self._asked = 0.0  #: when the server was last asked about a topic that is not known
        self._astray = False  #: the last commit did not find the group's coordinator
        fetches = Fetches(consumer, ear)
        self.fetch, self.read, self.unread = fetches.send, fetches.read, fetches.unread

    # -- membership -----------------------------------------------------------------------------------------------

    def subscribe(self, topics: Sequence[str]) -> None:
        """Ask for a share of these topics."""
        self._topics = list(topics)
        self._consumer.subscribe(self._topics, listener=self)

    async def step(self, seconds: float) -> None:
        """Find the coordinator, join where that is due, and stay alive."""
        coordinator = self._coordinator
        with border():
            await self._find_coordinator(seconds)
            if self._ear.ending:
                return
            if coordinator.need_rejoin():
                await self._know_topics()
                if not await coordinator.ensure_active_group_async(timeout_ms=seconds * 1000):
                    raise client.KafkaTimeoutError(f"the group {self.name!r} could not be joined in time")
            coordinator.poll_heartbeat()
            # Positions that the server does not have.
            self._fetcher.reset_offsets_if_needed()
            self._fetcher.maybe_validate_positions()
            self._fetcher.validate_offsets_if_needed()
        if time.monotonic() > self._asked + _KNOW and self._unknown():
            self._asked = time.monotonic()
            self._cluster.request_update()

    async def _find_coordinator(self, seconds: float) -> None:
        if not await self._coordinator.ensure_coordinator_ready_async(timeout_ms=max(1, seconds * 1000)):
            raise client.KafkaTimeoutError(f"no coordinator of the group {self.name!r} was found in time")

    async def _know_topics(self) -> None:
        """Wait until the topics are known. A member that joins without them gets no partition and has to join again.

        A request that is under way is shared, and may be older than a subscription.
        """
        until = time.monotonic() + _KNOW
        while self._unknown() and time.monotonic() < until:
            await self._cluster.refresh_metadata()
            if self._unknown():
                await self._connections.loop.sleep(0.02)

    def _unknown(self) -> bool:
        return not all(self.partitions_of(topic) for topic in self._topics)

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        """These are ours."""
        await self._ear.assigned(list(assigned))

    async def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        """These go to others. What goes wrong at the end keeps nobody from leaving the group."""
        with suppress(KafkaError) if self._ear.ending else nullcontext():
            await self._ear.revoked(list(revoked))

    async def on_partitions_lost(self, lost: Iterable[Any]) -> None:
        """Others have these. At the next join the assignor would claim what it had, against its new owner."""
        self._assignor.member_assignment = None
        await self._ear.lost(list(lost))

    def close(self, seconds: float) -> None:
        """Leave the group and close its connections. Not on the I/O thread."""
        try:
            with border():
                self._consumer.close(autocommit=False, timeout_ms=max(1, int(1000 * seconds)))
        finally:
            self._connections.close()  # the library leaves it open where the group could not be left

    # -- offsets --------------------------------------------------------------------------------------------------

    async def committed(self, partitions: Collection[TopicPartition], seconds: float) -> dict[TopicPartition, Committed]:
        """What the group has committed of each."""
        with border():
            asked = [LibraryPartition(*tp) for tp in partitions]  # it takes no other's
            found = await self._coordinator.fetch_committed_offsets_async(asked, timeout_ms=seconds * 1000)
        return known(found)

    async def commit(self, offsets: Mapping[TopicPartition, Committed], seconds: float) -> None:
        """Commit them, in one request, once. After one that failed, the coordinator is found first."""
        try:
            if self._astray:
                await self._find_coordinator(seconds)
                self._astray = False
            await self._coordinator._send_offset_commit_request(packed(offsets))
        except client.CommitFailedError as error:
            ours = self._consumer.group_metadata()
            lost = ours.generation_id < 0 or not ours.member_id
            raise met(error, code=Code.NOT_A_MEMBER if lost else Code.REBALANCE_IN_PROGRESS) from error
        except client.KafkaError as error:
            found = met(error)
            self._astray = found.retriable
            raise found from error

    # -- positions ------------------------------------------------------------------------------------------------

    def assigned(self) -> Collection[TopicPartition]:
        """The partitions that the group has given us."""
        found: Collection[TopicPartition] = self._consumer.assignment()
        return found

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Read from that offset on; what was fetched of it before is dropped."""
        self._consumer.seek(LibraryPartition(*tp), offset)

    def pause(self, tp: TopicPartition) -> None:
        """Fetch no more of it."""
        self._consumer.pause(LibraryPartition(*tp))

    def resume(self, tp: TopicPartition) -> None:
        """Fetch of it again."""
        self._consumer.resume(LibraryPartition(*tp))

    # -- topics ---------------------------------------------------------------------------------------------------

    def partitions_of(self, topic: str) -> Collection[int]:
        """The numbers of a topic's partitions, as last heard; none where it is not known."""
        return self._cluster.partitions_for_topic(topic) or ()

    def topic_id(self, topic: str) -> object:
        """Which topic of that name it is, as last heard; None where it is not known."""
        return self._cluster.topic_id(topic)

    async def hear_of_topics(self, seconds: float) -> None:
        """Ask about the topics, and wait so long for the answer at most."""
        with border(), suppress(client.UnknownTopicOrPartitionError, client.LeaderNotAvailableError):  # an answer as well
            await self._connections.loop.await_for(self._cluster.request_update(), seconds * 1000)
