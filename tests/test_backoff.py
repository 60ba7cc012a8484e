"""Delays: pure functions of the attempt, a base, a cap and one random number."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from narrowboat._engine.backoff import after_error, after_failure, exponential
from narrowboat._messages.handling import after_handler, describe, prefetch
from narrowboat.capabilities import BrokerCapabilities, Support
from narrowboat.contract import Ack, Nack, Reject
from narrowboat.errors import BrokerError
from narrowboat.registry import broker_backend

BACKEND = broker_backend("memory")


def claims(**other: Any) -> BrokerCapabilities:
    """What memory claims, but for `other`."""
    import dataclasses

    from narrowboat.dsn import Url, parse_options

    url = Url.parse("memory://")
    return dataclasses.replace(BACKEND.capabilities(url, parse_options(url, BACKEND.options, {})), **other)


def settled(error: Exception | None, *, attempt: int = 1, limit: int = 5, undecodable: bool = False, **other: Any) -> Any:
    return after_handler(
        error, attempt=attempt, limit=limit, undecodable=undecodable, claims=claims(**other), random=lambda: 1.0
    )


@given(st.integers(1, 2000), st.floats(0.001, 10), st.floats(10, 1000), st.floats(0, 1))
def test_a_delay_is_between_half_and_all_of_its_full_length(attempt: int, base: float, cap: float, chance: float) -> None:
    """Jitter never shortens a delay below half: "at least" can be promised."""
    full = min(cap, base * 2.0 ** min(attempt - 1, 64))

    assert full / 2 <= exponential(attempt, base, cap, lambda: chance) <= full


@given(st.integers(1, 200), st.floats(0, 1))
def test_delays_grow_until_the_cap(attempt: int, chance: float) -> None:
    """With the same chance, a later attempt never waits less."""
    assert after_error(attempt, lambda: chance) <= after_error(attempt + 1, lambda: chance)


def test_chance_spreads_the_delays() -> None:
    """Two clients with different chances do not come back together."""
    assert exponential(3, 1.0, 60.0, lambda: 0.1) != exponential(3, 1.0, 60.0, lambda: 0.9)


@given(st.integers(1, 100), st.floats(0, 1000))
def test_no_delay_is_longer_than_the_backend_keeps(attempt: int, longest: float) -> None:
    """A backend's longest delay bounds the retry's."""
    assert after_failure(attempt, lambda: 1.0, longest) <= longest


def test_what_cannot_be_decoded_dies_with_the_words_of_its_codec() -> None:
    """They name the field; passwords in URLs are hidden there as well."""
    try:
        try:
            raise ValueError("pieces: no number, seen at amqp://shop:hunter2@host/")
        except ValueError as cause:
            raise BrokerError("the codec 'order' cannot decode its 17 bytes (ValueError)", id="1") from cause
    except BrokerError as error:
        outcome = settled(error, attempt=1, undecodable=True)

    assert isinstance(outcome, Reject)
    assert outcome.reason.endswith(
        "cannot decode its 17 bytes (ValueError): ValueError: pieces: no number, seen at amqp://***@host/"
    )


def test_a_handler_that_returns_acks() -> None:
    """The one way to be done."""
    assert settled(None) == Ack()


@given(st.integers(1, 4))
def test_a_handler_that_raises_nacks_until_the_last_delivery(attempt: int) -> None:
    """Exactly `max_deliveries` deliveries reach a handler."""
    assert isinstance(settled(ValueError("x"), attempt=attempt), Nack)
    assert settled(ValueError("x"), attempt=5) == Reject("ValueError: x", 5)


def test_without_a_limit_it_nacks_for_ever() -> None:
    """0 means never."""
    assert isinstance(settled(ValueError("x"), attempt=1000, limit=0), Nack)


def test_what_cannot_be_decoded_is_rejected_at_once() -> None:
    """It would not decode the next time either."""
    assert settled(ValueError("x"), attempt=1, undecodable=True) == Reject("ValueError: x", 1)


def test_where_delays_are_not_claimed_it_comes_back_at_once() -> None:
    """A delay that the backend would refuse is not asked for."""
    assert settled(ValueError("x"), delay=Support.ABSENT) == Nack(0.0)


def test_a_reason_shows_no_password_and_stays_short() -> None:
    """Dead letters are read by people who must not know it."""
    assert "hunter2" not in describe(ValueError("amqp://shop:hunter2@host/ and redis://:hunter2@host"))
    assert len(describe(ValueError("x" * 10_000))) <= 500
    assert describe(ValueError("two\nlines")) == "ValueError: two lines"
    assert describe(ValueError()) == "ValueError"


@given(st.integers(1, 10_000))
def test_the_window_of_a_run_serves_every_worker(concurrency: int) -> None:
    """No worker starves because the others' messages fill the window."""
    assert prefetch(concurrency) >= concurrency
