"""Judges what the contenders of a history were told. Pure functions.

The rules, per lock:

1. no two holders that exclude each other believe at once, and a semaphore never has more holders than permits;
2. tokens are given once, and agree with the order of real time and with that of the beliefs;
3. what is written under a valid lease never comes after what a later holder wrote;
4. nobody waits for longer than the declared bounds for a lock that nobody can hold.

A holder's belief lasts from the answer of its acquire to its last look that said so, each counted to its own disadvantage: the
time of an answer is taken after it, that of a look before it. What a killed process or a call without an answer may hold ends
one lease and its lag later. An operator who deletes a record ends the belief of those who hold at that moment: they learn of it
later, as declared. The first three rules are those of `checks.history`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from narrowboat.conformance.checks.history import EXCLUSIVE, Hold, Write, check
from narrowboat.conformance.histories.journal import Event
from narrowboat.conformance.histories.trouble import Bounds, Interval, Trouble, union, without


@dataclasses.dataclass(slots=True)
class Acquire:
    """One acquire, and what became of it."""

    name: str
    user: str
    process: str
    mode: str
    limit: int | None
    asked: float
    ttl: float
    waits: bool
    answered: float | None = None
    refused: str | None = None  #: the error's name, "" for a try that found it busy
    token: int | None = None
    granted: float | None = None
    believed: float | None = None  #: the last moment at which it knew that it held
    released: float | None = None
    certain: bool = False  #: the release was answered
    died: float | None = None  #: when its process was killed


class Found(NamedTuple):
    """What is broken (rule, text, lock), how many grants there were, and the longest wait for a free lock."""

    broken: list[tuple[str, str, str]]
    grants: int
    free: float


def judge(events: Sequence[Event], bounds: Bounds, trouble: Trouble) -> Found:
    """Judge the locks of a history."""
    found = acquires(events)
    deleted = _deletions(events, found)
    holds = beliefs(events)
    verdict = check(holds, list(_writes(events, deleted)))
    broken = [(_rule(text), text, text.partition(":")[0]) for text in (*verdict.violations, *_in_turn(holds))]
    longest = 0.0
    for name in deleted:
        for user, (begun, ended) in _waits([each for each in found if each.name == name], bounds, trouble):
            waited = ended - begun - trouble.lost(begun, ended)
            longest = max(longest, waited)
            if waited > bounds.free:
                text = f"{name}: {user} waited for {waited:.3f} s from {begun:.3f} on while nobody could hold it"
                broken.append(("free in time", f"{text} (bound {bounds.free:g} s)", name))
    return Found(broken, sum(each.granted is not None for each in found), longest)


def acquires(events: Sequence[Event]) -> list[Acquire]:
    """The acquires of a history, in the order in which they were asked for."""
    calls: dict[str, Acquire] = {}
    for event in events:
        what = event["what"]
        if what == "asks":
            calls[event["call"]] = Acquire(
                event["name"], event["user"], event["process"], event["mode"], event["limit"],
                asked=event["at"], ttl=event["ttl"], waits=event["allowed"] > 0,
            )  # fmt: skip
            continue
        if what == "ended":
            if event["killed"]:
                for each in calls.values():
                    if each.process == event["process"]:
                        each.died = event["at"]
            continue
        call = calls.get(event.get("call", ""))
        if call is None:
            continue
        if what == "refused":
            call.answered, call.refused = event["at"], event["error"]
        elif what == "granted":
            call.answered = call.granted = event["at"]
            call.token, call.ttl = event["token"], event["ttl"]
        elif what == "holds":
            call.believed = event["at"]
        elif what == "released":
            call.released, call.certain = event["at"], not event["error"]
    return list(calls.values())


def _rule(text: str) -> str:
    if "both held" in text or "held a semaphore" in text:
        return "one holder"
    return "guarded effects" if ": accepted token" in text else "fencing tokens"


def beliefs(events: Sequence[Event]) -> list[Hold]:
    """What each user surely believed, for `checks.history`."""
    found = acquires(events)
    deleted = _deletions(events, found)
    return [_belief(each, deleted[each.name]) for each in found]


def _deletions(events: Sequence[Event], found: Sequence[Acquire]) -> dict[str, list[float]]:
    """When the record of each lock was deleted by others."""
    deleted: dict[str, list[float]] = {each.name: [] for each in found}
    for event in events:
        if event["what"] == "fault" and event.get("deleted") in deleted:
            deleted[event["deleted"]].append(event["since"])
    return deleted


def _in_turn(holds: Sequence[Hold]) -> Iterator[str]:
    """Of two holders that exclude each other, the one that believed later has the greater token, whenever they asked."""
    largest: dict[tuple[str, bool], Hold] = {}  # by lock and by whether it was exclusive
    for hold in sorted((each for each in holds if each.granted is not None), key=lambda each: each.granted or 0.0):
        kind = hold.mode == EXCLUSIVE
        for before in (largest.get((hold.name, True)), largest.get((hold.name, False)) if kind else None):
            if before is not None and (hold.token or 0) <= (before.token or 0):
                yield f"{hold.name}: {hold.user} held after {before.user}, whose token is {before.token}, and got {hold.token}"
                break
        mine = largest.get((hold.name, kind))
        if mine is None or (hold.token or 0) > (mine.token or 0):
            largest[hold.name, kind] = hold


def _belief(each: Acquire, deletions: Sequence[float]) -> Hold:
    """What it surely believed. A grant without a look counts for nothing: it may have been lost before its answer."""
    hold = Hold(each.name, each.user, each.asked, each.mode, each.limit)
    if each.granted is None or each.believed is None or each.believed <= each.granted:
        hold.gave_up = each.answered
        return hold
    revoked = min((at for at in deletions if at >= each.asked), default=math.inf)
    if revoked <= each.granted:
        hold.gave_up = each.answered
        return hold
    hold.granted, hold.token, hold.ended = each.granted, each.token, min(each.believed, revoked)
    return hold


def _writes(events: Sequence[Event], deleted: dict[str, list[float]]) -> Iterator[Write]:
    """Those under a lease that was valid. The place in the resource's file is their time."""
    calls = {event["call"]: event for event in events if event["what"] == "asks"}
    tokens = {event["call"]: event["token"] for event in events if event["what"] == "granted"}
    for event in events:
        if event["what"] == "wrote" and event["call"] in tokens:
            asked = calls[event["call"]]
            name = asked["name"]
            revoked = any(asked["at"] <= at <= event["at"] for at in deleted[name])
            yield Write(name, tokens[event["call"]], event["place"], event["valid"] and not revoked)


