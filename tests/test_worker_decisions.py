"""What a worker decides without I/O: delays, what is dropped, when a source pauses. Generated cases."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import narrowboat
from narrowboat import Breaker, Retry
from narrowboat.capabilities import Support
from narrowboat.contract.messages import Nack, Reject
from narrowboat.errors import InvalidArgument
from narrowboat.working.breaker import Circuit, failed
from narrowboat.working.failure import outcome, outcomes
from narrowboat.working.handlers import make
from narrowboat.working.retry import growing

seconds = st.floats(0, 1e5)
factors = st.floats(1, 100)
jitters = st.floats(0, 1)
draws = st.floats(0, 1, exclude_max=True)
numbers = st.integers(1, 10_000)


@given(numbers, seconds, factors, seconds, jitters, draws)
def test_a_delay_is_within_its_bounds(
    number: int, first: float, factor: float, most: float, jitter: float, draw: float
) -> None:
    """Never longer than `most`, never shorter than what the jitter leaves of the full delay, however often it has grown."""
    full = growing(number, first, factor, most, 0.0, lambda: draw)
    delay = growing(number, first, factor, most, jitter, lambda: draw)
    assert 0.0 <= full <= most
    assert full * (1 - jitter) * (1 - 1e-12) <= delay <= full * (1 + 1e-12)


@given(numbers, seconds, factors, seconds, jitters, draws)
def test_delays_do_not_shrink(number: int, first: float, factor: float, most: float, jitter: float, draw: float) -> None:
    """With the same draw the next one is at least as long."""
    here, there = (growing(each, first, factor, most, jitter, lambda: draw) for each in (number, number + 1))
    assert there >= here


class Base(Exception):
    """What a rule is written for."""


class Derived(Base):
    """What is raised."""


@pytest.mark.parametrize(("retry", "delay"), [
    (Retry(first=1, jitter=0, when={Base: Retry(first=7, jitter=0)}), 7.0),
    (Retry(first=1, jitter=0, when={Base: Retry(first=7, jitter=0), Derived: Retry(first=9, jitter=0)}), 9.0),
    (Retry(first=1, jitter=0, when={OSError: Retry(first=7, jitter=0)}), 1.0),
])  # fmt: skip
def test_the_nearest_rule_counts(retry: Retry, delay: float) -> None:
    """By the class that was raised, then by its bases."""
    assert retry.delay(1, Derived(), lambda: 0.0) == delay


@pytest.mark.parametrize(("retry", "drops"), [
    (Retry(drop=(Base,)), True),
    (Retry(drop=(OSError,)), False),
    (Retry(when={Base: Retry(drop=(Exception,))}), True),
    (Retry(drop=(Base,), when={Derived: Retry(first=5)}), False),
    (Retry(drop=(Derived,), when={Base: Retry(first=5)}), True),
    (Retry(when={Base: Retry(drop=(Exception,), when={Derived: Retry()})}), False),
    (Retry(drop=(OSError,), when={Base: Retry(drop=(Derived,))}), True),
    (Retry(), False),
])  # fmt: skip
def test_what_is_dropped(retry: Retry, drops: bool) -> None:
    """By the nearest class, whether `drop` has it or `when`; and by the Retry that `when` gives, in the same way."""
    assert retry.drops(Derived()) is drops


@pytest.mark.parametrize("options", [
    {"first": -1}, {"first": 301}, {"first": 5, "most": 4},
    {"most": float("nan")}, {"factor": 0.5}, {"jitter": 1.1}, {"jitter": True},
    {"drop": ValueError}, {"drop": ("ValueError",)}, {"drop": (KeyboardInterrupt,)}, {"when": {ValueError: 5}}, {"when": 5},
    {"drop": (ValueError,), "when": {ValueError: Retry()}},
])  # fmt: skip
def test_a_retry_that_cannot_work_is_refused(options: dict[str, Any]) -> None:
    """Where it is written."""
    with pytest.raises(InvalidArgument):
        Retry(**options)


@pytest.mark.parametrize("options", [{"after": 0}, {"after": 1.5}, {"first": -1}, {"first": 61}, {"factor": 0}, {"most": -1}])
def test_a_breaker_that_cannot_work_is_refused(options: dict[str, Any]) -> None:
    """The same."""
    with pytest.raises(InvalidArgument):
        Breaker(**options)


# -- the breaker --------------------------------------------------------------------------------------------------

breakers = st.builds(
    Breaker, after=st.integers(1, 5), first=st.floats(0.1, 10), factor=st.floats(1, 4), most=st.floats(10, 100), jitter=jitters
)
#: Calls that end: the seconds since the one before, and whether it succeeded.
gaps = st.sampled_from([0.0, 0.05, 1.0, 200.0])
calls = st.lists(st.tuples(gaps, st.sampled_from([False, False, False, True])), max_size=30)


@given(breakers, calls, draws)
def test_a_source_pauses_only_after_failures_in_a_row(breaker: Breaker, ends: list[tuple[float, bool]], draw: float) -> None:
    """And each pause ends; a success forgets all; what was under way when a pause began makes it no longer."""
    circuit, now, row = Circuit(), 0.0, 0
    for gap, success in ends:
        now += gap
        before = circuit
        circuit = Circuit() if success else failed(circuit, breaker, now, lambda: draw)
        row = 0 if success else row + 1
        assert circuit.failures == row
        assert (circuit.pauses > 0) == (row >= breaker.after)
        if circuit.pauses > before.pauses:
            assert now >= before.until and circuit.pauses == before.pauses + 1
            assert now <= circuit.until <= now + breaker.most * (1 + 1e-12)
        elif not success:
            assert circuit.until == before.until


@given(calls, draws)
def test_without_a_breaker_it_never_pauses(ends: list[tuple[float, bool]], draw: float) -> None:
    """Failures are counted all the same."""
    circuit = Circuit()
    for now, (_, _success) in enumerate(ends):
        circuit = failed(circuit, None, float(now), lambda: draw)
    assert circuit == Circuit(failures=len(ends))


# -- messages -----------------------------------------------------------------------------------------------------

MEMORY = narrowboat.broker("memory://decisions").capabilities


@dataclass(eq=False)
class Told:
    """What a decision looks at of a message."""

    attempt: int
    undecodable: bool = False
    max_deliveries: int = 5
    settled: bool = False
    lost: bool = False


@given(numbers, st.integers(0, 1000), st.booleans(), draws)
def test_a_message_is_a_dead_letter_at_its_last_delivery_or_at_once(
    attempt: int, limit: int, undecodable: bool, draw: float
) -> None:
    """Otherwise it comes back, after a delay that the backend can keep."""
    handler = make(lambda message: None, "orders", None, None, None, {}, coroutine=False)
    found = outcome(handler, Told(attempt, undecodable, limit), ValueError("no"), MEMORY, lambda: draw)
    if undecodable or (limit and attempt >= limit):
        assert found == Reject("ValueError: no", attempt)
    else:
        assert isinstance(found, Nack) and 0 <= found.delay <= min(300, MEMORY.delay_max)


@given(numbers, draws)
def test_what_the_backend_does_not_claim_is_not_asked_for(attempt: int, draw: float) -> None:
    """Without dead letters all comes back, without delays at once."""
    handler = make(lambda message: None, "orders", None, None, None, {"retry": Retry(drop=(ValueError,))}, coroutine=False)
    claims = dataclasses.replace(MEMORY, dead_letters=Support.ABSENT, delay=Support.ABSENT)
    assert outcome(handler, Told(attempt), ValueError(), claims, lambda: draw) == Nack(0.0)


@given(st.lists(st.builds(Told, st.integers(1, 6), st.booleans(), st.just(5), st.booleans(), st.booleans()), min_size=1), draws)
def test_a_batch_is_settled_in_groups_and_nothing_twice(messages: list[Told], draw: float) -> None:
    """Each message that is still ours once, with what it would get alone; no group for each draw of the jitter."""
    handler = make(lambda batch: None, "orders", None, None, 100, {}, coroutine=False)
    found = outcomes(handler, messages, ValueError(), MEMORY, lambda: draw)
    grouped = [message for group in found.values() for message in group]
    assert sorted(map(id, grouped)) == sorted(id(each) for each in messages if not each.settled and not each.lost)
    for how, group in found.items():
        assert all(outcome(handler, each, ValueError(), MEMORY, lambda: draw) == how for each in group)
    assert len(found) <= 11, "four delays by attempt, and a reason with each number of attempts"
