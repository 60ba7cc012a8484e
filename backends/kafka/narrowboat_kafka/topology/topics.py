"""Topics on the server: found, made where the URL allows it, deleted. It knows their names, and no queue and no subscription.

What was found is remembered, so that a publish asks nothing; `forget` undoes that where a topic may be gone. Safe from any
thread but the loop's.
"""

from __future__ import annotations

import time

from narrowboat.driver.sources import Declare
from narrowboat.errors import NotFound, Unavailable
from narrowboat_kafka.client import LARGEST, Code, KafkaError, TopicPartition
from narrowboat_kafka.connections import Connections
from narrowboat_kafka.options import SCHEME, Options
from narrowboat_kafka.topology import retention as lasting


class Topics:
    """See the module's text."""

    def __init__(self, connections: Connections, options: Options) -> None:
        self._connections = connections
        self._admin = connections.admin
        self._options = options
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
        lasting.report(name, what, self._admin.config(name, list(lasting.ALL)), self._options.retention)

    def _create(self, name: str, partitions: int, retention: float, *, large: bool) -> None:
        config = (
            lasting.ALL
            | ({"retention.ms": str(int(retention * 1000))} if retention else {})
            | ({"max.message.bytes": str(LARGEST)} if large else {})
        )
        try:
            self._admin.create(name, partitions, self._options.replication or -1, config)
        except KafkaError as error:
            if error.code != Code.TOPIC_ALREADY_EXISTS:
                raise
        until = time.monotonic() + self._connections.timeout
        while not self.is_there(name):
            if time.monotonic() >= until:
                raise Unavailable(f"the topic {name!r} was made, and has no leader yet", backend=SCHEME)
            time.sleep(0.01)

    def is_there(self, name: str) -> bool:
        """Whether the topic can be used."""
        return any(topic.ready for topic in self._admin.describe([name]))

    def partitions(self, *names: str) -> list[TopicPartition]:
        """The partitions of those of the topics that are there."""
        return [TopicPartition(topic.name, each) for topic in self._admin.describe(names) for each in topic.partitions]

    def all(self) -> list[str]:
        """The names of all topics that this user may see."""
        return self._admin.topics()

    def delete(self, *names: str) -> None:
        """Delete those that are there, and wait until they are gone."""
        there = [name for name in names if self.is_there(name)]
        self.forget(*names)
        if not there:
            return
        try:
            self._admin.delete(there)
        except KafkaError as error:
            if error.code != Code.UNKNOWN_TOPIC_OR_PARTITION:
                raise
            # Another client was faster.
        until = time.monotonic() + self._connections.timeout
        while any(self.is_there(name) for name in there) and time.monotonic() < until:
            time.sleep(0.01)
