"""What a history shows: each broken rule with what it is about, counts, and the longest waits. A pure function of events."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from narrowboat.conformance.histories import deliveries, grants
from narrowboat.conformance.histories.journal import Event
from narrowboat.conformance.histories.trouble import Bounds, Trouble

#: The calls that are bounded, by the event that is their answer. The others name themselves by `call`.
ANSWERS = {"granted": "acquire", "refused": "acquire", "released": "release", "published": "publish", "settled": "settle"}


class Finding(NamedTuple):
    """A rule that does not hold."""

    rule: str
    text: str
    about: str  #: the lock's name, the message's id, or the user


@dataclasses.dataclass(frozen=True)
class Verdict:
    """See the module's text."""

    findings: tuple[Finding, ...]
    grants: int
    messages: int  #: confirmed ones, and those that were delivered though their publish had no answer
    deliveries: int
    unknown: int  #: messages of which it is not known whether they were lost, because the queue was not emptied
    faults: Mapping[str, int]
    longest: Mapping[str, float]  #: seconds, by what was waited for

    @property
    def ok(self) -> bool:
        """Whether every rule holds."""
        return not self.findings


def judge(events: Sequence[Event]) -> Verdict:
    """Judge events that are in the order of their times."""
    bounds = Bounds.of(events)
    trouble = Trouble(events, bounds)
    findings = [Finding("typed errors", f"{each['user']}: {each['error']}", each["user"]) for each in _all(events, "failed")]
    slow, longest = _calls(events, bounds, trouble)
    findings += slow
    locks = grants.judge(events, bounds, trouble)
    findings += [Finding(*each) for each in locks.broken]
    found = deliveries.judge(events, bounds)
    findings += [Finding(*each) for each in found.broken]
    return Verdict(
        findings=tuple(findings),
        grants=locks.grants,
        messages=found.messages,
        deliveries=found.deliveries,
        unknown=len(found.missing),
        faults=dict(sorted(Counter(each["kind"] for each in _all(events, "fault")).items())),
        longest={name: round(value, 3) for name, value in sorted({**longest, "free while waited for": locks.free}.items())},
    )


def _all(events: Sequence[Event], what: str) -> list[Event]:
    return [event for event in events if event["what"] == what]


def _calls(events: Sequence[Event], bounds: Bounds, trouble: Trouble) -> tuple[list[Finding], dict[str, float]]:
    """Calls that took longer than they may, not counting the time for which their process or the machine stood still."""
    longest: dict[str, float] = {}
    findings = []
    allowed = {event["call"]: event["allowed"] for event in events if event["what"] == "asks"}
    for event in events:
        name = ANSWERS.get(event["what"]) or (event.get("call") if event["what"] in ("extended", "hindered") else None)
        if name is None:
            continue
        took = trouble.running(event["process"], event["since"], event["at"])
        patience = allowed.get(event["call"], 0.0) if name == "acquire" else event.get("allowed", 0.0)
        longest[name] = max(longest.get(name, 0.0), took - patience)
        if took > patience + bounds.call:
            bound = f"{patience:g} s and {bounds.call:g} s more"
            text = f"{event['user']}: {name} took {took:.3f} s from {event['since']:.3f} on, and may take {bound}"
            findings.append(Finding("bounded calls", text, event["user"]))
    return findings, longest
