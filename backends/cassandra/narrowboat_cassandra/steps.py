"""What to do next about one lock, given what was seen of its row: decisions without I/O.

Each step is one conditional statement. Its conditions repeat what the decision was made on, so that a row which has changed
meanwhile refuses it, and shows what it is now. The version is in every condition of a step that takes: when it has been
raised, no step that was decided before can be done any more, however late it arrives.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from narrowboat.contract.locks import Grant, Mode, Request
from narrowboat.driver.admission import admitted, conflict, disagree
from narrowboat_cassandra.rows import WHOLE, Held, State, about, mark, next_version

#: Seconds that a row outlives its last lease, so that a late step still finds its version.
REST = 90_000
#: Seconds for which new owners may not share after the last look of a writer who waits.
WRITER = 5
#: Seconds by which a lease is longer in the row: Cassandra counts whole ones, of which the first has begun.
ROUNDING = 2.0

_TAKE = (
    "BEGIN BATCH UPDATE {{table}} USING TTL ? SET v=?, about[?]=?{more} {{here}} IF v=?{only}; "
    "UPDATE {{table}} USING TTL ? SET h[?]=? {{here}}; APPLY BATCH"
)
#: The statements, by name. `{table}` is the table with its keyspace, `{here}` is `HERE`.
STATEMENTS = {
    "take": _TAKE.format(more=", w=null", only=" AND h=null"),
    "share": _TAKE.format(more="", only=" AND h=null AND w=null"),
    "join": _TAKE.format(more="", only=" AND w=null"),
    "keep": "UPDATE {table} USING TTL ? SET h[?]=? {here} IF h[?]=?",
    "free": "DELETE h[?] FROM {table} {here} IF h[?]=?",
    "bump": "UPDATE {table} USING TTL ? SET v=?, h[?]=null {here} IF v=?",
    "want": "UPDATE {table} USING TTL ? SET w=? {here} IF v=?",
    "unwant": "UPDATE {table} SET w=null {here} IF w=?",
    "drop": "DELETE FROM {table} {here} IF v=?",
    "look": "SELECT v, h, w FROM {table} {here}",
    "peek": "SELECT v, h, w FROM {table} {here}",
    "show": "SELECT name, v, h, about, WRITETIME(h) AS written FROM {table} {here}",
    "show_all": "SELECT name, v, h, about, WRITETIME(h) AS written FROM {table} WHERE prefix=? ALLOW FILTERING",
}
HERE = "WHERE prefix=? AND name=?"


class Do(NamedTuple):
    """Send this statement. `held`, `slot`: what is granted, and where, when it is done."""

    name: str
    values: tuple[Any, ...]
    held: Held | None = None
    slot: int | None = None


class Wait(NamedTuple):
    """Others hold the lock."""


class Refuse(NamedTuple):
    """The lock cannot be had in this mode or size. The text says why."""

    text: str


def seconds(ttl: float) -> int:
    """The time to live of a lease of `ttl` seconds: never shorter.

    >>> seconds(2.0), seconds(0.5)
    (3, 2)
    """
    return math.ceil(ttl) + 1


class Steps:
    """The steps in one namespace."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def take(self, request: Request, state: State, *, announced: bool = False) -> Do | Wait | Refuse:
        """The step by which `request` takes the lock, or holds it again. `announced`: the row says that it waits."""
        mine = state.slot_of(request.owner)
        if mine is not None:
            return self.keep(request.name, mine, state.held[mine], request.ttl)
        if state.foreign or state.mad:
            return Refuse(_foreign(request.name, state))
        first = next(iter(state.held.values()), None)
        if first is not None and disagree(request.mode, request.limit, first.mode, first.limit):
            return Refuse(conflict(request.name, request.mode, request.limit, first.mode, first.limit))
        ahead = state.writer not in (None, request.owner)
        holding = first.mode if first is not None else None
        if not admitted(request.mode, request.limit, holding=holding, held=len(state.held), ahead=0, writer_ahead=ahead):
            wants = request.mode is Mode.EXCLUSIVE and request.wait and holding is Mode.SHARED
            if wants and not ahead and not announced:
                return Do("want", (WRITER, request.owner, self._prefix, request.name, state.version))
            return Wait()
        return self._take(request, state)

    def _take(self, request: Request, state: State) -> Do:
        held = Held.of(request, next_version(state.version))
        slot, lease = state.free_slot(), seconds(request.ttl)
        name = "take" if request.mode is Mode.EXCLUSIVE else "join" if state.held else "share"
        here = (self._prefix, request.name)
        first = (lease + REST, held.token, slot, about(request), *here, state.version)
        return Do(name, (*first, lease, slot, held.pack(), *here), held, slot)

    def keep(self, name: str, slot: int, held: Held, ttl: float) -> Do:
        """The step by which a lease begins afresh."""
        text = held.pack()
        return Do("keep", (seconds(ttl), slot, text, self._prefix, name, slot, text), held, slot)

    def free(self, name: str, slot: int, text: str) -> Do:
        """The step by which a slot with this text becomes free."""
        return Do("free", (slot, self._prefix, name, slot, text))

    def withdraw(self, request: Request, state: State) -> Do | None:
        """The step after which `request` holds nothing, and no earlier step of it can be done any more."""
        slot = state.slot_of(request.owner)
        if state.mad and slot is None:
            return None  # that version is none of which an earlier step was decided
        bumped = next_version(None if state.mad else state.version)
        slot = len(state.texts) + 1 if slot is None else slot  # one without a holder: freeing it changes nothing
        return Do("bump", (seconds(request.ttl) + REST, bumped, slot, self._prefix, request.name, state.version))

    def unwant(self, request: Request) -> Do:
        """The step by which a writer no longer waits."""
        return Do("unwant", (self._prefix, request.name, request.owner))

    def look(self, name: str, *, sure: bool = True) -> Do:
        """The step that looks. Without `sure` it sees all that was answered, but does not finish what is under way."""
        return Do("look" if sure else "peek", (self._prefix, name))

    def show(self, name: str | None) -> Do:
        """The step that looks for people."""
        return Do("show", (self._prefix, name)) if name is not None else Do("show_all", (self._prefix,))

    def evict(self, name: str, token: int, state: State) -> Do | None:
        """The step that breaks the generation `token`, or removes what is foreign by that mark."""
        if state.mad and mark(WHOLE, state.version) == token:
            return Do("drop", (self._prefix, name, state.version))
        for slot, text in state.texts.items():
            if token == (state.held[slot].token if slot in state.held else mark(slot, text)):
                return self.free(name, slot, text)
        return None


def slot_for(grant: Grant, state: State) -> int | None:
    """Where a grant is that another driver may have made."""
    return next((slot for slot, held in state.held.items() if held == Held.of(grant, grant.token)), None)


def _foreign(name: str, state: State) -> str:
    if state.foreign:
        slot, text = next(iter(state.foreign.items()))
        what, token = f"slot {slot} of its row", mark(slot, text)
    else:
        what, token = "the version of its row", mark(WHOLE, state.version)
    return (
        f"lock {name!r}: {what} was not written by Narrowboat, or was damaged, or a clock was wrong by more than a day. "
        f"Nothing was granted. Look at it with holders(), remove it with evict({name!r}, {token}), or take another prefix."
    )
