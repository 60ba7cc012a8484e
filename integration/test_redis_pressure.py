"""Redis with no memory left, and with more of everything than a script should look at: what is held stays held."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import astuple
from typing import Any, cast

import pytest
import redis

import narrowboat
from bounds import upper
from broker_calls import consume, message, open_driver, send
from integration.servers import RedisServer
from narrowboat.contract import Ack, Address, Kind, Nack
from narrowboat.contract.locks import Busy, Grant, Mode, Released, Request
from narrowboat.errors import Closed, PublishFailed, SettleUnknown, Unavailable
from narrowboat_redis import broker as broker_backend
from narrowboat_redis import locks as lock_backend
from narrowboat_redis.names import NameKeys

_serial = itertools.count(1)


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis_server.client(decode_responses=False) as opened:
        opened.flushdb()
        yield opened
        opened.config_set("maxmemory", "0")


@pytest.fixture
def locks(redis_server: RedisServer) -> Iterator[Any]:
    opened = open_driver(lock_backend, redis_server.url)
    yield opened
    opened.close()


@pytest.fixture
def broker(redis_server: RedisServer) -> Iterator[Any]:
    opened = open_driver(broker_backend, redis_server.url)
    yield opened
    opened.close()


def fill(client: redis.Redis) -> None:
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", "1")


def request(name: str, owner: str, *, wait: bool = True, ttl: float = 30.0) -> Request:
    return Request(name, owner, ttl, Mode.EXCLUSIVE, None, wait, lambda: None, "ours")


def test_a_full_server_lets_holders_go_on_and_grants_nothing(client: redis.Redis, locks: Any) -> None:
    """Renewed, released, withdrawn, evicted; who waited waits on, and whoever comes is refused."""
    owners = ("held", "over", "gone", "seen")
    held, _, gone, seen = locks.attempt([request(name, f"o-{name}", ttl=0.3 if name == "over" else 30) for name in owners])
    waiting = [request(name, f"w-{name}") for name in ("held", "over", "gone")]
    assert all(isinstance(answer, Busy) for answer in locks.attempt(waiting))
    time.sleep(0.35)  # until the lease of `over` has ended
    fill(client)
    assert locks.renew([held, gone]) == [held, gone]
    for answer in (*locks.attempt([request("new", "o"), request("held", "late")]), *locks.attempt([waiting[1]])):
        assert isinstance(answer, Unavailable), answer
        assert "maxmemory" in str(answer)
    assert isinstance(locks.attempt([waiting[0]])[0], Busy)
    assert locks.release([gone]) == [Released.RELEASED]
    assert isinstance(locks.attempt([waiting[2]])[0], Unavailable), "granted what it could not keep"
    assert locks.evict("seen", seen.token)
    assert locks.withdraw(waiting) == [None] * 3
    assert locks.renew([held]) == [held]
    assert locks.release([held]) == [Released.RELEASED]
    client.config_set("maxmemory", "0")
    assert all(isinstance(answer, Grant) for answer in locks.attempt([request(name, f"n-{name}") for name in owners]))


def test_a_full_server_lets_deliveries_be_kept_and_settled_and_takes_none(client: redis.Redis, broker: Any) -> None:
    """Extended beyond their lease, acked, nacked, rejected."""
    queue = Address(Kind.QUEUE, f"q{next(_serial)}")
    feed = consume(broker, queue, lease=1.0)
    send(broker, queue, "a", "b", "c", "d")
    deliveries = feed.receive(10).deliveries
    fill(client)
    assert feed.extend(deliveries, 30.0) == [None] * 4
    (refused,) = broker.send([message(queue, "e")])
    assert isinstance(refused, PublishFailed)
    time.sleep(1.1)  # until the leases would have ended
    assert feed.receive(10).deliveries == []
    assert feed.settle([(deliveries[0], Ack()), (deliveries[1], Nack(0.0)), (deliveries[2], Nack(60.0))]) == [None] * 3
    (again,) = feed.receive(10).deliveries
    assert (again.id, again.attempt) == ("b", 2)
    assert feed.settle([(again, Ack()), (deliveries[3], Ack())]) == [None] * 2


def test_dead_waiters_are_cleared_away_a_few_at_a_time(client: redis.Redis, redis_server: RedisServer) -> None:
    """However many there are, no call drops more than a few hundred, and whoever is alive behind them goes."""
    keys = NameKeys(b"", "a")
    number = 20_000
    for start in range(0, number, 5000):
        client.zadd(keys.queue, {f"o{at} x 0 p{at % 16}": at for at in range(start, start + 5000)})
    with narrowboat.locks(redis_server.url) as locks:
        held = None
        client.slowlog_reset()
        assert locks.lock("a").try_acquire() is None
        left = client.zcard(keys.queue)
        assert number - 300 <= left < number
        begun = time.monotonic()
        held = locks.lock("a").acquire(timeout=60)
        assert client.zcard(keys.queue) == 0
        assert time.monotonic() - begun < 30
        held.release()


def test_who_looks_at_everything_keeps_no_renewal_waiting(client: redis.Redis, redis_server: RedisServer) -> None:
    """A lease of a second outlives a look at a server with very many keys, and a release does not wait for its end."""
    for start in range(0, 200_000, 20_000):
        client.eval("for i = ARGV[1], ARGV[1] + 19999 do redis.call('SET', 'k:' .. i, i) end", 0, start)
    with narrowboat.locks(redis_server.url) as locks:
        held = locks.lock("held", ttl=1).acquire()
        other = locks.lock("other", ttl=30).acquire()
        looks: list[list[str]] = []
        stop = threading.Event()

        def look() -> None:
            while not stop.is_set():
                looks.append([holder.name for holder in locks.holders()])

        thread = threading.Thread(target=look)
        thread.start()
        try:
            ends = time.monotonic() + 3
            while time.monotonic() < ends or not looks:
                held.check()
                time.sleep(0.01)
            begun = time.monotonic()
            other.release()
            took = time.monotonic() - begun
        finally:
            stop.set()
            thread.join()
        assert "held" in looks[0]
        assert took < upper(1.0)
        held.release()


def test_a_purge_goes_step_by_step(client: redis.Redis, broker: Any) -> None:
    """Of what is ready, delayed and comes back: all of it is gone, in calls that each drop a bounded number."""
    queue = Address(Kind.QUEUE, f"q{next(_serial)}")
    feed = consume(broker, queue, ordered=True)
    for start in range(0, 12_000, 1000):
        broker.send([message(queue, f"m{at}", key=f"k{at % 7}") for at in range(start, start + 1000)])
    out = feed.receive(3).deliveries
    assert broker.purge(queue) == 12_000 - len(out)
    assert astuple(broker.depth(queue))[:3] == (0, len(out), 0)
    assert feed.settle([(each, Ack()) for each in out]) == [None] * len(out)
    broker.send([message(queue, "next", key=out[0].key)])
    assert [each.id for each in feed.receive(10).deliveries] == ["next"]


def test_a_topic_with_holes_is_counted_in_steps(client: redis.Redis, broker: Any) -> None:
    """Where the server cannot say how much a group has not read."""
    topic, group = Address(Kind.TOPIC, "prices"), Address(Kind.SUBSCRIPTION, "prices", "g")
    feed = consume(broker, group)
    for _ in range(5):
        broker.send([message(topic) for _ in range(1000)])
    feed.receive(1)
    middle = cast(list[tuple[bytes, Any]], client.xrange("prices", count=3000))[-1][0]
    client.xdel("prices", middle)
    assert broker.depth(group).ready == 4998


def test_a_broker_that_closes_over_silence_waits_for_one_timeout(redis_server: RedisServer) -> None:
    """What it would give back takes the whole of it; nothing is asked after that."""
    broker = narrowboat.broker(redis_server.url, timeout=1)
    queue = broker.queue(f"q{next(_serial)}")
    queue.publish_many([b"x"] * 5)
    message = queue.consume(prefetch=3).receive(10)
    assert message is not None
    redis_server.pause()
    try:
        with pytest.raises(SettleUnknown):
            message.ack()
        begun = time.monotonic()
        broker.close()
        took = time.monotonic() - begun
    finally:
        redis_server.resume()
    assert took < upper(1.8)


def is_closed(messages: Any) -> None:
    with pytest.raises(Closed):
        messages.receive(60)


@pytest.mark.parametrize("before", [0.05, 0.3])
def test_a_broker_that_closes_beside_a_silent_fetch_waits_for_one_timeout(redis_server: RedisServer, before: float) -> None:
    """The fetch, which began so many seconds before the close, takes a part of it; what is given back, the rest."""
    broker = narrowboat.broker(redis_server.url, timeout=1)
    queue, empty = broker.queue(f"q{next(_serial)}"), broker.queue(f"q{next(_serial)}").consume()
    queue.publish_many([b"x"] * 5)
    assert queue.consume(prefetch=3).receive(10) is not None
    assert empty.receive(0) is None
    redis_server.pause()
    try:
        fetching = threading.Thread(target=is_closed, args=(empty,))
        fetching.start()
        fetching.join(before)
        begun = time.monotonic()
        broker.close()
        took = time.monotonic() - begun
        fetching.join()
    finally:
        redis_server.resume()
    assert took < upper(1.4)
