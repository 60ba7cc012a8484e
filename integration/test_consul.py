"""Consul: what is its own beside the conformance kit. Bad input, access, TLS, what is left in the store."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import Any

import pytest

import narrowboat
from bounds import upper
from integration.fixtures import Servers
from integration.servers import ConsulServer, RedisServer
from narrowboat.contract.locks import Grant, Mode, Request
from narrowboat.errors import AccessDenied, Closed, ConfigurationError, Conflict, LockTimeout, Reason, Unavailable
from narrowboat_consul.keys import Space
from narrowboat_consul.locks import ConsulLocks

TOKEN = "6f2d0f0a-3b52-4cf5-8f5e-0d4b5c8f0c11"
#: what a lock is asked for with: each of its modes
TERMS: tuple[dict[str, Any], ...] = ({}, {"mode": "shared"}, {"limit": 2})


@pytest.fixture(scope="module")
def guarded(servers: Servers) -> ConsulServer:
    server: ConsulServer = servers(ConsulServer, token=TOKEN)
    return server


@pytest.fixture(scope="module")
def encrypted(servers: Servers) -> ConsulServer:
    server: ConsulServer = servers(ConsulServer, tls=True)
    return server


def keys(server: ConsulServer, folder: str = "narrowboat") -> list[str]:
    found = server.request("PUT", "/v1/txn", [{"KV": {"Verb": "get-tree", "Key": f"{folder}/"}}])
    return [result["KV"]["Key"] for result in found["Results"] or []]


def sessions(server: ConsulServer) -> list[str]:
    return [session["ID"] for session in server.request("GET", "/v1/session/list")]


def new_token(server: ConsulServer, rules: str) -> str:
    policy = server.request("PUT", "/v1/acl/policy", {"Name": f"p{time.monotonic_ns()}", "Rules": rules})
    made = server.request("PUT", "/v1/acl/token", {"Policies": [{"ID": policy["ID"]}]})
    secret: str = made["SecretID"]
    return secret


def test_nothing_is_left_in_the_store(consul_server: ConsulServer) -> None:
    """Neither keys nor sessions, in any mode."""
    with narrowboat.locks(consul_server.url) as locks:
        for terms in TERMS:
            with locks.lock("a", **terms):
                assert keys(consul_server)
                assert len(sessions(consul_server)) == 1
            assert keys(consul_server) == []
    assert sessions(consul_server) == []


def test_the_session_is_as_it_has_to_be(consul_server: ConsulServer) -> None:
    """No health checks, its keys go with it, and no delay after it."""
    with narrowboat.locks(consul_server.url, session_ttl=15) as locks, locks.lock("a"):
        (session,) = consul_server.request("GET", "/v1/session/list")
    assert (session["Behavior"], session["TTL"], session["LockDelay"]) == ("delete", "15s", 0)
    assert not session["NodeChecks"]
    assert not session["ServiceChecks"]


def test_a_token_grows_where_the_lock_index_starts_again(consul_server: ConsulServer) -> None:
    """The key is deleted between two holders, and with it its LockIndex."""
    with narrowboat.locks(consul_server.url) as locks:
        tokens = []
        for _ in range(5):
            with locks.lock("a") as held:
                tokens.append(held.token)
    assert tokens == sorted(set(tokens))


def test_a_second_owner_of_the_same_session_is_kept_out(consul_server: ConsulServer) -> None:
    """Consul itself would let it in: a session does not exclude itself."""
    with narrowboat.locks(consul_server.url) as locks, locks.lock("a"):
        got = []
        other = threading.Thread(target=lambda: got.append(locks.lock("a").try_acquire()))
        other.start()
        other.join(10)
        assert got == [None]
        assert len(sessions(consul_server)) == 1


def test_an_eviction_is_learned_with_the_next_renewal(consul_server: ConsulServer) -> None:
    """The session's renewal still succeeds, so each entry is looked at."""
    lost = threading.Event()
    with narrowboat.locks(consul_server.url) as locks, narrowboat.locks(consul_server.url) as operator:
        held = locks.lock("a").acquire()
        held.on_lost(lambda _: lost.set())
        begun = time.monotonic()
        assert operator.evict("a", held.token)
        second = operator.lock("a").acquire(timeout=5)
        assert lost.wait(5)
        assert time.monotonic() - begun < upper(5)
        assert held.reason is Reason.EVICTED
        second.check()
        second.release()


