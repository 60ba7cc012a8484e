"""Locks on the wire: what a client asks, and what it is answered, as arrays in a fixed order.

a wish    [name, owner, ttl, mode, limit, wait, label]
a grant   [name, owner, token, ttl, mode, limit]
a holder  [name, token, label, mode, limit, acquired_at, expires_in, waiters, foreign]
answers   to an attempt or renewal: ["granted", token, ttl], ["busy", retry_after], ["error", ...];
          to a release: "released", "not held", ["error", ...]; to a withdrawal: null, ["error", ...]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from narrowboat.contract.locks import Busy, Grant, Holder, Mode, Released, Request
from narrowboat.errors import NarrowboatError
from narrowboat_zeromq.protocol import fields
from narrowboat_zeromq.protocol.faults import from_wire, to_wire
from narrowboat_zeromq.protocol.frames import Malformed

_MODES = {mode.value: mode for mode in Mode}
_RELEASED = {each.value: each for each in Released}
#: Seconds: more than any backend's lease may last.
_TTL_MAX = 10 * 365 * 86400.0


def wish(request: Request) -> list[Any]:
    """A request for a lock, for the wire; `wake` stays here."""
    name, owner, ttl, mode, limit, wait, _, label = request
    return [name, owner, ttl, mode.value, limit, wait, label]


def request(value: object, wake: Callable[[str], Callable[[], None]]) -> Request:
    """A wish, off the wire. `wake`: what wakes the owner of that name."""
    name, owner, ttl, mode, limit, wait, label = fields.row("request", value, 7)
    found = fields.one_of("mode", mode, _MODES)
    who = fields.text("owner", owner)
    return Request(
        fields.text("name", name),
        who,
        fields.number("ttl", ttl, 0.001, _TTL_MAX),
        found,
        _limit(found, limit),
        fields.flag("wait", wait),
        wake(who),
        fields.words("label", label, 1000),
    )


def granted(grant: Grant) -> list[Any]:
    """A grant, for the wire."""
    name, owner, token, ttl, mode, limit = grant
    return [name, owner, token, ttl, mode.value, limit]


def grant(value: object) -> Grant:
    """A grant, off the wire."""
    name, owner, token, ttl, mode, limit = fields.row("grant", value, 6)
    found = fields.one_of("mode", mode, _MODES)
    return Grant(
        fields.text("name", name),
        fields.text("owner", owner),
        fields.whole("token", token),
        fields.number("ttl", ttl, 0.001, _TTL_MAX),
        found,
        _limit(found, limit),
    )


def _limit(mode: Mode, limit: object) -> int | None:
    if mode is Mode.SEMAPHORE:
        return fields.whole("limit", limit, 1)
    if limit is not None:
        raise Malformed("limit: only a semaphore has one")
    return None


def answer(found: object) -> Any:
    """What became of one item, for the wire."""
    if isinstance(found, Grant):
        return ["granted", found.token, found.ttl]
    if isinstance(found, Busy):
        return ["busy", found.retry_after]
    if isinstance(found, Released):
        return found.value
    return None if found is None else to_wire(found)


def taken(value: object, asked: Request | Grant) -> Grant | Busy | NarrowboatError:
    """What became of an attempt or a renewal, off the wire."""
    what, *rest = fields.rows("answer", value)
    if what == "granted":
        token, ttl = fields.row("grant", rest, 2)
        return Grant(asked.name, asked.owner, fields.whole("token", token), fields.finite("ttl", ttl), asked.mode, asked.limit)
    if what == "busy":
        return Busy(fields.finite("retry_after", *rest))
    return from_wire(value)


def released(value: object) -> Released | NarrowboatError:
    """What became of a release, off the wire."""
    return from_wire(value) if isinstance(value, list) else fields.one_of("release", value, _RELEASED)


def shown(holder: Holder) -> list[Any]:
    """A holder, for the wire."""
    values = dataclasses.astuple(holder)
    return [*values[:3], holder.mode.value, *values[4:]]


def holder(value: object) -> Holder:
    """A holder, off the wire."""
    name, token, label, mode, *rest = fields.row("holder", value, 9)
    return Holder(name, token, label, fields.one_of("mode", mode, _MODES), *rest)
