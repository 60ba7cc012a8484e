"""One delivery of a message that the server has locked for us, and how it was settled."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from narrowboat_kafka.client import KafkaError
from narrowboat_kafka.format import records
from narrowboat_kafka.format.stored import Stored
from narrowboat_kafka.options import LOCK_HEAD
from narrowboat_kafka.share.seam import Verdict

#: Seconds after the end of a lease in which it may be settled: the lock is longer than that.
_HELD = LOCK_HEAD - 0.5


#: Whether a delivery was still ours; or why that is not known.
Answer = bool | KafkaError


class Settler(Protocol):
    """Who was given it, and settles it."""

    def settle(self, wanted: Sequence[tuple[Locked, Verdict]]) -> list[Answer]:
        """Settle each; whether it was still ours."""


class Locked:
    """See the module's text. `count`: how often the server handed it out. `until`: our share of the lock (monotonic)."""

    __slots__ = ("attempts", "count", "done", "offered", "reader", "record", "until")

    def __init__(self, reader: Settler, record: Stored, count: int, until: float) -> None:
        self.reader = reader
        self.record = record
        self.count = count
        self.attempts = records.attempts(record) + count  #: claims so far, those before it was published again included
        self.until = until
        self.offered = time.monotonic()  #: since when it lies here for a consumer
        self.done: Verdict | None = None  #: how it was settled, once the server has said so

    @property
    def ours(self) -> bool:
        """Whether its lease stands, by our clock, and it is not settled."""
        return self.done is None and time.monotonic() < self.until

    @property
    def held(self) -> bool:
        """Whether the server can still have it locked for us: longer than its lease, so that what was begun in it ends."""
        return self.done is None and time.monotonic() < self.until + _HELD
