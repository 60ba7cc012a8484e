"""Redis locks against real servers: what the kit cannot bring about by itself, and each thing that can be wrong."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

import narrowboat
from integration.fixtures import Servers
from integration.servers import RedisCluster, RedisSentinel, RedisServer
from narrowboat.conformance.watch import watch
from narrowboat.contract.locks import Busy, Grant, Mode, Released, Request
from narrowboat.errors import (
    AccessDenied,
    ConfigurationError,
    Conflict,
    LeaseLost,
    NarrowboatError,
    Reason,
    Unavailable,
)
from narrowboat_redis.locks import RedisLocks
from narrowboat_redis.names import NameKeys

#: An upper bound, extended by what the machine stood still for.
upper = watch().extended

#: Seconds for one call in the tests of what is wrong, and what may come on top on a busy machine.
TIMEOUT, SLACK = 1.0, 1.0


@pytest.fixture
def server(redis_server: RedisServer) -> RedisServer:
    with redis_server.client() as client:
        client.flushall()
        client.script_flush()
    return redis_server


def driver(locks: narrowboat.Locks) -> RedisLocks:
    found = locks._core.driver.get()
    assert isinstance(found, RedisLocks)
    return found


def request(name: str, owner: str, *, ttl: float = 30.0, wait: bool = True, wake: Callable[[], None] = lambda: None) -> Request:
    return Request(name, owner, ttl, Mode.EXCLUSIVE, None, wait, wake, "test")


# -- two names of one backend ------------------------------------------------------------------------------------------------


def test_a_valkey_url_means_the_same_locks_and_messages(server: RedisServer) -> None:
    valkey = server.url.replace("redis", "valkey", 1)
    with narrowboat.locks(server.url) as mine, narrowboat.locks(valkey) as theirs:
        with mine.lock("one"):
            assert theirs.lock("one").try_acquire() is None
        assert theirs.lock("one").try_acquire() is not None
    with narrowboat.broker(server.url) as mine, narrowboat.broker(valkey) as theirs:
        mine.queue("q").publish(b"x")
        with theirs.queue("q").consume() as messages:
            message = messages.receive(10)
            assert message is not None and message.body == b"x"
            message.ack()
        with pytest.raises(Conflict) as caught:
            theirs.topic("q").publish(b"x")
        assert caught.value.backend == "valkey"


# -- the scripts ------------------------------------------------------------------------------------------------------------


def test_scripts_that_the_server_has_forgotten_are_loaded_again(server: RedisServer) -> None:
    with narrowboat.locks(server.url) as locks, server.client() as client:
        locks.lock("a").acquire().release()
        client.script_flush()
        held = locks.lock("a").acquire()
        client.script_flush()
        held.renew()
        client.script_flush()
        assert [holder.token for holder in locks.holders("a")] == [held.token]
        client.script_flush()
        assert locks.evict("a", held.token)


def test_only_those_members_of_a_batch_are_sent_again_that_did_nothing(server: RedisServer) -> None:
    with narrowboat.locks(server.url) as locks, server.client() as client:
        locks.lock("a").acquire().release()
        client.script_flush()
        found = driver(locks).attempt([request(f"name {number}", f"owner {number}") for number in range(50)])
        assert all(isinstance(answer, Grant) for answer in found)
        assert len({answer.token for answer in found if isinstance(answer, Grant)}) == 50
        assert len(locks.holders()) == 50


def test_one_round_trip_each(server: RedisServer) -> None:
    with narrowboat.locks(server.url) as locks, server.client() as client:
        locks.lock("a").acquire().release()
        client.config_resetstat()
        for _ in range(10):
            locks.lock("a").acquire().release()
        calls = {name.removeprefix("cmdstat_"): each["calls"] for name, each in client.info("commandstats").items()}
        assert calls["evalsha"] == 20
        assert set(calls) <= {"evalsha", "exists", "time", "set", "hset", "pexpire", "hget", "hdel", "config|resetstat", "info"}


# -- tokens -----------------------------------------------------------------------------------------------------------------


def test_tokens_grow_on_when_all_data_is_lost(server: RedisServer) -> None:
    with narrowboat.locks(server.url) as locks, server.client() as client:
        tokens = []
        for _ in range(20):
            held = locks.lock("a").acquire()
            tokens.append(held.token)
            client.flushall()
            with pytest.raises(LeaseLost):
                held.release()
        assert tokens == sorted(set(tokens))


def test_tokens_grow_while_the_clock_of_the_server_stands_behind_them(server: RedisServer) -> None:
    """As after a step of that clock backwards: the last token of the shard counts, not the clock."""
    with narrowboat.locks(server.url) as locks, server.client() as client:
        before = locks.lock("a").acquire()
        before.release()
        ahead = before.token + 3600 * 10**6
        (key,) = client.keys("*:token")
        client.set(key, ahead)
        first, second = locks.lock("a").acquire(), None
        first.release()
        second = locks.lock("a").acquire()
        assert (first.token, second.token) == (ahead + 1, ahead + 2)
        second.release()


def test_no_key_is_left_for_a_name(server: RedisServer) -> None:
    with narrowboat.locks(server.url) as locks, server.client() as client:
        for number in range(500):
            locks.lock(f"name {number}").acquire().release()
        assert all(key.endswith(":token") for key in client.keys("*"))
        assert len(client.keys("*")) <= 128


# -- what comes late ----------------------------------------------------------------------------------------------------------


def test_an_attempt_that_comes_after_its_withdrawal_does_nothing(server: RedisServer) -> None:
    with narrowboat.locks(server.url) as locks, server.client() as client:
        late = request("a", "late")
        assert driver(locks).withdraw([late]) == [None]
        (answer,) = driver(locks).attempt([late])
        assert isinstance(answer, Busy)
        assert locks.holders("a") == []
        (tombstone,) = client.keys("*:gone:late")
        assert 0 < client.pttl(tombstone) <= 30_000
        held = locks.lock("a").try_acquire()
        assert held is not None
        held.release()


def test_a_repeated_attempt_finds_its_own_grant(server: RedisServer) -> None:
    with narrowboat.locks(server.url) as locks:
        (first,) = driver(locks).attempt([request("a", "same", ttl=5)])
        (second,) = driver(locks).attempt([request("a", "same", ttl=50)])
        assert isinstance(first, Grant)
        assert isinstance(second, Grant)
        assert first.token == second.token
        assert (locks.holders("a")[0].expires_in or 0) > 40
        assert driver(locks).release([second]) == [Released.RELEASED]
        assert driver(locks).release([second]) == [Released.NOT_HELD]


# -- waiting ----------------------------------------------------------------------------------------------------------------


def test_a_head_that_does_not_come_is_passed_over_and_keeps_its_place(server: RedisServer) -> None:
    with narrowboat.locks(server.url) as locks:
        us = driver(locks)
        woken = {"first": threading.Event(), "second": threading.Event()}
        (holder,) = us.attempt([request("a", "holder")])
        for owner, event in woken.items():
            (answer,) = us.attempt([request("a", owner, wake=event.set)])
            assert isinstance(answer, Busy)
        assert isinstance(holder, Grant)
        us.release([holder])
        assert woken["first"].wait(1)
        assert not woken["second"].is_set()
        begun = time.monotonic()
        assert woken["second"].wait(3), "nobody passed the head over"
        assert time.monotonic() - begun > 0.4
        (second,) = us.attempt([request("a", "second", wake=woken["second"].set)])
        assert isinstance(second, Grant)
        assert isinstance(us.attempt([request("a", "first", wake=woken["first"].set)])[0], Busy)
        woken["first"].clear()
        us.release([second])
        assert woken["first"].wait(1), "the head that was passed over once has lost its place"
        (first,) = us.attempt([request("a", "first")])
        assert isinstance(first, Grant)
        us.release([first])


def test_a_place_that_somebody_deleted_is_taken_again(server: RedisServer) -> None:
    with narrowboat.locks(server.url) as locks, narrowboat.locks(server.url) as others, server.client() as client:
        held = locks.lock("a").acquire()
        got: list[narrowboat.Held] = []
        thread = threading.Thread(target=lambda: got.append(others.lock("a").acquire(timeout=20)))
        thread.start()
        until(lambda: locks.holders("a")[0].waiters == 1)
        for pattern in ("*:queue:*", "*:alive"):
            for key in client.keys(pattern):
                client.delete(key)
        until(lambda: locks.holders("a")[0].waiters == 1, within=5)
        held.release()
        thread.join(10)
        assert got[0].token > held.token
        got[0].release()


def test_a_thousand_waiters_need_three_connections(server: RedisServer) -> None:
    import asyncio

    async def main() -> None:
        async with narrowboat.aio.locks(server.url) as locks:
            held = await locks.lock("a").acquire()
            tasks = [asyncio.create_task(one(locks)) for _ in range(1000)]
            with server.client() as client:
                while client.zcard(NameKeys(b"", "a").queue) != 1000:
                    await asyncio.sleep(0.02)
                assert int(client.info("clients")["connected_clients"]) <= before + 3
            await held.release()
            await asyncio.gather(*tasks)

    async def one(locks: narrowboat.aio.Locks) -> None:
        async with locks.lock("a"):
            pass

    with server.client() as client:
        before = int(client.info("clients")["connected_clients"])
    asyncio.run(main())


# -- failover, replicas -------------------------------------------------------------------------------------------------------


def test_after_a_failover_the_new_primary_serves_and_tokens_grow(servers: Servers) -> None:
    group: RedisSentinel = servers(RedisServer, RedisSentinel)
    with narrowboat.locks(group.url, timeout=1) as locks:
        held = locks.lock("a").acquire()
        token = held.token
        group.primary().kill()
        group.wait_failover()
        other = None
        ends = time.monotonic() + 40
        while other is None and time.monotonic() < ends:
            try:
                other = locks.lock("b").acquire(timeout=1)
            except (Unavailable, narrowboat.LockTimeout):
                pass  # whatever else it meets on the way is a failure
        assert other is not None
        other.release()
        try:
            held.release()  # kept, where the replica had it
        except LeaseLost:
            pass
        again = locks.lock("a").acquire(timeout=40)
        assert again.token > token
        again.release()
    group.close()


def test_wait_refuses_what_no_replica_has(servers: Servers) -> None:
    primary: RedisServer = servers(RedisServer)
    with narrowboat.locks(primary.url + "?wait=1", timeout=TIMEOUT) as locks:
        with pytest.raises(Unavailable, match="0 of the 1 replicas"):
            locks.lock("a").try_acquire()
        assert locks.holders("a") == []
    # A third of the timeout is what a replica has to confirm in: a busy machine's needs more than the second of before.
    with narrowboat.locks(primary.url + "?wait=1", timeout=5 * TIMEOUT) as locks:
        replica: RedisServer = servers(RedisServer, replica_of=primary)
        held = locks.lock("a").acquire(timeout=10)
        held.renew()
        with replica.client() as client:
            assert client.keys("*:held:a")
        held.release()
        with pytest.raises(Unavailable, match="replica") as caught, narrowboat.locks(replica.url) as readers:
            readers.lock("a").acquire(timeout=1)
        assert "primary" in str(caught.value)
        replica.close()
    primary.close()


def test_a_slot_that_moves_is_followed(servers: Servers) -> None:
    cluster: RedisCluster = servers(RedisServer, RedisCluster)
    from narrowboat_redis.names import Keys
    from narrowboat_redis.nodes import slot_of

    slot = slot_of(Keys("").of("moving").held)
    with narrowboat.locks(cluster.url) as locks:
        every = [f"name {number}" for number in range(200)]
        names = [name for name in every if slot_of(Keys("").of(name).held) != slot]
        found = driver(locks).attempt([request(name, f"owner of {name}") for name in names])
        assert all(isinstance(answer, Grant) for answer in found)
        first = locks.lock("moving").acquire()
        first.release()
        owner = cluster.slots()[slot]
        with owner.client() as client:
            for key in client.keys("*"):
                if slot_of(key.encode()) == slot:
                    client.delete(key)
        cluster.move(slot, next(member for member in cluster.servers if member is not owner))
        second = locks.lock("moving").acquire(timeout=10)
        assert second.token > first.token
        second.release()
        assert [holder.name for holder in locks.holders()] == sorted(names)
        grants = [answer for answer in found if isinstance(answer, Grant)]
        assert driver(locks).release(grants) == [Released.RELEASED] * len(names)

        lost, kept = cluster.servers[1], []
        lost.kill()
        for answer in driver(locks).attempt([request(name, f"again {name}", wait=False) for name in names]):
            kept.append(isinstance(answer, Grant))
            assert isinstance(answer, Grant | Unavailable), answer
        assert any(kept)
        assert not all(kept)
    cluster.close()


# -- bad input: one typed error within the time, that says what to do, and nothing half done -----------------------------------


def refused(url: str, kind: type[NarrowboatError], says: str, **options: Any) -> None:
    calls: list[Callable[[narrowboat.Locks], object]] = [
        lambda locks: locks.lock("a").acquire(timeout=0.2),
        lambda locks: locks.ping(),
    ]
    for call in calls:
        with narrowboat.locks(url, timeout=TIMEOUT, **options) as locks:
            begun = time.monotonic()
            with pytest.raises(kind) as caught:
                call(locks)
            assert time.monotonic() - begun < upper(3 * TIMEOUT + SLACK)  # an attempt is made twice, and its owner withdrawn
        cause = caught.value if says in str(caught.value) else caught.value.__cause__
        assert says in str(cause), caught.value


def test_no_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    refused(f"redis://127.0.0.1:{port}/0", Unavailable, "up and reachable")
    refused(f"redis+cluster://127.0.0.1:{port}", Unavailable, "up and reachable")
    refused(f"redis+sentinel://127.0.0.1:{port}/main", Unavailable, "up and reachable")


def test_another_kind_of_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            for _ in range(8):
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(100)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        refused(f"redis://127.0.0.1:{listening.getsockname()[1]}/0", ConfigurationError, "no Redis")
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def test_a_server_that_accepts_and_is_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        refused(f"redis://127.0.0.1:{listening.getsockname()[1]}/0", NarrowboatError, "timeout=")


def test_a_server_that_keeps_less_than_the_url_says(servers: Servers, server: RedisServer) -> None:
    forgetful: RedisServer = servers(RedisServer, config={"appendonly": "no"})
    for durability in ("aof", "fsync"):
        with (
            narrowboat.locks(forgetful.url, durability=durability) as locks,
            pytest.raises(ConfigurationError, match="appendonly"),
        ):
            locks.lock("a").acquire()
    with narrowboat.locks(server.url, durability="aof") as locks:
        locks.lock("a").acquire().release()
    forgetful.close()


def test_no_such_database(server: RedisServer) -> None:
    refused(server.url_for(database=4242), ConfigurationError, "no database 4242")


def test_sentinels_have_a_login_of_their_own(servers: Servers) -> None:
    """Whoever knows only of the server's own password learns that the sentinels have another one, and where it goes."""
    group: RedisSentinel = servers(RedisServer, RedisSentinel, password="geheim", sentinel_password="auch geheim")
    with narrowboat.locks(group.url, timeout=TIMEOUT) as locks:
        locks.lock("a").acquire().release()
    without = group.url.partition("?")[0]
    refused(without, AccessDenied, "a question without a login (NOAUTH")
    refused(f"{without}?sentinel_password=wrong", AccessDenied, "correct sentinel_password=")
    group.close()


