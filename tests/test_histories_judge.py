"""The judge of histories with faults: what a correct backend records passes, and a history that breaks a rule is found."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import pytest
from histories import BOUNDS, BROKEN, Story, a_settled_message_again
from hypothesis import given, settings
from hypothesis import strategies as st

from narrowboat.conformance.histories.journal import Event
from narrowboat.conformance.histories.picture import picture
from narrowboat.conformance.histories.smallest import smallest
from narrowboat.conformance.histories.trouble import Trouble, overlap, union, without
from narrowboat.conformance.histories.verdict import judge


def rules(story: Story) -> set[str]:
    """The rules that it breaks."""
    return {finding.rule for finding in judge(story.events).findings}


# -- what a correct backend records ---------------------------------------------------------------------------------------


@st.composite
def sound(draw: st.DrawFn) -> Story:
    """One lock that is held in turn, by users that are killed as well, and a queue that gives each message until its ack."""
    story = Story()
    now = 1.0
    for number in range(draw(st.integers(0, 12))):
        user = f"p{draw(st.integers(0, 2))}.{number}.{draw(st.integers(0, 1))}"
        asked = now - draw(st.floats(0, 1))
        call = story.asks(asked, user=user)
        story.granted(now, call, number + 1)
        story.holds(now + 0.01, call)
        story.wrote(now + 0.02, call)
        end = draw(st.sampled_from(["release", "unknown", "kill"]))
        now += 0.1 + draw(st.floats(0, 1))
        if end == "kill":
            story.tell(now, "ended", process=user.rpartition(".")[0], killed=True)
            now += 4.5
        else:
            story.released(now, call, "" if end == "release" else "Unavailable")
            now += 0.0 if end == "release" else 4.5
    for number in range(draw(st.integers(0, 12))):
        id = f"m{number}"
        story.published(1.0 + number, id, key=draw(st.sampled_from([None, "a"])))
        deliveries = draw(st.integers(1, 3))
        for attempt in range(deliveries):
            at = 100 + number * 10 + attempt
            story.delivered(at, id, attempt + 1)
            last = attempt + 1 == deliveries
            story.settled(at + 0.5, id, "ack" if last else "nack", answered=last)
    story.drained(1000.0)
    return story


@given(sound())
def test_what_a_correct_backend_records_is_sound(story: Story) -> None:
    verdict = judge(story.events)

    assert verdict.findings == ()
    assert verdict.grants == sum(event["what"] == "granted" for event in story.events)
    assert verdict.messages == sum(event["what"] == "published" for event in story.events)


def test_an_empty_history_is_sound() -> None:
    assert judge([]).ok


# -- each rule, broken on purpose -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("breaks", BROKEN, ids=lambda breaks: breaks.__name__)
def test_a_history_that_was_broken_on_purpose_is_found(breaks: Callable[[Story], None]) -> None:
    """By its rule alone."""
    story = Story()
    breaks(story)

    assert rules(story) == {BROKEN[breaks]}


# -- what is no proof -----------------------------------------------------------------------------------------------------


def test_a_holder_that_was_stopped_before_its_look_is_no_second_holder() -> None:
    """Its grant is answered late, while another holds: its lease had ended, and it never believed."""
    story = Story()
    late = story.asks(1.0)
    story.fault(1.5, 5.9, "stop", stops="p0")
    story.held(5.5, 7.0, 2, user="p1.0.0")
    story.granted(6.0, late, 1)
    story.released(6.1, late, "LeaseLost")

    assert judge(story.events).ok


def test_a_write_after_the_lease_is_no_guarded_effect() -> None:
    story = Story()
    first = story.asks(1.0)
    story.granted(1.1, first, 1)
    story.holds(1.2, first)
    story.held(6.0, 7.0, 2, user="p1.0.0")
    story.wrote(8.0, first, valid=False)

    assert judge(story.events).ok


def test_a_deleted_record_ends_the_belief_of_its_holder() -> None:
    """It learns of that later, as declared; without the deletion the same history has two holders."""
    story = Story()
    story.held(1.0, 3.0, 1)
    story.held(2.0, 2.5, 2, user="p1.0.0")
    assert "one holder" in rules(story)

    story.fault(1.5, 1.6, "record deleted", "", deleted="x")
    assert rules(story) == set()


def test_who_waits_is_owed_nothing_while_its_connection_is_broken() -> None:
    story = Story()
    story.held(1.0, 2.0, 1, user="p1.0.0")
    call = story.asks(1.5)
    story.refused(9.0, call)
    assert "free in time" in rules(story)

    story.fault(1.2, 8.0)
    assert rules(story) == set()


@pytest.mark.parametrize("pause", [{"kind": "stop", "stops": "p0"}, None])
def test_a_call_is_not_counted_while_its_process_or_the_machine_stands_still(pause: dict[str, str] | None) -> None:
    story = Story()
    call = story.asks(1.0, allowed=0.5)
    story.refused(6.0, call, "Unavailable")
    assert rules(story) == {"bounded calls"}

    if pause is not None:
        story.fault(1.5, 5.0, **pause)
    else:
        story.tell(5.0, "stood", process="run", since=1.5, lost=3.0)
    assert rules(story) == set()


def test_a_release_without_an_answer_may_hold_for_a_lease() -> None:
    story = Story()
    call = story.asks(1.0)
    story.granted(1.1, call, 1)
    story.released(2.0, call, "Unavailable")
    waiting = story.asks(2.0, user="p1.0.0")
    story.refused(8.0, waiting)

    assert judge(story.events).ok


def test_what_is_asked_for_before_the_ack_may_come_after_it() -> None:
    """The consumer has had it for longer than the other: its process stood still."""
    story = Story()
    story.published(1.0, "m")
    story.delivered(3.0, "m", 2)
    story.settled(3.1, "m")
    story.delivered(4.0, "m", since=2.0)

    assert judge(story.events).ok


def test_a_message_that_was_not_waited_for_is_unknown() -> None:
    story = Story()
    story.published(1.0, "m")

    assert judge(story.events).ok
    assert judge(story.events).unknown == 1


def test_a_publisher_that_was_killed_leaves_what_may_come() -> None:
    story = Story()
    story.tell(1.0, "publishes", "p0.0.5", queue="q", key=None, ids=["m"])
    story.delivered(2.0, "m")
    story.settled(2.1, "m")
    story.drained(50.0)

    assert judge(story.events).ok


@pytest.mark.parametrize("end", ["server killed", "reset"])
@pytest.mark.parametrize("copies", [True, False])
def test_a_fault_may_leave_a_copy_where_that_is_declared(copies: bool, end: str) -> None:
    story = Story(BOUNDS._replace(copies=copies))
    story.published(1.0, "m")
    story.delivered(2.0, "m")
    story.settled(2.1, "m")
    story.fault(2.2, 4.0, end, "")
    story.delivered(6.0, "m", 1)

    assert judge(story.events).ok is copies


def test_what_was_published_after_the_fault_has_no_excuse() -> None:
    story = Story(BOUNDS._replace(copies=True))
    story.fault(0.2, 0.9, "server killed", "")
    a_settled_message_again(story)

    assert rules(story) == {"settled for good"}


# -- what is shown --------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5), st.integers(1, 4)), max_size=12))
def test_an_attempt_is_compared_with_all_that_ended_before_it(told: list[tuple[int, int, int]]) -> None:
    """As the rule's own words compare each pair."""
    story = Story()
    story.published(0.5, "m")
    for since, took, attempt in told:
        story.delivered(1.0 + since + took, "m", attempt, since=1.0 + since)

    goes_back = any(
        since + took < later and attempt >= other
        for (since, took, attempt), (later, _, other) in itertools.permutations(told, 2)
    )
    assert ("attempts grow" in rules(story)) == goes_back


