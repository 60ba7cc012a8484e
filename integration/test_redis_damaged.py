"""What another program has made of the keys in which Redis keeps a source: it is told by name, and is no other's concern.

Cases are made, not listed; `NARROWBOAT_FUZZ_CASES` says how many (200 unless told otherwise).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from integration.servers import RedisServer
from narrowboat.contract import Ack, Address, Depth, Kind, Nack, Outcome, Reject, Return
from narrowboat.errors import Conflict, NarrowboatError
from narrowboat_redis import broker as broker_backend

sys.path.append(str(Path(__file__).parents[1] / "tests" / "backends"))  # what the drivers' tests share lies there

from broker_calls import consume, open_driver, send  # found only now

CASES = int(os.environ.get("NARROWBOAT_FUZZ_CASES", "200"))
ORDERS, OTHER = Address(Kind.QUEUE, "orders"), Address(Kind.QUEUE, "other")
ROOT = "nb:m:{orders}"

_texts = st.one_of(
    st.binary(max_size=20),
    st.integers(-(2**70), 2**70).map(lambda number: b"%d" % number),
    st.floats().map(lambda number: repr(number).encode()),
    st.sampled_from(
        [b"", b"-1", b"1e400", b"-inf", b"nan", b"0x10", b"9" * 400, b"0" * 5000, b"7-0", b"9" * 19 + b"-0", b"queue"]
    ),
)
_fields = ["kind", "declared", "lease", "max", "ordered", "levels", "used", "own", "last", "ttl", "number", "swept", "trimmed"]
_keys = ["meta", "1", "due", "lease", "back", "hold", "blocked", "turns", "ttl", "ids", "groups"]
_scores = st.sampled_from([float("inf"), float("-inf"), 0.0, 1e300, -1e300, 1e-300])
_cases = st.one_of(
    st.tuples(st.just("field"), st.sampled_from(_fields), _texts),
    st.tuples(st.just("type"), st.sampled_from([f":{key}" for key in _keys] + [""]), st.sampled_from(["string", "list"])),
    st.tuples(st.just("score"), st.sampled_from(["due", "lease", "back", "hold", "ttl"]), _scores),
)


@pytest.fixture(scope="module")
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis_server.client(decode_responses=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def broker(redis_server: RedisServer) -> Iterator[Any]:
    opened = open_driver(broker_backend, redis_server.url + "?dedup=60")
    yield opened
    opened.close()


def damage(client: redis.Redis, kind: str, what: str, how: Any) -> str:
    """Do it; the key."""
    key = ROOT + what if kind == "type" and what else "orders" if kind == "type" else f"{ROOT}:{what}"
    if kind == "field":
        key = f"{ROOT}:meta"
        client.hset(key, what, how)
    elif kind == "score":
        client.zadd(key, {b"a13:a0:0:0:": how})
    else:
        client.delete(key)
        client.rpush(key, "x") if how == "list" else client.set(key, "x")
    return key


def met(call: Callable[[], Any]) -> bool:
    """Whether `call` met the damage: then it says so, for good, and where."""
    try:
        found = call()
    except NarrowboatError as error:
        found = [error]
    errors = [each for each in found if isinstance(each, Exception)] if isinstance(found, list) else []
    for each in errors:
        assert isinstance(each, Conflict), each
        assert not each.retryable
        assert "orders" in str(each), each
    return bool(errors)


@settings(max_examples=CASES, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(case=_cases, ordered=st.booleans())
def test_damaged_keys_of_a_source_are_told_by_name(
    client: redis.Redis, broker: Any, case: tuple[str, str, Any], ordered: bool
) -> None:
    """Nothing says that it may pass by itself; the next source notices nothing; without the damage all goes on."""
    client.flushdb()
    options = {"ordered": True} if ordered else {"priorities": 2}
    feed, other = consume(broker, ORDERS, **options), consume(broker, OTHER)
    send(broker, ORDERS, "first", "second", key="k", ttl=60)
    send(broker, ORDERS, "later", delay=60)
    (delivery,) = feed.receive(1).deliveries
    key = damage(client, *case)

    calls: list[Callable[[], Any]] = [
        lambda: send(broker, ORDERS, "third", key="k", ttl=60),
        lambda: send(broker, ORDERS, "fourth", "fifth", delay=0.001, dedup=True, **({} if ordered else {"priority": 1})),
        lambda: feed.extend([delivery], 20),
        lambda: feed.settle([(delivery, Nack(0.0))]),
        lambda: [each.id for each in feed.receive(10).deliveries],
        lambda: broker.depth(ORDERS),
        lambda: consume(broker, ORDERS, **options),
        lambda: broker.purge(ORDERS),
    ]
    for call in calls:
        met(call)
    send(broker, OTHER, "beside")
    (beside,) = other.receive(1).deliveries
    assert other.settle([(beside, Ack())]) == [None]
    other.close()

    if case[0] == "field":
        client.hdel(key, case[1])
    else:
        client.delete(key)
    met(feed.close)
    met(lambda: broker.delete(ORDERS))
    assert not met(lambda: consume(broker, ORDERS, **options))
    assert not met(lambda: send(broker, ORDERS, "again"))


@pytest.mark.parametrize("queue", ["orders", "orders.dead"])
@pytest.mark.parametrize("field", ["kind", "lease", "max", "levels", "used", "own"])
def test_a_damaged_field_is_named_and_nothing_was_changed(client: redis.Redis, broker: Any, queue: str, field: str) -> None:
    """With the key and what to do; what is out stays out, and is settled once the field is gone."""
    client.flushdb()
    feed = consume(broker, ORDERS)
    send(broker, ORDERS, "first")
    (delivery,) = feed.receive(1).deliveries
    key = "nb:m:{orders}" + queue.removeprefix("orders") + ":meta"
    client.hset(key, field, b"\xff")
    with pytest.raises(Conflict, match=f"the field '{field}' of the hash {key}") as damaged:
        feed.settle([(delivery, Reject("why", 1))])
    assert "HDEL" in str(damaged.value)
    client.hdel(key, field)
    assert feed.settle([(delivery, Reject("why", 1))]) == [None]


def test_a_key_of_another_type_is_looked_for_by_what_its_name_has(client: redis.Redis, broker: Any) -> None:
    client.flushdb()
    client.set("nb:m:{orders}:due", "x")
    (refused,) = send(broker, ORDERS, "first")
    assert isinstance(refused, Conflict)
    assert "{orders}" in str(refused)


def make_due(client: redis.Redis) -> None:
    key = "nb:m:{orders}:due"
    members: Any = client.zrange(key, 0, -1)
    client.zadd(key, dict.fromkeys(members, 1))


def test_what_is_due_is_not_stored_again_because_a_later_one_cannot_be(client: redis.Redis, broker: Any) -> None:
    """Its level has a key of another type; each call would store the first once more."""
    client.flushdb()
    feed = consume(broker, ORDERS, priorities=2)
    send(broker, ORDERS, "first", delay=60)
    send(broker, ORDERS, "second", delay=60, priority=1)
    client.set("nb:m:{orders}:1", "x")
    make_due(client)
    for _ in range(3):
        with pytest.raises(Conflict):
            feed.receive(10)
    client.delete("nb:m:{orders}:1")
    came = [delivery.id for _ in range(3) for delivery in feed.receive(10).deliveries]
    assert sorted(came) == ["first", "second"]


def test_what_is_due_is_not_stored_again_because_its_end_cannot_be_noted(client: redis.Redis, broker: Any) -> None:
    """What notes when a message expires has another type: that is met before the message is in the stream."""
    client.flushdb()
    feed = consume(broker, ORDERS)
    send(broker, ORDERS, "first", delay=60, ttl=60)
    make_due(client)
    client.set(f"{ROOT}:ttl", "x")
    for _ in range(3):
        with pytest.raises(Conflict):
            feed.receive(10)
    (refused,) = send(broker, ORDERS, "second", ttl=60)
    assert isinstance(refused, Conflict)
    client.delete(f"{ROOT}:ttl")
    assert [delivery.id for _ in range(2) for delivery in feed.receive(10).deliveries] == ["first"]


@pytest.mark.parametrize("options", [{}, {"ordered": True}])
@pytest.mark.parametrize(
    ("key", "outcome"),
    [
        ("orders.dead", Reject("why", 1)),
        (f"{ROOT}:back", Nack(0.0)),
        (f"{ROOT}:back", Return()),
        (f"{ROOT}:hold", Nack(1.0)),
        (f"{ROOT}:ttl", Ack()),
    ],
)
def test_a_settlement_that_meets_a_key_of_another_type_changes_nothing(
    client: redis.Redis, broker: Any, key: str, outcome: Outcome, options: dict[str, Any]
) -> None:
    """Neither for itself nor for what is settled in the same exchange: a repetition would find the ack to be stale."""
    client.flushdb()
    feed = consume(broker, ORDERS, **options)
    send(broker, ORDERS, "first", "second", ttl=60)
    first, second = feed.receive(10).deliveries
    kept = client.dump(key)
    client.set(key, "x")
    with pytest.raises(Conflict):
        feed.settle([(first, Ack()), (second, outcome)])
    client.delete(key)
    if kept is not None:
        client.restore(key, 0, kept)
    assert feed.settle([(first, Ack()), (second, outcome)]) == [None, None]


def test_what_is_due_and_cannot_be_stored_does_not_deny_an_ack(client: redis.Redis, broker: Any) -> None:
    """The ack is done. Who receives is told of the other one."""
    client.flushdb()
    feed = consume(broker, ORDERS, priorities=2)
    send(broker, ORDERS, "first")
    (first,) = feed.receive(10).deliveries
    send(broker, ORDERS, "second", delay=60, priority=1)
    client.set(f"{ROOT}:1", "x")
    make_due(client)
    assert feed.settle([(first, Ack())]) == [None]
    with pytest.raises(Conflict):
        feed.receive(10)


def test_what_is_held_or_out_is_not_lost_as_it_cannot_go_back(client: redis.Redis, broker: Any) -> None:
    """Where what is ready again has another type, it stays where it is until that key is gone."""
    client.flushdb()
    feed = consume(broker, ORDERS, lease=0.2)
    send(broker, ORDERS, "held", "out")
    held, _ = feed.receive(10).deliveries
    assert feed.settle([(held, Nack(0.1))]) == [None]
    client.set(f"{ROOT}:back", "x")
    time.sleep(0.3)
    with pytest.raises(Conflict):
        feed.receive(10)
    client.delete(f"{ROOT}:back")
    assert sorted(delivery.id for _ in range(2) for delivery in feed.receive(10).deliveries) == ["held", "out"]


def test_a_stream_whose_ids_are_used_up_is_told_for_good(client: redis.Redis, broker: Any) -> None:
    client.flushdb()
    feed = consume(broker, ORDERS)
    client.xadd("orders", {"body": "last"}, id=f"{2**64 - 1}-{2**64 - 1}")
    (refused,) = send(broker, ORDERS, "behind")
    assert isinstance(refused, Conflict)
    assert "delete the source" in str(refused)
    (delivery,) = feed.receive(10).deliveries
    assert feed.settle([(delivery, Nack(0.0))]) == [None]
    (delivery,) = feed.receive(10).deliveries
    assert feed.settle([(delivery, Reject("why", 2))]) == [None]
    assert broker.depth(ORDERS) == Depth(0, 0, 0, 1)


def test_what_is_due_behind_the_last_id_of_a_stream_stops_no_consumer(client: redis.Redis, broker: Any) -> None:
    """It stays delayed, and a publish is told why; what is there is received, settled and counted."""
    client.flushdb()
    feed = consume(broker, ORDERS)
    send(broker, ORDERS, "first")
    send(broker, ORDERS, "late", delay=60)
    client.xadd("orders", {"body": "last"}, id=f"{2**64 - 1}-{2**64 - 1}")
    make_due(client)
    deliveries = feed.receive(10).deliveries
    assert len(deliveries) == 2
    assert feed.settle([(delivery, Ack()) for delivery in deliveries]) == [None, None]
    assert broker.depth(ORDERS) == Depth(0, 0, 1, 0)
    (refused,) = send(broker, ORDERS, "behind")
    assert isinstance(refused, Conflict)


@pytest.mark.parametrize("number", [b"x", b"-5", b"9223372036854775807", b"12345678901234567"])
def test_the_count_of_delayed_messages_is_begun_anew_where_it_is_none(client: redis.Redis, broker: Any, number: bytes) -> None:
    client.flushdb()
    feed = consume(broker, ORDERS)
    client.hset("nb:m:{orders}:meta", "number", number)
    (receipt,) = send(broker, ORDERS, "first", delay=60)
    assert not isinstance(receipt, Exception)
    make_due(client)
    assert [delivery.id for delivery in feed.receive(10).deliveries] == ["first"]
