"""Messages on a real Redis: the suite of all drivers on a clock that the tests own, agreement with the reference, the keys.

The server's clock decides, so the tests put another one in its place: the scripts are the product's but for the one line
that asks for the time.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase, given, settings

import narrowboat
import narrowboat_redis.feed
from broker_calls import ORDERS, PRICES, Drivers, consume, open_driver, send, take
from broker_programs import GROUPS, QUEUES, Side, Step, programs
from broker_suite import BrokerSuite
from integration.fixtures import Servers
from integration.servers import RedisCluster, RedisServer
from narrowboat.clock import ManualClock
from narrowboat.contract import Ack, Address, Broker, Delivery, Feed, Kind, Properties, Source
from narrowboat.errors import AccessDenied, ConfigurationError, Conflict, PublishFailed, Unavailable
from narrowboat.messaging import Messaging, Outbound
from narrowboat_memory import broker as memory
from narrowboat_memory import source as memory_source
from narrowboat_redis import broker as backend
from narrowboat_redis.scripts import Script

_serial = itertools.count(1)


def raw(server: RedisServer, **options: Any) -> Any:
    return redis.Redis(host=server.address[0], port=server.address[1], **options)


class OwnedTime:
    """The server's time for the scripts, moved by a manual clock."""

    def __init__(self, client: Any, clock: ManualClock, patch: pytest.MonkeyPatch) -> None:
        self._client, self._clock = client, clock
        # Not attributes of the package: its `broker` is the entry object.
        for module in [sys.modules[f"narrowboat_redis.{name}"] for name in ("broker", "publishing", "feed")]:
            for name, value in list(vars(module).items()):
                if isinstance(value, Script) and b"redis.call('TIME')" in value.source:
                    source = value.source.replace(b"redis.call('TIME')", b"redis.call('LRANGE', 'clock', 0, 1)")
                    patch.setattr(module, name, Script(source))
        clock.watch(self.tell)
        self.tell()

    def tell(self) -> None:
        now = round(self._clock() * 1e6)
        with self._client.pipeline() as pipeline:
            pipeline.delete("clock")
            pipeline.rpush("clock", now // 1_000_000, now % 1_000_000)
            pipeline.execute()


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Any]:
    with raw(redis_server) as opened:
        opened.flushdb()
        yield opened


