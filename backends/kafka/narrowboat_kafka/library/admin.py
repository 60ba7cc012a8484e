"""The library's administration behind our questions: plain answers, each asked again while it is not known who answers.

A group's coordinator may have to be found anew, and on a new cluster takes a moment to be there. The library asks for it once
and stays with the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import kafka.errors as client
from kafka import IsolationLevel, KafkaAdminClient
from kafka import TopicPartition as LibraryPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.structs import OffsetAndMetadata

from narrowboat_kafka.client import METADATA_END, Committed, Edge, KafkaError, Topic, TopicPartition
from narrowboat_kafka.library.connection import NetClient
from narrowboat_kafka.library.met import border, met

T = TypeVar("T")

#: The coordinator of a group is not known, not ready, or has moved.
_COORDINATOR = (client.CoordinatorNotAvailableError, client.CoordinatorLoadInProgressError, client.NotCoordinatorError)
#: The same, or the connection is still being made: nothing was sent.
_NOT_YET = (*_COORDINATOR, client.NodeNotReadyError, client.TooManyInFlightRequests)
#: A topic is not there, or not yet.
_ABSENT = (client.UnknownTopicOrPartitionError, client.LeaderNotAvailableError)


class Admin:
    """See the module's text. `connections`: the client of the library's. `timeout`: seconds of one question."""

    def __init__(self, library: KafkaAdminClient, connections: NetClient, timeout: float) -> None:
        self._library = library
        self._loop = connections.loop
        self._cluster = connections.manager.cluster
        self._timeout = timeout

    def _ask(self, question: Callable[..., T], *arguments: Any, **named: Any) -> T:
        until = time.monotonic() + self._timeout
        while True:
            try:
                return question(*arguments, **named)
            except client.KafkaError as error:
                if not isinstance(error, _NOT_YET) or time.monotonic() >= until:
                    raise met(error) from error
                if isinstance(error, _COORDINATOR):
                    self._cluster._coordinators.clear()
            time.sleep(0.02)

    def ping(self) -> None:
        """Ask the cluster who it is."""
        self._ask(self._library.describe_cluster)

    # -- topics ---------------------------------------------------------------------------------------------------

    def topics(self) -> list[str]:
        """The names of all topics that this user may see."""
        found: list[str] = self._ask(self._library.list_topics)
        return found

    def describe(self, names: Sequence[str]) -> list[Topic]:
        """Those that are there."""
        found = []
        for each in self._ask(self._library.describe_topics, list(names)):
            error = client.for_code(each["error_code"])
            if error is client.NoError:
                found.append(_topic(each))
            elif error not in _ABSENT:
                raise met(error(each["name"]))
        return found

    async def metadata(self, names: Sequence[str]) -> list[Topic]:
        """Those that are there. On the loop's thread."""
        with border():
            found = await self._loop.aside(self._library.describe_topics, list(names))
        return [_topic(each) for each in found if not each["error_code"]]

    def config(self, topic: str, keys: Sequence[str]) -> dict[str, str | None]:
        """Its settings; none where we may not look."""
        asked = ConfigResource(ConfigResourceType.TOPIC, topic, list(keys))
        answer = self._ask(self._library.describe_configs, [asked], config_filter="all")
        return {key: each["value"] for key, each in answer.get("topic", {}).get(topic, {}).items()}

    def create(self, name: str, partitions: int, replication: int, config: Mapping[str, str]) -> None:
        """Make a topic."""
        wanted = {"num_partitions": partitions, "replication_factor": replication, "configs": dict(config)}
        self._ask(self._library.create_topics, {name: wanted})

    def delete(self, names: Sequence[str]) -> None:
        """Delete topics."""
        self._ask(self._library.delete_topics, list(names))

    # -- offsets --------------------------------------------------------------------------------------------------

    async def offsets(self, partitions: Collection[TopicPartition], which: Edge, seconds: float) -> dict[TopicPartition, int]:
        """The earliest or latest offset of each, as far as it may be read. On the loop's thread."""
        asked = dict.fromkeys(partitions, which.value)
        with border():
            find = self._library.list_partition_offsets
            found = await self._loop.aside(find, asked, IsolationLevel.READ_COMMITTED, timeout_ms=seconds * 1000)
        return {tp: each.offset for tp, each in found.items()}

    def committed(self, group: str, partitions: Collection[TopicPartition]) -> dict[TopicPartition, Committed]:
        """What a group has committed of each."""
        return known(self._ask(self._library.list_group_offsets, {group: list(partitions)})[group])

    def alter(self, group: str, offsets: Mapping[TopicPartition, Committed]) -> list[KafkaError]:
        """Commit for a group that nobody consumes; what went wrong with partitions of it."""

        def alter() -> list[KafkaError]:
            answers = self._library.alter_group_offsets(group, packed(offsets)).values()
            errors = [kind(group) for kind in answers if kind is not client.NoError]
            for error in errors:
                if isinstance(error, _COORDINATOR):
                    raise error
            return [met(error) for error in errors]

        return self._ask(alter)

    def delete_groups(self, groups: Sequence[str]) -> list[KafkaError]:
        """Delete them; what went wrong with some. The library gives each the name of its error's class."""
        answers: dict[str, str] = self._ask(self._library.delete_groups, list(groups))
        return [met(getattr(client, kind, client.UnknownError)(group)) for group, kind in answers.items() if kind != "OK"]

    def end(self) -> None:
        """Close its connections, without a word to the server."""
        self._library.close()


def known(found: Mapping[Any, OffsetAndMetadata]) -> dict[TopicPartition, Committed]:
    """What the library gives as committed, without that of which nothing is."""
    return {
        tp: Committed(each.offset, (each.metadata or "").partition(METADATA_END)[0])
        for tp, each in found.items()
        if each.offset >= 0
    }


def packed(offsets: Mapping[TopicPartition, Committed]) -> dict[Any, OffsetAndMetadata]:
    """What is to be committed, as the library takes it."""
    return {
        LibraryPartition(*tp): OffsetAndMetadata(each.offset, each.metadata + METADATA_END if each.metadata else "", -1)
        for tp, each in offsets.items()
    }


def _topic(found: Mapping[str, Any]) -> Topic:
    """A topic that is there."""
    partitions = found["partitions"]
    ready = all(each["leader_id"] >= 0 and not each["error_code"] for each in partitions)
    return Topic(found["name"], found.get("topic_id"), tuple(sorted(each["partition_index"] for each in partitions)), ready)
