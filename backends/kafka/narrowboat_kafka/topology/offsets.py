"""What groups have committed and where partitions end, asked and changed from outside of the group.

Safe from any thread but the loop's. A member commits by its own connection (`member/commits.py`); this is for groups of which
we are no member.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from narrowboat_kafka.client import Code, Committed, Edge, KafkaError, TopicPartition
from narrowboat_kafka.connections import Connections

#: The group has members: it belongs to them alone.
_CONSUMED = frozenset({Code.UNKNOWN_MEMBER_ID, Code.REBALANCE_IN_PROGRESS})


class Offsets:
    """See the module's text."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._admin = connections.admin

    def at(self, partitions: Sequence[TopicPartition], which: Edge) -> dict[TopicPartition, int]:
        """The earliest or latest offset of each partition."""
        until = time.monotonic() + self._connections.timeout
        while True:
            try:
                found: dict[TopicPartition, int] = self._connections.call(self._connections.offsets, partitions, which)
                return found
            except KafkaError as error:
                if error.code not in (Code.NOT_SENT, Code.NOT_LEADER) or time.monotonic() >= until:
                    raise
            time.sleep(0.02)

    def committed(self, group: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Committed]:
        """What the group has committed, by partition."""
        if not partitions:
            return {}
        try:
            return self._admin.committed(group, partitions)
        except KafkaError as error:
            if error.code in (Code.GROUP_ID_NOT_FOUND, Code.UNKNOWN_TOPIC_OR_PARTITION):
                return {}
            raise

    def commit(self, group: str, offsets: Mapping[TopicPartition, Committed]) -> bool:
        """Commit for the group. False: it is consumed, and nothing was changed in at least one partition."""
        met = self._admin.alter(group, offsets) if offsets else []
        for error in met:
            if error.code not in _CONSUMED:
                raise error
        return not met

    def delete_groups(self, groups: Sequence[str]) -> list[KafkaError]:
        """Delete them; what went wrong with some."""
        return self._admin.delete_groups(groups)
