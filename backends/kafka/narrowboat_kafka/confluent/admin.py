"""The administration: questions to the servers, and plain answers. See `client.Admin`.

The library answers with futures that a thread of its own settles. Whether a question is repeated is the library's to know: it
finds coordinators and controllers by itself.
"""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, TopicCollection
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec

from narrowboat_kafka.client import Code, Committed, Edge, KafkaError, Topic, TopicPartition
from narrowboat_kafka.confluent.bystander import Bystanders
from narrowboat_kafka.confluent.errors import border, told
from narrowboat_kafka.confluent.handle import Troubles, drop, hold
from narrowboat_kafka.confluent.loop import Loop
from narrowboat_kafka.confluent.settings import Log, Settings

T = TypeVar("T")

#: A topic is not there, or not yet.
_ABSENT = (Code.UNKNOWN_TOPIC_OR_PARTITION, Code.LEADER_NOT_AVAILABLE)
#: The coordinator of a group is not known, not ready, has moved, or did not answer in the time of one try.
_COORDINATOR = (
    Code.COORDINATOR_NOT_AVAILABLE,
    Code.COORDINATOR_LOAD_IN_PROGRESS,
    Code.NOT_COORDINATOR,
    Code.TIMED_OUT_HERE,
)
#: Seconds between two tries to find one; of one try, where why there is no answer is heard in between.
_AGAIN, _TRY = 0.05, 0.5
#: Seconds by which the library may be late with saying that nobody answers.
_LATE = 1.0
_SPECS = {Edge.EARLIEST: OffsetSpec.earliest, Edge.LATEST: OffsetSpec.latest}


