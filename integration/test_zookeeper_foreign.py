"""ZooKeeper: whatever another program leaves under a lock's node costs that name alone, is shown, and can be removed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kazoo.client import KazooClient
from kazoo.exceptions import NodeExistsError

import narrowboat
from integration.foreign import DRAWN, records, refused
from integration.servers import ZooKeeperServer
from integration.zookeeper_harness import kazoo
from narrowboat.errors import Conflict

#: kazoo's thread asks the global random numbers for its jitter while hypothesis looks whether a strategy does.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")

_numbers = itertools.count()
NAMESPACE = "/narrowboat/_foreign"

#: Names of contenders that no server has given out. All come before ours, whose number is a small positive one.
contenders = st.builds(
    "{}~{}~{}".format,
    st.sampled_from(["x", "s", "p1", "p2", "p9999999"]),
    st.text(st.characters(codec="ascii", exclude_characters="/~", exclude_categories=["Cc"]), min_size=1, max_size=8),
    st.sampled_from(["0000000000", "-2147483648", "-000000001", "-999999999", "9999999999", "2147483647"]),
)
terms: st.SearchStrategy[dict[str, Any]] = st.sampled_from([{}, {"mode": "shared"}, {"limit": 1}, {"limit": 2}])


@pytest.fixture(scope="module")
def client(zookeeper_server: ZooKeeperServer) -> Iterator[KazooClient]:
    with kazoo(zookeeper_server.url) as made:
        made.ensure_path(NAMESPACE)
        yield made


@pytest.fixture(scope="module")
def locks(zookeeper_server: ZooKeeperServer) -> Iterator[narrowboat.Locks]:
    with narrowboat.locks(f"{zookeeper_server.url}?prefix=foreign&session_ttl=25&tick=0.5&timeout=15") as made:
        yield made


@DRAWN
@given(st.data())
def test_whatever_stands_there_costs_its_own_name_alone(
    locks: narrowboat.Locks, client: KazooClient, data: st.DataObject
) -> None:
    """Asked for, it is Conflict or a grant beside it; shown are all; removed by the token that is shown, it is as any other."""
    name = f"n{next(_numbers)}"
    planted: dict[int, str] = {}
    try:
        for node in data.draw(st.lists(contenders, min_size=1, max_size=3, unique=True)):
            _, stat = client.create(f"{NAMESPACE}/{name}/{node}", data.draw(records), makepath=True, include_data=True)
            planted[stat.czxid] = node
        with locks.lock(f"beside-{name}", timeout=5) as beside:
            refused(locks, name, **data.draw(terms))
            assert {(holder.name, holder.token, holder.foreign) for holder in locks.holders(name)} == {
                (name, token, True) for token in planted
            }
            everything = locks.holders()
            assert [holder.token for holder in everything if not holder.foreign] == [beside.token]
            assert {holder.token for holder in everything if holder.foreign} == set(planted)
            for token in planted:
                assert locks.evict(name, token)
                assert not locks.evict(name, token)
            beside.check()
        assert locks.holders() == []
        locks.lock(name, timeout=5).acquire().release()
    finally:
        client.delete(f"{NAMESPACE}/{name}", recursive=True)


@DRAWN
@given(
    st.text(st.characters(max_codepoint=0xD7FF, exclude_characters="/", exclude_categories=["C"]), min_size=1, max_size=30),
    records,
)
def test_whatever_stands_beside_the_locks_or_among_contenders_is_left_alone(
    locks: narrowboat.Locks, client: KazooClient, node: str, record: bytes
) -> None:
    """Nodes whose names are none that we give stand in nobody's way, and are not shown."""
    node = f"{node}~" if node in (".", "..", "zookeeper") else node
    name = f"n{next(_numbers)}"
    client.ensure_path(f"{NAMESPACE}/{name}")
    for path in (f"{NAMESPACE}/{name}/{node}", f"{NAMESPACE}/%zz{node}"):
        try:
            client.create(path, record)
        except NodeExistsError:
            pass
    try:
        with locks.lock(name, timeout=5) as held:
            assert [holder.token for holder in locks.holders()] == [held.token]
            assert [holder.waiters for holder in locks.holders(name)] == [0]
    finally:
        client.delete(f"{NAMESPACE}/{name}", recursive=True)
        client.delete(f"{NAMESPACE}/%zz{node}", recursive=True)


def test_a_holder_keeps_its_lock_when_something_foreign_is_put_before_it(locks: narrowboat.Locks, client: KazooClient) -> None:
    """It renews, is shown as a holder, and can be evicted and released; who waits behind it is told when its turn has come."""
    held = locks.lock("before").acquire(timeout=5)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(lambda: locks.lock("before").acquire(timeout=30))
        ends = time.monotonic() + 10
        while [holder.waiters for holder in locks.holders("before")] != [1]:
            assert time.monotonic() < ends, "nobody waits"
        node = f"{NAMESPACE}/before/x~!~0000000000"
        _, stat = client.create(node, b"theirs", include_data=True)
        held.renew()
        assert {(holder.token, holder.foreign) for holder in locks.holders("before")} == {
            (held.token, False),
            (stat.czxid, True),
        }
        held.release()
        with pytest.raises(Conflict):
            waiting.result(timeout=20)
    assert locks.evict("before", stat.czxid)
    again = locks.lock("before").acquire(timeout=5)
    client.create(node, b"theirs")
    assert locks.evict("before", again.token)
    assert again.wait_lost(10)
    client.delete(f"{NAMESPACE}/before", recursive=True)