@pytest.fixture
def clock(client: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[ManualClock]:
    made = ManualClock()
    owned = OwnedTime(client, made, monkeypatch)
    yield made
    assert owned  # the clock holds it weakly


@pytest.fixture
def drivers(redis_server: RedisServer, clock: ManualClock) -> Iterator[Drivers]:
    opened = []

    def open_one(options: str = "", clock: ManualClock = clock) -> Broker:
        options = options if "prefix" in options else f"prefix=suite&{options}"
        broker: Broker = open_driver(backend, f"{redis_server.url}?{options}", clock)
        opened.append(broker)
        return broker

    yield open_one
    for broker in opened:
        broker.close()


@pytest.fixture
def broker(redis_server: RedisServer, client: Any) -> Iterator[Messaging]:
    with narrowboat.broker(redis_server.url) as opened:
        yield opened


class TestRedisBroker(BrokerSuite):
    """The same as in memory, but that wakes come from the server, a little later, and that nothing is kept for replay."""

    test_earliest_begins_with_what_the_topic_keeps = None  # type: ignore[assignment]  # it is not run here

    def test_delayed_messages_become_ready_when_due(self, drivers: Drivers, clock: ManualClock) -> None:
        broker = drivers()
        feed = consume(broker, ORDERS)
        heard(feed)
        super().test_delayed_messages_become_ready_when_due(lambda: broker, clock)

    def test_the_oldest_is_the_first_that_became_ready(self, drivers: Drivers, clock: ManualClock) -> None:
        """The server makes the ids by its own clock, and they are ahead of the script's here: no age is below 0 (B132)."""
        broker = drivers()
        send(broker, ORDERS, "one")
        assert broker.depth(ORDERS).oldest == 0

    def test_a_send_wakes_as_many_idle_feeds_as_there_are_messages(self, drivers: Drivers) -> None:
        """The others sleep on."""
        broker = drivers()
        woken: list[int] = []
        told = threading.Semaphore(0)

        def wake(n: int) -> None:
            woken.append(n)
            told.release()

        feeds = [consume(broker, ORDERS, partial(wake, n)) for n in range(5)]
        heard(*feeds)
        woken.clear()
        while told.acquire(blocking=False):
            pass
        send(broker, ORDERS, "one", "two")
        assert told.acquire(timeout=5)
        assert told.acquire(timeout=5)
        assert not told.acquire(timeout=0.1)
        assert len(set(woken)) == 2

    def test_wake_may_come_back_into_the_driver(self, drivers: Drivers) -> None:
        """Nothing is held while it is called."""
        broker = drivers()
        depths, told = [], threading.Event()

        def wake() -> None:
            depths.append(broker.depth(ORDERS))
            told.set()

        take(consume(broker, ORDERS, wake))
        send(broker, ORDERS, "one")
        assert told.wait(5)


def heard(*feeds: Feed) -> None:
    """Wait until the subscription of each stands: from then on an idle feed rests for longer."""
    ends = time.monotonic() + 5
    while not all(feed.receive(1).retry_after > narrowboat_redis.feed.ALERT for feed in feeds):
        assert time.monotonic() < ends, "the subscription does not stand"
        time.sleep(0.005)


# --- agreement with the reference


class _Here(Side):
    def receive(self, address: Address, limit: int) -> Any:
        return super().receive(address, limit)[0]


def _step(number: int, step: Step) -> Step:
    """Without what Redis does not keep in the same way: replay; a ttl or a delay of what goes to a group of a topic."""
    if step[0] == "declare":
        return (*step[:2], False)
    if step[0] != "send":
        return step
    messages = [{**fields, "id": f"{number}.{n}"} for n, fields in enumerate(step[1])]
    for fields in messages:
        if fields["to"].kind is not Kind.QUEUE:
            fields.update(to=PRICES, ttl=None)
    return ("send", messages)


@pytest.fixture(scope="module")
def reference_keeps_places() -> Iterator[None]:
    """In memory a delayed nack goes behind what became ready meanwhile, here it keeps its place."""
    nack = memory_source.MemorySource.nack

    def kept(self: memory_source.MemorySource, entry: memory_source.Entry, now: float, delay: float) -> None:
        nack(self, entry, now, delay)
        if delay > 0:
            entry.state = memory_source.HELD

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory_source.MemorySource, "nack", kept)
        yield


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), phases=(Phase.generate,))
@given(program=programs())
def test_any_program_gives_the_same_answers_as_in_memory(
    redis_server: RedisServer, reference_keeps_places: None, program: list[Step]
) -> None:
    """The reference and Redis agree on every answer, at every step, and in the end no key is left."""
    clock = ManualClock()
    with raw(redis_server) as client, pytest.MonkeyPatch.context() as patch:
        client.flushdb()
        owned = OwnedTime(client, clock, patch)
        reference = _Here(open_driver(memory, f"memory://redis-agrees{next(_serial)}?dedup=7", clock))
        other = _Here(open_driver(backend, f"{redis_server.url}?dedup=7", clock))
        assert owned  # the clock holds it weakly
        try:
            for number, step in enumerate(program):
                if step[0] == "advance":
                    clock.advance(step[1])
                    continue
                step = _step(number, step)
                assert other.run(step) == reference.run(step), (number, step)
            everything = [*QUEUES, *GROUPS, *(queue.dead for queue in QUEUES), *(group.dead for group in GROUPS)]
            for address in everything:
                assert other.run(("depth", address)) == reference.run(("depth", address)), address
            for address in [*everything, PRICES]:
                assert other.run(("delete", address)) == reference.run(("delete", address)), address
            assert client.keys("*") == [b"clock"]
        finally:
            other.broker.close()
            reference.broker.close()


# --- the keys, as other programs see them


def test_a_queue_is_a_stream_under_its_name(broker: Messaging, client: Any) -> None:
    """Other programs read it and add to it."""
    orders = broker.queue("orders")
    orders.publish(b"ours", key="k")
    ((_, fields),) = client.xrange("orders")
    assert (fields[b"body"], fields[b"narrowboat-key"]) == (b"ours", b"k")
    client.xadd("orders", {"temperature": "21"})
    assert orders.depth().ready == 2
    with orders.consume() as messages:
        assert [messages.receive(5).body for _ in range(2)] == [b"ours", b"21"]


