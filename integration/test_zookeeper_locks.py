"""ZooKeeper locks against real servers: what the kit cannot bring about by itself, and each thing that can be wrong."""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from kazoo.client import KazooClient
from kazoo.security import make_digest_acl

import narrowboat
from bounds import upper
from integration.fixtures import Servers
from integration.servers import ZooKeeperEnsemble, ZooKeeperServer
from integration.servers.certificates import Certificates
from integration.zookeeper_harness import ZooKeeperHarness, kazoo
from narrowboat import events
from narrowboat.contract.locks import Busy, Grant, Mode, Released, Request
from narrowboat.errors import (
    AccessDenied,
    Closed,
    ConfigurationError,
    Conflict,
    LeaseLost,
    NarrowboatError,
    Reason,
    Unavailable,
)
from narrowboat_zookeeper.locks import ZooKeeperLocks
from narrowboat_zookeeper.queue_node import QueueNode
from narrowboat_zookeeper.records import record

#: A short session, for servers with a tick of half a second.
QUERY = "session_ttl=3&tick=0.5"
#: Seconds for one call in the tests of what is wrong, and what may come on top on a busy machine.
TIMEOUT, SLACK = 1.5, 1.5

_numbers = itertools.count()


@pytest.fixture
def url(zookeeper_server: ZooKeeperServer) -> str:
    """A root of its own for each test."""
    return f"{zookeeper_server.url_for(path=f'test{next(_numbers)}')}?create=true&{QUERY}"


@pytest.fixture
def locks(url: str) -> Iterator[narrowboat.Locks]:
    with narrowboat.locks(url) as made:
        yield made


@pytest.fixture
def client(url: str) -> Iterator[KazooClient]:
    with kazoo(url) as made:
        yield made


def root(url: str) -> str:
    return f"/{url.partition('?')[0].rpartition('/')[2]}/narrowboat/_"


def driver(locks: narrowboat.Locks) -> ZooKeeperLocks:
    found = locks._core.driver.get()
    assert isinstance(found, ZooKeeperLocks)
    return found


def session(locks: narrowboat.Locks) -> int | None:
    return driver(locks)._state.session.id


def watched(locks: narrowboat.Locks) -> bool:
    """Whether a watch was sent for each node that is held."""
    return all(node.watched_in >= 0 for node in list(driver(locks)._state.nodes.values()))


class Bell:
    """Counts how often a waiter was woken."""

    def __init__(self) -> None:
        self.rings = 0
        self.rung = threading.Event()

    def __call__(self) -> None:
        self.rings += 1
        self.rung.set()


def request(
    name: str, owner: str, *, wait: bool = True, mode: Mode = Mode.EXCLUSIVE, limit: int | None = None, wake: Any = None
) -> Request:
    return Request(name, owner, 30.0, mode, limit, wait, wake or Bell(), "test")


def one(answers: list[Any]) -> Any:
    (answer,) = answers
    return answer


def eventually(probe: Callable[[], Any], within: float = 10.0) -> Any:
    ends = time.monotonic() + within
    while not (found := probe()):
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.02)
    return found


def bounded(call: Callable[[], object], *kinds: type[Exception]) -> Any:
    """The error of a call that ends in time."""
    begun = time.monotonic()
    with pytest.raises(kinds) as caught:
        call()
    assert time.monotonic() - begun < upper(2 * TIMEOUT + SLACK)
    return caught.value


# -- the nodes --------------------------------------------------------------------------------------------------------------


def test_a_lock_is_one_ephemeral_node_and_its_token_the_zxid_of_its_creation(
    locks: narrowboat.Locks, client: KazooClient, url: str
) -> None:
    with locks.lock("invoice:42", label="me") as held:
        (node,) = client.get_children(f"{root(url)}/invoice%3A42")
        data, stat = client.get(f"{root(url)}/invoice%3A42/{node}")
        assert (stat.czxid, stat.ephemeralOwner) == (held.token, driver(locks)._state.session.id)
        assert b'"name":"invoice:42"' in data
        assert held.ttl == 3.0
    assert client.get_children(f"{root(url)}/invoice%3A42") == []


