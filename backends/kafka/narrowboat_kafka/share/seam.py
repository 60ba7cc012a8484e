"""What a share group needs of a client of Kafka, as types. Beside `client.py`, which has what classic groups need.

The server locks each message that it hands to a member for a while, counts how often it did, and is told of each what became
of it. A client that has none of that offers no `Sharing`. What goes wrong is a `KafkaError`, as everywhere.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Protocol

from narrowboat_kafka.client import KafkaError
from narrowboat_kafka.format.stored import Stored


class Verdict(enum.Enum):
    """What became of a message, in the server's terms."""

    ACCEPT = "accept"  #: done
    RELEASE = "release"  #: for anybody, at once; the next delivery is counted
    REJECT = "reject"  #: never again


class Sharer(Protocol):
    """One member of one share group that reads one topic. One caller at a time, from any thread.

    It is given a batch at a time: `poll` may be called again once all of the last batch is settled.
    """

    def poll(self, seconds: float) -> list[tuple[Stored, int]]:
        """What is there, or comes within so long, and how often each was handed out, this time included."""

    def settle(self, verdicts: Sequence[tuple[Stored, Verdict]], seconds: float) -> list[KafkaError | None]:
        """Tell the server, and wait for its answer. `INVALID_RECORD_STATE`: the lock of this, or of one beside it, is over."""

    def close(self) -> None:
        """Leave the group; what is not settled goes to others at once. It may take an operation timeout."""


class Sharing(Protocol):
    """Share groups as a client offers them."""

    def member(self, group: str, topic: str, size: int) -> Sharer:
        """A member that asks for `size` messages at a time. It may get more: what was published together comes together."""

    def settings(self, group: str) -> dict[str, str]:
        """The settings of a group as they are in force, by name. None of a setting that this server does not know."""

    def configure(self, group: str, values: Mapping[str, str]) -> None:
        """Change settings of a group, all or none."""