def test_the_wrong_topology(server: RedisServer, servers: Servers) -> None:
    address = "{}:{}".format(*server.address)
    refused(f"redis+cluster://{address}", ConfigurationError, "redis://")
    refused(f"redis+sentinel://{address}/main", ConfigurationError, "redis://")
    cluster: RedisCluster = servers(RedisServer, RedisCluster)
    refused(cluster.servers[0].url, ConfigurationError, "redis+cluster://")
    cluster.close()


def test_a_wrong_password(servers: Servers) -> None:
    secret: RedisServer = servers(RedisServer, password="geheim")
    address = "{}:{}".format(*secret.address)
    refused(f"redis://{address}/0", AccessDenied, "no password")
    refused(f"redis://:falsch@{address}/0", AccessDenied, "password")
    refused(f"redis://nobody:geheim@{address}/0", AccessDenied, "user name")
    secret.close()


def test_no_permission(servers: Servers) -> None:
    users = [
        "bare on >pw ~* &* -@all +hello +auth +ping",
        "keyless on >pw ~shop:* &* +@all",
        "deaf on >pw ~* resetchannels +@all",
    ]
    strict: RedisServer = servers(RedisServer, config={"user": users})
    refused(strict.url_for("bare", "pw"), AccessDenied, "'bare'")
    refused(strict.url_for("keyless", "pw"), AccessDenied, "'keyless'")
    with narrowboat.locks(strict.url_for("deaf", "pw"), timeout=TIMEOUT) as locks:
        (held,) = driver(locks).attempt([request("a", "holder")])
        assert isinstance(held, Grant)
        with pytest.raises(AccessDenied, match="subscribing"):
            locks.lock("a").acquire(timeout=5)
        assert locks.holders("a")[0].waiters == 0
        assert driver(locks).release([held]) == [Released.RELEASED]
    strict.close()