def test_the_nodes_of_idle_locks_are_removed_in_the_background(locks: narrowboat.Locks, client: KazooClient, url: str) -> None:
    for number in range(50):
        locks.lock(f"name {number}").acquire().release()
    with locks.lock("held"):
        eventually(lambda: client.get_children(root(url)) == ["held"])
        locks.lock("name 7").acquire().release()  # made again, although it was there when this provider looked last


def test_nothing_is_left_after_close(client: KazooClient, url: str) -> None:
    with narrowboat.locks(url) as locks:
        held = [locks.lock(f"name {number}").acquire() for number in range(20)]
    assert all(each.reason is Reason.CLOSED for each in held)
    assert client.get_children(f"/{root(url).split('/')[1]}/narrowboat") == []


@pytest.mark.parametrize("name", ["a/b", "/", ".", "..", "a b", "Füße 門", "%2F", "~#?&", "x" * 1000, "門" * 1000])
def test_any_name_is_a_name_of_its_own(locks: narrowboat.Locks, name: str) -> None:
    others = [name + "x" if len(name) < 1000 else name[:-1] + "y", quote(name, safe="")[:1000]]
    with contextlib.ExitStack() as stack:
        held = stack.enter_context(locks.lock(name))
        for other in {*others} - {name}:
            stack.enter_context(locks.lock(other, timeout=5))
        assert [(holder.name, holder.token) for holder in locks.holders(name)] == [(name, held.token)]
        assert {holder.name for holder in locks.holders()} == {name, *others}


def test_prefixes_never_meet(url: str) -> None:
    with narrowboat.locks(url, prefix="a") as one_, narrowboat.locks(url, prefix="a/b") as other, narrowboat.locks(url) as bare:
        held = [each.lock("a").acquire(timeout=5) for each in (one_, other, bare)]
        assert len(held) == 3
        assert [len(each.holders()) for each in (one_, other, bare)] == [1, 1, 1]


def test_a_missing_root_is_made_only_if_that_was_asked_for(zookeeper_server: ZooKeeperServer) -> None:
    bare = f"{zookeeper_server.url_for(path='not/there')}?{QUERY}"
    with narrowboat.locks(bare) as locks:
        assert "create=true" in str(bounded(lambda: locks.lock("a").acquire(), ConfigurationError))
        assert locks.holders() == []
    with kazoo(bare) as client:
        assert client.exists("/not") is None
    with narrowboat.locks(bare, create=True) as locks:
        locks.lock("a").acquire().release()


# -- foreign hands ----------------------------------------------------------------------------------------------------------


def test_a_node_that_is_not_ours_stands_in_nobodys_way(locks: narrowboat.Locks, client: KazooClient, url: str) -> None:
    locks.lock("a").acquire().release()
    client.create(f"{root(url)}/a/README")
    client.create(f"{root(url)}/a/x-lock-", ephemeral=True, sequence=True)
    with locks.lock("a", timeout=5) as held:
        assert [(holder.foreign, holder.waiters) for holder in locks.holders("a")] == [(True, 0), (True, 0), (False, 0)]
        assert locks.holders("a")[2].token == held.token


def test_a_node_with_our_owner_in_another_session_is_not_taken_for_ours(
    locks: narrowboat.Locks, client: KazooClient, url: str
) -> None:
    found = driver(locks)
    locks.lock("a").acquire().release()
    asked = request("a", "me")
    client.create(f"{root(url)}/a/x~me~", record(asked, granted=False), ephemeral=True, sequence=True)
    node = found._state.nodes["me"] = QueueNode(asked.wake)
    assert node.path is None  # as after a create whose answer was lost
    assert isinstance(one(found.attempt([asked])), Busy)
    assert found.withdraw([asked]) == [None]


