"""The data of a contender's node: what it says to people, and whether it is ours.

Only the flag of a granted permit means anything to other contenders. Anybody could have written a record, so nothing in one is
believed before it was checked.
"""

from __future__ import annotations

import json
import math
import time
from typing import Any, NamedTuple

from narrowboat.contract.locks import Request
from narrowboat_zookeeper.names import lock_node


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
