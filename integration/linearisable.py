"""Whether the exclusive locks of a history are linearisable, as Porcupine says: a second opinion on the kit's own judge.

Porcupine (https://github.com/anishathalye/porcupine) searches for an order of all operations in which each happened at once,
somewhere between its call and its answer. The end of a lease is a release that nobody asked for: it happens at any time after
the holder's last belief. For tests, by name: `python -m integration.servers install porcupine`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from integration.servers import cache
from narrowboat.conformance.histories.grants import acquires, beliefs, exclusive_names
from narrowboat.conformance.histories.journal import Event

#: A time after all others.
NEVER = 2**62


def program() -> Path | None:
    """Where the program is; None when it is not installed."""
    found = cache.folder("porcupine") / "bin" / "porcupine"
    return found if found.exists() else None


def operations(events: Sequence[Event]) -> dict[str, list[dict[str, Any]]]:
    """The operations of each exclusive lock. Times are whole nanoseconds."""
    names = exclusive_names(acquires(events))
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for hold in beliefs(events):
        if hold.name in found and hold.granted is not None and hold.ended is not None:
            acquire = {"acquire": True, "token": hold.token, "call": _ns(hold.asked), "return": _ns(hold.granted)}
            release = {"acquire": False, "token": hold.token, "call": _ns(hold.ended), "return": NEVER}
            found[hold.name] += [acquire, release]
    return found


def linearisable(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, bool]:
    """What Porcupine says of each history."""
    done = subprocess.run(
        [str(program())], input=json.dumps(histories), capture_output=True, text=True, check=True, timeout=300
    )
    answers: dict[str, bool] = json.loads(done.stdout)
    return answers


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