def test_a_waiter_whose_node_was_deleted_stands_in_line_again(locks: narrowboat.Locks, client: KazooClient, url: str) -> None:
    found = driver(locks)
    holder = one(found.attempt([request("a", "holder")]))
    waiter = request("a", "waiter")
    assert isinstance(one(found.attempt([waiter])), Busy)
    (node,) = [each for each in client.get_children(f"{root(url)}/a") if "~waiter~" in each]
    client.delete(f"{root(url)}/a/{node}")
    assert isinstance(one(found.attempt([waiter])), Busy)
    assert found.release([holder]) == [Released.RELEASED]
    assert waiter.wake.rung.wait(5)  # type: ignore[attr-defined]  # a Bell
    grant = one(found.attempt([waiter]))
    assert isinstance(grant, Grant)
    assert found.release([grant]) == [Released.RELEASED]


def test_when_the_whole_queue_was_deleted_the_holder_has_lost_it_and_the_waiter_gets_it(
    locks: narrowboat.Locks, client: KazooClient, url: str
) -> None:
    held = locks.lock("a").acquire()
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(locks.lock("a").acquire(timeout=20)))
    thread.start()
    eventually(lambda: locks.holders("a")[0].waiters == 1)
    everything = client.transaction()
    for node in client.get_children(f"{root(url)}/a"):
        everything.delete(f"{root(url)}/a/{node}")
    everything.delete(f"{root(url)}/a")
    everything.commit()
    thread.join(20)
    assert held.wait_lost(5)
    assert held.reason is Reason.TAKEN
    assert got[0].token > held.token
    got[0].release()


def test_the_holder_is_told_whether_it_was_evicted_or_its_session_ended(url: str) -> None:
    harness = ZooKeeperHarness(url)
    with narrowboat.locks(url) as locks, narrowboat.locks(url) as operator:
        first, other = locks.lock("a").acquire(), locks.lock("b").acquire()
        eventually(lambda: watched(locks))  # soon after the grant; before that nobody could tell why it is gone
        assert operator.evict("a", first.token)
        assert first.wait_lost(3)
        assert first.reason is Reason.EVICTED
        other.check()
        before = session(locks)
        harness.end_session(driver(locks))
        assert other.wait_lost(3)
        assert other.reason in (Reason.SESSION_ENDED, Reason.EXPIRED)
        again = locks.lock("b").acquire(timeout=10)  # in a new session, which does not revive what was
        assert session(locks) != before
        assert again.token > other.token
        assert other.lost
        with pytest.raises(LeaseLost):
            other.release()
        assert [holder.token for holder in operator.holders("b")] == [again.token]


def test_who_writes_to_the_node_of_a_holder_evicts_nobody(client: KazooClient, url: str) -> None:
    """A change may be the first half of an eviction, or anybody's: a renewal looks whether the node is there."""
    seen: list[Any] = []
    with (
        narrowboat.locks(f"{url}&session_ttl=12".replace("session_ttl=3&", ""), listeners=[seen.append]) as locks,
        narrowboat.locks(url) as operator,
    ):
        held = locks.lock("a").acquire()
        eventually(lambda: watched(locks))
        (node,) = client.get_children(f"{root(url)}/a")
        client.set(f"{root(url)}/a/{node}", b"{}")
        eventually(lambda: any(isinstance(each, events.Renewed) for each in seen), within=1.0)  # its own is due in 4 s
        held.check()
        assert operator.evict("a", held.token)
        assert held.wait_lost(0.5)
        assert held.reason is Reason.EVICTED


def test_the_end_of_a_session_is_told_when_the_client_hears_of_it(url: str) -> None:
    """Not with the next renewal, which is seconds away; and a lock that nobody renews is told as well."""
    with narrowboat.locks(f"{url.partition('?')[0]}?create=true&session_ttl=12&tick=0.5") as locks:
        held = [locks.lock("a").acquire(), locks.lock("b", renew=False).acquire()]
        ZooKeeperHarness(url).end_session(driver(locks))
        for each in held:
            assert each.wait_lost(2.0)
            assert each.reason is Reason.SESSION_ENDED


