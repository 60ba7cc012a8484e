"""Cassandra: URLs, what stands in a row, and which step follows from it; none of it needs a server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narrowboat.contract.locks import Mode, Request
from narrowboat.dsn import Url
from narrowboat.errors import ConfigurationError
from narrowboat_cassandra.options import Consistency, Options, Ring
from narrowboat_cassandra.owners import FIRST, Owners
from narrowboat_cassandra.rows import AHEAD, Held, State, holders, microseconds
from narrowboat_cassandra.steps import Do, Refuse, Steps, Wait, seconds

OWNER, OTHER = "a-1", "b-2"
STEPS = Steps("")


def request(mode: Mode = Mode.EXCLUSIVE, limit: int | None = None, *, wait: bool = True, owner: str = OWNER) -> Request:
    return Request("n", owner, 5.0, mode, limit, wait, lambda: None, "label")


def state(*held: Held, version: int | None = 7, writer: str | None = None) -> State:
    return State.of({"v": version, "h": {slot: each.pack() for slot, each in enumerate(held)}, "w": writer})


# -- URLs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("cassandra://host", {}, "needs a keyspace"),
        ("cassandra://host/a/b", {}, "needs a keyspace"),
        ("cassandra://host/7up", {}, "needs a keyspace"),
        ("cassandra://host:1,other:2/shop", {}, "one port"),
        ("cassandra://me@host/shop", {}, "a user needs a password"),
        ("cassandra+dse://host/shop", {}, "only one driver"),
        ("cassandra://host/shop", {"ca": "/none"}, "cassandras"),
    ],
)
def test_a_url_that_makes_no_sense_is_refused(url: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Ring.of(Url.parse(url), Options(**options))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"table": "x; DROP"}, "option table"),
        ({"consistency": Consistency.LOCAL_SERIAL}, "needs dc="),
        ({"replication": 0}, "replication=0"),
        ({"max_skew": -1.0}, "max_skew=-1"),
        ({"poll": 0.0}, "poll=0"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Options(**options)


def test_the_names_of_keyspace_and_table_are_those_that_cassandra_folds_them_to() -> None:
    ring = Ring.of(Url.parse("cassandra://a,b/Shop"), Options(table="Locks"))
    assert ring.table == "shop.locks"
    assert [host.port for host in ring.hosts] == [9042, 9042]


# -- rows ---------------------------------------------------------------------------------------------------------


@given(st.integers(1, 2**62 - 1), st.sampled_from([(Mode.EXCLUSIVE, None), (Mode.SHARED, None), (Mode.SEMAPHORE, 3)]))
def test_what_is_packed_is_unpacked(token: int, kind: tuple[Mode, int | None]) -> None:
    if token < 10**18:
        held = Held(token, *kind, OWNER)
        assert Held.unpack(held.pack()) == held


@given(
    st.text() | st.builds(" ".join, st.lists(st.sampled_from(["7", "x", "s", "m3", "m", "x1", "-1", "", "٣", "o"]), max_size=4))
)
def test_what_others_write_is_no_holder_or_reads_as_it_stands(text: str) -> None:
    held = Held.unpack(text)
    assert held is None or held.pack() == text


@given(
    st.dictionaries(st.integers(-3, 5), st.text(max_size=8)),
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.text(),
)
def test_any_row_is_shown_and_everything_foreign_in_it_can_be_removed(
    h: dict[int, str], v: int | None, note: str | None
) -> None:
    row = {"name": "n", "v": v, "h": h, "w": None, "written": [5] * len(h), "about": None if note is None else {0: note}}
    seen = State.of(row)
    for holder in holders(row):
        assert holder.foreign, "none of these is ours"
        assert STEPS.evict("n", holder.token, seen) is not None
    if h or seen.mad:
        assert isinstance(STEPS.take(request(), seen), Refuse)


def test_a_version_from_the_far_future_is_not_believed() -> None:
    assert state(version=microseconds() + 2 * AHEAD).mad
    assert state(version=0).mad
    assert not state(version=microseconds() + AHEAD // 2).mad


# -- steps --------------------------------------------------------------------------------------------------------


def test_a_lease_is_never_shorter_in_the_row() -> None:
    for ttl in (1.0, 1.01, 2.0, 29.999, 30.0):
        assert seconds(ttl) - 1 >= ttl


def test_a_grant_raises_the_version_whatever_the_clock_says() -> None:
    ahead = microseconds() + AHEAD // 2
    step = STEPS.take(request(), state(version=ahead))
    assert isinstance(step, Do) and step.held is not None and step.held.token == ahead + 1


def test_an_owner_that_holds_it_already_is_given_the_same_grant() -> None:
    mine = Held(7, Mode.EXCLUSIVE, None, OWNER)
    step = STEPS.take(request(), state(mine))
    assert isinstance(step, Do) and (step.name, step.held, step.slot) == ("keep", mine, 0)


def test_a_slot_between_two_holders_is_used_again() -> None:
    first, third = (Held(number, Mode.SHARED, None, f"s-{number}") for number in (1, 3))
    seen = State.of({"v": 3, "h": {0: first.pack(), 2: third.pack()}, "w": None})
    step = STEPS.take(request(Mode.SHARED), seen)
    assert isinstance(step, Do) and (step.name, step.slot) == ("join", 1)


def test_a_semaphore_admits_as_many_as_its_size() -> None:
    one, two = (Held(number, Mode.SEMAPHORE, 2, f"s-{number}") for number in (1, 2))
    assert isinstance(STEPS.take(request(Mode.SEMAPHORE, 2), state(one)), Do)
    assert isinstance(STEPS.take(request(Mode.SEMAPHORE, 2), state(one, two)), Wait)
    assert isinstance(STEPS.take(request(Mode.SEMAPHORE, 3), state(one)), Refuse)
    assert isinstance(STEPS.take(request(), state(one)), Refuse)


def test_a_writer_who_waits_says_so_and_keeps_new_readers_out() -> None:
    reader = Held(1, Mode.SHARED, None, OTHER)
    step = STEPS.take(request(), state(reader))
    assert isinstance(step, Do) and step.name == "want"
    assert isinstance(STEPS.take(request(), state(reader, writer=OWNER), announced=True), Wait)
    assert isinstance(STEPS.take(request(wait=False), state(reader)), Wait), "a try leaves nothing behind"
    assert isinstance(STEPS.take(request(Mode.SHARED, owner="c-3"), state(reader, writer=OWNER)), Wait)


def test_a_withdrawal_raises_the_version_and_frees_only_its_own_slot() -> None:
    mine, other = Held(1, Mode.SHARED, None, OWNER), Held(2, Mode.SHARED, None, OTHER)
    step = STEPS.withdraw(request(Mode.SHARED), state(mine, other))
    assert step is not None and step.values[1] > 7 and step.values[2] == 0 and step.values[-1] == 7
    nothing = STEPS.withdraw(request(Mode.SHARED), state(other))
    assert nothing is not None and nothing.values[2] != 0, "another's slot is not touched"


# -- owners -------------------------------------------------------------------------------------------------------


def test_pauses_grow_to_a_bound_and_differ() -> None:
    owners = Owners(0.5)
    pauses = [owners.pause(OWNER, True) for _ in range(40)]
    assert all(FIRST / 2 <= pause <= 0.5 for pause in pauses)
    assert min(pauses[-20:]) >= 0.25 and len(set(pauses)) == 40


def test_a_try_leaves_nothing_behind() -> None:
    owners = Owners(0.5)
    owners.ask(OWNER)
    owners.answered(OWNER)
    owners.pause(OWNER, False)
    assert not owners.waits(OWNER) and not owners.may_hold(OWNER)


def test_an_owner_whose_answer_was_lost_is_in_doubt_until_it_is_withdrawn() -> None:
    owners = Owners(0.5)
    assert not owners.ask(OWNER)
    assert owners.ask(OWNER), "the first attempt was not answered"
    owners.answered(OWNER)
    assert owners.may_hold(OWNER) and owners.ask(OWNER)
    owners.forget(OWNER)
    assert not owners.may_hold(OWNER) and not owners.ask(OWNER)