def test_the_rights_that_the_page_lists_are_enough(servers: Servers) -> None:
    page = (Path(__file__).parent.parent / "backends/redis/README.md").read_text()
    rights = page.partition("ACL SETUSER ")[2].partition("```")[0].split()
    strict: RedisServer = servers(RedisServer, config={"user": " ".join(rights)})
    with (
        narrowboat.locks(strict.url_for("shop", "secret") + "?prefix=x") as locks,
        narrowboat.locks(strict.url_for("shop", "secret", database=1)) as others,
    ):
        locks.ping()
        held = locks.lock("a").acquire()
        got: list[narrowboat.Held] = []
        thread = threading.Thread(target=lambda: got.append(locks.lock("a").acquire(timeout=20)))
        thread.start()
        until(lambda: locks.holders()[0].waiters == 1)
        time.sleep(1.2)  # one beat at least
        held.renew()
        held.release()
        thread.join(10)
        assert locks.evict("a", got[0].token)
        others.lock("a", limit=2).acquire().release()
        driver(locks).attempt([request("b", "holder")])
        with pytest.raises(narrowboat.LockTimeout):  # which withdraws
            locks.lock("b").acquire(timeout=0.1)
    strict.close()


def test_rights_for_one_prefix_reach_no_other(servers: Servers) -> None:
    """A tenant neither takes, sees nor frees the locks of another."""
    page = (Path(__file__).parent.parent / "backends/redis/README.md").read_text()
    rights = page.partition("ACL SETUSER ")[2].partition("```")[0]
    narrow = rights.replace("~nb:l:{*}:*", "~nb:l:{shop:*}:*").replace("&nb:l:*:wake:*", "&nb:l:shop:wake:*")
    strict: RedisServer = servers(RedisServer, config={"user": " ".join(narrow.split())})
    url = strict.url_for("shop", "secret")
    with (
        narrowboat.locks(f"{strict.url}?prefix=other") as theirs,
        narrowboat.locks(f"{url}?prefix=shop") as ours,
        narrowboat.locks(f"{url}?prefix=other") as thief,
    ):
        held = theirs.lock("a").acquire()
        ours.lock("a").acquire().release()
        calls: list[Callable[[], object]] = [
            lambda: thief.lock("a").try_acquire(),
            lambda: thief.lock("b").try_acquire(),
            lambda: thief.evict("a", held.token),
            lambda: thief.holders("a"),
            thief.ping,
        ]
        for call in calls:
            with pytest.raises(AccessDenied):
                call()
        held.release()
    strict.close()