def test_a_stream_that_others_began_is_a_queue(broker: Messaging, client: Any) -> None:
    """From its first entry on."""
    client.xadd("theirs", {"body": "before"})
    assert broker.queue("theirs").depth().ready == 1
    with broker.queue("theirs").consume() as messages:
        assert messages.receive(5).body == b"before"  # and it is given back
    client.delete("theirs")
    with broker.queue("theirs").consume() as messages:
        client.xadd("theirs", {"body": "after"})
        assert messages.receive(5).body == b"after"


def test_a_topic_is_a_stream_with_a_group_for_each_subscription(broker: Messaging, client: Any) -> None:
    """What all groups have acknowledged is trimmed; a group of another program counts as well."""
    prices = broker.topic("prices")
    prices.publish(b"nobody listens")
    assert client.exists("prices") == 0
    with prices.subscription("a").consume() as in_a, prices.subscription("b").consume() as in_b:
        client.xgroup_create("prices", "theirs", id="$")
        assert sorted(info["name"] for info in client.xinfo_groups("prices")) == [b"a", b"b", b"theirs"]
        prices.publish_many([b"%d" % n for n in range(20)])
        for messages in (in_a, in_b):
            for _ in range(20):
                messages.receive(5).ack()
        assert client.xlen("prices") == 20
        client.xgroup_destroy("prices", "theirs")
        eventually(lambda: in_a.receive(0.05) is None and client.xlen("prices") == 0)


def test_nothing_is_left_of_settled_messages(broker: Messaging, client: Any) -> None:
    """No key grows and none is left behind: queues, order, priority, delay, ttl, dead letters, requests, consumers."""
    client.config_set("stream-node-max-entries", "10")
    sources: list[narrowboat.Queue[bytes] | narrowboat.Subscription[bytes]] = [
        broker.queue("plain"),
        broker.queue("sorted", ordered=True),
        broker.queue("ranked", priorities=3),
        broker.topic("prices").subscription("g"),
    ]
    for source in sources:
        source.declare()
    sizes = []
    for round_ in range(4):
        for source in sources:
            target = broker.topic("prices") if source is sources[3] else source
            target.publish_many(
                [
                    Outbound(b"x" * 100, key=str(n % 7), id=f"{round_}-{n}", ttl=60 + n, delay=0.01 if n % 10 == 0 else 0)
                    for n in range(200)
                ]
            )
            with source.consume(prefetch=50) as messages:
                for n in range(200):
                    message = messages.receive(5)
                    if message.attempt == 1 and n % 20 == 0:
                        message.nack()
                        message = messages.receive(5)
                    message.ack()
                while (message := messages.receive(0.05)) is not None:
                    message.ack()
        eventually(lambda: client.xlen("prices") == 0)
        ids = [key for key in client.keys("*") if key.endswith(b":ids")]
        assert all(client.pttl(key) > 0 for key in ids)
        client.delete(*ids)
        found = sorted(key for key in client.keys("*"))
        sizes.append((found, sum(client.memory_usage(key) for key in found)))
    assert sizes[-1][0] == sizes[0][0]
    assert sizes[-1][1] <= sizes[0][1] * 1.3
    for key in sizes[-1][0]:
        if client.type(key) == b"stream":
            names = {info["name"] for group in client.xinfo_groups(key) for info in client.xinfo_consumers(key, group["name"])}
            assert names <= {b"-"}, (key, names)
        else:
            assert client.type(key) == b"hash" or key.endswith(b":groups"), key


def test_an_inbox_leaves_nothing(broker: Messaging, client: Any, redis_server: RedisServer) -> None:
    """Neither when it is closed, nor when its process dies."""
    opened = open_driver(backend, redis_server.url)
    opened.inbox(lambda: None)
    assert client.keys("*inbox*")
    assert all(0 < client.pttl(key) <= 60_000 for key in client.keys("*inbox*"))
    opened.close()
    assert client.keys("*inbox*") == []


def test_delayed_messages_are_moved_where_nobody_consumes(broker: Messaging, client: Any) -> None:
    """Whoever published one sees to it: programs that read the stream by other means find it there."""
    broker.queue("orders").publish(b"x", delay=0.2)
    assert client.xlen("orders") == 0
    eventually(lambda: client.xlen("orders") == 1)