def test_a_message_that_comes_for_ever_is_judged_in_time() -> None:
    """In pairs it would be 1,600 million comparisons."""
    story = Story()
    story.published(0.5, "m")
    for attempt in range(1, 40_001):
        story.delivered(1.0 + attempt / 100, "m", attempt)

    assert "attempts grow" not in rules(story)


@pytest.mark.parametrize("breaks", BROKEN, ids=lambda breaks: breaks.__name__)
@settings(max_examples=4, deadline=None)
@given(story=sound())
def test_a_broken_history_is_made_short_and_drawn(breaks: Callable[[Story], None], story: Story) -> None:
    """The short one shows the very same finding with no more than a few events, and its picture is one that a browser reads."""
    noisy = Story()
    noisy._events += [_elsewhere(event) for event in story.events if event["what"] not in ("begins", "ended", "drained")]
    breaks(noisy)
    (finding, *_) = judge(noisy.events).findings

    few = smallest(noisy.events, finding)

    assert finding in judge(few).findings
    alone = Story()
    breaks(alone)
    assert len(few) <= len(alone.events)
    svg = ElementTree.fromstring(picture(few, finding))
    assert svg.attrib["role"] == "img"
    assert svg.find("{http://www.w3.org/2000/svg}title") is not None
    assert finding.text[:20] in "".join(svg.itertext())


def _elsewhere(event: Event) -> Event:
    """The same event of other users, of another lock and of other messages."""
    moved = {**event, "user": "p9" + event["user"][2:], "process": "p9" + event["process"][2:]}
    moved |= {name: [f"other {id}" for id in event[name]] for name in ("ids", "failed", "unknown", "doubt") if name in event}
    if "call" in event:
        moved["call"] = "p9" + event["call"][2:]
    if "name" in event:
        moved["name"] = "other"
    if event.get("key"):
        moved["key"] = "other"
    return moved


# -- times ----------------------------------------------------------------------------------------------------------------

INTERVALS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)).map(lambda each: (each[0], each[0] + each[1])))


@given(INTERVALS, st.tuples(st.integers(0, 30), st.integers(0, 30)).map(sorted))
def test_what_is_left_of_a_time_is_what_nothing_takes(taken: list[tuple[int, int]], whole: list[int]) -> None:
    """Halves of a second stand for all moments between two whole ones."""
    begun, ended = whole
    left = without((begun, ended), union(taken))

    for half in range(0, 80):
        at = half / 2 + 0.25
        inside = begun < at < ended and not any(one < at < other for one, other in taken)
        assert any(one < at < other for one, other in left) == inside


@given(INTERVALS)
def test_a_union_has_the_same_moments_and_no_overlaps(intervals: list[tuple[int, int]]) -> None:
    joined = union(intervals)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(joined))
    for half in range(0, 100):
        at = half / 2 + 0.25
        assert any(one < at < other for one, other in joined) == any(one < at < other for one, other in intervals)


@given(st.lists(st.integers(1, 9), max_size=20), st.floats(0, 100), st.floats(0, 100))
def test_the_machines_pauses_are_counted_by_their_share(gaps: list[int], one: float, other: float) -> None:
    begun, ended = sorted((one, other))
    at = 0.0
    events: list[Event] = []
    for gap in gaps:
        at += gap
        events.append({"at": at + 1, "process": "run", "user": "", "what": "stood", "since": at, "lost": 0.5})
        at += 1
    expected = sum(0.5 * overlap((event["since"], event["at"]), (begun, ended)) for event in events)

    assert Trouble(events, BOUNDS).lost(begun, ended) == pytest.approx(expected)