def test_tls_on_one_side_only(servers: Servers, server: RedisServer) -> None:
    secure: RedisServer = servers(RedisServer, tls=True)
    refused("redis://{}:{}/0".format(*secure.address), NarrowboatError, "rediss://")
    refused("rediss://{}:{}/0".format(*server.address), NarrowboatError, "redis://")
    refused("rediss://{}:{}/0".format(*secure.address), ConfigurationError, "ca=")
    with pytest.raises(ConfigurationError, match=r"none\.pem"):
        narrowboat.locks("rediss://{}:{}/0?ca=/there/is/none.pem".format(*secure.address))
    with narrowboat.locks("rediss://{}:{}/0?verify=none".format(*secure.address)) as locks:
        locks.lock("a").acquire().release()
    secure.close()


@pytest.mark.parametrize("part", ["held", "queue", "token"])
def test_a_key_of_another_type_in_the_way(server: RedisServer, part: str) -> None:
    with narrowboat.locks(server.url) as locks, server.client() as client:
        keys = driver(locks)._keys.of("a")
        client.lpush(getattr(keys, part).decode(), "mine")
        with pytest.raises(Conflict, match="prefix="):
            locks.lock("a").acquire(timeout=1)
        assert client.lrange(getattr(keys, part).decode(), 0, -1) == ["mine"]
        assert not [key for key in client.keys("*") if ":held:" in key and part != "held"]


