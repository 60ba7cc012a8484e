"""What sources were declared with, where it needs no topic of its own: in the metadata of an offset of a group of its own.

That group commits at partition 0 of the source's topic (`names.declared`), so it goes with the topic. Another program may
commit any text for it: what is no declaration of ours counts as none.
"""

from __future__ import annotations

import json
from typing import Any

from narrowboat.contract import Address
from narrowboat.errors import Unavailable
from narrowboat_kafka.client import Committed, TopicPartition
from narrowboat_kafka.options import SCHEME
from narrowboat_kafka.topology import names
from narrowboat_kafka.topology.offsets import Offsets


class Declarations:
    """See the module's text. `prefix`: the namespace."""

    def __init__(self, offsets: Offsets, prefix: str) -> None:
        self._offsets = offsets
        self._prefix = prefix

    def read(self, address: Address, topic: str) -> dict[str, Any] | None:
        """The kind of what has that name, and what it was declared with if it was; None where it is nothing yet."""
        committed = self._offsets.committed(names.declared(address, self._prefix), [TopicPartition(topic, 0)])
        for _, text in committed.values():
            try:
                found = json.loads(text)
            except (ValueError, RecursionError):  # another program wrote it
                continue
            if isinstance(found, dict) and isinstance(found.get("kind"), str):
                return found
        return None

    def write(self, address: Address, topic: str, value: dict[str, Any]) -> None:
        """Keep it."""
        group = names.declared(address, self._prefix)
        if not self._offsets.commit(group, {TopicPartition(topic, 0): Committed(0, json.dumps(value))}):
            raise Unavailable(f"another program is a member of the group {group!r}, which is ours. Stop it", backend=SCHEME)

    def forget(self, address: Address) -> None:
        """It was deleted."""
        self._offsets.delete_groups([names.declared(address, self._prefix)])
