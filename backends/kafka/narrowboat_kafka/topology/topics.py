"""Topics on the server: found, made where the URL allows it, deleted. It knows their names, and no queue and no subscription.

What was found is remembered, so that a publish asks nothing; `forget` undoes that where a topic may be gone. Safe from any
thread but the I/O thread.
"""

from __future__ import annotations

import time
from typing import Any

import kafka.errors as client
from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from narrowboat.driver.sources import Declare
from narrowboat.errors import NotFound, Unavailable
from narrowboat_kafka.connections import LARGEST, Connections
from narrowboat_kafka.options import SCHEME, Options
from narrowboat_kafka.topology import retention as lasting
from narrowboat_kafka.topology.offsets import Offsets


class Topics:
    """See the module's text."""

    def __init__(self, connections: Connections, options: Options, offsets: Offsets) -> None:
        self._connections = connections
        self._options = options
        self._ask = offsets.ask
        self._known: set[str] = set()  #: topics that were there when we looked
        self._looked_at: set[str] = set()  #: topics that were there before we came, told about where they are short-lived

    def knows(self, name: str) -> bool:
        """Whether it was there when we looked last."""
        return name in self._known

    def forget(self, *names: str) -> None:
        """Look for these topics again at their next use: they may be gone."""
        self._known.difference_update(names)

    def ensure(self, name: str, partitions: int, retention: float, what: str, *, large: bool) -> None:
        """Make the topic if it is not there, and wait until it can be used. `large`: what lies in it was published before."""
        if name in self._known:
            return
        if not self.is_there(name):
            if self._options.declare is Declare.NEVER:
                raise NotFound(
                    f"there is no {what} on {self._connections.place}, and the URL says declare=never. Use a URL with "
                    f"declare=auto once, or create it: kafka-topics.sh --create --topic {name} --partitions {partitions} "
                    "--config retention.ms=-1",
                    backend=SCHEME,
                )
            self._create(name, partitions, retention, large=large)
        elif name not in self._looked_at:
            self._looked_at.add(name)
            self._look_at(name, what)
        self._known.add(name)

    def _look_at(self, name: str, what: str) -> None:
        """Say so where a topic that was there already keeps less than the URL promises. Nothing, where we may not look."""
        asked = ConfigResource(ConfigResourceType.TOPIC, name, list(lasting.ALL))
        answer = self._ask(lambda admin: admin.describe_configs([asked], config_filter="all"))
        found = answer.get("topic", {}).get(name, {})
        lasting.report(name, what, {key: each["value"] for key, each in found.items()}, self._options.retention)

    def _create(self, name: str, partitions: int, retention: float, *, large: bool) -> None:
        wanted = {
            "num_partitions": partitions,
            "replication_factor": self._options.replication or -1,
            "configs": lasting.ALL
            | ({"retention.ms": str(int(retention * 1000))} if retention else {})
            | ({"max.message.bytes": str(LARGEST)} if large else {}),
        }
        try:
            self._ask(lambda admin: admin.create_topics({name: wanted}))
        except client.TopicAlreadyExistsError:
            pass
        until = time.monotonic() + self._connections.timeout
        while not self.is_there(name):
            if time.monotonic() >= until:
                raise Unavailable(f"the topic {name!r} was made, and has no leader yet", backend=SCHEME)
            time.sleep(0.01)

    def is_there(self, name: str) -> bool:
        """Whether the topic can be used."""
        for found in self._ask(lambda admin: admin.describe_topics([name])):
            return _exists(found) and all(each["leader_id"] >= 0 and not each["error_code"] for each in found["partitions"])
        return False

    def partitions(self, *names: str) -> list[Any]:
        """The partitions of those of the topics that are there."""
        return [
            TopicPartition(topic["name"], each["partition_index"])
            for topic in self._ask(lambda admin: admin.describe_topics(list(names)))
            if _exists(topic)
            for each in topic["partitions"]
        ]

    def all(self) -> list[str]:
        """The names of all topics that this user may see."""
        found: list[str] = self._ask(lambda admin: admin.list_topics())
        return found

    def delete(self, *names: str) -> None:
        """Delete those that are there, and wait until they are gone."""
        there = [name for name in names if self.is_there(name)]
        self.forget(*names)
        if not there:
            return
        try:
            self._ask(lambda admin: admin.delete_topics(there))
        except client.UnknownTopicOrPartitionError:
            pass  # another client was faster
        until = time.monotonic() + self._connections.timeout
        while any(self.is_there(name) for name in there) and time.monotonic() < until:
            time.sleep(0.01)


def _exists(described: dict[str, Any]) -> bool:
    """Whether the server has a topic, by what it says of it; raises what else it says."""
    error = client.for_code(described["error_code"])
    if error not in (client.NoError, client.UnknownTopicOrPartitionError, client.LeaderNotAvailableError):
        raise error(described["name"])
    return error is client.NoError
