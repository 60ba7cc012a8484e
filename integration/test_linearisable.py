"""Porcupine and the kit's judge agree on histories of locks: on those of a real backend, on broken ones and on random ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.linearisable import linearisable, operations, program
from narrowboat.conformance import Harness
from narrowboat.conformance.histories import history
from narrowboat.conformance.histories import journal as journals
from narrowboat.conformance.histories.journal import Event
from narrowboat.conformance.histories.verdict import judge
from tests.histories import BROKEN, Story

#: The rules that a register shows. It knows nothing of bounds, and not when a guarded effect was.
RULES = {"one holder", "fencing tokens"}


@pytest.fixture(autouse=True)
def _installed() -> None:
    if program() is None:
        pytest.skip("Porcupine is not installed: python -m integration.servers install porcupine (needs Go 1.25)")


def agreed(histories: dict[str, list[Event]]) -> Iterator[tuple[str, bool, bool]]:
    """Of each history: its name, whether Porcupine finds it linearisable, and whether the judge finds nothing."""
    asked = {f"{name} {lock}": found for name, events in histories.items() for lock, found in operations(events).items()}
    answers = linearisable(asked)
    for name, events in histories.items():
        said = all(answer for key, answer in answers.items() if key.startswith(f"{name} "))
        yield name, said, not any(finding.rule in RULES for finding in judge(events).findings)


def test_a_backends_history_is_linearisable(tmp_path: Path) -> None:
    """Both say so of the same events, and neither does once one holder has the token of an earlier one."""
    result = history(Harness("memory://linearisable"), seconds=5, seed=1, folder=tmp_path, halves=["locks"], keep=True)
    events = journals.read(tmp_path / "memory-1")
    assert result.verdict.grants > 20

    assert list(agreed({"whole": events})) == [("whole", True, True)]
    first, *_, last = (hold for hold in operations(events)["x0"] if hold["acquire"])
    next(event for event in events if event.get("token") == last["token"])["token"] = first["token"]
    assert list(agreed({"whole": events})) == [("whole", False, False)]


@pytest.mark.parametrize("breaks", BROKEN, ids=lambda breaks: breaks.__name__)
def test_what_is_broken_on_purpose_is_found_by_both(breaks: Callable[[Story], None]) -> None:
    story = Story()
    breaks(story)
    if any(event.get("limit") for event in story.events):
        pytest.skip("a semaphore is no register")
    broken = BROKEN[breaks] in RULES

    assert list(agreed({"it": story.events})) == [("it", not broken, not broken)]


def test_both_say_the_same_of_random_histories() -> None:
    """Of 400 with a few holds each, of which some are sound."""
    answers = list(agreed({f"{number}": _random(random.Random(number)) for number in range(400)}))

    assert [name for name, theirs, ours in answers if theirs is not ours] == []
    assert 40 < sum(theirs for _, theirs, _ in answers) < 360


def _random(draw: random.Random) -> list[Event]:
    """Two to four exclusive holds at random times; mostly one after the other, and with growing tokens."""
    story = Story()
    now, token = 1.0, 1
    for number in range(draw.randint(2, 4)):
        asked = now - draw.choice((0.0, 0.5, 3.0))
        call = story.asks(max(0.1, asked), user=f"p{number}.0.0")
        granted = now + draw.choice((0.1, 0.2))
        story.granted(granted, call, token)
        ended = granted + draw.choice((0.1, 1.0))
        story.holds(ended, call)
        story.released(ended + 0.01, call)
        now = ended + draw.choice((0.1, 0.1, 0.1, -0.5))
        token += draw.choice((1, 1, 1, 1, -1))
    return story.events
