"""Makes a failing history short: the events of the lock or message concerned, and no more of those than the rule needs.

Calls are left out in ever smaller groups, as in delta debugging (Zeller and Hildebrandt, "Simplifying and isolating
failure-inducing input", 2002), as long as the very same finding, word by word, remains.
"""

from __future__ import annotations

from collections.abc import Sequence

from narrowboat.conformance.histories.journal import Event, begun, in_order
from narrowboat.conformance.histories.verdict import Finding, judge

#: Judgements at most. Each one reads all that is left.
TRIALS = 300
#: Seconds before the first event whose faults are shown as well.
BEFORE = 10.0
#: The lists of ids in an event.
_IDS = ("ids", "failed", "unknown", "doubt")


def smallest(events: Sequence[Event], finding: Finding) -> list[Event]:
    """The fewest events that were found to show `finding`. Faults of the time around stay, as they explain it."""
    frame = [each for each in events if each["what"] in ("begins", "fault", "stood", "ended", "drained")]
    units = _units(events, finding)
    if not _shows(frame, units, finding):  # it needs more than what it is about
        return list(events)
    size, trials = max(1, len(units) // 2), 0
    while trials < TRIALS:
        start = 0
        while start < len(units) and trials < TRIALS:
            fewer = units[:start] + units[start + size :]
            trials += 1
            if fewer and _shows(frame, fewer, finding):
                units = fewer
            else:
                start += size
        if size == 1:
            break
        size //= 2
    plain = [event for event in frame if event["what"] != "stood"]
    return _around(plain if _shows(plain, units, finding) else frame, units)


def _shows(frame: Sequence[Event], units: Sequence[Sequence[Event]], finding: Finding) -> bool:
    return finding in judge(_merged(frame, units)).findings


def _merged(frame: Sequence[Event], units: Sequence[Sequence[Event]]) -> list[Event]:
    return in_order([*frame, *(event for unit in units for event in unit)])


def _around(frame: Sequence[Event], units: Sequence[Sequence[Event]]) -> list[Event]:
    """With the faults of that time, and not those long before or after."""
    first = min(begun(event) for unit in units for event in unit) - BEFORE
    last = max(float(event["at"]) for unit in units for event in unit)
    near = [
        event for event in frame if event["what"] in ("begins", "drained") or (event["at"] >= first and begun(event) <= last)
    ]
    return _merged(near, units)


def _units(events: Sequence[Event], finding: Finding) -> list[list[Event]]:
    """What can be left out as a whole: an acquire with all that followed, a message, or a call of a user."""
    calls = {event["call"]: event["name"] for event in events if event["what"] == "asks"}
    if finding.about in calls.values():
        of: dict[str, list[Event]] = {}
        for event in events:
            if calls.get(event.get("call", "")) == finding.about:
                of.setdefault(event["call"], []).append(event)
        return list(of.values())
    if any(event["user"] == finding.about for event in events):
        return [[event] for event in events if event["user"] == finding.about and event["what"] != "drained"]
    alike = {finding.about} | _neighbours(events, finding.about)
    messages: dict[str, list[Event]] = {id: [] for id in alike}
    for event in events:
        for id in alike & _named(event):
            messages[id].append(_only(event, id))
    return [each for each in messages.values() if each]


def _named(event: Event) -> set[str]:
    return {id for name in _IDS for id in event.get(name, ())}


def _neighbours(events: Sequence[Event], about: str) -> set[str]:
    """The messages of the same publisher and key."""
    key, user = next(((each["key"], each["user"]) for each in events if each.get("key") and about in _named(each)), ("", ""))
    return {id for each in events if key and each.get("key") == key and each["user"] == user for id in _named(each)}


def _only(event: Event, id: str) -> Event:
    """The event as far as it is about one message."""
    few = {**event, **{name: [each for each in event[name] if each == id] for name in _IDS if name in event}}
    if "attempts" in event:
        few["attempts"] = [attempt for each, attempt in zip(event["ids"], event["attempts"], strict=True) if each == id]
    return few