def test_a_waiter_whose_session_ended_stands_in_line_again(url: str) -> None:
    harness = ZooKeeperHarness(url)
    with narrowboat.locks(url) as locks, narrowboat.locks(url) as other:
        held = other.lock("a").acquire()
        got: list[Any] = []
        thread = threading.Thread(target=lambda: got.append(locks.lock("a").acquire(timeout=30)))
        thread.start()
        eventually(lambda: other.holders("a")[0].waiters == 1)
        harness.end_session(driver(locks))
        eventually(lambda: other.holders("a")[0].waiters == 1)
        held.release()
        thread.join(30)
        assert got[0].token > held.token


@pytest.mark.parametrize("sequence", [2147483647, -2147483648, -1])
def test_past_the_end_of_the_counter_whoever_came_first_goes_first(
    locks: narrowboat.Locks, client: KazooClient, url: str, sequence: int
) -> None:
    found = driver(locks)
    found.release([one(found.attempt([request("a", "first")]))])
    waiter = request("a", "waiter")
    older = client.create(f"{root(url)}/a/x~older~{sequence:010d}", record(waiter, granted=False), ephemeral=True)
    assert isinstance(one(found.attempt([waiter])), Busy)  # its own number is a small one
    client.create(f"{root(url)}/a/x~younger~{sequence:010d}", record(waiter, granted=False), ephemeral=True)
    assert [holder.token for holder in found.holders("a")] == [client.exists(older).czxid]
    client.delete(older)
    assert waiter.wake.rung.wait(5)  # type: ignore[attr-defined]  # a Bell
    grant = one(found.attempt([waiter]))
    assert isinstance(grant, Grant)
    assert [holder.token for holder in found.holders("a")] == [grant.token]


# -- the queue --------------------------------------------------------------------------------------------------------------


def test_each_release_wakes_one_of_many(locks: narrowboat.Locks) -> None:
    found = driver(locks)
    grant = one(found.attempt([request("a", "holder")]))
    waiters = [request("a", f"waiter-{number}") for number in range(30)]
    bells: list[Any] = [waiter.wake for waiter in waiters]
    assert all(isinstance(one(found.attempt([waiter])), Busy) for waiter in waiters)
    for number, waiter in enumerate(waiters):
        assert found.release([grant]) == [Released.RELEASED]
        assert bells[number].rung.wait(5)
        assert [bell.rings for bell in bells[number + 1 :]] == [0] * (29 - number)
        grant = one(found.attempt([waiter]))
        assert isinstance(grant, Grant)


def test_permits_are_handed_over_side_by_side(locks: narrowboat.Locks) -> None:
    found = driver(locks)
    permits = [one(found.attempt([request("a", f"holder-{n}", mode=Mode.SEMAPHORE, limit=3)])) for n in range(3)]
    waiters = [request("a", f"waiter-{number}", mode=Mode.SEMAPHORE, limit=3) for number in range(9)]
    assert all(isinstance(one(found.attempt([waiter])), Busy) for waiter in waiters)
    assert isinstance(one(found.attempt([request("a", "other", mode=Mode.SEMAPHORE, limit=4)])), Conflict)
    for start in range(0, 9, 3):
        assert found.release(list(reversed(permits))) == [Released.RELEASED] * 3
        permits = []
        for waiter in waiters[start : start + 3]:
            assert waiter.wake.rung.wait(5)  # type: ignore[attr-defined]  # a Bell
            permits.append(one(found.attempt([waiter])))
        assert all(isinstance(permit, Grant) for permit in permits)
        assert len(found.holders("a")) == 3


def test_a_thousand_locks_are_one_session_and_their_renewal_is_one_request(zookeeper_server: ZooKeeperServer, url: str) -> None:
    def received() -> int:
        lines = dict(line.split("\t") for line in zookeeper_server.command("mntr").splitlines() if "\t" in line)
        return int(lines["zk_packets_received"])

    sessions = len(zookeeper_server.command("cons").split())
    with narrowboat.locks(url) as locks:
        held = [locks.lock(f"held {number}").acquire() for number in range(1000)]
        eventually(lambda: watched(locks))
        locks.ping()  # answered after them
        before = received()
        time.sleep(3.0)  # one session time
        assert received() - before < 30
        assert len(zookeeper_server.command("cons").split()) <= sessions + 2
        assert not any(each.lost for each in held)