def _waits(found: Sequence[Acquire], bounds: Bounds, trouble: Trouble) -> Iterator[tuple[str, Interval]]:
    """The times in which one user, with nothing wrong about it, waited while nobody could hold the lock."""
    held = union([_may_hold(each, bounds, trouble) for each in found if each.refused != "" or each.granted is not None])
    for each in found:
        if not each.waits:
            continue
        until = each.answered or each.died
        if until is None:
            continue
        for healthy in without((each.asked, until), trouble.bad(each.process)):
            for free in without(healthy, held):
                yield each.user, free


def _may_hold(each: Acquire, bounds: Bounds, trouble: Trouble) -> Interval:
    """From when to when it may hold at most."""
    lease = each.ttl + bounds.expiry_lag
    troubled = len(without((each.asked, each.answered or math.inf), trouble.bad(each.process))) != 1 or each.answered is None
    if each.granted is not None:
        begun = each.asked if troubled else each.granted
        if each.released is not None:
            return begun, each.released + (0.0 if each.certain else lease)
        return begun, math.inf if each.died is None else each.died + lease
    if each.answered is None:
        return each.asked, math.inf if each.died is None else each.died + lease
    if each.refused == "LockTimeout" and not troubled:
        return each.answered, each.answered
    return each.asked, each.answered + lease


def exclusive_names(found: Sequence[Acquire]) -> list[str]:
    """The locks that are only ever taken by one."""
    return sorted({each.name for each in found} - {each.name for each in found if each.mode != EXCLUSIVE or each.limit})
