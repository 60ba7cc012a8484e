"""The rows of queues, topics, subscriptions and inboxes, and which of them can be ours."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from narrowboat.contract import Address, Kind, Properties
from narrowboat.errors import Conflict
from narrowboat_sqlite.options import SCHEME
from narrowboat_sqlite.tables import strange

COLUMNS = "id, path, kind, topic, declared, lease, max_deliveries, ordered, priorities"

_KINDS = {kind.value: kind for kind in Kind}
#: Seconds, longer than any lease.
_LEASE_MAX = 31 * 86400.0


class SourceRow(NamedTuple):
    """A row of `source`."""

    id: int
    address: Address
    topic: int | None  #: of a subscription: the topic's id
    declared: bool  #: its properties were given by a consumer, not made up by a publish
    properties: Properties

    @property
    def path(self) -> str:
        """Its name."""
        return self.address.path


@functools.lru_cache(maxsize=256)  # each claim finds the row of its source as it was
def source_of(row: tuple[Any, ...]) -> SourceRow | None:
    """A row of `source`; None when it cannot be one of ours."""
    number, path, kind, topic, declared, lease, most, ordered, priorities = row
    if not (
        path.__class__ is str
        and kind.__class__ is str
        and kind in _KINDS
        and (topic is None) == (kind != Kind.SUBSCRIPTION.value)
        and (topic is None or strange.whole(topic))
        and strange.number(lease, 1e-3, _LEASE_MAX)
        and all(strange.whole(each) for each in (declared, most, ordered, priorities))
    ):
        return None
    name, group = path, ""
    if kind == Kind.SUBSCRIPTION.value:
        name, _, group = path.rpartition(".")  # a group has no dot
    properties = Properties(lease, most, bool(ordered), priorities)
    return SourceRow(number, Address(_KINDS[kind], name, group), topic, bool(declared), properties)


def strange_source(path: str, row: object) -> Conflict:
    """The error for a source whose row cannot be ours."""
    return Conflict(
        f"the row of {path!r} in the table source was damaged or written by another program: it reads {row!r}. Nothing was "
        "changed. Correct it, or delete the queue or topic with its messages.",
        backend=SCHEME,
    )
