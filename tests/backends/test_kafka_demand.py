"""What consumers of Kafka want, as far as their calls show it: how far to read ahead, and when to hurry."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from narrowboat_kafka.member.demand import Demand


def test_who_takes_few_at_a_time_is_read_few_ahead_and_nothing_is_claimed() -> None:
    demand = Demand()
    demand.asked(10, 0.0, alone=True)
    assert (demand.ahead, demand.bulk) == (10, 0)
    demand.asked(100_000, 0.0, alone=True)
    assert (demand.ahead, demand.bulk) == (1000, 100_000), "what lies in memory has a bound"
    demand.asked(1, 0.0, alone=True)
    assert (demand.ahead, demand.bulk) == (1, 0), "the last call counts"


def test_a_slow_consumer_does_not_stop_what_another_one_needs() -> None:
    demand = Demand()
    demand.asked(500, 0.0, alone=False)
    demand.asked(1, 0.0, alone=False)
    assert demand.ahead == 500
    demand.asked(1, 0.0, alone=True)
    assert demand.ahead == 1


def test_nothing_is_claimed_ahead_for_one_that_has_gone() -> None:
    demand = Demand()
    demand.asked(1000, 0.0, alone=True)
    demand.gone()
    assert demand.bulk == 0


def test_who_asks_for_nothing_more_is_in_no_hurry() -> None:
    demand = Demand()
    demand.asked(10, 50.0, alone=True)
    assert demand.is_recent(50.05)
    assert not demand.is_recent(50.2)


def test_before_any_pace_is_known_everything_may_be_gone_at_once() -> None:
    assert Demand().outruns(10**9, 0.001)


@given(st.integers(1, 10_000), st.floats(0.01, 100), st.integers(0, 10_000))
def test_the_pace_is_what_was_taken_since_there_was_enough(count: int, wait: float, ready: int) -> None:
    demand = Demand()
    demand.asked(1, 1000.0, alone=True)
    demand.took(1, 1, 1000.0)
    demand.asked(count, 1000.0 + wait, alone=True)
    demand.took(count, 0, 1000.0 + wait)
    exact = count / wait  # in one second
    if ready < exact * 0.999:
        assert demand.outruns(ready, 1.0)
    elif ready > exact * 1.001:
        assert not demand.outruns(ready, 1.0)


def test_while_consumers_wait_for_messages_they_show_no_pace() -> None:
    """Nothing was left: how long the next call took to come says when the next message was there, no more."""
    demand = Demand()
    demand.asked(10, 1000.0, alone=True)
    demand.took(10, 5, 1000.0)
    demand.asked(10, 1000.1, alone=True)
    demand.took(10, 0, 1000.1)  # 100 a second
    demand.asked(10, 2000.0, alone=True)
    demand.took(10, 5, 2000.0)
    assert demand.outruns(99, 1.0)
    assert not demand.outruns(101, 1.0)