# -- what is wrong ----------------------------------------------------------------------------------------------------------


def test_without_a_server_every_call_is_one_clear_error_in_time(servers: Servers) -> None:
    server: ZooKeeperServer = servers(ZooKeeperServer)
    url = f"{server.url}?{QUERY}&timeout={TIMEOUT}"
    server.stop()
    threads = threading.active_count()
    with narrowboat.locks(url) as locks:
        lock = locks.lock("a")
        for call in (lock.acquire, lock.try_acquire, locks.holders, lambda: locks.evict("a", 1), locks.ping):
            assert str(server.port) in str(bounded(call, Unavailable))
        server.start()
        eventually(lambda: pings(locks))
        held = lock.acquire()
        server.kill()
        bounded(held.renew, NarrowboatError)
        assert held.wait_lost(5)
    eventually(lambda: threading.active_count() <= threads)
    with pytest.raises(Closed):
        locks.ping()


def pings(locks: narrowboat.Locks) -> bool:
    try:
        locks.ping()
    except Unavailable:
        return False
    return True


def test_a_session_time_that_the_server_does_not_grant_is_refused(servers: Servers) -> None:
    server: ZooKeeperServer = servers(ZooKeeperServer, config={"minSessionTimeout": "4000", "maxSessionTimeout": "6000"})
    with narrowboat.locks(f"{server.url}?session_ttl=2&tick=0.5") as locks:
        assert "session_ttl=4" in str(bounded(locks.lock("a").acquire, ConfigurationError))
    with narrowboat.locks(f"{server.url}?session_ttl=30&tick=4") as locks:
        assert "maxSessionTimeout" in str(bounded(locks.lock("a", ttl=60).acquire, ConfigurationError))
    with narrowboat.locks(f"{server.url}?session_ttl=20&tick=0.5") as locks:
        assert locks.lock("a").acquire().ttl == 6.0  # shorter than asked for, and said so


def test_who_has_no_right_is_refused_by_name(zookeeper_server: ZooKeeperServer) -> None:
    path = f"acl{next(_numbers)}"
    mine = f"{zookeeper_server.url_for('shop', 'p@ss w:rd/', path)}?create=true&{QUERY}"
    other = f"{zookeeper_server.url_for('other', 'secret', path)}?{QUERY}"
    with narrowboat.locks(mine) as locks, narrowboat.locks(other) as thief:
        with locks.lock("a") as held:
            for call in (thief.lock("a").acquire, thief.lock("b").acquire, lambda: thief.evict("a", held.token)):
                error = bounded(call, AccessDenied)
                assert "'other'" in str(error)
                assert "secret" not in str(error)
            locks.lock("b").acquire().release()
        assert locks.holders() == []
    with (
        narrowboat.locks(mine.replace("?", "?acl=read&"), prefix="seen") as locks,
        narrowboat.locks(other, prefix="seen") as thief,
    ):
        held = locks.lock("a").acquire()
        assert [holder.token for holder in thief.holders("a")] == [held.token]
        bounded(thief.lock("a").acquire, AccessDenied)


def test_who_may_not_delete_is_told_so_and_the_session_takes_it_back(zookeeper_server: ZooKeeperServer) -> None:
    path = f"acl{next(_numbers)}"
    user = f"{zookeeper_server.url_for('shop', 'x', path)}?acl=open&{QUERY}"
    with kazoo(zookeeper_server.url, auth_data=[("digest", "admin:x")]) as admin:
        rights = [make_digest_acl("shop", "x", read=True, create=True), make_digest_acl("admin", "x", all=True)]
        admin.ensure_path(f"/{path}/narrowboat/_")
        admin.create(f"/{path}/narrowboat/_/a", acl=rights)
        with narrowboat.locks(user) as locks:
            held = locks.lock("a").acquire()
            assert "deleting" in str(bounded(held.release, AccessDenied))
        eventually(lambda: admin.get_children(f"/{path}/narrowboat/_/a") == [])


