"""Consul: whatever another program leaves under a lock's keys costs that name alone, is shown, and can be removed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

import narrowboat
from integration.foreign import DRAWN, costs_its_own_name_alone, records, terms
from integration.servers import ConsulServer
from narrowboat.errors import Conflict
from narrowboat_consul.entries import FLAGS, Entry
from narrowboat_consul.keys import Space

_numbers = itertools.count()
SPACE = Space("narrowboat", "foreign")

kinds = st.sampled_from(["lock", "held-theirs", "wants-theirs", "heldh-ff", "held-_zz", "README", "lock/more"])
marks = st.sampled_from([FLAGS, FLAGS, 0, 2**63])


@pytest.fixture(scope="module")
def locks(consul_server: ConsulServer) -> Iterator[narrowboat.Locks]:
    with narrowboat.locks(f"{consul_server.url}?prefix=foreign&timeout=15") as made:
        yield made


@DRAWN
@given(st.data())
def test_whatever_stands_there_costs_its_own_name_alone(
    locks: narrowboat.Locks, consul_server: ConsulServer, data: st.DataObject
) -> None:
    """Asked for, it is Conflict or a grant beside it, at once; shown is what stands in our places; removed, it is gone."""
    name = f"n{next(_numbers)}"
    folder = SPACE.of(name).folder
    try:
        for kind, (record, flags) in data.draw(st.dictionaries(kinds, st.tuples(records, marks), min_size=1)).items():
            consul_server.put(f"/v1/kv/{folder}{kind}?flags={flags}", record)
        there = [Entry.of(each) for each in consul_server.request("GET", f"/v1/kv/{folder}?recurse")]
        foreign = {entry.index for entry in there if entry.foreign}
        in_the_way = any(entry.foreign and entry.key == SPACE.of(name).lock for entry in there)
        assert costs_its_own_name_alone(locks, name, foreign, data.draw(terms)) is in_the_way
    finally:
        consul_server.put(f"/v1/kv/{folder}?recurse", None, "DELETE")


def test_a_lock_whose_record_was_overwritten_is_lost_and_refused_until_it_is_evicted(
    locks: narrowboat.Locks, consul_server: ConsulServer
) -> None:
    """Its holder is told, who waits for it is refused, and no other name notices."""
    key = SPACE.of("over").lock
    held = locks.lock("over").acquire(timeout=5)
    with ThreadPoolExecutor() as pool, locks.lock("beside") as beside:
        waiting = pool.submit(lambda: locks.lock("over").acquire(timeout=30))
        consul_server.put(f"/v1/kv/{key}?flags={FLAGS}", b"theirs")
        with pytest.raises(Conflict):
            waiting.result(timeout=20)
        assert held.wait_lost(10)
        (foreign,) = [holder for holder in locks.holders("over") if holder.foreign]
        assert locks.evict("over", foreign.token)
        locks.lock("over").acquire(timeout=5).release()
        beside.check()