def test_a_session_that_ended_is_told_to_all_when_one_call_meets_it(consul_server: ConsulServer) -> None:
    """Nobody watches the session; but whoever learns of its end need not keep it from those who hold something by it."""
    with narrowboat.locks(consul_server.url, session_ttl=15) as locks:
        held = [locks.lock("a").acquire(), locks.lock("b", renew=False).acquire()]
        (session,) = sessions(consul_server)
        consul_server.request("PUT", f"/v1/session/destroy/{session}")
        locks.lock("c").acquire(timeout=5).release()
        for each in held:
            assert each.wait_lost(2)  # the next renewal is due in five seconds
            assert each.reason is Reason.SESSION_ENDED


def driver_of(locks: narrowboat.locking.Locks) -> ConsulLocks:
    driver = locks._core.driver.get()
    assert isinstance(driver, ConsulLocks)
    return driver


def asked(name: str, owner: str) -> Request:
    return Request(name, owner, 60.0, Mode.EXCLUSIVE, None, True, lambda: None, "test")


def test_an_attempt_that_landed_after_its_withdrawal_stands_in_nobodys_way(consul_server: ConsulServer) -> None:
    """Whoever meets it here removes it at once; the next renewal, which does so too, is seconds away."""
    with narrowboat.locks(consul_server.url) as locks:
        driver = driver_of(locks)
        ghost = asked("a", "ghost")
        (grant,) = driver.attempt([ghost])
        assert isinstance(grant, Grant)
        driver._owners.forget("ghost")
        driver._owners.doubt(ghost, driver._clock())  # as after a withdrawal that found nothing yet
        begun = time.monotonic()
        with locks.lock("a", timeout=5) as held:
            assert time.monotonic() - begun < upper(1)
            assert held.token > grant.token
            assert "ghost" not in driver._owners.in_doubt()


