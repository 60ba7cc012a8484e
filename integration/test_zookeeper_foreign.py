"""ZooKeeper: whatever another program leaves under a lock's node costs that name alone, is shown, and can be removed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kazoo.client import KazooClient
from kazoo.exceptions import NodeExistsError
from kazoo.security import make_digest_acl

import narrowboat
from integration.foreign import DRAWN, costs_its_own_name_alone, records, terms
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
    planted: set[int] = set()
    try:
        for node in data.draw(st.lists(contenders, min_size=1, max_size=3, unique=True)):
            _, stat = client.create(f"{NAMESPACE}/{name}/{node}", data.draw(records), makepath=True, include_data=True)
            planted.add(stat.czxid)
        costs_its_own_name_alone(locks, name, planted, data.draw(terms))
    finally:
        client.delete(f"{NAMESPACE}/{name}", recursive=True)


@DRAWN
@given(
    st.text(st.characters(max_codepoint=0xD7FF, exclude_characters="/", exclude_categories=["C"]), min_size=1, max_size=30),
    records,
)
def test_whatever_is_called_like_no_contender_stands_in_nobodys_way(
    locks: narrowboat.Locks, client: KazooClient, node: str, record: bytes
) -> None:
    """Among contenders it is shown and can be removed, for it would keep the lock's node; beside the locks it is left alone."""
    node = f"{node}~" if node in (".", "..", "zookeeper") else node
    name = f"n{next(_numbers)}"
    client.ensure_path(f"{NAMESPACE}/{name}")
    _, stat = client.create(f"{NAMESPACE}/{name}/{node}", record, include_data=True)
    try:
        client.create(f"{NAMESPACE}/%zz{node}", record)
    except NodeExistsError:
        pass
    try:
        with locks.lock(name, timeout=5) as held:
            expected = {(name, held.token, False, 0), (name, stat.czxid, True, 0)}
            for shown in (locks.holders(), locks.holders(name)):
                assert {(holder.name, holder.token, holder.foreign, holder.waiters) for holder in shown} == expected
            assert locks.evict(name, stat.czxid)
            assert not locks.evict(name, stat.czxid)
            held.check()
        assert client.exists(f"{NAMESPACE}/%zz{node}")
    finally:
        client.delete(f"{NAMESPACE}/{name}", recursive=True)
        client.delete(f"{NAMESPACE}/%zz{node}", recursive=True)


def test_a_note_that_is_not_for_us_or_has_nodes_of_its_own_makes_no_listing_fail(
    locks: narrowboat.Locks, client: KazooClient
) -> None:
    """What is more than one node is shown and not removed, and the error says so; a secret is shown where its server allows."""
    client.ensure_path(f"{NAMESPACE}/odd/folder/inner")
    client.create(f"{NAMESPACE}/odd/secret", b"theirs", acl=[make_digest_acl("them", "pw", all=True)])
    try:
        folder = locks.holders("odd")[0]
        assert folder.foreign
        with pytest.raises(Conflict, match="nodes of its own below it"):
            locks.evict("odd", folder.token)
        assert client.exists(f"{NAMESPACE}/odd/folder/inner")
        locks.lock("odd").acquire(timeout=5).release()
    finally:
        client.delete(f"{NAMESPACE}/odd/secret")
        client.delete(f"{NAMESPACE}/odd", recursive=True)


def test_looking_at_thousands_of_nodes_takes_time_in_proportion(locks: narrowboat.Locks, client: KazooClient) -> None:
    """3,000 foreign ones under one lock cost a second of this thread or so; each compared with all others they cost eight."""
    client.ensure_path(f"{NAMESPACE}/many")
    try:
        for made in [client.create_async(f"{NAMESPACE}/many/x~theirs~{number:010}", b"theirs") for number in range(3000)]:
            made.get(timeout=60)
        begun = time.thread_time()
        assert len(locks.holders("many")) == 3000
        assert time.thread_time() - begun < 3.0
    finally:
        client.delete(f"{NAMESPACE}/many", recursive=True)


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
