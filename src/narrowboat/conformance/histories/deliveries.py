"""Judges what the publishers and consumers of a history were told. Pure functions.

The rules:

1. a message whose publish returned is delivered, and delivered again until it is settled, once its queue was emptied;
2. nothing is delivered that was not published, or whose publish was refused;
3. nothing is handed out that was settled for good, by an ack or a reject that was answered, before it was asked for;
4. each attempt has a greater number than those that ended before it began;
5. in an ordered queue, the messages of a key come first in the order in which one publisher was told that they are there.

Some backends (`Bounds.copies`) forget a settlement with their server, or publish again what goes back and settle the original
after that. There a fault excuses what was published before it: a copy, or an original, may come after the settlement of the
other, with its own count of attempts.

A delivery is somewhere between the moment at which its consumer asked and the one at which it had it. Where the two lie on both
sides of another event, nothing is concluded. The first three rules are those of `checks.history_queues`.
"""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from narrowboat.conformance.checks.history_queues import Event as Told
from narrowboat.conformance.checks.history_queues import History, What, check
from narrowboat.conformance.histories.journal import Event
from narrowboat.conformance.histories.trouble import HARMLESS, Bounds

#: Settlements after which a message is not delivered again.
FINAL = ("ack", "reject")


class Found(NamedTuple):
    """What is broken (rule, text, id), and counts."""

    broken: list[tuple[str, str, str]]
    messages: int
    deliveries: int
    missing: tuple[str, ...]


class Delivered(NamedTuple):
    """One delivery of one message."""

    since: float
    at: float
    attempt: int
    queue: str
    user: str


def judge(events: Sequence[Event], bounds: Bounds) -> Found:
    """Judge the messages of a history."""
    broken: list[tuple[str, str, str]] = []
    faults = [each["since"] for each in events if each["what"] == "fault" and each["kind"] not in HARMLESS]
    handed, settled = _deliveries(events), _settled(events)
    began = {id: each["at"] for each in events if each["what"] == "publishes" for id in each["ids"]}
    there = {id for event in events if event["what"] == "published" for id in event["ids"]}
    missing: tuple[str, ...] = ()
    for queue in sorted({each["queue"] for each in events if "queue" in each}):
        drained = any(each["what"] == "drained" and each["queue"] == queue for each in events)
        verdict = check(History(_told(events, queue)), drained=drained)
        missing += verdict.missing
        broken += [("none lost", f"{id} was published to {queue} and never delivered", id) for id in verdict.lost]
        broken += [("none lost", f"{id} was handed out, never settled, and did not come again", id) for id in verdict.unsettled]
        broken += [
            ("none from nowhere", f"{id} was delivered, and its publish refused or never made", id) for id in verdict.unexpected
        ]
        for id in verdict.after_ack:
            at = settled[id]
            late = next(each for each in handed[id] if each.since > at)
            if not (bounds.copies and any(began.get(id, 0.0) <= fault <= late.at for fault in faults)):
                text = f"{id} was settled at {at:.3f}, and {late.user}, who asked at {late.since:.3f}, had it at {late.at:.3f}"
                broken.append(("settled for good", text, id))
    broken += _attempts(handed, faults if bounds.copies else ())
    if bounds.ordered:
        broken += _order(events, handed)
    return Found(broken, len(there | set(handed)), sum(map(len, handed.values())), missing)


def _settled(events: Sequence[Event]) -> dict[str, float]:
    """When it was first answered that a message is settled for good."""
    found: dict[str, float] = {}
    for event in events:
        if event["what"] == "settled" and event["how"] in FINAL:
            for id in event["ids"]:
                found.setdefault(id, event["at"])
    return found


def _deliveries(events: Sequence[Event]) -> dict[str, list[Delivered]]:
    found: dict[str, list[Delivered]] = {}
    for event in events:
        if event["what"] == "delivered":
            for id, attempt in zip(event["ids"], event["attempts"], strict=True):
                found.setdefault(id, []).append(Delivered(event["since"], event["at"], attempt, event["queue"], event["user"]))
    return found


def _told(events: Sequence[Event], queue: str) -> Iterator[Told]:
    """The events as `checks.history_queues` takes them: a delivery stands where it was asked for, all else where it ended."""
    placed: list[tuple[float, int, Told]] = []
    count = itertools.count()
    answered: set[str] = set()
    for event in events:
        if event.get("queue") == queue and event["what"] == "published":
            answered.update(event["ids"], event["failed"], event["unknown"])
    for event in events:
        if event.get("queue") != queue:
            continue
        what, at = event["what"], event["at"]
        if what == "publishes":  # without an answer, where the publisher was killed
            placed += [(at, next(count), Told(What.UNCERTAIN, id)) for id in event["ids"] if id not in answered]
        elif what == "published":
            for kind, ids in (
                (What.PUBLISHED, event["ids"]),
                (What.UNCERTAIN, event["unknown"]),
                (What.FAILED, event["failed"]),
            ):
                placed += [(at, next(count), Told(kind, id)) for id in ids]
        elif what == "delivered":
            placed += [(event["since"], next(count), Told(What.DELIVERED, id)) for id in event["ids"]]
        elif what == "settles" and event["how"] in FINAL:  # it may be settled from now on
            placed += [(at, next(count), Told(What.ACK_UNKNOWN, id)) for id in event["ids"]]
        elif what == "settled" and event["how"] in FINAL:
            placed += [(at, next(count), Told(What.ACKED, id)) for id in event["ids"]]
    for _, _, told in sorted(placed):
        yield told


def _attempts(handed: Mapping[str, list[Delivered]], forgotten: Sequence[float]) -> Iterator[tuple[str, str, str]]:
    """`forgotten`: the faults that leave copies, which have their own counts: what came after the first of them is excused."""
    excused = min(forgotten, default=math.inf)
    for id, found in handed.items():
        ended = collections.deque(sorted(found, key=lambda each: each.at))
        highest: Delivered | None = None  # of those that ended before this one was asked for
        for each in sorted(found, key=lambda each: each.since):
            while ended[0].at < each.since:
                over = ended.popleft()
                highest = over if highest is None or over.attempt > highest.attempt else highest
            if highest is not None and each.attempt <= highest.attempt and each.at < excused:
                text = f"{id} had attempt {highest.attempt} at {highest.at:.3f} and attempt {each.attempt} at {each.at:.3f}"
                yield "attempts grow", text, id
                break


def _order(events: Sequence[Event], handed: Mapping[str, list[Delivered]]) -> Iterator[tuple[str, str, str]]:
    """Of one publisher and key: each message against the latest first delivery among those that were published before it."""
    chains: dict[tuple[str, str], list[str]] = {}
    for event in events:
        if event["what"] == "published" and event["key"] is not None:
            chains.setdefault((event["user"], event["key"]), []).extend(event["ids"])
    for (_, key), ids in chains.items():
        latest: tuple[float, str] = (0.0, "")  # when the last of the earlier ones was asked for, at its first delivery
        for id in ids:
            if id not in handed:
                continue
            first = min(handed[id], key=lambda each: each.at)
            if first.at < latest[0]:
                yield (
                    "order of a key",
                    f"{id} of key {key} came at {first.at:.3f}, before {latest[1]}, which was published earlier",
                    id,
                )
            latest = max(latest, (first.since, id))