def test_memory_that_is_used_up(server: RedisServer) -> None:
    with narrowboat.locks(server.url, timeout=TIMEOUT) as locks, server.client() as client:
        held = locks.lock("before").acquire()
        client.config_set("maxmemory", 1)
        try:
            refused(server.url, Unavailable, "maxmemory")
            held.release()
        finally:
            client.config_set("maxmemory", 0)
        assert locks.holders() == []
        locks.lock("a").acquire().release()


def test_a_script_that_somebody_ends_or_that_does_not_end(server: RedisServer) -> None:
    with server.client() as client, server.client() as other:
        client.config_set("busy-reply-threshold", 50)

        def run_on() -> None:
            with pytest.raises(redis.ResponseError, match="killed"):
                client.eval("while true do end", 0)

        endless = threading.Thread(target=run_on)
        endless.start()

        def busy() -> bool:
            try:
                other.get("x")
            except redis.ResponseError as error:
                return "BUSY" in str(error)
            return False

        until(busy)
        with narrowboat.locks(server.url, timeout=TIMEOUT) as locks:
            with pytest.raises(Unavailable, match="SCRIPT KILL"):
                locks.lock("a").acquire(timeout=0.2)
            other.script_kill()
            endless.join(5)
            held = locks.lock("a").acquire(timeout=5)
            assert [holder.token for holder in locks.holders()] == [held.token]
            held.release()
        other.config_set("busy-reply-threshold", 5000)


