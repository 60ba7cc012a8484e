"""The journal of a history: one JSON line an event, written at once, so that a process that is killed keeps what it wrote.

Each process has a file of its own. `at` is the machine's monotonic clock, which all of its processes share. An event that is
the answer of a call has `since`, the time before the call.

| what | who | says |
|---|---|---|
| `begins` | the run | what the backend declares, and the bounds that are owed |
| `asks`, `granted`, `refused` | a contender | before and after an acquire; `call` names it from now on |
| `holds` | a contender | at this time the lock was its own, and will be until `until` by its own clock |
| `wrote` | a contender | a guarded effect, the `place`-th of all; `valid` if the lease had not ended after it |
| `releases`, `released` | a contender | before and after a release; `error` is empty or the error's name |
| `publishes`, `published` | a publisher | `ids`; after it those that are there, `failed` and `unknown` |
| `delivered` | a consumer | `ids` with their `attempts` |
| `settles`, `settled` | a consumer | `how`, `ids`; after it those that are settled, and `doubt` |
| `hindered` | any | a call that ended with an error that it may end with |
| `failed` | any | one that ended with another error |
| `fault` | the adversary | `kind`, `process` ("" is all of them), from `since` to `at` |
| `ended` | the adversary | a process was killed, or had nothing more to do |
| `stood` | the run | the machine stood still for `lost` seconds between `since` and `at` |
| `drained` | the run | nothing more came for long enough |
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Event = dict[str, Any]


class Journal:
    """Writes the events of one process."""

    def __init__(self, folder: Path, process: str) -> None:
        self.process = process
        self._file = os.open(folder / f"{process}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def tell(self, what: str, user: str = "", **values: Any) -> None:
        """Write an event. `at` is now unless it is given."""
        event = {"at": time.monotonic(), "process": self.process, "user": user, "what": what, **values}
        os.write(self._file, json.dumps(event, separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        """Close its file."""
        os.close(self._file)


class Effects:
    """What the locks guard: a file that every process appends to. The place of a line in it is its time."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / "effects", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self) -> int:
        """The place of the effect. Called from one thread of a process."""
        os.write(self._file, b".")
        return os.lseek(self._file, 0, os.SEEK_CUR)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def read(folder: Path) -> list[Event]:
    """The events of all processes, in the order of their times. A line that a kill cut off is left out."""
    found: list[Event] = []
    for path in folder.glob("*.jsonl"):
        with path.open(encoding="utf-8") as file:
            found += (json.loads(line) for line in file if line.endswith("}\n"))
    return in_order(found)


def begun(event: Event) -> float:
    """When it began: the answer of a call with the call."""
    return float(event["since"] if "since" in event else event["at"])


def in_order(events: Iterable[Event]) -> list[Event]:
    """By their times."""
    return sorted(events, key=_at)


def _at(event: Event) -> float:
    return float(event["at"])
