"""The ledger of one partition of Kafka: what is committed is read again, and nothing settled is forgotten."""

from __future__ import annotations

import base64
import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from narrowboat_kafka import ledger as ledgers
from narrowboat_kafka.ledger import Claim, Ledger


@st.composite
def _ledgers(draw: st.DrawFn) -> Ledger:
    """A ledger as a consumer makes it: seen in order, handed out, settled or given back in any order."""
    base = draw(st.integers(0, 2**40))
    ledger = Ledger(base)
    many = draw(st.integers(0, 60))
    if many:
        ledger.see(range(base, base + many))
    for offset in range(base, ledger.next):
        for step in draw(st.lists(st.sampled_from(["claim", "back", "return"]), max_size=4)):
            if step == "claim" and not ledger.claims.get(offset, Claim(0, False)).out:
                ledger.claim([offset])
            elif step != "claim" and ledger.claims.get(offset, Claim(0, False)).out:
                ledger.release(offset, counted=step == "back")
    for offset in draw(st.permutations(range(base, ledger.next))):
        if draw(st.booleans()):
            ledger.settle([offset])
    return ledger


@given(_ledgers())
def test_what_was_committed_is_read_again(ledger: Ledger) -> None:
    again = ledgers.decode(ledger.base, ledgers.encode(ledger))
    assert again.settled == ledger.settled
    assert again.claims == {offset: claim for offset, claim in ledger.claims.items() if claim != Claim(0, False)}


@given(_ledgers(), st.integers(0, 200))
def test_counts_add_up(ledger: Ledger, more: int) -> None:
    end = ledger.next + more
    ready, out = ledger.counts(end)
    assert ready + out + len(ledger.settled) == end - ledger.base
    assert out == sum(claim.out for claim in ledger.claims.values())


@given(_ledgers())
def test_the_base_is_the_first_that_is_not_settled(ledger: Ledger) -> None:
    assert ledger.base not in ledger.settled
    assert all(offset >= ledger.base for offset in (*ledger.settled, *ledger.claims))


@settings(deadline=None)  # the width takes its time on a busy machine
@given(st.integers(0, 8_000), st.integers())
def test_what_does_not_fit_forgets_counts_and_no_settlement(width: int, seed: int) -> None:
    ledger, chance = Ledger(7), random.Random(seed)
    if width:
        ledger.see(range(7, 7 + width))
    for offset in range(7, 7 + width):
        for _ in range(chance.randrange(1, 4)):
            ledger.claim([offset])
    ledger.settle([offset for offset in range(8, 7 + width) if chance.random() < 0.5])
    text = ledgers.encode(ledger)
    assert len(text) <= ledgers.LIMIT
    again = ledgers.decode(7, text)
    assert again.settled == ledger.settled
    assert again.claims.keys() == ledger.claims.keys()


def test_more_than_fits_is_refused_and_not_cut_off() -> None:
    ledger = Ledger(0)
    chance = random.Random(1)
    ledger.settled.update(offset for offset in range(1, 60_000) if chance.random() < 0.5)
    with pytest.raises(OverflowError):
        ledgers.encode(ledger)


@given(st.one_of(st.text(max_size=60), st.binary(max_size=60).map(lambda data: "n1:" + base64.b64encode(data).decode())))
def test_metadata_of_somebody_else_is_no_error(text: str) -> None:
    ledger = ledgers.decode(3, text)
    assert ledger.base == 3


@given(st.integers(0, 100), st.lists(st.integers(1, 50), max_size=20))
def test_offsets_that_do_not_exist_hold_nothing_up(base: int, jumps: list[int]) -> None:
    ledger, offset = Ledger(base), base - 1
    for jump in jumps:
        offset += jump
        assert ledger.see([offset]) == [True]
        ledger.claim([offset])
    ledger.settle(list(ledger.claims))
    assert ledger.base == ledger.next
    assert not ledger.settled
    assert not ledger.claims


def test_what_is_settled_is_not_handed_out_again() -> None:
    ledger = ledgers.decode(5, _committed(settled=[6, 8]))
    assert ledger.see([5, 6, 7, 8, 9]) == [True, False, True, False, True]


def test_a_crash_loop_is_counted() -> None:
    text = ""
    for times in (1, 2, 3):
        ledger = ledgers.decode(0, text)
        ledger.see([0])
        assert ledger.claim([0]) == [times]
        text = ledgers.encode(ledger)


def _committed(settled: list[int]) -> str:
    ledger = Ledger(5)
    ledger.see(range(5, 12))
    ledger.settle(settled)
    return ledgers.encode(ledger)


_offsets = st.sets(st.integers(0, 30))


@given(_offsets, _offsets, _offsets, st.permutations(range(31)), st.data())
def test_many_at_a_time_come_to_the_same_as_one_by_one(
    claimed: set[int], done: set[int], there: set[int], order: list[int], data: st.DataObject
) -> None:
    """Something is known from before; only some offsets are still `there`; then they are claimed twice, and settled."""
    before = Ledger(0)
    before.claim(sorted(claimed), out=False)
    before.settle(done)
    one, many = (ledgers.decode(before.base, ledgers.encode(before)) for _ in range(2))
    offsets = [offset for offset in sorted(there) if offset >= before.base]
    flags = [flag for group in _groups(offsets, data) for flag in many.see(group)]
    assert flags == [one._see(offset) for offset in offsets]
    assert flags == [offset not in done for offset in offsets]
    wanted = list(itertools.compress(offsets, flags))
    for _ in range(2):
        for group in _groups(wanted, data):
            out = data.draw(st.booleans())
            assert many.claim(group, out=out) == [count for offset in group for count in one.claim([offset], out=out)]
    for group in _groups([offset for offset in order if offset in wanted], data):
        many.settle(group)
        for offset in group:
            one.settle([offset])
    assert (many.base, many.next, many.settled, many.claims) == (one.base, one.next, one.settled, one.claims)
    assert ledgers.encode(many) == ledgers.encode(one)


def _groups(offsets: list[int], data: st.DataObject) -> list[list[int]]:
    found = []
    while offsets:
        size = data.draw(st.integers(1, len(offsets)))
        found.append(offsets[:size])
        offsets = offsets[size:]
    return found