def test_names_in_doubt_are_one_read_for_many_and_none_for_who_asks_for_another(
    consul_server: ConsulServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a bad hour of the network there may be hundreds; neither an acquire nor the renewals may wait for each."""
    with narrowboat.locks(consul_server.url) as locks:
        driver = driver_of(locks)
        held = locks.lock("held").acquire()
        exchanges: list[tuple[Any, ...]] = []
        call = driver._transport.call

        def counted(*args: Any, **options: Any) -> Any:
            exchanges.append(args)
            return call(*args, **options)

        monkeypatch.setattr(driver._transport, "call", counted)
        for number in range(200):
            driver._owners.doubt(asked(f"name {number}", f"owner {number}"), driver._clock())
        locks.lock("free").acquire().release()
        assert len(exchanges) == 2
        del exchanges[:]
        assert driver.renew([held._grant]) == [held._grant]
        assert len(exchanges) == 3  # the held one, and 128 names in a read


def test_a_dead_writer_does_not_keep_readers_out(consul_server: ConsulServer) -> None:
    """What it announced goes with its session; one that leaves in good order takes it along at once."""
    with narrowboat.locks(consul_server.url) as readers, narrowboat.locks(consul_server.url) as writers:
        reading = readers.lock("a", mode="shared").acquire()
        with pytest.raises(LockTimeout):
            writers.lock("a").acquire(timeout=0.3)
        assert not [key for key in keys(consul_server) if "wants" in key]

        def wait() -> None:
            with pytest.raises(Closed):
                writers.lock("a").acquire()

        waiting = threading.Thread(target=wait)
        waiting.start()
        deadline = time.monotonic() + 5
        while not [key for key in keys(consul_server) if "wants" in key]:
            assert time.monotonic() < deadline
        assert readers.lock("a", mode="shared").try_acquire() is None
        for session in sessions(consul_server):
            holds = [key for key in consul_server.request("GET", "/v1/kv/narrowboat/?recurse") if key.get("Session") == session]
            if any("wants" in key["Key"] for key in holds):
                consul_server.request("PUT", f"/v1/session/destroy/{session}")
        other = narrowboat.locks(consul_server.url)
        assert other.lock("a", mode="shared").acquire(timeout=2)
        other.close()
        writers.close()
        waiting.join(10)
        reading.release()


def test_what_another_program_left_in_the_way_is_told(consul_server: ConsulServer) -> None:
    """It is not overwritten, and the error names the key."""
    key = Space("narrowboat", "").of("foreign").lock
    consul_server.request("PUT", f"/v1/kv/{key}", "mine")
    try:
        with narrowboat.locks(consul_server.url) as locks, pytest.raises(Conflict, match="in the way"):
            locks.lock("foreign").acquire(timeout=1)
        assert keys(consul_server) == [key]
    finally:
        consul_server.request("DELETE", f"/v1/kv/{key}")


@pytest.mark.parametrize("name", ["a/b", "a b", "..", ".", "ü", "x.json", "a" * 1000, "%2F", "日本"])
def test_any_name_can_be_locked(consul_server: ConsulServer, name: str) -> None:
    """Whatever Consul would say to it as a key; it is shown as it was given."""
    with narrowboat.locks(consul_server.url) as locks, locks.lock(name) as held:
        (holder,) = locks.holders(name)
        assert (holder.name, holder.token) == (name, held.token)


def test_no_agent_a_wrong_port_and_a_wrong_kind_of_server(servers: Servers, redis_server: RedisServer) -> None:
    """One error within the time limit, that says where and what."""
    for url, said in (
        ("consul://127.0.0.1:1?timeout=2", "could not be reached"),
        (f"consul://127.0.0.1:{redis_server.address[1]}?timeout=2", "8500|HTTP"),
    ):
        begun = time.monotonic()
        with narrowboat.locks(url) as locks, pytest.raises(Unavailable, match=said):
            locks.lock("a").acquire(timeout=3)
        assert time.monotonic() - begun < 10


def test_tls_and_plain_do_not_mix(encrypted: ConsulServer, consul_server: ConsulServer) -> None:
    """Both mistakes are named, an untrusted certificate too; the right way works."""
    port = encrypted.address[1]
    with narrowboat.locks(encrypted.url) as locks, locks.lock("a") as held:
        waiter = narrowboat.locks(encrypted.url)
        got = []
        waiting = threading.Thread(target=lambda: got.append(waiter.lock("a").acquire(timeout=10)))
        waiting.start()
        deadline = time.monotonic() + 5
        while not waiter._core.waiting:
            assert time.monotonic() < deadline
        held.release()
        waiting.join(10)  # by a blocking query over TLS
        assert got[0].token > held.token
        waiter.close()
    with narrowboat.locks(f"consul://127.0.0.1:{port}") as locks, pytest.raises(ConfigurationError, match="consuls://"):
        locks.ping()
    plain = consul_server.address[1]
    with narrowboat.locks(f"consuls://127.0.0.1:{plain}") as locks, pytest.raises(ConfigurationError, match="plain port"):
        locks.ping()
    with narrowboat.locks(f"consuls://127.0.0.1:{port}") as locks, pytest.raises(ConfigurationError, match=r"\?ca="):
        locks.ping()
    with narrowboat.locks(f"consuls://127.0.0.1:{port}?verify=none") as locks:
        locks.ping()


def test_access_is_denied_where_it_is_and_says_what_is_needed(guarded: ConsulServer) -> None:
    """No token, a wrong one, one without sessions, one without keys, one for reading; and the one that may."""
    port = guarded.address[1]
    for token in (None, "00000000-0000-0000-0000-00000000beef"):
        who = f":{token}@" if token else ""
        with narrowboat.locks(f"consul://{who}127.0.0.1:{port}") as locks, pytest.raises(AccessDenied, match="session:write"):
            locks.lock("a").acquire(timeout=1)
    keys_only = new_token(guarded, 'key_prefix "" { policy = "write" }')
    sessions_only = new_token(guarded, 'session_prefix "" { policy = "write" }')
    reading = new_token(guarded, 'session_prefix "" { policy = "write" } key_prefix "" { policy = "read" }')
    for token in (keys_only, sessions_only, reading):
        with narrowboat.locks(guarded.url_for(token)) as locks:
            if token != keys_only:  # a ping makes no session
                with pytest.raises(AccessDenied):
                    locks.ping()
            with pytest.raises(AccessDenied) as caught:
                locks.lock("a").acquire(timeout=1)
        assert token not in str(caught.value)
        assert token not in repr(caught.value.__cause__)
    enough = new_token(guarded, 'session_prefix "" { policy = "write" } key_prefix "narrowboat/" { policy = "write" }')
    with narrowboat.locks(guarded.url_for(enough)) as locks:
        with locks.lock("a") as held:
            assert [holder.token for holder in locks.holders("a")] == [held.token]
        with locks.lock("a", mode="shared"):
            pass
    with narrowboat.locks(guarded.url_for(enough, "elsewhere")) as locks, pytest.raises(AccessDenied):
        locks.lock("a").acquire(timeout=1)


def test_the_rights_that_the_page_names_are_enough_and_another_tenants_are_refused(guarded: ConsulServer) -> None:
    """session:write on the agent's node, key:write on the root: for every call, and for that root alone."""
    node = guarded.request("GET", "/v1/agent/self")["Config"]["NodeName"]
    mine, theirs = (
        new_token(guarded, f'session "{node}" {{ policy = "write" }} key_prefix "{root}/" {{ policy = "write" }}')
        for root in ("shop", "other")
    )
    with narrowboat.locks(guarded.url_for(mine, "shop")) as locks, narrowboat.locks(guarded.url_for(theirs, "shop")) as tenant:
        locks.ping()
        for terms in TERMS:
            with locks.lock("a", **terms) as held:
                held.renew()
                assert [holder.token for holder in locks.holders()] == [held.token]
                for call in (
                    tenant.lock("a", **terms).try_acquire,
                    partial(tenant.lock("b", **terms).acquire, timeout=1),
                    tenant.holders,
                    partial(tenant.holders, "a"),
                    partial(tenant.evict, "a", held.token),
                ):
                    with pytest.raises(AccessDenied) as caught:
                        call()
                    assert not caught.value.retryable
        held = locks.lock("a").acquire(timeout=5)
        assert locks.evict("a", held.token)


def test_holders_without_the_right_to_read_are_no_empty_list(guarded: ConsulServer) -> None:
    """Consul leaves out what may not be read, and says that it did; where nothing is held there is nothing to leave out."""
    blind = new_token(guarded, 'session_prefix "" { policy = "write" }')
    with narrowboat.locks(guarded.url) as locks, narrowboat.locks(guarded.url_for(blind)) as other:
        assert other.holders() == []
        with locks.lock("a"):
            for call in (other.holders, partial(other.holders, "a")):
                with pytest.raises(AccessDenied, match="key:read"):
                    call()


def test_a_datacenter_that_is_none(consul_server: ConsulServer) -> None:
    """A mistake in the URL, not an outage."""
    with narrowboat.locks(consul_server.url, dc="nowhere") as locks, pytest.raises(ConfigurationError, match=r"\?dc="):
        locks.lock("a").acquire(timeout=1)


def test_many_waiters_do_not_use_up_the_connections(consul_server: ConsulServer) -> None:
    """Sixty names that are waited for: 32 queries at most, the others read together, and each is woken in time."""
    names = [f"n{number}" for number in range(60)]
    with narrowboat.locks(consul_server.url) as holder, narrowboat.locks(consul_server.url) as locks:
        held = {name: holder.lock(name).acquire() for name in names}
        took, threads = {}, []

        def wait(name: str) -> None:
            with locks.lock(name):
                took[name] = time.monotonic()

        for name in names:
            threads.append(threading.Thread(target=wait, args=(name,)))
            threads[-1].start()
        deadline = time.monotonic() + 10
        while len(locks._core.waiting) < len(names):
            assert time.monotonic() < deadline
        time.sleep(1)  # until each has its query or its place in the batched read
        watcher = driver_of(locks)._watcher
        assert sum(watch.query is not None for watch in watcher._watches.values()) <= 32
        released = {}
        for name in names:
            released[name] = time.monotonic()
            held[name].release()
        for thread in threads:
            thread.join(20)
    assert max(took[name] - released[name] for name in names) < upper(2.0)


def test_a_waiter_that_no_thread_can_wake_looks_again_soon(consul_server: ConsulServer, monkeypatch: Any) -> None:
    """Where the machine has no thread left for the watch, a release is not told: the waiter must not sleep as if it were."""
    refused, start = threading.Event(), threading.Thread.start

    def no_watch(thread: threading.Thread) -> None:
        if thread.name == "narrowboat-consul-watch":
            refused.set()
            raise RuntimeError("can't start new thread")
        start(thread)

    def release() -> None:
        assert refused.wait(10)
        held.release()

    with narrowboat.locks(consul_server.url) as holder, narrowboat.locks(consul_server.url) as locks:
        held = holder.lock("a").acquire()
        monkeypatch.setattr(threading.Thread, "start", no_watch)
        releasing = threading.Thread(target=release)
        releasing.start()
        begun = time.monotonic()
        locks.lock("a").acquire(timeout=10).release()
        took = time.monotonic() - begun
        releasing.join()
    assert took < 2.0


def test_a_lock_delay_is_waited_for(consul_server: ConsulServer) -> None:
    """With `lock_delay` a lock whose session ended is refused for so long, and then had."""
    with narrowboat.locks(consul_server.url, lock_delay=2) as locks, narrowboat.locks(consul_server.url) as other:
        held = locks.lock("delayed", ttl=30).acquire()
        (session,) = sessions(consul_server)
        begun = time.monotonic()
        consul_server.request("PUT", f"/v1/session/destroy/{session}")
        with other.lock("delayed", timeout=10):
            assert 1.5 < time.monotonic() - begun < upper(5)
            assert held.name == "delayed"  # kept until here: one that is forgotten would be given back in good order