def test_a_stale_ack_never_removes_the_copy_of_another(redis_server: RedisServer, client: Any) -> None:
    """Also in the middle of a batch of which the rest is settled."""
    opened = open_driver(backend, redis_server.url)
    feeds = [opened.open(Source(ORDERS, Properties(lease=0.3)), earliest=False, wake=lambda: None) for _ in range(2)]
    send(opened, ORDERS, "one", "two")
    first = take(feeds[0])
    eventually(lambda: client.zrange("nb:m:{orders}:lease", 0, -1) and opened.depth(ORDERS).ready == 2)
    (second,) = take(feeds[1], 1)
    answers = feeds[0].settle([(delivery, Ack()) for delivery in first])
    assert all(answers)
    assert client.xlen("orders") == 2
    assert feeds[1].settle([(second, Ack())]) == [None]
    assert client.xlen("orders") == 1
    opened.close()


def test_what_was_read_by_hand_comes_back(redis_server: RedisServer, client: Any) -> None:
    """A delivery that is pending with somebody we never heard of ends with the lease of the source."""
    opened = open_driver(backend, redis_server.url)
    feed = opened.open(Source(ORDERS, Properties(lease=0.1)), earliest=False, wake=lambda: None)
    send(opened, ORDERS, "one")
    client.xreadgroup("narrowboat", "by-hand", {"orders": ">"})
    assert take(feed) == []
    client.hdel("nb:m:{orders}:meta", "swept")
    found: list[Delivery] = []

    def looks_again() -> bool:
        client.hdel("nb:m:{orders}:meta", "swept")
        found.extend(take(feed))
        return bool(found)

    eventually(looks_again, within=5)
    assert found[0].attempt == 2
    opened.close()


def test_large_bodies(broker: Messaging) -> None:
    """The largest there is, and many of one megabyte in one call."""
    orders = broker.queue("large")
    orders.publish(bytes(broker.capabilities.body_max))
    assert not any(isinstance(answer, Exception) for answer in orders.publish_many([bytes(1_000_000)] * 20))
    with orders.consume(prefetch=5) as messages:
        assert len(messages.receive(20).body) == broker.capabilities.body_max
        for _ in range(20):
            message = messages.receive(20)
            assert len(message.body) == 1_000_000
            message.ack()


# --- bad input


def test_a_key_of_another_type_in_the_way(broker: Messaging, client: Any) -> None:
    """One typed error, and nothing was changed."""
    client.set("orders", "mine")
    with pytest.raises(Conflict, match="holds something else"):
        broker.queue("orders").publish(b"x")
    with pytest.raises(Conflict, match="holds something else"):
        broker.queue("orders").consume().__enter__()
    assert client.get("orders") == b"mine"


def test_a_server_that_is_full(servers: Servers) -> None:
    """A publish is refused, not unknown; what is there can still be consumed; afterwards it goes on."""
    server = servers(RedisServer, config={"appendonly": "no"})
    with narrowboat.broker(server.url) as broker, raw(server) as client:
        orders = broker.queue("orders")
        orders.publish_many([b"x"] * 3)
        with orders.consume(prefetch=1) as messages:
            client.config_set("maxmemory", "1")
            with pytest.raises(PublishFailed, match="maxmemory"):
                orders.publish(b"y")
            for _ in range(3):
                messages.receive(5).ack()
        client.config_set("maxmemory", "0")
        orders.publish(b"z")
        assert orders.depth().ready == 1


def test_a_user_without_the_rights(servers: Servers) -> None:
    """No right to write: `AccessDenied`, and nothing half done. No right to the channels: consumers look for themselves."""
    users = ["reader on >pw ~* &* +@all -xadd", "deaf on >pw ~* resetchannels +@all"]
    server = servers(RedisServer, config={"user": users})
    with narrowboat.broker(server.url_for(user="reader", password="pw")) as broker, pytest.raises(AccessDenied):
        broker.queue("orders").publish(b"x")
    deaf = server.url_for(user="deaf", password="pw")
    with narrowboat.broker(deaf) as broker, broker.queue("orders").consume() as messages:
        broker.queue("orders").publish(b"x")
        assert messages.receive(5).body == b"x"
        threading.Timer(0.3, lambda: broker.queue("orders").publish(b"y")).start()
        assert messages.receive(5).body == b"y"


