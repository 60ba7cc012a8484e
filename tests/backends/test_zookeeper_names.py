"""ZooKeeper: names as nodes, and who goes before whom. Pure decisions."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrowboat.contract.locks import Mode
from narrowboat.driver.admission import admitted, disagree
from narrowboat_zookeeper import names
from narrowboat_zookeeper.decision import FRONT_MAX, Verdict, decide
from narrowboat_zookeeper.names import Contender
from narrowboat_zookeeper.records import read, record

TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=60)
SEQUENCES = st.integers(-(2**31), 2**31 - 1)
MODES = st.sampled_from([(Mode.EXCLUSIVE, None), (Mode.SHARED, None), (Mode.SEMAPHORE, 2)])


@given(TEXT, TEXT)
def test_two_names_never_share_a_node(one: str, other: str) -> None:
    assert (names.lock_node(one) == names.lock_node(other)) == (one == other)


@given(st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=1000))
def test_a_node_is_always_a_name_that_zookeeper_takes(name: str) -> None:
    node = names.lock_node(name)
    assert len(node) <= 200
    assert node not in (".", "..")
    assert "/" not in node
    assert node.isascii()
    assert names.lock_name(node) in (name, None)


@given(TEXT, TEXT)
def test_two_prefixes_never_meet(one: str, other: str) -> None:
    assert (names.namespace("", one) == names.namespace("", other)) == (one == other)
    assert names.namespace("", "") not in (names.namespace("", one), names.namespace("", other))


@given(MODES, TEXT, SEQUENCES)
def test_a_contender_is_read_as_it_was_written(kind: tuple[Mode, int | None], owner: str, sequence: int) -> None:
    mode, limit = kind
    found = names.contender(f"{names.stem(mode, limit, owner)}{sequence:010d}")
    assert found is not None
    assert (found.owner, found.sequence, found.mode, found.limit) == (owner, sequence, mode, limit)


@pytest.mark.parametrize(
    "node", ["", "x~me", "x~me~", "x~me~12", "y~me~0000000001", "p0~me~0000000001", "p~me~0000000001", "x~~0000000001",
             "5e3__lock__0000000001", "x~a~b~0000000001", "x~me~0000000001x"],
)  # fmt: skip
def test_what_is_not_ours_is_no_contender(node: str) -> None:
    assert names.contender(node) is None


@given(SEQUENCES, st.integers(0, 2**31 - 1))
def test_distance_is_how_many_numbers_later_also_past_the_end(origin: int, later: int) -> None:
    sequence = (origin + later + 2**31) % 2**32 - 2**31
    assert names.distance(sequence, origin) == later
    assert later == 0 or names.distance(origin, sequence) == -later


@given(SEQUENCES, st.lists(st.integers(0, 1000), unique=True, max_size=30), st.randoms())
def test_a_queue_is_in_the_order_of_its_numbers_wherever_they_begin(start: int, steps: list[int], random: Random) -> None:
    nodes = [f"x~owner{step}~{(start + step + 2**31) % 2**32 - 2**31:010d}" for step in steps]
    random.shuffle(nodes)
    assert [each.owner for each in names.queue([*nodes, "foreign"])] == [f"owner{step}" for step in sorted(steps)]


@given(st.lists(SEQUENCES, max_size=5))
def test_only_past_the_end_of_the_counter_numbers_say_nothing(sequences: list[int]) -> None:
    found = [Contender("", "", sequence, Mode.EXCLUSIVE, None) for sequence in sequences]
    assert names.ambiguous(found) == any(sequence < 0 or sequence == 2147483647 for sequence in sequences)


@given(st.lists(MODES, max_size=12), MODES)
def test_a_contender_goes_exactly_when_the_common_rules_admit_it(
    ahead: list[tuple[Mode, int | None]], kind: tuple[Mode, int | None]
) -> None:
    mode, limit = kind
    queue = [Contender(f"node{n}", f"owner{n}", n, *each) for n, each in enumerate(ahead)]
    decision = decide(mode, limit, queue)
    refused = next((each for each in queue if disagree(mode, limit, each.mode, each.limit)), None)
    if refused is not None:
        assert decision == (Verdict.CONFLICT, refused)
        return
    holding = [n for n, each in enumerate(queue) if decide(each.mode, each.limit, queue[:n]).verdict is Verdict.GO]
    waiting = [each for n, each in enumerate(queue) if n not in holding]
    held = next((queue[n].mode for n in holding), None)
    go = admitted(
        mode, limit, holding=held, held=len(holding), ahead=len(waiting),
        writer_ahead=any(each.mode is Mode.EXCLUSIVE for each in waiting),
    )  # fmt: skip
    assert (decision.verdict is Verdict.GO) == go
    if decision.verdict is Verdict.WATCH:
        assert decision.other in queue


@given(st.integers(1, 10), st.integers(0, 40))
def test_a_waiting_permit_looks_at_the_queue_or_waits_for_one_that_will_tell(limit: int, count: int) -> None:
    queue = [Contender(f"node{n}", f"owner{n}", n, Mode.SEMAPHORE, limit) for n in range(count)]
    decision = decide(Mode.SEMAPHORE, limit, queue)
    front = min(limit, FRONT_MAX)
    if count < limit:
        assert decision.verdict is Verdict.GO
    elif count < limit + front:
        assert decision.verdict is Verdict.FRONT
    else:  # by the time that one goes, so many places are free that this one is at the front
        other = decision.other
        assert other is not None
        assert decision == (Verdict.WATCH, queue[count - front])
        assert queue.index(other) >= limit


def test_a_record_says_what_was_asked_for_and_anybody_may_have_written_it() -> None:
    from narrowboat.contract.locks import Request

    request = Request("Füße", "me", 30.0, Mode.SHARED, None, True, lambda: None, "label")
    node = names.lock_node("Füße")
    said = read(record(request, granted=True), node)
    assert (said.name, said.label, said.granted) == ("Füße", "label", True)
    assert not read(record(request, granted=False), node).granted
    assert read(record(request, granted=True), names.lock_node("another")) is None
    for data in (b"", b"[]", b"{}", b'{"name":1,"label":2,"at":3}', b"\xff", b"null", b'{"name":"a","label":"b","at":"x"}'):
        assert read(data, node) is None