class Admin:
    """See the module's text."""

    def __init__(self, settings: Settings, loop: Loop) -> None:
        self.troubles = Troubles()
        self.handle: Any = hold(AdminClient({**settings.admin(), "error_cb": self.troubles.heard}, logger=Log()))
        self._bystanders = Bystanders(settings.bystander)
        self._loop = loop
        self._timeout = settings.timeout

    def ask_who(self, seconds: float) -> concurrent.futures.Future[Any]:
        """Ask the cluster who it is."""
        found: concurrent.futures.Future[Any] = self.handle.describe_cluster(request_timeout=seconds)
        return found

    def poll(self, seconds: float) -> None:
        """Hear what the connections met."""
        self.handle.poll(seconds)

    def _answer(self, asked: concurrent.futures.Future[Any]) -> Any:
        self.handle.poll(0)
        with border():
            return asked.result(self._timeout + _LATE)

    def ping(self) -> None:
        """Ask the cluster who it is."""
        self._answer(self.ask_who(self._timeout))

    def end(self) -> None:
        """Close its connections. It may take as long as the system's resolver does."""
        handle, self.handle = self.handle, None
        drop(handle)
        self._bystanders.end()

    # -- topics ---------------------------------------------------------------------------------------------------

    def topics(self) -> list[str]:
        """The names of all topics that this user may see."""
        with border():
            return list(self.handle.list_topics(timeout=self._timeout).topics)

    def describe(self, names: Sequence[str]) -> list[Topic]:
        """Those that are there."""
        found = []
        for name, asked in self._describe(names, self._timeout).items():
            try:
                found.append(_topic(name, self._answer(asked)))
            except KafkaError as error:
                if error.code not in _ABSENT:
                    raise
        return found

    def _describe(self, names: Sequence[str], seconds: float) -> dict[str, concurrent.futures.Future[Any]]:
        if not names:
            return {}
        found: dict[str, Any] = self.handle.describe_topics(TopicCollection(list(names)), request_timeout=seconds)
        return found

    async def metadata(self, names: Sequence[str]) -> list[Topic]:
        """Those that are there. On the loop's thread."""
        found = []
        for name, asked in self._describe(names, self._timeout).items():
            try:
                with border():
                    found.append(_topic(name, await self._loop.answer(asked, self._timeout + _LATE)))
            except KafkaError as error:
                if error.code < 0:
                    raise
        return found

    def config(self, topic: str, keys: Sequence[str]) -> dict[str, str | None]:
        """Its settings; none where we may not look."""
        try:
            found = self.described(ConfigResource(ConfigResource.Type.TOPIC, topic))
        except KafkaError as error:
            if error.code in (Code.TOPIC_AUTHORIZATION_FAILED, Code.CLUSTER_AUTHORIZATION_FAILED, *_ABSENT):
                return {}
            raise
        return {key: found[key].value for key in keys if key in found}

    def described(self, resource: Any) -> dict[str, Any]:
        """The settings of anything that has some."""
        found: dict[str, Any] = self._answer(self.handle.describe_configs([resource], request_timeout=self._timeout)[resource])
        return found

    def configure(self, resource: Any) -> None:
        """Change those settings that it names."""
        self._answer(self.handle.incremental_alter_configs([resource], request_timeout=self._timeout)[resource])

    def create(self, name: str, partitions: int, replication: int, config: Mapping[str, str]) -> None:
        """Make a topic."""
        wanted = NewTopic(name, num_partitions=partitions, replication_factor=replication, config=dict(config))
        named = {"request_timeout": self._timeout, "operation_timeout": self._timeout}
        self._answer(self.handle.create_topics([wanted], **named)[name])

    def delete(self, names: Sequence[str]) -> None:
        """Delete topics."""
        named = {"request_timeout": self._timeout, "operation_timeout": self._timeout}
        for asked in self.handle.delete_topics(list(names), **named).values():
            self._answer(asked)

    # -- offsets --------------------------------------------------------------------------------------------------

    async def offsets(self, partitions: Collection[TopicPartition], which: Edge, seconds: float) -> dict[TopicPartition, int]:
        """The earliest or latest offset of each, as far as it may be read. On the loop's thread."""
        if not partitions:
            return {}
        asked = self.handle.list_offsets(
            {Place(*tp): _SPECS[which]() for tp in partitions},
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=seconds,
        )
        found = {}
        for place, each in asked.items():
            with border():
                answer = await self._loop.answer(each, seconds + _LATE)
            found[TopicPartition(place.topic, place.partition)] = answer.offset
        return found

    def committed(self, group: str, partitions: Collection[TopicPartition]) -> dict[TopicPartition, Committed]:
        """What a group has committed of each."""
        if not partitions:
            return {}
        return self._of_group(lambda: known(self._bystanders.ask(group, partitions, _TRY)))

    def alter(self, group: str, offsets: Mapping[TopicPartition, Committed]) -> list[KafkaError]:
        """Commit for a group that nobody consumes; what went wrong with partitions of it."""
        request = ConsumerGroupTopicPartitions(group, packed(offsets))

        def ask() -> Any:
            return self._answer(self.handle.alter_consumer_group_offsets([request], request_timeout=self._timeout)[group])

        answer = self._of_group(ask)
        return [told(each.error) for each in answer.topic_partitions if each.error is not None]

    def delete_groups(self, groups: Sequence[str]) -> list[KafkaError]:
        """Delete them; what went wrong with some."""
        met = []
        for group in groups:

            def ask(group: str = group) -> Any:
                return self._answer(self.handle.delete_consumer_groups([group], request_timeout=self._timeout)[group])

            try:
                self._of_group(ask)
            except KafkaError as error:
                if error.code < 0:
                    raise
                met.append(error)
        return met

    def _of_group(self, ask: Callable[[], T]) -> T:
        """The answer of a group's coordinator. On a new cluster it takes a moment to be there."""
        until = time.monotonic() + self._timeout
        while True:
            try:
                return ask()
            except KafkaError as error:
                if error.code not in _COORDINATOR or time.monotonic() >= until:
                    raise
            time.sleep(_AGAIN)


def known(found: Sequence[Any]) -> dict[TopicPartition, Committed]:
    """What the library gives as committed, without that of which nothing is. Raises the error of one that has one."""
    for each in found:
        if each.error is not None:
            raise told(each.error)
    return {
        TopicPartition(each.topic, each.partition): Committed(each.offset, _metadata(each))
        for each in found
        if each.offset >= 0
    }


def _metadata(place: Any) -> str:
    """What was noted. Of what another program wrote without the end that librdkafka expects, there may be more than that."""
    try:
        return place.metadata or ""
    except UnicodeDecodeError as error:
        return error.object.decode("utf-8", "replace")


def packed(offsets: Mapping[TopicPartition, Committed]) -> list[Any]:
    """What is to be committed, as the library takes it."""
    return [Place(tp.topic, tp.partition, each.offset, each.metadata) for tp, each in offsets.items()]


def _topic(name: str, found: Any) -> Topic:
    """A topic that is there."""
    partitions = found.partitions
    ready = all(each.leader is not None and each.leader.id >= 0 for each in partitions)
    return Topic(name, str(found.topic_id), tuple(sorted(each.id for each in partitions)), ready)
