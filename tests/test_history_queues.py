"""The checker of queue histories: each kind of wrong is found, and nothing else is."""

from __future__ import annotations

import time
from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from narrowboat.conformance.checks.history_queues import History, check


def clean(count: int = 3) -> History:
    history = History()
    for n in range(count):
        history.published(str(n), key="k")
    for n in range(count):
        history.delivered(str(n), 1)
        history.acked(str(n))
    return history


def test_a_clean_history_is_ok() -> None:
    verdict = check(clean(), drained=True, ordered=True)
    assert verdict.ok and verdict.known
    assert str(verdict) == "3 deliveries: nothing wrong"


def test_an_empty_history_is_ok() -> None:
    assert check(History(), drained=True).ok


def test_lost_only_when_drained() -> None:
    history = clean()
    history.published("gone")
    assert check(history, drained=True).lost == ("gone",)
    assert not check(history, drained=True).ok
    verdict = check(history, drained=False)
    assert (verdict.lost, verdict.missing, verdict.known) == ((), ("gone",), False)


def test_unexpected() -> None:
    history = clean()
    history.delivered("from nowhere", 1)
    history.acked("from nowhere")
    assert check(history, drained=True).unexpected == ("from nowhere",)


def test_a_failed_publish_must_not_be_delivered() -> None:
    history = History()
    history.failed("refused")
    assert check(history, drained=True).ok
    history.delivered("refused", 1)
    history.acked("refused")
    assert check(history, drained=True).unexpected == ("refused",)


def test_an_uncertain_publish_may_be_delivered_or_not() -> None:
    history = History()
    history.uncertain("a")
    history.uncertain("b")
    history.delivered("a", 1)
    history.acked("a")
    assert check(history, drained=True).ok


def test_after_an_answered_ack() -> None:
    history = clean()
    history.delivered("1", 2)
    verdict = check(history, drained=True)
    assert verdict.after_ack == ("1",)
    assert verdict.duplicated == ("1",)
    assert not verdict.ok


def test_after_an_unknown_ack_it_may_come_again() -> None:
    history = History()
    history.published("a")
    history.delivered("a", 1)
    history.ack_unknown("a")
    history.delivered("a", 2)
    history.acked("a")
    verdict = check(history, drained=True)
    assert verdict.ok
    assert verdict.duplicated == ("a",)


def test_attempts_must_grow() -> None:
    history = History()
    history.published("a")
    history.delivered("a", 1)
    history.delivered("a", 1)
    history.acked("a")
    assert check(history, drained=True).attempts == ("a",)


def test_order_within_a_key() -> None:
    history = History()
    for id, key in (("a1", "a"), ("b1", "b"), ("a2", "a"), ("b2", "b")):
        history.published(id, key=key)
    for id in ("b1", "a2", "a1", "b2"):
        history.delivered(id, 1)
        history.acked(id)
    assert check(history, drained=True).ok
    assert check(history, drained=True, ordered=True).unordered == ("a1",)


def test_unsettled_at_the_end() -> None:
    history = History()
    history.published("a")
    history.delivered("a", 1)
    assert check(history, drained=True).unsettled == ("a",)
    assert check(history, drained=False).ok


def test_the_text_names_what_is_wrong() -> None:
    history = clean()
    history.published("gone")
    assert str(check(history, drained=True)) == "3 deliveries: 1 lost (gone)"


@given(st.lists(st.sampled_from(["ack", "nack", "unknown"]), max_size=60), st.integers(0, 59))
def test_what_a_correct_queue_does_is_ok_and_one_dropped_delivery_is_not(outcomes: list[str], drop: int) -> None:
    history = History()
    ready: deque[tuple[str, int]] = deque()
    for n in range(20):
        history.published(str(n), key="k")
        ready.append((str(n), 1))
    for outcome in [*outcomes, *["ack"] * 80]:
        if not ready:
            break
        id, attempt = ready.popleft()
        history.delivered(id, attempt)
        if outcome == "ack":
            history.acked(id)
        else:
            if outcome == "unknown":
                history.ack_unknown(id)
            ready.appendleft((id, attempt + 1))
    assert check(history, drained=True, ordered=True).ok
    victim = str(drop % 20)
    without = History(event for event in history.events if event.id != victim or event.what.value == "published")
    assert check(without, drained=True, ordered=True).lost == (victim,)


def test_a_hundred_thousand_deliveries_take_no_search() -> None:
    history = clean(100_000)
    begun = time.thread_time()  # what others take of the machine is not its time
    assert check(history, drained=True, ordered=True).ok
    assert time.thread_time() - begun < 5.0
