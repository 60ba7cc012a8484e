"""The partitions that are ours, by their names. Only the loop touches them.

A partition is in here from the moment that what was committed for it was read, until it is revoked or lost. `member.py` adds to
them; those who commit, read and hand out look here, and take away only what they hear is with others.
"""

from __future__ import annotations

from collections.abc import Iterable

from narrowboat_kafka.client import TopicPartition
from narrowboat_kafka.member.partition import Partition


class Parts(dict[TopicPartition, Partition]):
    """See the module's text."""

    def lose(self, gone: Iterable[TopicPartition]) -> None:
        """These are not ours any more: what was handed out of them is stale."""
        for tp in list(gone):
            part = self.pop(tp, None)
            if part is not None:
                part.owned = False

    @property
    def waiting_for_us(self) -> int:
        """How many messages consumers could be given now."""
        return sum(part.waiting_for_us for part in self.values())

    @property
    def ready(self) -> int:
        """How many could be handed out, those that came back aside."""
        return sum(len(part.ready) + len(part.claimed) for part in self.values())
