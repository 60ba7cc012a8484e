"""Where an owner stands: its node, and what is known of it. And what a node says to people."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, NamedTuple

from narrowboat.contract.locks import Mode, Request
from narrowboat.driver.admission import disagree
from narrowboat.errors import Reason
from narrowboat_zookeeper.names import Contender, lock_node

#: Permits that are handed over side by side, at most: so many waiters look at each change of the queue.
FRONT_MAX = 4


class Place:
    """One owner's node, from before it is asked for until it is gone for sure."""

    __slots__ = (
        "armed",
        "behind",
        "ends",
        "expelled",
        "glance",
        "gone",
        "granted",
        "path",
        "session",
        "token",
        "told",
        "under_way",
        "wake",
        "written",
    )

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.path: str | None = None  #: None: it was asked for, and nobody knows whether it is there
        self.token = 0
        self.session: int | None = None
        self.granted = False
        self.ends = 0.0  #: on the clock that was handed in; when a grant is over unless it is renewed
        self.gone: Reason | None = None  #: why it is no longer there; None while nobody knows that it is not
        self.written = False  #: its watch told of a change, which an eviction makes before it deletes
        self.armed = -1  #: the epoch in which its own watch was sent
        self.behind: tuple[str, int] | None = None  #: what a waiter watches, and the epoch
        self.told: float | None = None  #: since when it could come and look (monotonic); None: it has come
        self.glance: tuple[float, Any, Any] | None = (
            None  #: a look that was sent on its waking: when (on the clock), its results
        )
        self.under_way = False  #: a call for it is under way
        self.expelled = False  #: its node is being removed: it did not come, or nobody renewed it

    def found(self, path: str, stat: Any) -> None:
        """It is there, and this session's."""
        self.path, self.token, self.session = path, stat.czxid, stat.ephemeralOwner
        self.gone = self.behind = None
        self.expelled = self.written = False

    def vanished(self) -> None:
        """It was deleted, by whomever."""
        self.gone = self.gone or (Reason.EVICTED if self.written else Reason.TAKEN)

    def lost(self) -> None:
        """It is not there: ask for a new one."""
        self.path = self.session = self.gone = self.behind = None
        self.granted = self.expelled = self.written = False


class Verdict(Enum):
    """What a contender may do."""

    GO = "go"
    CONFLICT = "conflict"  #: with `other`
    WATCH = "watch"  #: until something becomes of `other`
    FRONT = "front"  #: among the first who wait for a permit: until anybody comes or leaves


class Decision(NamedTuple):
    """A verdict, and the other contender that it is about."""

    verdict: Verdict
    other: Contender | None = None


def decide(mode: Mode, limit: int | None, ahead: Sequence[Contender]) -> Decision:
    """What a contender may do that has `ahead` before it, oldest first.

    A writer goes when nobody is before it, a reader when no writer is, a permit when fewer than `limit` are. Who has to
    wait watches one node only. A waiting permit cannot know which holder will leave: the few at the front watch the whole
    queue, each of the others the one that stands as many places before it, which tells by its data when it goes.
    """
    for other in ahead:
        if disagree(mode, limit, other.mode, other.limit):
            return Decision(Verdict.CONFLICT, other)
    if mode is Mode.SEMAPHORE:
        if len(ahead) < (limit or 0):
            return Decision(Verdict.GO)
        front = min(limit or 0, FRONT_MAX)
        waiting = len(ahead) - (limit or 0)
        return Decision(Verdict.FRONT) if waiting < front else Decision(Verdict.WATCH, ahead[-front])
    for other in reversed(ahead):
        if mode is Mode.EXCLUSIVE or other.mode is Mode.EXCLUSIVE:
            return Decision(Verdict.WATCH, other)
    return Decision(Verdict.GO)


def record(request: Request, *, granted: bool) -> bytes:
    """What stands in a contender's node, for people. Whether it was granted is there for the permit behind it."""
    said: dict[str, Any] = {"name": request.name, "label": request.label, "at": round(time.time(), 3)}
    if granted:
        said["granted"] = True
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()


class Said(NamedTuple):
    """What a record of ours says to people."""

    name: str
    label: str
    at: float
    granted: bool


def read(data: bytes | None, lock: str) -> Said | None:
    """The record in `data`, of a contender under the node `lock`; None for one that we would not have written.

    Anybody could have written it: nothing in it is taken for granted, whatever its depth, length and shapes.
    """
    try:
        said = json.loads(data or b"")
        name, label, at = said["name"], said["label"], said["at"]
        label.encode()
        if type(at) not in (int, float) or not math.isfinite(at) or lock_node(name) != lock:
            return None
        return Said(name, label, float(at), said.get("granted") is True)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, MemoryError):
        return None


def ours(found: Any, lock: str) -> Said | None:
    """The record of a contender that was read as `found`: data and stat. None: it is foreign, it was not made by Narrowboat.

    A contender of ours goes with its session. One that stays was made by somebody else, whatever it says.
    """
    data, stat = found
    return read(data, lock) if stat.ephemeralOwner else None
