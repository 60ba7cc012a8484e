"""What groups have committed and where partitions end, asked and changed from outside of the group.

Everything here is one question to the server, repeated while it does not know who answers. Safe from any thread but the I/O
thread. A member commits by its own connection (`member/commits.py`); this is for groups of which we are no member.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import kafka.errors as client

from narrowboat_kafka.connections import Connections
from narrowboat_kafka.library.admin import Admin

T = TypeVar("T")

#: The coordinator of a group is not known, not ready, or has moved.
_COORDINATOR = (client.CoordinatorNotAvailableError, client.CoordinatorLoadInProgressError, client.NotCoordinatorError)
#: The same, or the connection is still being made: nothing was sent.
_NOT_YET = (*_COORDINATOR, client.NodeNotReadyError, client.TooManyInFlightRequests)
#: The group has members: it belongs to them alone.
CONSUMED = (client.UnknownMemberIdError, client.RebalanceInProgressError)


class Offsets:
    """See the module's text."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def ask(self, question: Callable[[Admin], T]) -> T:
        """Ask the server. A group's coordinator may have to be found anew, and on a new cluster takes a moment to be there."""
        until = time.monotonic() + self._connections.timeout
        while True:
            try:
                return question(self._connections.admin)
            except _NOT_YET as error:
                if time.monotonic() >= until:
                    raise
                if isinstance(error, _COORDINATOR):
                    self._connections.admin.forget_coordinators()
            time.sleep(0.02)

    def at(self, partitions: list[Any], which: int) -> dict[Any, int]:
        """The earliest or latest offset of each partition."""
        connections = self._connections
        found: dict[Any, int] = self.ask(lambda _: connections.call(connections.offsets, partitions, which))
        return found

    def committed(self, group: str, partitions: list[Any]) -> dict[Any, tuple[int, str]]:
        """Offset and metadata that the group has committed, by partition."""
        if not partitions:
            return {}
        try:
            found = self.ask(lambda admin: admin.list_group_offsets({group: partitions})[group])
        except (client.GroupIdNotFoundError, client.UnknownTopicOrPartitionError):
            return {}
        return {tp: (each.offset, each.metadata or "") for tp, each in found.items() if each.offset >= 0}

    def commit(self, group: str, offsets: dict[Any, Any]) -> bool:
        """Commit for the group. False: it is consumed, and nothing was changed in at least one partition."""

        def alter(admin: Admin) -> list[Any]:
            answers = admin.alter_group_offsets(group, offsets).values()
            errors = [error for error in answers if error is not client.NoError]
            for error in errors:
                if error in _COORDINATOR:
                    raise error(group)
            return errors

        met = self.ask(alter) if offsets else []
        for error in met:
            if error not in CONSUMED:
                raise error(group)
        return not met

    def delete_groups(self, groups: list[str]) -> set[str]:
        """Delete them; the names of the errors that this met."""
        answers: dict[str, str] = self.ask(lambda admin: admin.delete_groups(groups))
        return set(answers.values()) - {"OK"}
