"""The plan of a history and the steps of its users: pure functions of a seed."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from narrowboat.conformance.histories import steps
from narrowboat.conformance.histories.plan import CALLS, CALM, LAYER, SERVER, SERVER_PAUSES, Kind, Means, Role, plan

SEEDS = st.integers(0, 2**32)


@st.composite
def means(draw: st.DrawFn) -> Means:
    """What some backend allows."""
    halves = draw(st.sampled_from([("locks",), ("broker",), ("locks", "broker")]))
    kinds = draw(st.frozensets(st.sampled_from(sorted(Kind)))) - (set() if "locks" in halves else {Kind.DELETE})
    return Means(halves, frozenset(kinds), draw(st.integers(0, 4)), ("x0", "rw"), draw(st.booleans()), draw(st.floats(1, 30)))


@given(SEEDS, st.floats(1, 600), means())
def test_one_seed_makes_one_plan(seed: int, seconds: float, has: Means) -> None:
    assert plan(seed, seconds, has) == plan(seed, seconds, has)


@given(SEEDS, means())
def test_other_seeds_make_other_plans(seed: int, has: Means) -> None:
    """Of ten, not all are alike."""
    assert len({plan(seed + number, 120, has)[2:] for number in range(10)}) > 1


@given(SEEDS, st.floats(1, 600), means())
def test_strikes_come_one_after_the_other_and_leave_the_end_calm(seed: int, seconds: float, has: Means) -> None:
    """Each is of a kind that can be made, and of a process that there is."""
    strikes = plan(seed, seconds, has).strikes

    for one, other in itertools.pairwise(strikes):
        assert one.at + one.seconds <= other.at
    for strike in strikes:
        assert strike.kind in has.kinds
        assert 0 < strike.at <= strike.at + strike.seconds <= seconds * (1 - CALM)
        assert 0 <= strike.process < max(1, has.processes)
        if strike.kind in LAYER:
            assert strike.word in {call for half in has.halves for call in CALLS[half]}
        if strike.kind is Kind.DELETE:
            assert strike.word in has.locks


@given(SEEDS)
def test_a_server_is_left_alone_for_a_while(seed: int) -> None:
    has = Means(("locks",), frozenset({Kind.RESET, *SERVER}), 3, ("x0",), False, 3.0)
    served = [strike for strike in plan(seed, 600, has).strikes if strike.kind in SERVER]

    for one, other in itertools.pairwise(served):
        assert other.at >= one.at + one.seconds + SERVER_PAUSES - 0.002  # times are rounded


@given(SEEDS, means())
def test_every_process_has_users_of_each_half(seed: int, has: Means) -> None:
    for users in plan(seed, 60, has).programs:
        roles = {user.role for user in users}
        assert ("locks" in has.halves) == (Role.CONTENDER in roles)
        assert ("broker" in has.halves) == ({Role.PUBLISHER, Role.CONSUMER, Role.GUEST} <= roles)
        assert any(user.ordered for user in users) == (has.ordered and "broker" in has.halves)
        assert [user.number for user in users] == list(range(len(users)))


def test_every_kind_of_fault_comes_up() -> None:
    """In a minute or two of some seeds."""
    has = Means(("locks", "broker"), frozenset(Kind), 3, ("x0",), True, 3.0)
    assert {strike.kind for seed in range(20) for strike in plan(seed, 120, has).strikes} == set(Kind)


@given(st.text())
def test_what_a_user_does_is_its_seeds(seed: str) -> None:
    def first(many: object) -> list[object]:
        return list(itertools.islice(many, 20))  # type: ignore[call-overload]  # each is an iterator

    locks = ("x0", "rw", "sem")
    assert first(steps.visits(seed, locks)) == first(steps.visits(seed, locks))
    assert first(steps.sendings(seed, ordered=True)) == first(steps.sendings(seed, ordered=True))
    guest = {"guest": True, "ordered": False}
    assert first(steps.stays(seed, ("nack",), **guest)) == first(steps.stays(seed, ("nack",), **guest))


@given(st.text())
def test_contenders_of_one_lock_agree_on_its_terms(seed: str) -> None:
    for visit in itertools.islice(steps.visits(seed, tuple(steps.TERMS)), 50):
        readers, limit = steps.TERMS[visit.name]
        assert visit.limit == limit
        assert visit.mode == "exclusive" or readers
