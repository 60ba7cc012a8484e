"""The row of one lock: its version, who holds it, and which writer waits. What is not ours in it is known here.

`v` is the version: each grant raises it, by a condition on the one that was seen, and takes it as its token. `h` has the
holders, each in a slot of its own with the lease as its time to live: `<token> <mode> <owner>`. `w` is the owner of one who
waits to exclude those that share. `about` says for people who took a slot and when.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from narrowboat.contract.locks import Grant, Holder, Mode, Request

#: Microseconds. A version further ahead of this machine's clock is nobody's that can be believed.
AHEAD = 86_400_000_000
_MODES = {"x": Mode.EXCLUSIVE, "s": Mode.SHARED, "m": Mode.SEMAPHORE}
_LETTERS = {mode: letter for letter, mode in _MODES.items()}


def microseconds() -> int:
    """The clock of this machine, as versions count."""
    return time.time_ns() // 1000


class Held(NamedTuple):
    """What a slot says of its holder."""

    token: int
    mode: Mode
    limit: int | None
    owner: str

    @classmethod
    def of(cls, terms: Request | Grant, token: int) -> Held:
        """What stands in the slot of a grant."""
        return cls(token, terms.mode, terms.limit, terms.owner)

    def pack(self) -> str:
        """The text of the slot."""
        return f"{self.token} {_LETTERS[self.mode]}{self.limit or ''} {self.owner}"

    @classmethod
    def unpack(cls, text: str) -> Held | None:
        """What the text says; None when it is none of ours."""
        parts = text.split(" ", 2)
        if len(parts) != 3 or not parts[1] or parts[1][0] not in _MODES or not parts[2].isprintable() or not parts[2]:
            return None
        token, size, mode = _number(parts[0]), _number(parts[1][1:]), _MODES[parts[1][0]]
        if token is None or (size is not None) is not (mode is Mode.SEMAPHORE) or (size is None and len(parts[1]) > 1):
            return None
        held = cls(token, mode, size, parts[2])
        return held if held.pack() == text else None


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 and int(text) > 0 else None


@dataclass
class State:
    """What is known of a row. A row that is not there is one without a version."""

    version: int | None = None
    held: dict[int, Held] = field(default_factory=dict)  #: by slot
    texts: dict[int, str] = field(default_factory=dict)  #: all slots, as they stand there
    writer: str | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any] | None) -> State:
        """From the columns of a row, or of a refused transaction."""
        if row is None:
            return cls()
        texts: dict[int, str] = dict((row.get("h") or {}).items())
        read = {slot: Held.unpack(text) for slot, text in sorted(texts.items())}
        held = {slot: each for slot, each in read.items() if each is not None and slot >= 0}
        return cls(row.get("v"), held, texts, row.get("w"))

    @property
    def foreign(self) -> dict[int, str]:
        """The slots that are not ours, with what stands in them."""
        return {slot: text for slot, text in self.texts.items() if slot not in self.held}

    @property
    def mad(self) -> bool:
        """Whether the version is none that an honest clock can have led to."""
        return self.version is not None and not 0 < self.version < microseconds() + AHEAD

    def slot_of(self, owner: str) -> int | None:
        """Where `owner` holds it."""
        return next((slot for slot, held in self.held.items() if held.owner == owner), None)

    def free_slot(self) -> int:
        """The lowest one without a holder."""
        return next(slot for slot in range(len(self.texts) + 1) if slot not in self.texts)


def next_version(seen: int | None) -> int:
    """The version of the next grant: greater than the one that was seen, and than every one of a row that is gone."""
    return max((seen or 0) + 1, microseconds())


def mark(slot: int, text: object) -> int:
    """The token by which people name what is not ours."""
    return zlib.crc32(f"{slot} {text}".encode("utf-8", "replace")) + 1


#: The slot that stands for the row itself, where its version cannot be believed.
WHOLE = -1


def about(request: Request) -> str:
    """What is kept of a holder for people."""
    return json.dumps([round(time.time(), 3), request.label, request.ttl])


def holders(row: Mapping[str, Any]) -> list[Holder]:
    """The holders of a row with its columns `name`, `about` and `written`, as `holders` shows them, and what is foreign."""
    state, name = State.of(row), str(row["name"])
    written = dict(zip(state.texts, row.get("written") or [], strict=False))
    notes = dict((row.get("about") or {}).items())
    found = [Holder(name, mark(WHOLE, state.version), "", Mode.EXCLUSIVE, None, 0.0, None, None, True)] if state.mad else []
    for slot, text in state.texts.items():
        held = state.held.get(slot)
        if held is None:
            found.append(Holder(name, mark(slot, text), "", Mode.EXCLUSIVE, None, 0.0, None, None, True))
        else:
            since, label, ttl = _note(notes.get(slot))
            left = None if ttl is None or slot not in written else written[slot] / 1e6 + ttl - time.time()
            shown = None if left is None or ttl is None else min(ttl, max(0.0, left))  # a node's clock against ours
            found.append(Holder(name, held.token, label, held.mode, held.limit, since, shown, None))
    return sorted(found, key=lambda holder: holder.token)


def _note(text: str | None) -> tuple[float, str, float | None]:
    """When, who, and for how long; what somebody else wrote there says nothing."""
    try:
        since, label, ttl = json.loads(text or "")
        if isinstance(label, str) and all(type(each) in (int, float) and 0 <= each < 1e12 for each in (since, ttl)):
            label.encode()
            return float(since), label, float(ttl)
    except (ValueError, TypeError, RecursionError):
        pass
    return 0.0, "", None
