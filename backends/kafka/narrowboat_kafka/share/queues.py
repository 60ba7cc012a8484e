"""The queues of one broker object that share groups read: opened, and emptied. What is in them only the server knows."""

from __future__ import annotations

import time
from collections.abc import Callable

from narrowboat.contract import Address, Source
from narrowboat_kafka.client import Edge, TopicPartition
from narrowboat_kafka.feed import Shared
from narrowboat_kafka.options import Options
from narrowboat_kafka.share.feed import ShareFeed
from narrowboat_kafka.share.locks import Locks, Terms
from narrowboat_kafka.share.reader import Reader
from narrowboat_kafka.share.seam import Verdict
from narrowboat_kafka.topology import names

#: Seconds beyond a heartbeat after which a new group has its partitions.
_LATE = 0.5
#: Seconds for which nothing comes from a queue that is empty, and messages that are dropped together.
_EMPTY, _MANY = 0.5, 500


class Queues:
    """See the module's text."""

    def __init__(self, shared: Shared, options: Options) -> None:
        self._shared = shared
        self._prefix = options.prefix
        self._sharing = shared.connections.sharing()
        self._locks = Locks(self._sharing, options, shared.connections.timeout)

    def open(self, source: Source, wake: Callable[[], None], left: Callable[[ShareFeed], None], *, new: bool) -> ShareFeed:
        """A consumer that has joined. `new`: its group never had a member, and takes a moment to be given anything."""
        address, lease = source.address, source.properties.lease
        group, topic = names.group(address, self._prefix), names.topic(address, self._prefix)
        terms = self._locks.ensure(group, address.path, lease)
        feed = ShareFeed(
            self._shared,
            address,
            lambda size: self._reader(address, size, lease),
            terms,
            wake,
            identify=lambda: self._identity(topic),
            left=left,
        )
        try:
            feed.readers.begin(self._patience(topic, terms) if new else 0.0)
        except BaseException:  # an interrupt included: a member that nobody knows would keep what it is given
            feed.readers.abandon()
            raise
        return feed

    def _reader(self, address: Address, size: int, lease: float) -> Reader:
        group, topic = names.group(address, self._prefix), names.topic(address, self._prefix)
        member = self._sharing.member(group, topic, size)
        return Reader(member, address.path, size, lease, self._shared.connections.timeout)

    def _patience(self, topic: str, terms: Terms) -> float:
        """Seconds after which a new group has its partitions. Where something lies there, it comes with that."""
        connections = self._shared.connections
        tps = [TopicPartition(found.name, each) for found in connections.admin.describe([topic]) for each in found.partitions]
        first, last = (connections.call(connections.offsets, tps, edge) for edge in (Edge.EARLIEST, Edge.LATEST))
        return connections.timeout if first != last else terms.beat + _LATE

    def _identity(self, topic: str) -> object:
        return next((found.id for found in self._shared.connections.admin.describe([topic]) if found.ready), None)

    def purge(self, address: Address) -> int:
        """Drop what nobody has, as a member for that alone; how many."""
        terms = self._locks.look(names.group(address, self._prefix), address.path)
        reader = self._reader(address, _MANY, terms.lock)
        dropped, until = 0, time.monotonic() + terms.beat + _LATE
        try:
            while time.monotonic() < until:
                found = reader.poll(_EMPTY / 4)
                if found:
                    dropped += sum(answer is True for answer in reader.settle([(each, Verdict.ACCEPT) for each in found]))
                    until = time.monotonic() + _EMPTY
        finally:
            reader.close()
        return dropped
