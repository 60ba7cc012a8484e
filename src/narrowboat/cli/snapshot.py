"""How queues and locks stand at one moment, and what has changed since the last one: what `top` shows. Pure but for `take`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from narrowboat.cli.source import source_of
from narrowboat.contract.locks import Holder
from narrowboat.contract.messages import Address, Depth, Kind
from narrowboat.locking import Locks
from narrowboat.messaging import Messaging


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment. None for the half that the backend does not have, or that nobody asked for."""

    at: float  #: seconds of a clock that only goes forward
    depths: Mapping[str, Depth] | None  #: by the path of the queue or subscription
    holders: Sequence[Holder] | None


@dataclasses.dataclass(frozen=True, slots=True)
class QueueLine:
    """A queue or subscription, with what changed in a second since the last look. None: not known."""

    name: str
    ready: int | None
    in_flight: int | None
    delayed: int | None
    dead: int | None
    oldest: float | None  #: seconds
    backlog_per_s: float | None  #: of all that is not dead
    dead_per_s: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class LockLine:
    """A lock that is held."""

    name: str
    holders: int
    waiters: int | None
    held_by: tuple[str, ...]  #: labels
    expires_in: float | None  #: seconds until the first of its leases ends


def take(now: float, broker: Messaging | None, locks: Locks | None, sources: Iterable[Address]) -> Snapshot:
    """Look at each of `sources`, and at all locks."""
    depths = None
    if broker is not None:
        depths = {
            each.path: source_of(broker, each.name, each.group or None).depth()
            for each in sources
            if each.kind is not Kind.TOPIC
        }
    return Snapshot(now, depths, None if locks is None else locks.holders())


def queue_lines(now: Snapshot, before: Snapshot | None) -> list[QueueLine]:
    """Each queue; those with the most to do first.

    >>> first, then = (Snapshot(at, {"a": Depth(at, 0, 0, 0)}, None) for at in (1, 3))
    >>> queue_lines(then, first)[0].backlog_per_s
    1.0
    """
    lines = []
    for name, depth in (now.depths or {}).items():
        old = (before.depths or {}).get(name) if before is not None else None
        seconds = now.at - before.at if before is not None else 0.0
        lines.append(
            QueueLine(
                name,
                depth.ready,
                depth.in_flight,
                depth.delayed,
                depth.dead,
                depth.oldest,
                _rate(_backlog(old), _backlog(depth), seconds),
                _rate(old.dead if old else None, depth.dead, seconds),
            )
        )
    return sorted(lines, key=lambda line: (-(line.ready or 0) - (line.in_flight or 0) - (line.delayed or 0), line.name))


def age_text(of: Depth | QueueLine) -> str:
    """For how long the oldest message has waited, for people: nothing where none waits.

    >>> age_text(Depth(2, 0, 0, 0, 61.25)), age_text(Depth(2, 0, 0, 0)), age_text(Depth(0, 0, 0, 0))
    ('61.2 s', 'unknown', '')
    """
    if of.oldest is not None:
        return f"{of.oldest:.1f} s"
    return "" if of.ready == 0 else "unknown"


def lock_lines(now: Snapshot) -> list[LockLine]:
    """Each lock that is held; those with the most waiters first."""
    by_name: dict[str, list[Holder]] = {}
    for holder in now.holders or ():
        by_name.setdefault(holder.name, []).append(holder)
    lines = [
        LockLine(
            name,
            len(found),
            max((each.waiters for each in found if each.waiters is not None), default=None),
            tuple(each.label for each in found if each.label),
            min((each.expires_in for each in found if each.expires_in is not None), default=None),
        )
        for name, found in by_name.items()
    ]
    return sorted(lines, key=lambda line: (-(line.waiters or 0), line.name))


def to_json(now: Snapshot, before: Snapshot | None) -> dict[str, Any]:
    """For programs; a half that is not there is null."""
    queues = None if now.depths is None else [dataclasses.asdict(line) for line in queue_lines(now, before)]
    locks = None if now.holders is None else [dataclasses.asdict(line) for line in lock_lines(now)]
    return {"queues": queues, "locks": locks}


def _backlog(depth: Depth | None) -> int | None:
    if depth is None:
        return None
    known = [each for each in (depth.ready, depth.in_flight, depth.delayed) if each is not None]
    return sum(known) if known else None


def _rate(old: int | None, new: int | None, seconds: float) -> float | None:
    return None if old is None or new is None or seconds <= 0 else round((new - old) / seconds, 3)