def test_the_rights_that_the_page_lists_are_enough_and_reach_no_other_prefix(servers: Servers) -> None:
    """Everything that a program does, with exactly these; another tenant's queue is refused."""
    page = (Path(__file__).parents[1] / "backends/redis/README.md").read_text()
    rights = page.rpartition("ACL SETUSER ")[2].partition("```")[0].split()
    strict = servers(RedisServer, config={"user": " ".join(rights)})
    url = strict.url_for("post", "secret")
    with narrowboat.broker(f"{url}?prefix=shop") as broker:
        broker.ping()
        orders = broker.queue("orders", ordered=True, max_deliveries=1)
        with orders.consume() as messages:
            orders.publish_many([Outbound(b"x", key="k", ttl=60, id=f"m{n}") for n in range(3)])
            orders.publish(b"later", delay=0.1)
            messages.receive(5).nack(delay=0.01)
            messages.receive(5).ack()
            messages.receive(5).reject("why")
            messages.receive(5).ack()
        prices = broker.topic("prices")
        with prices.subscription("g").consume() as messages:
            prices.publish(b"y", priority=3)
            messages.receive(5).ack()
        assert orders.dead_letters().redrive() >= 1
        orders.depth()
        orders.purge()
        prices.delete()
        orders.delete()
    with strict.client() as client:
        client.xadd("other:orders", {"body": "secret"})
    with narrowboat.broker(f"{url}?prefix=other") as broker:
        for call in (
            lambda: broker.queue("orders").publish(b"x"),
            lambda: broker.queue("orders").consume(),
            broker.queue("orders").depth,
        ):
            with pytest.raises(AccessDenied):
                call()
    with strict.client() as client:
        assert client.xlen("other:orders") == 1


def test_a_replica_is_refused(servers: Servers) -> None:
    """It says so, and names the ways out."""
    primary = servers(RedisServer)
    replica = servers(RedisServer, replica_of=primary)
    with narrowboat.broker(replica.url) as broker, pytest.raises((Unavailable, PublishFailed), match="read-only replica"):
        broker.queue("orders").publish(b"x")


def test_durability_is_asked_of_the_server(servers: Servers) -> None:
    """What the URL claims and the server does not keep is refused."""
    forgetful = servers(RedisServer, config={"appendonly": "no"})
    with (
        narrowboat.broker(forgetful.url, durability="aof") as broker,
        pytest.raises(ConfigurationError, match="appendonly yes"),
    ):
        broker.ping()
    config = {"appendonly": "yes", "appendfsync": "everysec"}
    server = servers(RedisServer, config=config)
    with narrowboat.broker(server.url, durability="fsync") as broker, pytest.raises(ConfigurationError, match="everysec"):
        broker.ping()
    with narrowboat.broker(server.url, durability="aof") as broker:
        broker.queue("orders").publish(b"x")
    server.kill()
    server.start()
    with narrowboat.broker(server.url, durability="aof") as broker, broker.queue("orders").consume() as messages:
        assert messages.receive(5).body == b"x"


def test_a_cluster_spreads_names_and_keeps_a_source_together(servers: Servers) -> None:
    """Queues of all slots in one batch; dead letters, order, priorities, delays and topics work in each."""
    with narrowboat.broker(servers(RedisServer, RedisCluster).url) as broker:
        queues = [broker.queue(f"q{n}.part", priorities=2) for n in range(12)]
        for n, queue in enumerate(queues):
            queue.publish_many([Outbound(b"%d" % n, priority=n % 3), Outbound(b"late", delay=0.05)])
            with queue.consume() as messages:
                first, second = messages.receive(5), messages.receive(5)
                assert (first.body, second.body) == (b"%d" % n, b"late")
                first.reject("no")
                second.nack()
                messages.receive(5).ack()
            assert queue.dead_letters().redrive() == 1
            assert astuple(queue.depth())[:1] == (1,)
        topic = broker.topic("a.b")
        with topic.subscription("g", ordered=True).consume() as messages:
            topic.publish(b"x", key="k")
            messages.receive(5).ack()
        assert topic.delete()


def eventually(probe: Callable[[], object], within: float = 10.0) -> None:
    ends = time.monotonic() + within
    while not probe():
        assert time.monotonic() < ends
        time.sleep(0.02)
