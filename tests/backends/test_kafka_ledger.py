"""The ledger of one partition of Kafka: what is committed is read again, and nothing settled is forgotten."""

from __future__ import annotations

import base64
import functools
import itertools
import os
import random
import time
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from narrowboat_kafka.format import ledger as ledgers
from narrowboat_kafka.format.ledger import Claim, Ledger


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
    ledger.settle([offset for offset in range(1, 60_000) if chance.random() < 0.5])
    with pytest.raises(OverflowError):
        ledgers.encode(ledger)


def _written(*numbers: int, bits: bytes = b"", packed: bool = True) -> str:
    """A metadata as somebody may write it who knows the format: a map of settled ones, how far claims go, numbers."""
    data = bytearray()
    for number in (len(bits), *numbers):
        ledgers._put(data, number)
        if bits and len(data) < 10:
            data += bits
            bits = b""
    made = b"\xff" + zlib.compress(bytes(data), 9) if packed else bytes(data)
    return "n1:" + base64.b64encode(made).decode().rstrip("=")


#: Few characters that mean much: each took seconds or gigabytes once, or may.
HEAVY: dict[str, Callable[[], str]] = {
    "a bitmap of millions": lambda: _written(0, bits=b"\xff" * 2_900_000),
    "a bitmap of millions of pieces": lambda: _written(0, bits=b"\x55" * 2_900_000),
    "a bomb": lambda: _written(0, bits=b"\x00" * 400_000_000),
    "millions of claims": lambda: _written(14_000_000, packed=False),
    "a window without end": lambda: _written(2**62, packed=False),
    "a number without end": lambda: "n1:" + base64.b64encode(b"\xff" + zlib.compress(b"\xff" * 2_900_000 + b"\1", 9)).decode(),
    "millions of runs": lambda: _written(100, *[0, 1, 2] * 1_000_000),
    "millions of empty runs": lambda: _written(100, *[0] * 3_000_000),
    "a run without end": lambda: _written(2**24, 2**62, 2**62, 3),
    "a count without end": lambda: _written(1, 0, 1, 2**60),
    "as long as it gets": lambda: "n1:" + "A" * 4093,
    "longer than the server takes": lambda: "n1:" + "/" * 4_000_000,
}


@functools.cache
def heavy(name: str) -> str:
    """Made when it is asked for: all of them took five seconds and a gigabyte of each process that only collects the tests."""
    return HEAVY[name]()


@pytest.mark.parametrize("name", HEAVY)
def test_metadata_that_means_much_costs_little(name: str) -> None:
    _decoded_cheaply(heavy(name))


#: What is slow would be made smaller for minutes.
_UNSHRUNK = [phase for phase in Phase if phase is not Phase.shrink]
_numbers = st.one_of(st.integers(0, 300), st.integers(0, 2**70))


@settings(deadline=None, max_examples=int(os.environ.get("NARROWBOAT_FUZZ_CASES", "50")), phases=_UNSHRUNK)
@given(
    st.one_of(
        st.text(max_size=60),
        st.text(max_size=60).map(lambda text: "n1:" + text),
        st.binary(max_size=60).map(lambda data: "n1:" + base64.b64encode(data).decode()),
        st.binary(max_size=3000).map(lambda data: "n1:" + base64.b64encode(b"\xff" + zlib.compress(data)).decode()),
        st.builds(
            lambda byte, times, numbers, packed: _written(*numbers, bits=bytes([byte]) * times, packed=packed),
            st.integers(0, 255),
            st.integers(0, 300_000),
            st.lists(_numbers, max_size=60),
            st.booleans(),
        ),
    )
)
def test_metadata_of_somebody_else_is_no_error(text: str) -> None:
    ledger = _decoded_cheaply(text)
    ledger.see([3, 5, 8])  # it can be worked with, whatever it says
    ledger.settle([3, 8])
    ledger.counts(100)
    ledgers.decode(ledger.base, ledgers.encode(ledger))


def _decoded_cheaply(text: str) -> Ledger:
    """What it says, in at most a second of the processor's time, and so few pieces that they are a few megabytes."""
    begun = time.thread_time()
    ledger = ledgers.decode(3, text)
    assert time.thread_time() - begun < 1.0
    assert ledger.base >= 3
    assert ledger.settled.count <= 2**16 + 8
    assert len(ledger.claims) <= 2**16
    assert all(claim.times <= 2**31 for claim in ledger.claims.values())
    return ledger


def test_a_hostile_metadata_takes_little_memory() -> None:
    for text in map(heavy, HEAVY):
        tracemalloc.start()
        try:
            ledgers.decode(3, text)
            assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
        finally:
            tracemalloc.stop()


def test_what_a_long_delivery_leaves_behind_it_is_told() -> None:
    """Ten million were done while one was still in somebody's hands."""
    ledger = Ledger(7)
    ledger.see([7])
    ledger.claim([7])
    ledger.pass_by(10_000_007)
    again = ledgers.decode(7, ledgers.encode(ledger))
    assert list(again.settled.ranges()) == [range(8, 10_000_007)]
    assert again.see([7, 9_999_999, 10_000_007]) == [True, False, True]


@given(st.integers(0, 20), st.sets(st.integers(0, 9)), st.integers(0, 10))
def test_what_lies_behind_the_last_record_does_not_count(base: int, done: set[int], more: int) -> None:
    ledger, end = Ledger(base), base + 10 + more
    ledger.see(range(base, base + 10))
    ledger.settle([base + each for each in done])
    assert ledger.pass_by(end) == (len(done) == 10 and more > 0)
    assert ledger.counts(end) == (10 - len(done), 0)


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