def test_a_server_that_is_still_loading(servers: Servers) -> None:
    slowly = {"appendonly": "no", "key-load-delay": "1000", "loading-process-events-interval-bytes": "1024"}
    slow: RedisServer = servers(RedisServer, config=slowly)
    with slow.client() as client:
        pipe = client.pipeline(transaction=False)
        for number in range(2000):
            pipe.set(f"key {number}", "x" * 100)
        pipe.execute()
        client.save()
    slow.kill()
    starting = threading.Thread(target=slow.start)
    starting.start()
    with narrowboat.locks(slow.url, timeout=TIMEOUT) as locks:

        def loading() -> bool:
            try:
                locks.ping()
            except Unavailable as error:
                return "still loading" in str(error)
            return False

        until(loading)
        starting.join(30)
        locks.lock("a").acquire(timeout=5).release()
    slow.close()


def test_an_evicted_holder_is_told_so(server: RedisServer) -> None:
    with narrowboat.locks(server.url) as locks, narrowboat.locks(server.url) as others:
        held = locks.lock("a", ttl=2).acquire()
        assert not others.evict("a", held.token + 1)
        assert others.evict("a", held.token)
        assert held.wait_lost(5)
        assert held.reason is Reason.EVICTED


def until(probe: Callable[[], Any], *, within: float = 5.0) -> None:
    ends = time.monotonic() + within
    while not probe():
        assert time.monotonic() < ends, f"not within {within:g} s"
        time.sleep(0.005)
