"""The data of a contender's node: a record for people, by which we also know our own nodes.

Only the flag of a granted permit matters to other contenders. Any program could have written a record, so every field is
checked before it is used.
"""

from __future__ import annotations

import json
import math
import time
from typing import Any, NamedTuple

from narrowboat.contract.locks import Request
from narrowboat_zookeeper.names import lock_node


def record(request: Request, *, granted: bool) -> bytes:
    """The data of a contender's node, for people. The flag `granted` is for the permit behind it."""
    said: dict[str, Any] = {"name": request.name, "label": request.label, "at": round(time.time(), 3)}
    if granted:
        said["granted"] = True
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()


class Said(NamedTuple):
    """The fields of one of our records."""

    name: str
    label: str
    at: float
    granted: bool


def read(data: bytes | None, lock: str) -> Said | None:
    """The record in `data`, of a contender under the node `lock`; None for one that we would not have written.

    Any program could have written it, so its depth, length and types are checked.
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
    """The record of a contender that was read as `found` (data and stat). None: it was not made by Narrowboat.

    Our contenders end with their session. A permanent node is foreign, whatever its data says.
    """
    data, stat = found
    return read(data, lock) if stat.ephemeralOwner else None
