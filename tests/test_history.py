"""The checker of lock histories: legal histories pass, each kind of violation is found, and it agrees with plain definitions.

The checker sorts and sweeps. Beside it stand the rules as they are written, every pair against every other: slow, and easy
to believe. Generated histories, sound or not, must get the same answer from both.
"""

from __future__ import annotations

import itertools
import math
import operator
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from narrowboat.conformance.checks.history import Hold, Recorder, Write, check

EXCLUSIVE, SHARED, SEMAPHORE = "exclusive", "shared", "semaphore"


class Ticks:
    """A clock that shows another moment at each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


# -- histories that a correct lock makes ----------------------------------------------------------------------------


@st.composite
def legal(draw: st.DrawFn, modes: tuple[str, ...] = (EXCLUSIVE, SHARED, SEMAPHORE)) -> Recorder:
    """What the users of a correct lock record: they ask, are granted as the modes allow, leave, give up, or go silent."""
    recorder = Recorder(Ticks())
    limit = draw(st.integers(1, 3))
    kinds = {"a": (EXCLUSIVE, SHARED), "s": (SEMAPHORE,)}
    waiting: list[Hold] = []
    holding: list[Hold] = []
    tokens = itertools.count(1)

    def fits(hold: Hold) -> bool:
        others = [other for other in holding if other.name == hold.name]
        if hold.mode == SEMAPHORE:
            return len(others) < limit
        return all(hold.mode == other.mode == SHARED for other in others)

    for number in range(draw(st.integers(0, 60))):
        ready = [hold for hold in waiting if fits(hold)]
        moves = ["ask"] + ["grant"] * 2 * bool(ready) + ["end"] * bool(holding) + ["leave"] * bool(waiting)
        move = draw(st.sampled_from(moves))
        if move == "ask":
            name = draw(st.sampled_from(sorted(kinds)))
            mode = draw(st.sampled_from([mode for mode in kinds[name] if mode in modes] or [EXCLUSIVE]))
            waiting.append(recorder.asks(name, f"user {number}", mode=mode, limit=limit if mode == SEMAPHORE else None))
        elif move == "grant":
            hold = draw(st.sampled_from(ready))
            waiting.remove(hold)
            token = next(tokens)
            recorder.granted(hold, token)
            holding.append(hold)
            if hold.mode == EXCLUSIVE:
                recorder.wrote(hold.name, token, accepted=True)
        elif move == "end":
            hold = draw(st.sampled_from(holding))
            holding.remove(hold)
            if draw(st.booleans()):
                recorder.ends(hold)
            else:  # killed: others get it all the same, and nobody knows until when it believed
                recorder._clock()
        else:
            hold = draw(st.sampled_from(waiting))
            waiting.remove(hold)
            if draw(st.booleans()):
                recorder.gives_up(hold)
    return recorder


@given(legal())
def test_what_a_correct_lock_does_is_sound(recorder: Recorder) -> None:
    verdict = check(recorder.holds, recorder.writes)

    assert verdict.violations == ()
    assert verdict.ok
    assert verdict.grants == sum(hold.granted is not None for hold in recorder.holds)
    assert verdict.unknown == sum(hold.ended is None and hold.gave_up is None for hold in recorder.holds)


def test_an_empty_history_is_sound() -> None:
    verdict = check([])
    assert verdict.ok
    assert (verdict.grants, verdict.unknown, verdict.longest_free) == (0, 0, 0.0)


# -- each kind of violation -----------------------------------------------------------------------------------------


def exclusive_in_turn(recorder: Recorder) -> list[Hold]:
    """The holds of `a` that had an end, in the order of their grants."""
    found = [hold for hold in recorder.holds if hold.name == "a" and None not in (hold.granted, hold.ended)]
    return sorted(found, key=operator.attrgetter("granted"))


@given(legal(modes=(EXCLUSIVE,)), st.data())
def test_two_that_believe_at_once_are_found(recorder: Recorder, data: st.DataObject) -> None:
    holds = exclusive_in_turn(recorder)
    if len(holds) < 2:
        return
    place = data.draw(st.integers(0, len(holds) - 2))
    first, second = holds[place], holds[place + 1]
    first.ended = second.granted + 0.5  # type: ignore[operator]  # both were granted

    found = [text for text in check(recorder.holds).violations if "both held" in text]
    assert any(f"{second.user} (token {second.token}) and {first.user} (token {first.token})" in text for text in found)


@given(legal(), st.data())
def test_a_token_given_twice_is_found(recorder: Recorder, data: st.DataObject) -> None:
    holds = [hold for hold in recorder.holds if hold.granted is not None and hold.name == "s"]
    if len(holds) < 2:
        return
    one, other = data.draw(st.permutations(holds))[:2]
    one.token = other.token

    assert any(f"token {other.token} was given to" in text for text in check(recorder.holds).violations)


@given(legal(modes=(EXCLUSIVE,)), st.data())
def test_a_token_that_shrinks_is_found(recorder: Recorder, data: st.DataObject) -> None:
    holds = exclusive_in_turn(recorder)
    pairs = [(one, other) for one in holds for other in holds if one.granted < other.asked]  # type: ignore[operator]  # all were granted
    if not pairs:
        return
    earlier, later = data.draw(st.sampled_from(pairs))
    earlier.token, later.token = later.token, earlier.token

    assert any("asked after" in text for text in check(recorder.holds).violations)


@given(legal())
def test_a_permit_too_many_is_found(recorder: Recorder) -> None:
    for hold in recorder.holds:
        if hold.limit is not None:
            hold.limit -= 1
    most = max_together([hold for hold in recorder.holds if hold.mode == SEMAPHORE])
    allowed = max((hold.limit for hold in recorder.holds if hold.limit is not None), default=0)

    found = any("held a semaphore of" in text for text in check(recorder.holds).violations)
    assert found == (most > allowed)


def max_together(holds: list[Hold]) -> int:
    def believed(hold: Hold, at: float) -> bool:
        return hold.granted is not None and hold.granted <= at < (hold.ended or hold.granted + 0.5)

    return max((sum(believed(hold, at.granted) for hold in holds) for at in holds if at.granted is not None), default=0)


def test_a_reader_beside_a_writer_is_found_and_readers_are_not() -> None:
    def hold(user: str, mode: str, granted: float, token: int) -> Hold:
        return Hold("a", user, granted - 1, mode, granted=granted, token=token, ended=granted + 10)

    readers = [hold("one", SHARED, 1, 1), hold("two", SHARED, 2, 2)]
    assert check(readers).ok
    assert len(check([*readers, hold("writer", EXCLUSIVE, 3, 3)]).violations) == 1
    assert len(check([hold("writer", EXCLUSIVE, 1, 1), hold("reader", SHARED, 2, 2)]).violations) == 1


def test_readers_do_not_fence_each_other_and_writers_do() -> None:
    def histories(first: str, second: str) -> list[Hold]:
        return [
            Hold("a", "one", 0, first, granted=1, token=2, ended=2),
            Hold("a", "two", 3, second, granted=4, token=1, ended=5),
        ]

    assert check(histories(SHARED, SHARED)).ok
    assert check(histories(SEMAPHORE, SEMAPHORE)).ok
    for modes in ((EXCLUSIVE, EXCLUSIVE), (SHARED, EXCLUSIVE), (EXCLUSIVE, SHARED)):
        assert check(histories(*modes)).violations == ("a: two asked after one was granted token 2, and got 1",)


def test_calls_that_overlap_may_have_tokens_in_any_order() -> None:
    holds = [
        Hold("a", "one", 0, granted=5, token=2, ended=5.5),
        Hold("a", "two", 1, granted=6, token=1, ended=7),  # it may have been granted first, and its answer come late
    ]
    assert check(holds).ok


def test_an_older_token_that_is_accepted_is_found_and_one_that_is_refused_is_right() -> None:
    def writes(last: bool) -> list[Write]:
        return [Write("a", 1, 0.0, True), Write("a", 3, 1.0, True), Write("b", 2, 2.0, True), Write("a", 2, 3.0, last)]

    assert check([], writes(False)).ok
    assert check([], writes(True)).violations == ("a: accepted token 2 after 3",)
    assert check([], list(reversed(writes(True)))).violations, "the order in which they were noted decides nothing"


def test_a_name_that_is_free_while_somebody_waits_is_found() -> None:
    holds = [
        Hold("a", "one", 0, granted=0, token=1, ended=2),
        Hold("a", "two", 1, granted=5, token=2, ended=6),  # waits from 1, free from 2 to 5
        Hold("a", "late", 9, granted=9.5, token=3, ended=10),  # free from 6, but waited for from 9 only
    ]
    assert check(holds).longest_free == 3
    assert check(holds, free_bound=3).ok
    assert check(holds, free_bound=2.9).violations == ("a: free for 3.000 s while somebody waited (bound 2.9 s)",)


def test_who_gave_up_had_waited_too() -> None:
    holds = [
        Hold("a", "one", 0, granted=0, token=1, ended=2),
        Hold("a", "two", 1, gave_up=4),
        Hold("a", "three", 3.5, gave_up=6),
    ]
    assert check(holds).longest_free == 4, "from 2 to 6 it was free, and one or the other waited"


def test_what_is_not_known_is_no_freedom() -> None:
    silent = Hold("a", "killed", 0, granted=0, token=1)
    asked = Hold("a", "unanswered", 0)
    waiter = Hold("a", "two", 1, gave_up=100)
    assert check([silent, waiter]).longest_free == 0
    assert check([asked, waiter]).longest_free == 0
    assert check([silent, asked, waiter]).unknown == 2
    asked.ended = 10
    assert check([asked, waiter]).longest_free == 90


def test_an_end_is_noted_once() -> None:
    recorder = Recorder(Ticks())
    hold = recorder.asks("a", "one")
    recorder.granted(hold, 7)
    recorder.ends(hold)
    recorder.ends(hold)
    assert (hold.asked, hold.granted, hold.ended, hold.token) == (1.0, 2.0, 3.0, 7)


# -- against the plain definitions ----------------------------------------------------------------------------------


@st.composite
def anything(draw: st.DrawFn) -> list[Hold]:
    """Records of a lock that may do anything; no two moments are equal."""
    count = draw(st.integers(0, 8))
    times = draw(st.lists(st.integers(0, 1000), min_size=3 * count, max_size=3 * count, unique=True))
    modes = draw(st.sampled_from([(EXCLUSIVE,), (EXCLUSIVE, SHARED), (SEMAPHORE,)]))
    holds = []
    for number in range(count):
        asked, granted, ended = sorted(times[3 * number : 3 * number + 3])
        mode = draw(st.sampled_from(modes))
        hold = Hold("a", f"user {number}", asked, mode, 2 if mode == SEMAPHORE else None)
        fate = draw(st.sampled_from(["held", "held", "held", "silent", "gave up", "unanswered"]))
        if fate in ("held", "silent"):
            hold.granted, hold.token = granted, draw(st.integers(1, 12))
            hold.ended = ended if fate == "held" else None
        elif fate == "gave up":
            hold.gave_up = granted
        holds.append(hold)
    return holds


@settings(max_examples=300)
@given(anything())
def test_it_agrees_with_the_rules_as_they_are_written(holds: list[Hold]) -> None:
    verdict = check(holds)
    found = {word for word in WORDS if any(word in text for text in verdict.violations)}

    assert found == plainly(holds)
    assert math.isclose(verdict.longest_free, plainly_free(holds))


WORDS = ("both held", "held a semaphore", "was given to", "asked after")


def plainly(holds: list[Hold]) -> set[str]:
    """The rules, every pair against every other."""
    granted = [hold for hold in holds if hold.granted is not None]
    found = set()
    for one, other in itertools.permutations(granted, 2):
        exclude = EXCLUSIVE in (one.mode, other.mode)
        if exclude and one.granted < other.granted < (one.ended or one.granted):  # type: ignore[operator]  # both were granted
            found.add("both held")
        if one.token == other.token:
            found.add("was given to")
        if exclude and one.granted < other.asked and other.token <= one.token:  # type: ignore[operator]  # as above
            found.add("asked after")
    for hold in granted:
        others = [other for other in granted if other.granted < hold.granted < (other.ended or other.granted)]  # type: ignore[operator]
        if hold.limit is not None and len(others) >= hold.limit:
            found.add("held a semaphore")
    return found


def plainly_free(holds: list[Hold]) -> float:
    """Moment by moment: between two moments that are noted nothing changes."""

    def may_hold(hold: Hold, at: float) -> bool:
        if hold.granted is None and hold.gave_up is not None:
            return False
        begun = hold.asked if hold.granted is None else hold.granted
        return begun <= at < (math.inf if hold.ended is None else hold.ended)

    def waits(hold: Hold, at: float) -> bool:
        left = hold.gave_up if hold.granted is None else hold.granted
        return left is not None and hold.asked <= at < left

    moments = sorted({m for hold in holds for m in (hold.asked, hold.granted, hold.ended, hold.gave_up) if m is not None})
    longest = current = 0.0
    for begun, ended in itertools.pairwise(moments):
        free = not any(may_hold(hold, begun) for hold in holds) and any(waits(hold, begun) for hold in holds)
        current = current + ended - begun if free else 0.0
        longest = max(longest, current)
    return longest


def test_a_hundred_thousand_grants_take_no_search() -> None:
    """Sound ones and ones in which everything overlaps: a search would take minutes, the sweep takes a part of a second."""

    def grants(lasts: float) -> list[Hold]:
        return [Hold("a", f"user {n % 50}", n - 5.0, granted=float(n), token=n, ended=n + lasts) for n in range(100_000)]

    sound, broken = grants(0.9), grants(5000.0)
    writes = [Write("a", n, float(n), True) for n in range(100_000)]
    begun = time.process_time()
    assert check(sound, writes).ok
    assert len(check(broken).violations) == 99_999
    assert time.process_time() - begun < 5.0
