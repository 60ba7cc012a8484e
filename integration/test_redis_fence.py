"""Fences in Redis, with the clients of redis-py: what the script decides, what it runs, and what stands in the way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fenced
import narrowboat
from integration.fixtures import Servers
from integration.servers import RedisCluster, RedisServer
from narrowboat import Conflict, InvalidArgument, StaleWrite
from narrowboat.aio import fencing as aio_fencing
from narrowboat.fencing import RedisFence

#: Those that a number of Lua cannot tell apart, and those of other lengths.
TOKENS = st.integers(0, 20) | st.integers(2**53 - 3, 2**53 + 3) | st.integers(2**63 - 4, 2**63 - 1) | st.integers(0, 2**63 - 1)


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Any]:
    with redis_server.client() as client:
        client.flushall()
        yield client


@pytest.mark.parametrize("writer", ["in_redis", "in_redis_aio"])
def test_a_stopped_holder_that_wakes_up_is_refused(writer: str, redis_server: RedisServer, client: Any) -> None:
    assert fenced.wakes_up_late(redis_server.url, writer, redis_server.url) == "StaleWrite"
    assert client.get(fenced.NAME) in (b"new", "new")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(st.lists(TOKENS, min_size=1, max_size=8))
def test_the_script_decides_as_the_pure_decision_does(client: Any, tokens: list[int]) -> None:
    client.flushall()
    fence, newest, last = RedisFence(client), 0, None
    for token in tokens:
        if token < newest:
            with pytest.raises(StaleWrite) as caught:
                fence.run("a", token, ("SET", "a", token))
            assert (caught.value.tried, caught.value.found) == (token, newest)
        else:
            fence.run("a", token, ("SET", "a", token))
            newest = last = token
        assert int(client.get("a")) == last
    assert int(client.get("fence:{a}") or 0) == newest


def test_answers_are_those_of_the_commands(client: Any) -> None:
    found = RedisFence(client).run("a", 1, ("SET", "k", b"\0\xff"), ("GET", b"none"), ("INCRBY", "n", 7), ("RPUSH", "l", "", 2))
    assert [each.encode() if isinstance(each, str) else each for each in found] == [b"OK", None, 7, 2]
    assert RedisFence(client).run("a", 2) == []
    with pytest.raises(StaleWrite):
        RedisFence(client).run("a", 1, ("SET", "k", "old"))


@pytest.mark.parametrize("options", [{"decode_responses": True}, {"protocol": 3}, {"protocol": 2, "decode_responses": True}])
def test_whatever_the_client_makes_of_answers(options: dict[str, Any], redis_server: RedisServer, client: Any) -> None:
    with redis.Redis.from_url(redis_server.url, **options) as other:
        fence = RedisFence(other, prefix="ours:")
        assert len(fence.run("a", 8, ("HSET", "h", "f", 1), ("HGETALL", "h"), ("SMEMBERS", "none"))) == 3
        with pytest.raises(StaleWrite) as caught:
            fence.run("a", 7)
        assert caught.value.found == 8
        assert client.exists("ours:{a}") == 1


def test_names_with_a_tag_of_their_own_have_fences_of_their_own(client: Any) -> None:
    fence = RedisFence(client)
    for number, name in enumerate(["a", "{a}", "{a}b", "a}b", "{}a", "x{a}", "}{", "fence:{a}"]):
        fence.run(name, 100 - number)
    assert len(client.keys("*")) == 8


@pytest.mark.parametrize("damage", ["", "x", "-1", "007", "1.5", "9" * 20, "1" * 10_000])
def test_a_damaged_key_is_refused(damage: str, client: Any) -> None:
    client.set("fence:{a}", damage)
    with pytest.raises(Conflict, match="no token") as caught:
        RedisFence(client).run("a", 1, ("SET", "a", "x"))
    assert len(str(caught.value)) < 300
    assert client.get("fence:{a}") in (damage, damage.encode()) and client.get("a") is None


def test_a_key_of_another_type_is_the_clients_error(client: Any) -> None:
    client.rpush("fence:{a}", "a list")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        RedisFence(client).run("a", 1, ("SET", "a", "x"))
    assert client.get("a") is None


def test_a_command_that_fails_undoes_none_before_it(client: Any) -> None:
    with pytest.raises(redis.ResponseError):
        RedisFence(client).run("a", 1, ("SET", "a", "x"), ("INCR", "a"), ("SET", "b", "x"))
    assert (client.exists("a"), client.exists("b"), client.exists("fence:{a}")) == (1, 0, 1)


@pytest.mark.parametrize("command", ["SET a b", b"SET", (), ["RPUSH", *["x"] * 5000]])
def test_what_is_no_command_is_refused(command: Any, client: Any) -> None:
    with pytest.raises(InvalidArgument, match="Nothing was sent"):
        RedisFence(client).run("a", 1, command)
    assert client.keys("*") == []


def test_a_long_command_fits(client: Any) -> None:
    assert RedisFence(client).run("a", 1, ["RPUSH", "l", *["x"] * 4998]) == [4998]


def test_what_is_no_client_is_refused(client: Any) -> None:
    """A pipeline as well: it would send the script later, and nobody would look at its answer."""
    for wrong in (None, "redis://localhost", client.pipeline()):
        with pytest.raises(InvalidArgument, match="client of redis-py"):
            RedisFence(wrong)
    with pytest.raises(InvalidArgument, match=r"narrowboat\.aio"):
        RedisFence(redis.asyncio.Redis())
    with pytest.raises(InvalidArgument, match=r"narrowboat\.fencing\.RedisFence"):
        aio_fencing.RedisFence(client)
    with pytest.raises(InvalidArgument, match="hash tag"):
        RedisFence(client, prefix="{fences}:")


def test_the_same_on_asyncio(redis_server: RedisServer, client: Any) -> None:
    async def main() -> None:
        async with redis.asyncio.Redis.from_url(redis_server.url) as other:
            fence = aio_fencing.RedisFence(other)
            assert await fence.run("a", 2, ("SET", "k", "new"), ("INCR", "n")) == [b"OK", 1]
            with pytest.raises(StaleWrite):
                await fence.run("a", 1, ("SET", "k", "old"))
            with pytest.raises(InvalidArgument):
                await fence.run("a", -1)

    asyncio.run(main())
    assert client.get("k") in (b"new", "new")


def test_a_cluster_takes_the_keys_that_a_name_has_beside_it(servers: Servers) -> None:
    """The key of the same name, and those with the name as their tag, on both faces; others are the server's error."""
    cluster: RedisCluster = servers(RedisServer, RedisCluster)
    first = cluster.servers[0]

    async def main() -> None:
        async with redis.asyncio.RedisCluster("127.0.0.1", first.port) as client:
            fence = aio_fencing.RedisFence(client)
            await fence.run("invoice:42", 8, ("SET", "invoice:42", "newest"))

    with redis.RedisCluster("127.0.0.1", first.port) as client:
        fence = RedisFence(client)
        for number in range(20):
            name = f"invoice:{number}"
            fence.run(name, 7, ("SET", name, "new"), ("SADD", f"{{{name}}}:tags", "paid"))
            with pytest.raises(StaleWrite):
                fence.run(name, 6, ("SET", name, "old"))
            assert client.get(name) == b"new"
        asyncio.run(main())
        assert client.get("invoice:42") == b"newest"
        with pytest.raises(redis.RedisError):
            fence.run("invoice:1", 7, *(("SET", f"other:{number}", "x") for number in range(20)))


def test_a_lock_of_redis_guards_what_is_in_redis(redis_server: RedisServer, client: Any) -> None:
    """Its tokens are the server's microseconds, beyond what a number of Lua can count in some hundred years."""
    with narrowboat.locks(redis_server.url) as locks, locks.lock("a") as held:
        RedisFence(client).run("a", held.token, ("SET", "a", "x"))
        with pytest.raises(StaleWrite):
            RedisFence(client).run("a", held.token - 1, ("SET", "a", "y"))
    assert client.get("a") in (b"x", "x")