def test_tls_needs_the_right_authority(servers: Servers, tmp_path: Any) -> None:
    server: ZooKeeperServer = servers(ZooKeeperServer, tls=True)
    with narrowboat.locks(f"{server.url}&{QUERY}") as locks:
        grants = [locks.lock(f"name {number}").acquire() for number in range(100)]
        assert len(locks.holders()) == 100  # a pipeline of a hundred answers, in few records
        for grant in grants:
            grant.release()
    wrong = Certificates(tmp_path)
    with narrowboat.locks(f"zookeepers://127.0.0.1:{server.port}?ca={quote(str(wrong.ca))}&{QUERY}&timeout={TIMEOUT}") as locks:
        assert "certificate" in str(bounded(locks.lock("a").acquire, ConfigurationError))
    with narrowboat.locks(f"zookeeper://127.0.0.1:{server.port}?{QUERY}&timeout={TIMEOUT}") as locks:
        bounded(locks.lock("a").acquire, Unavailable)


def test_no_secret_is_logged_even_at_the_lowest_level(zookeeper_server: ZooKeeperServer) -> None:
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    logger = logging.getLogger()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(1)
    try:
        path = f"log{next(_numbers)}"
        with narrowboat.locks(f"{zookeeper_server.url_for('shop', 'hunter2', path)}?create=true&{QUERY}") as locks:
            locks.lock("a").acquire().release()
            assert "hunter2" not in repr(locks)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    assert "Zookeeper connection established" in text.getvalue()
    assert "hunter2" not in text.getvalue()


# -- three servers ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ensemble(servers: Servers) -> ZooKeeperEnsemble:
    made: ZooKeeperEnsemble = servers(ZooKeeperServer, ZooKeeperEnsemble)
    return made


def test_a_held_lock_outlives_its_leader_and_tokens_grow(ensemble: ZooKeeperEnsemble) -> None:
    with narrowboat.locks(f"{ensemble.url}?session_ttl=20&tick=0.5&prefix=leader") as locks:
        held = locks.lock("a").acquire(timeout=20)
        ensemble.leader().kill()
        with narrowboat.locks(f"{ensemble.url}?session_ttl=20&tick=0.5&prefix=leader") as other:
            eventually(lambda: pings(other), within=30)
            eventually(lambda: pings(locks), within=30)
            assert other.lock("a").try_acquire() is None
            assert not held.lost
            held.renew()
            held.release()
            assert other.lock("a").acquire(timeout=20).token > held.token
        for server in ensemble.servers:
            server.start()


def test_without_a_quorum_calls_end_in_time_and_the_holder_gives_up(ensemble: ZooKeeperEnsemble) -> None:
    with narrowboat.locks(f"{ensemble.url}?{QUERY}&prefix=quorum&timeout={TIMEOUT}") as locks:
        held = eventually(lambda: attempted(locks), within=30)
        for server in ensemble.followers():
            server.kill()
        begun = time.monotonic()
        assert held.wait_lost(held.ttl + SLACK)
        assert time.monotonic() - begun < held.ttl
        bounded(locks.lock("b").acquire, Unavailable)
        for server in ensemble.servers:
            server.start()
        eventually(lambda: pings(locks), within=30)
        locks.lock("a").acquire(timeout=30).release()


def attempted(locks: narrowboat.Locks) -> Any:
    try:
        return locks.lock("a").acquire(timeout=10)
    except Unavailable:
        return None


def test_a_follower_that_hears_nothing_from_its_leader_does_not_keep_a_lock_alive(ensemble: ZooKeeperEnsemble) -> None:
    """It goes on answering pings, and for a while reads; the leader expires the session."""
    follower = ensemble.followers()[0]
    with narrowboat.locks(f"{follower.url}?{QUERY}&prefix=follower&timeout={TIMEOUT}") as locks:
        held = eventually(lambda: attempted(locks), within=30)
        leader = ensemble.leader()
        leader.pause()
        try:
            paused = time.monotonic()
            assert held.wait_lost(held.ttl + SLACK)
            assert time.monotonic() - paused < held.ttl
        finally:
            leader.resume()
    eventually(ensemble.leader, within=30)
