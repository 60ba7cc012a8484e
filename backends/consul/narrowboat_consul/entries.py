"""The state of one lock in Consul's store: the entries under its folder, and the records in them."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from narrowboat.contract.locks import Holder, Mode, Request
from narrowboat_consul.keys import Keys, decode, encode, is_ours

#: Marks our entries, so that an entry of another program is known as foreign.
FLAGS = 0x6E62  # "nb"


class Record(NamedTuple):
    """The record in an entry. `owners`: those who share the lock, in the entry of the lock itself only."""

    name: str
    owner: str
    mode: Mode
    limit: int | None
    label: str
    since: float  #: seconds since the epoch, for people
    owners: tuple[str, ...] = ()

    @classmethod
    def of(cls, request: Request, since: float, owners: tuple[str, ...] = ()) -> Record:
        """The record of a contender; with `owners`, the record of the lock that they share."""
        owner = "" if owners else request.owner
        return cls(request.name, owner, request.mode, request.limit, request.label, since, owners)

    def pack(self) -> str:
        """The record as a transaction takes it: JSON in base64."""
        data = self._asdict() | {"mode": self.mode.value, "owners": list(self.owners)}
        return base64.b64encode(json.dumps(data, separators=(",", ":")).encode()).decode()

    @classmethod
    def unpack(cls, value: object) -> Record | None:
        """The record in an entry's value; None when it is not one of ours. The value may be anything."""
        try:
            data = json.loads(base64.b64decode(value or "", validate=True))  # type: ignore[arg-type]  # a TypeError is foreign, too
            record = cls(**data | {"mode": Mode(data["mode"]), "owners": tuple(data["owners"])})
            texts = [record.name, record.owner, record.label, *record.owners]
            "".join(texts).encode()
            size: Any = record.limit
            sized = type(size) is int and size > 0 if record.mode is Mode.SEMAPHORE else size is None
            timed = type(record.since) in (int, float) and math.isfinite(record.since)
            return record if sized and timed else None
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, MemoryError):
            return None


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of the store. `index` is the transaction that wrote it: it never changes within a generation."""

    key: str
    index: int
    session: str | None
    record: Record | None  #: None: the entry is foreign

    @classmethod
    def of(cls, data: dict[str, Any]) -> Entry:
        """From Consul's JSON. A record in a place where we would not have written it is foreign.

        A holder's or a waiter's entry has a session, and ends with it. Only the record of those who share a lock has none.
        """
        key, session = data["Key"], data.get("Session")
        record = Record.unpack(data.get("Value")) if data.get("Flags") == FLAGS else None
        if record is not None and not _placed(record, key, session):
            record = None
        return cls(key, data["ModifyIndex"], session, record)

    @property
    def foreign(self) -> bool:
        """Whether it stands in the place of one of our entries, and is not ours."""
        return self.record is None and is_ours(self.key)

    def shown(self) -> Holder | None:
        """The entry as `holders` shows it: a holder, or foreign. None for a waiter, and for the record of those who share."""
        kind, record = self.key.rpartition("/")[2], self.record
        if self.foreign:
            part = self.key.split("/")[-2][1:]
            mode = Mode.SHARED if kind.startswith("held") else Mode.EXCLUSIVE
            return Holder(decode(part) or part, self.index, "", mode, None, 0.0, None, None, foreign=True)
        if record is None or self.session is None or kind.startswith("wants"):
            return None
        return Holder(record.name, self.index, record.label, record.mode, record.limit, record.since, None, None)


def _placed(record: Record, key: str, session: str | None) -> bool:
    """Whether we would have written that record in that place."""
    *_, folder, kind = key.split("/")
    if folder != f"n{encode(record.name)}":
        return False
    if kind == "lock":
        return session is None or (bool(record.owner) and not record.owners)
    own = encode(record.owner)
    return session is not None and not record.owners and kind in (f"held{own}", f"wants{own}")


@dataclass
class State:
    """All entries of one lock."""

    lock: Entry | None = None
    foreign: list[Entry] = field(default_factory=list)  #: entries of other programs in the places of ours
    held: dict[str, Entry] = field(default_factory=dict)  #: those who share it, by owner
    wants: dict[str, Entry] = field(default_factory=dict)  #: those who wait for it to be shared no more, by owner

    @property
    def index(self) -> int:
        """The last transaction that wrote one of them; 0 when there is none."""
        entries = [*self.held.values(), *self.wants.values()] + ([self.lock] if self.lock else [])
        return max((entry.index for entry in entries), default=0)

    @property
    def owners(self) -> set[str]:
        """The holders, exclusive or sharing, and the waiters for those who share it."""
        alone = self.lock.record if self.lock is not None and self.lock.session is not None else None
        return {*self.held, *self.wants} | ({alone.owner} if alone is not None else set())

    @property
    def sharing(self) -> Record | None:
        """The record of those who share it; None while it is free or held exclusively."""
        lock = self.lock
        return lock.record if lock is not None and lock.session is None else None

    @property
    def sharers(self) -> list[str]:
        """The owners of `sharing` that are alive: the entry of one whose session ended has gone."""
        sharing = self.sharing
        return [owner for owner in sharing.owners if owner in self.held] if sharing else []


def read(entries: Iterable[Entry], keys: Keys) -> State:
    """The state of one lock, from entries of which some may be of other locks."""
    state = State()
    for entry in entries:
        if entry.foreign and entry.key.startswith(keys.folder):
            state.foreign.append(entry)
        if entry.key == keys.lock:
            state.lock = entry
        elif entry.key.startswith(keys.folder) and entry.record is not None:
            kind = entry.key[len(keys.folder) :]
            if kind.startswith("held"):
                state.held[entry.record.owner] = entry
            elif kind.startswith("wants"):
                state.wants[entry.record.owner] = entry
    return state
