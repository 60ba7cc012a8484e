"""Whatever another program can write into a Redis that we use: no entry and no lock record costs anybody else anything.

Cases are made, not listed, and written past us with redis-py; many share one exchange, so that hundreds take seconds.
`NARROWBOAT_FUZZ_CASES` says how many (200 unless told otherwise).
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple
from typing import Any, TypeVar, cast

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import narrowboat
from broker_calls import consume, open_driver, send
from integration.servers import RedisServer
from narrowboat.contract import Ack, Address, Delivery, Depth, Kind, Nack, Reject, Return
from narrowboat.contract.locks import Busy, Grant, Mode, Released, Request
from narrowboat.errors import Conflict, NarrowboatError
from narrowboat_redis import broker as broker_backend
from narrowboat_redis import locks as lock_backend
from narrowboat_redis.names import NameKeys

CASES = int(os.environ.get("NARROWBOAT_FUZZ_CASES", "200"))
F = TypeVar("F", bound=Callable[..., None])
#: Cases in one queue, or one call, and seconds for them all.
TOGETHER, SECONDS = 20, 20.0
_serial = itertools.count(1)

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of a case that failed


def many(strategy: st.SearchStrategy[Any]) -> Callable[[F], F]:
    """Run a test with lists of cases, `CASES` in all."""

    def decorate(test: F) -> F:
        checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
        rule = settings(
            max_examples=max(1, CASES // TOGETHER), deadline=None, database=None, suppress_health_check=checks, print_blob=True
        )
        return cast(F, rule(given(cases=st.lists(strategy, min_size=TOGETHER, max_size=TOGETHER))(test)))

    return decorate


# -- entries of a stream ------------------------------------------------------------------------------------------------------

_OURS = ["id", "body", "at", "key", "priority", "headers", "correlation", "type", "reply", "expires", "rest", "left"]
_names = st.one_of(
    st.sampled_from([name.encode() for name in _OURS]),
    st.sampled_from([b"narrowboat-" + name.encode() for name in (*_OURS, "dead-reason", "dead-attempts", "x")]),
    st.binary(max_size=6),
    st.sampled_from([b"data", b"a\0b", b"id\0body", b"\xff\xfe", b"", b"-", b"k" * 3000]),
)
_values = st.one_of(
    st.binary(max_size=20),
    st.integers(-(2**70), 2**70).map(lambda number: b"%d" % number),
    st.floats().map(lambda number: repr(number).encode()),
    st.sampled_from(
        [b"inf", b"nan", b"1e400", b"0x10", b"9" * 5000, b"[" * 20_000, b'{"a":' * 5_000, b"", b"\0", b"x" * 100_000]
    ),
    st.sampled_from(
        [b'{"a":"\\ud800"}', b'{"a":"b"}', b'{"a":1}', b'["queue","payroll",""]', b'["inbox","a",5]', b"[1]", b"null"]
    ),
    st.floats(1e9, 2e9).map(lambda now: b"%d" % now),
)
_pairs = st.tuples(_names, _values)
_entries = st.one_of(
    st.lists(_pairs, min_size=1, max_size=6),
    _values.map(lambda value: [(b"data", value)]),
    st.lists(_pairs, max_size=4).map(lambda rest: [(b"id", b"7"), (b"body", b"x"), (b"at", b"12.5"), *rest]),
    st.lists(_pairs, max_size=3).map(lambda rest: [(b"id", b"7"), (b"body", b"y"), *rest]),
    st.sampled_from([5, 1500, 9000]).map(lambda number: [(b"f%d" % at, b"v") for at in range(number)] + [(b"body", b"many")]),
)


def body_of(entry: list[tuple[bytes, bytes]]) -> bytes:
    """The field `body`, or the only field that is no mark of ours, or the only field."""
    bodies = [value for name, value in entry if name == b"body"]
    bare = [value for name, value in entry if not name.startswith(b"narrowboat-")]
    if bodies:
        return bodies[0]
    if len(bare) == 1:
        return bare[0]
    ours = {b"narrowboat-" + name.encode() for name in (*_OURS[2:10], "id")}
    return entry[0][1] if len(entry) == 1 and entry[0][0] not in ours else b""


def may_expire(entry: list[tuple[bytes, bytes]]) -> bool:
    """Whether somebody took our own name for a time that has passed."""
    fields = dict(reversed(entry))
    old = [name for name, _ in entry[:3]] == [b"id", b"body", b"at"] and fields.get(b"expires", b"0").isdigit()
    return fields.get(b"narrowboat-expires", b"").isdigit() or (old and len(fields.get(b"expires", b"0")) > 14)


def add(client: redis.Redis, stream: str, entries: list[list[tuple[bytes, bytes]]]) -> list[str]:
    """Each as it is, names twice and all; the ids."""
    with client.pipeline(transaction=False) as pipe:
        for entry in entries:
            pipe.execute_command("XADD", stream, "*", *itertools.chain.from_iterable(entry))  # type: ignore[no-untyped-call]  # redis-py
        return [found.decode() for found in pipe.execute()]


@pytest.fixture(scope="module")
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis_server.client(decode_responses=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def broker(redis_server: RedisServer) -> Iterator[Any]:
    opened = open_driver(broker_backend, redis_server.url)
    yield opened
    opened.close()


def place_of(delivery: Delivery) -> str:
    """The id of its entry in the stream."""
    assert isinstance(delivery.tag, bytes)
    return delivery.tag.split(b":", 4)[3].decode()


@many(_entries)
def test_an_entry_of_another_program_costs_nobody_else_anything(
    client: redis.Redis, broker: Any, cases: list[list[tuple[bytes, bytes]]]
) -> None:
    """It is delivered, and is a dead letter with its body when it is rejected; its neighbours and other queues go on."""
    begun = time.monotonic()
    for ordered in (False, True):
        queue = Address(Kind.QUEUE, f"q{next(_serial)}")
        other = Address(Kind.QUEUE, f"{queue.name}-other")
        feed = consume(broker, queue, max_deliveries=3, ordered=ordered)
        elsewhere = consume(broker, other)
        send(broker, queue, "first", key="k")
        added: dict[str, list[tuple[bytes, bytes]]] = {}
        for start in range(0, len(cases), 5):
            part = cases[start : start + 5]
            added.update(zip(add(client, queue.name, part), part, strict=True))
            send(broker, queue, f"between-{start}", ttl=60)  # expiries are looked at from here on
            send(broker, other, f"there-{start}")
        wanted = {"first", *(f"between-{start}" for start in range(0, len(cases), 5))}

        found: dict[str, Any] = {}
        while got := feed.receive(100).deliveries:
            for delivery in got:
                place = place_of(delivery)
                assert place not in found, "delivered twice"
                found[place] = delivery
            foreign = [each for each in got if place_of(each) in added]
            ours = [each for each in got if each not in foreign]
            assert all(each.id in wanted and each.malformed == "" for each in ours)
            wanted -= {each.id for each in ours}
            outcomes = [(each, Ack()) for each in ours] + [(each, Reject("why", 1)) for each in foreign]
            assert feed.settle(outcomes) == [None] * len(outcomes)
        assert not wanted, "a neighbour was not delivered"
        assert len(elsewhere.receive(100).deliveries) == len(range(0, len(cases), 5))

        living = {place for place, entry in added.items() if not may_expire(entry)}
        assert living <= found.keys()
        for place in found.keys() & added.keys():
            delivery, entry = found[place], added[place]
            # What stands behind the size of an entry, or several of ours in one, only we write.
            if not {b"narrowboat-left", b"narrowboat-rest"} & {name for name, _ in entry}:
                assert delivery.body == body_of(entry)
            json.dumps([delivery.id, delivery.key, dict(delivery.headers), delivery.malformed]).encode()
        dead = consume(broker, Address(Kind.QUEUE, f"{queue.name}.dead"))
        bodies = []
        while got := dead.receive(100).deliveries:
            bodies += [each.body for each in got]
            dead.settle([(each, Ack()) for each in got])
        assert sorted(bodies) == sorted(found[place].body for place in found.keys() & added.keys())
        assert astuple(broker.depth(queue))[:3] == (0, 0, 0)
        for one in (feed, elsewhere, dead):
            one.close()
    assert time.monotonic() - begun < SECONDS


#: Ids that a server takes, and whose halves are beyond what a number of Lua's can be.
_FAR = [f"{2**64 - 1}-{2**64 - 2}", f"7-{2**64 - 1}", f"{10**19}-1", f"7-{2**53 + 1}"]


@pytest.mark.parametrize("options", [{}, {"ordered": True}, {"priorities": 2}])
@pytest.mark.parametrize("id", _FAR)
def test_an_entry_comes_back_whatever_its_id(client: redis.Redis, broker: Any, id: str, options: dict[str, Any]) -> None:
    """Returned, nacked, out of its lease, and a dead letter at last."""
    queue = Address(Kind.QUEUE, f"q{next(_serial)}")
    feed = consume(broker, queue, lease=0.1, **options)
    client.xadd(queue.name, {"body": "x"}, id=id)
    for attempt, outcome in ((1, Return()), (1, Nack(0.0)), (2, Nack(0.01)), (3, None), (4, Reject("why", 4))):
        (delivery,) = feed.receive(10).deliveries
        assert (place_of(delivery), delivery.attempt) == (id, attempt)
        if outcome is None:
            time.sleep(0.15)
        else:
            assert feed.settle([(delivery, outcome)]) == [None]
            time.sleep(0.02)
    assert broker.depth(queue) == Depth(0, 0, 0, 1)
    feed.close()


@pytest.mark.parametrize("id", _FAR[1:])  # behind the first one our own is the last that there can be
def test_a_topic_goes_on_behind_an_entry_whatever_its_id(client: redis.Redis, broker: Any, id: str) -> None:
    """It is settled, and what its groups have settled is dropped."""
    topic = f"t{next(_serial)}"
    feed = consume(broker, Address(Kind.SUBSCRIPTION, topic, "g"))
    client.xadd(topic, {"body": "x"}, id=id)
    send(broker, Address(Kind.TOPIC, topic), "ours")
    for body in (b"x", b"x"):
        (delivery,) = feed.receive(1).deliveries
        assert delivery.body == body
        assert feed.settle([(delivery, Ack())]) == [None]
        time.sleep(0.11)  # it is looked at ten times a second
    assert feed.receive(1).deliveries == []
    assert client.xlen(topic) == 0
    feed.close()


# -- members of a queue's sorted sets -----------------------------------------------------------------------------------------

_ids = st.sampled_from(["7-0", "1-1", "x", "9999999999999999999999-0", "0-0"])
_members = st.one_of(
    st.binary(max_size=30),
    st.tuples(_ids, st.integers(-1, 120)).map(lambda each: f"c:{each[1]}:1:{each[0]}:".encode()),
    st.tuples(_ids, st.integers(-1, 120)).map(lambda each: f"{each[1]}:{each[0]}".encode()),
    st.sampled_from([b"a7:a0:0:1:", b"a7:a0:99:1:", b"a7:a0:0:99999999999999999999:", b"a7:a0:0:1.5:k"]),
    st.sampled_from([b"", b"\x93\x00\x00\x91\xa1a", b"\x93\x00\x00\x92\xa1a\x05", b"\x93\xcb\x3f\xf8" + bytes(6), b"\x01"]).map(
        lambda packed: b"0" * 16 + packed
    ),
)


@many(st.tuples(st.sampled_from(["due", "lease", "back", "hold", "ttl"]), _members))
def test_what_another_program_puts_into_a_queues_sorted_sets_stops_nobody(
    client: redis.Redis, broker: Any, cases: list[tuple[str, bytes]]
) -> None:
    """Messages are published, received, counted and purged as before."""
    for ordered in (False, True):
        queue = Address(Kind.QUEUE, f"z{next(_serial)}")
        feed = consume(broker, queue, ordered=ordered)
        send(broker, queue, "first", key="k", ttl=60)
        for kind, member in cases:
            client.zadd(f"nb:m:{{{queue.name}}}:{kind}", {member: 0})
        send(broker, queue, "second", key="k")
        came: set[str] = set()
        for _ in range(4):
            deliveries = feed.receive(100).deliveries
            came.update(delivery.id for delivery in deliveries)
            assert feed.settle([(delivery, Ack()) for delivery in deliveries]) == [None] * len(deliveries)
        assert {"first", "second"} <= came
        client.zadd(f"nb:m:{{{queue.name}}}:blocked", dict.fromkeys((member for _, member in cases), 0))
        broker.purge(queue)
        assert astuple(broker.depth(queue))[:3] == (0, 0, 0)


# -- records of locks ---------------------------------------------------------------------------------------------------------

_numbers = st.one_of(
    st.integers(0, 2**70).map(lambda number: b"%d" % number),
    st.sampled_from([b"-5", b"1e300", b"inf", b"nan", b"", b"9" * 400, b"0x7", b"1.5"]),
)
_labels = st.one_of(st.binary(max_size=10), st.just(b"l\n\x1b[31m"), st.just(b"x" * 10_000))
_records = st.one_of(
    st.binary(max_size=30),
    st.builds(
        lambda token, ends, ttl, mode, limit, label: b" ".join((token, ends, ttl, mode, limit, label)),
        _numbers,
        _numbers,
        _numbers,
        st.sampled_from([b"x", b"r", b"s", b"q", b"", b"xx"]),
        _numbers,
        _labels,
    ),
)
_held = st.dictionaries(st.binary(min_size=1, max_size=10), _records, min_size=1, max_size=4)
_waiters = st.dictionaries(
    st.one_of(
        st.binary(min_size=1, max_size=12),
        st.builds(
            lambda mode, limit: b"owner " + mode + b" " + limit + b" provider", st.sampled_from([b"x", b"s", b"z"]), _numbers
        ),
    ),
    st.floats(allow_nan=False),
    max_size=4,
)
_cases = st.one_of(
    st.tuples(st.just("held"), _held),
    st.tuples(st.just("queue"), _waiters.filter(bool)),
    st.tuples(st.just("type"), st.sampled_from(["held", "queue", "told"])),
    st.tuples(st.just("token"), _numbers),
)


def plant(client: redis.Redis, name: str, kind: str, what: Any) -> None:
    """Leave that under the name."""
    keys = NameKeys(b"", name)
    if kind == "held":
        client.hset(keys.held, mapping=what)
    elif kind == "queue":
        client.zadd(keys.queue, what)
    elif kind == "type":
        client.rpush(getattr(keys, what), "x")
    else:
        client.set(keys.token, what)


def request(name: str, owner: str, *, wait: bool = False) -> Request:
    return Request(name, owner, 30.0, Mode.EXCLUSIVE, None, wait, lambda: None, "ours")


@many(_cases)
def test_a_record_of_another_program_concerns_its_own_name_alone(
    client: redis.Redis, redis_server: RedisServer, cases: list[tuple[str, Any]]
) -> None:
    """Typed for that name; others are granted; holders shows it, and what is evicted is gone."""
    client.flushdb()
    begun, serial = time.monotonic(), next(_serial)
    provider = open_driver(lock_backend, f"{redis_server.url}?prefix=")
    try:
        names = [f"n{serial}-{number}" for number in range(len(cases))]
        shards = {NameKeys(b"", name).shard for name in names}
        free = (f"free{number}" for number in itertools.count())
        healthy = list(itertools.islice((name for name in free if NameKeys(b"", name).shard not in shards), 5))
        for name, (kind, what) in zip(names, cases, strict=True):
            plant(client, name, kind, what)
        asked = [request(name, f"owner-{name}", wait=number % 2 == 0) for number, name in enumerate([*names, *healthy])]
        answers = provider.attempt(asked)
        assert all(isinstance(answer, Grant) for answer in answers[len(names) :])
        assert all(isinstance(answer, Grant | Busy | NarrowboatError) for answer in answers)
        assert all(isinstance(answer, Conflict) for answer in answers if isinstance(answer, NarrowboatError)), answers
        # Names of one part share a last token: the last one that was planted there.
        tokens = {NameKeys(b"", name).token: what for name, (kind, what) in zip(names, cases, strict=True) if kind == "token"}
        for name, (kind, _), answer in zip(names, cases, answers, strict=False):
            token = NameKeys(b"", name).token
            if isinstance(answer, Conflict) and kind == "token":
                assert client.get(token) == tokens[token], "what was refused has changed nothing"
            if isinstance(answer, Grant):
                assert answer.token < 2**53
                assert answer.token < time.time() * 1e6 + 2 * 86400e6
        grants = [answer for answer in answers if isinstance(answer, Grant)]
        assert provider.renew(grants) == grants
        assert provider.release(grants) == [Released.RELEASED] * len(grants)
        provider.withdraw(asked)

        shown = provider.holders(None)
        assert {holder.name for holder in shown} <= set(names)
        for name, (kind, what) in zip(names, cases, strict=True):
            keys = NameKeys(b"", name)
            for holder in provider.holders(name):
                json.dumps(holder.label).encode()
                assert 0 <= holder.token < 2**63
                assert provider.evict(name, holder.token)
                if holder.foreign and kind == "held":
                    assert holder.name == name
            assert provider.holders(name) == []
            if kind == "type" and what == "told":
                client.delete(keys.told)
            if kind == "token":
                client.delete(keys.token)
            assert kind != "held" or not any(holder.name == name for holder in provider.holders(None))
        again = [request(name, f"again-{name}", wait=True) for name in names]
        assert all(isinstance(answer, Grant) for answer in provider.attempt(again))
        provider.withdraw(again)
    finally:
        provider.close()
    assert time.monotonic() - begun < SECONDS


@pytest.mark.parametrize("value", [b"", b"y", b"queue"])
def test_a_field_without_a_name_is_evicted(redis_server: RedisServer, client: redis.Redis, value: bytes) -> None:
    """Redis takes an empty text as the name of a field: it is shown, and gone when it is evicted."""
    with narrowboat.locks(redis_server.url, prefix=f"nameless-{len(value)}") as locks:
        client.hset(NameKeys(f"nameless-{len(value)}".encode(), "a").held, b"", value)
        (holder,) = locks.holders("a")
        assert holder.foreign
        assert locks.evict("a", holder.token)
        assert locks.holders("a") == []
        assert not locks.evict("a", holder.token)
