"""The levels of a retry topic on Kafka: no message stays too long, and every delay ends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from narrowboat_kafka.format import levels


@given(st.floats(0, 30 * 86400.0), st.integers(1, 15))
def test_no_level_keeps_a_message_longer_than_it_has_to_wait(remaining: float, count: int) -> None:
    level = levels.level(remaining, count)
    assert 0 <= level < count
    assert levels.stay(level) <= remaining
    assert level + 1 == count or levels.stay(level + 1) > remaining


@given(st.floats(0, 30 * 86400.0))
def test_from_level_to_level_every_delay_ends(delay: float) -> None:
    remaining, steps = delay, 0
    count = levels.count(max(delay, 1))
    while remaining >= levels.FIRST:
        remaining -= levels.stay(levels.level(remaining, count))
        steps += 1
    assert steps <= 3 * count
    assert 0 <= remaining < levels.FIRST
