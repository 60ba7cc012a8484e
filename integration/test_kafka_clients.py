"""What the Kafka backend needs of a client (`narrowboat_kafka.client`), of each client that it has, against a real server.

The rest of the backend is proven by the kit on each of them; here is what the kit sees only from afar.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import itertools
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from integration.fixtures import Servers
from integration.servers import KafkaServer
from narrowboat.conformance.faults.proxy import Proxy
from narrowboat.conformance.watch import watch
from narrowboat.driver.tls import Verify
from narrowboat.dsn import Url
from narrowboat.errors import NarrowboatError
from narrowboat_kafka.client import Code, Committed, Edge, KafkaError, TopicPartition, Unconnected
from narrowboat_kafka.format.records import Record
from narrowboat_kafka.options import Options, Sasl, endpoint

#: An upper bound, extended by what the machine stood still for.
upper = watch().extended

#: Each client, by the module that has its `Client`.
CLIENTS = {"confluent": "narrowboat_kafka.confluent.client"}

#: Seconds of one operation, and what may come on top on a busy machine.
TIMEOUT, SLACK = 5.0, 3.0

_numbers = itertools.count()


@pytest.fixture(params=list(CLIENTS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def connect(kind: str, server: KafkaServer, *, url: str | None = None, timeout: float = TIMEOUT, **options: Any) -> Any:
    wanted = Url.parse(url or server.url)
    if server.certificates is not None and wanted.scheme == "kafkas":
        options.setdefault("ca", str(server.certificates.ca))
    read = Options(session=2.0, **options)
    return importlib.import_module(CLIENTS.get(kind, kind)).Client(endpoint(wanted, read), read, timeout)


@contextmanager
def connected(kind: str, server: KafkaServer, **options: Any) -> Iterator[Any]:
    client = connect(kind, server, **options)
    try:
        yield client
    finally:
        client.close(TIMEOUT)


@pytest.fixture
def client(kind: str, kafka_server: KafkaServer) -> Iterator[Any]:
    with connected(kind, kafka_server) as made:
        yield made


@pytest.fixture
def topic(client: Any) -> str:
    return new_topic(client)


def new_topic(client: Any, partitions: int = 2) -> str:
    name = f"client{os.getpid()}-{next(_numbers)}"
    client.admin.create(name, partitions, -1, {})
    eventually(lambda: [each.ready for each in client.admin.describe([name])] == [True])
    return name


def eventually(condition: Callable[[], object], within: float = 10.0) -> None:
    until = time.monotonic() + within
    while not condition():
        assert time.monotonic() < upper(until), "it did not come true in time"
        time.sleep(0.01)


def record(topic: str, partition: int | None = 0, value: bytes | None = b"v", **more: Any) -> Record:
    fields = {"key": None, "headers": [("narrowboat-id", b"an-id")], "timestamp": int(time.time() * 1000), **more}
    return Record(topic, partition, value=value, **fields)


def store(client: Any, *records: Record) -> None:
    producer = client.producer()
    assert producer.publish(records, time.monotonic() + 2 * TIMEOUT) == [None] * len(records)
    producer.end(TIMEOUT)


class Ear:
    """Begins each partition where its group was, commits what it has read, and writes down what it hears."""

    def __init__(self, client: Any, group: str, *topics: str) -> None:
        self.ending = False
        self.client = client
        self.topics = topics
        self.records: list[Any] = []
        self.next: dict[TopicPartition, int] = {}
        self.heard: list[tuple[str, Any]] = []
        self.held: set[TopicPartition] = set()
        self._wakeup: Any = None
        self._closed = False
        self.member = client.member(group, self)
        client.loop.call(self._begin)

    async def _begin(self) -> None:
        self._wakeup = self.client.loop.new_wakeup()
        self.member.subscribe(self.topics)
        await self.member.hear_of_topics(TIMEOUT)
        self.client.loop.call_soon(self._run)

    async def _run(self) -> None:
        while not self._closed:
            try:
                await self.member.step(TIMEOUT)
                await self.member.fetch(0.2)
            except KafkaError as error:
                self.heard.append(("failed", error))
            for tp, records in self.member.read(100).items():
                self.records += records
                self.next[tp] = records[-1].offset + 1
            await self._wakeup(0.05)

    async def assigned(self, partitions: list[TopicPartition]) -> None:
        found = await self.member.committed(partitions, TIMEOUT)
        self.heard.append(("assigned", found))
        for tp in partitions:
            self.next[tp] = found[tp].offset if tp in found else 0
            self.member.seek(tp, self.next[tp])
            self.held.add(tp)

    async def revoked(self, partitions: list[TopicPartition]) -> None:
        self.heard.append(("revoked", list(partitions)))
        await self.member.commit({tp: Committed(self.next[tp], "as I left it") for tp in partitions}, TIMEOUT)
        self.held.difference_update(partitions)

    async def lost(self, partitions: list[TopicPartition]) -> None:
        self.heard.append(("lost", list(partitions)))
        self.held.difference_update(partitions)

    def news(self) -> None:
        if self._wakeup is not None:
            self._wakeup.now()

    def unreadable(self, *what: Any) -> None:
        self.heard.append(("unreadable", what))

    def passed(self, tp: TopicPartition, end: int) -> None:
        self.heard.append(("passed", (tp, end)))

    def told(self, what: str) -> list[Any]:
        return [each for kind, each in self.heard if kind == what]

    def do(self, name: str, *arguments: Any) -> Any:
        """Call the member, a plain method or a coroutine, on the loop."""

        async def call() -> Any:
            found = getattr(self.member, name)(*arguments)
            return await found if asyncio.iscoroutine(found) or hasattr(found, "__await__") else found

        return self.client.loop.call(call)

    def close(self, seconds: float = TIMEOUT) -> None:
        self._closed = self.ending = True
        self.member.close(seconds)


@pytest.fixture
def join() -> Iterator[Callable[..., Ear]]:
    made: list[Ear] = []

    def begin(*arguments: Any) -> Ear:
        made.append(Ear(*arguments))
        return made[-1]

    yield begin
    for ear in made:
        if not ear.ending:
            ear.close()


def offsets(ear: Ear) -> list[tuple[int, int]]:
    return [(each.partition, each.offset) for each in ear.records]


# -- the loop ---------------------------------------------------------------------------------------------------------


def test_a_loop_outlasts_what_goes_wrong_in_a_coroutine(client: Any) -> None:
    """What one coroutine raises reaches who called it, and no other."""

    async def wrong() -> None:
        raise KafkaError(Code.OTHER, "mine")

    async def right(value: int) -> int:
        await client.loop.sleep(0)
        return value

    client.loop.call_soon_threadsafe(wrong)
    with pytest.raises(KafkaError, match="mine"):
        client.loop.call(wrong)
    assert client.loop.call(right, 3) == 3


def test_a_call_that_takes_too_long_is_left_alone(client: Any) -> None:
    """Who waits until a moment gets TIMED_OUT_HERE then, and the coroutine goes on."""
    done = threading.Event()

    async def slow() -> None:
        await client.loop.sleep(0.4)
        done.set()

    with pytest.raises(KafkaError) as met:
        client.loop.call_until(time.monotonic() + 0.1, slow)
    assert met.value.code == Code.TIMED_OUT_HERE
    assert done.wait(upper(10.0))


def test_news_before_the_wait_is_news(client: Any) -> None:
    """A wakeup that was notified first does not wait; one that nobody notifies waits its time."""

    async def measure() -> tuple[float, float, float]:
        wakeup = client.loop.new_wakeup()
        wakeup.now()
        begun = time.monotonic()
        await wakeup(5.0)
        first = time.monotonic()
        await wakeup(0.2)
        second = time.monotonic()
        threading.Thread(target=wakeup.notify).start()
        await wakeup(5.0)
        return first - begun, second - first, time.monotonic() - second

    first, second, third = client.loop.call(measure)
    assert first < upper(2.0)
    assert second >= 0.19
    assert third < upper(2.0)


def test_a_closed_loop_says_so(kind: str, kafka_server: KafkaServer) -> None:
    """`RuntimeError` once it is closed, from whatever is called from another thread."""

    async def nothing() -> None:
        pass

    client = connect(kind, kafka_server)
    client.close(TIMEOUT)
    with pytest.raises(RuntimeError):
        client.loop.call(nothing)
    with pytest.raises(RuntimeError):
        client.loop.call_soon_threadsafe(nothing)


# -- a member ---------------------------------------------------------------------------------------------------------


def test_a_member_reads_what_is_there_and_what_comes(client: Any, topic: str, join: Callable[..., Ear]) -> None:
    """Each record once, in the order of its offset."""
    store(client, *(record(topic, number % 2, b"%d" % number) for number in range(100)))
    ear = join(client, f"g-{topic}", topic)
    eventually(lambda: len(ear.records) == 100)
    store(client, record(topic, 1, b"later", key=b"k", headers=[("a", b"x"), ("b", b"")]))
    eventually(lambda: len(ear.records) == 101)
    assert sorted(offsets(ear)) == sorted(set(offsets(ear)))
    last = ear.records[-1]
    assert (last.value, last.key, last.headers, last.problem) == (b"later", b"k", [("a", b"x"), ("b", b"")], "")
    assert abs(last.timestamp / 1000 - time.time()) < upper(60.0)
    assert sorted(ear.member.assigned()) == [TopicPartition(topic, 0), TopicPartition(topic, 1)]
    assert sorted(ear.member.partitions_of(topic)) == [0, 1]


def test_a_record_without_anything_is_a_record(client: Any, topic: str, join: Callable[..., Ear]) -> None:
    """No value is None, no key is None, and an empty one is empty."""
    store(client, record(topic, 0, None, key=b"k", headers=[]), record(topic, 0, b"", headers=[]))
    ear = join(client, f"g-{topic}", topic)
    eventually(lambda: len(ear.records) == 2)
    assert [(each.value, each.key, each.headers) for each in ear.records] == [(None, b"k", []), (b"", None, [])]


def test_a_commit_is_read_with_its_metadata(client: Any, topic: str, join: Callable[..., Ear]) -> None:
    """What was committed is what the next one finds, text beyond ASCII included; of the rest there is nothing."""
    ear = join(client, f"g-{topic}", topic)
    eventually(lambda: len(ear.held) == 2)
    zero, one = TopicPartition(topic, 0), TopicPartition(topic, 1)
    ear.do("commit", {zero: Committed(7, "note € 1")}, TIMEOUT)
    assert ear.do("committed", [zero, one], TIMEOUT) == {zero: Committed(7, "note € 1")}
    assert client.admin.committed(f"g-{topic}", [zero, one]) == {zero: Committed(7, "note € 1")}


@pytest.mark.parametrize("length", [1, 55, 64, 66, 88, 200])
def test_what_one_client_notes_the_other_reads(
    kind: str, client: Any, topic: str, length: int, kafka_server: KafkaServer
) -> None:
    """The metadata of a commit is the same on all clients, whatever its length."""
    zero = TopicPartition(topic, 0)
    for other in ("narrowboat_kafka.library.client", "narrowboat_kafka.confluent.client"):
        with connected(other, kafka_server) as writing:
            assert writing.admin.alter(f"g-{topic}", {zero: Committed(3, "x" * length)}) == []
        assert client.admin.committed(f"g-{topic}", [zero]) == {zero: Committed(3, "x" * length)}


def test_a_paused_partition_keeps_still(client: Any, topic: str, join: Callable[..., Ear]) -> None:
    """Nothing of it is read, however much comes; resumed, it goes on where it was."""
    ear = join(client, f"g-{topic}", topic)
    eventually(lambda: len(ear.held) == 2)
    ear.do("pause", TopicPartition(topic, 0))
    store(client, *(record(topic, number % 2) for number in range(6000)))
    eventually(lambda: len(ear.records) == 3000)
    assert {each.partition for each in ear.records} == {1}
    ear.do("resume", TopicPartition(topic, 0))
    eventually(lambda: len(ear.records) == 6000)
    assert [offset for partition, offset in offsets(ear) if partition == 0] == list(range(3000))


def test_a_sought_partition_is_read_again_from_there(client: Any, topic: str, join: Callable[..., Ear]) -> None:
    """What was fetched before is dropped."""
    store(client, *(record(topic, 0) for _ in range(1500)))
    ear = join(client, f"g-{topic}", topic)
    eventually(lambda: len(ear.records) == 1500)
    ear.do("seek", TopicPartition(topic, 0), 1400)
    eventually(lambda: len(ear.records) == 1600)
    assert [offset for _, offset in offsets(ear)[1500:]] == list(range(1400, 1500))


def test_a_second_member_gets_its_share(
    kind: str, client: Any, topic: str, join: Callable[..., Ear], kafka_server: Any
) -> None:
    """What is revoked is committed first, and the other begins there; when it leaves, all comes back."""
    first = join(client, f"g-{topic}", topic)
    eventually(lambda: len(first.held) == 2)
    store(client, *(record(topic, number % 2) for number in range(20)))
    eventually(lambda: len(first.records) == 20)
    with connected(kind, kafka_server) as other:
        second = join(other, f"g-{topic}", topic)
        eventually(lambda: len(first.held) == len(second.held) == 1)
        assert not first.held & second.held
        assert list(second.told("assigned")[-1].values()) == [Committed(10, "as I left it")]
        second.close()
    eventually(lambda: len(first.held) == 2)
    store(client, *(record(topic, number % 2) for number in range(20)))
    eventually(lambda: len(first.records) == 40)
    assert not first.told("lost") and not first.told("failed")


def test_a_topic_that_comes_later_is_read(client: Any, topic: str, join: Callable[..., Ear]) -> None:
    """Who subscribes to one more keeps what it has."""
    ear = join(client, f"g-{topic}", topic)
    eventually(lambda: len(ear.held) == 2)
    more = new_topic(client, 1)
    store(client, record(more, 0, b"late"))
    ear.do("subscribe", [topic, more])
    eventually(lambda: [each.value for each in ear.records] == [b"late"])
    assert not ear.told("lost") and not ear.told("revoked")


def test_a_topic_made_anew_is_another(client: Any, topic: str, join: Callable[..., Ear]) -> None:
    """It has another id, once it was heard of."""
    ear = join(client, f"g-{topic}", topic)
    eventually(lambda: len(ear.held) == 2)
    before = ear.member.topic_id(topic)
    assert before is not None
    client.admin.delete([topic])
    eventually(lambda: not client.admin.describe([topic]))
    client.admin.create(topic, 2, -1, {})

    def heard() -> bool:
        ear.do("hear_of_topics", 1.0)
        return ear.member.topic_id(topic) not in (before, None)

    eventually(heard, 30.0)


def test_what_was_taken_back_is_passed(client: Any, topic: str, join: Callable[..., Ear], kafka_server: KafkaServer) -> None:
    """Records of an aborted transaction are for nobody, and where they end is told."""
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers="{}:{}".format(*kafka_server.internal), transactional_id=f"tx-{topic}")
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(topic, b"taken back", partition=0).get(10)
    producer.abort_transaction()
    producer.begin_transaction()
    producer.send(topic, b"kept", partition=1).get(10)
    producer.commit_transaction()
    producer.close()
    ear = join(client, f"g-{topic}", topic)
    eventually(lambda: [each.value for each in ear.records] == [b"kept"])
    eventually(lambda: (TopicPartition(topic, 0), 2) in ear.told("passed"))


class Latin(str):
    """A name that goes to the server in another encoding than UTF-8."""

    def encode(self, *_: object) -> bytes:
        return super().encode("latin-1")


def test_a_name_of_a_header_that_is_no_text_loses_no_record(
    client: Any, topic: str, join: Callable[..., Ear], kafka_server: KafkaServer
) -> None:
    """What another program wrote so is read, with its headers or with what is wrong with them, and so is what follows."""
    from kafka import KafkaProducer

    other = KafkaProducer(bootstrap_servers="{}:{}".format(*kafka_server.internal))
    for _ in range(300):  # often enough for what Python does differently with calls that are made often
        other.send(topic, b"strange", partition=0, headers=[(Latin("caf\u00e9"), b"1")])
    other.send(topic, b"plain", partition=0, headers=[("caf\u00e9", b"1")]).get(10)
    other.close()
    ear = join(client, f"g-{topic}", topic)
    eventually(lambda: [each.value for each in ear.records] == [*[b"strange"] * 300, b"plain"])
    strange, plain = ear.records[-2:]
    assert strange.headers == [("caf\udce9", b"1")] or "headers cannot be read" in strange.problem
    assert (plain.headers, plain.problem) == ([("caf\u00e9", b"1")], "")


# -- a server that stands still, or is gone ---------------------------------------------------------------------------


@pytest.fixture
def fragile(servers: Servers) -> Iterator[KafkaServer]:
    """A server that may be frozen and killed; it runs again afterwards."""
    server: KafkaServer = servers(KafkaServer)
    yield server
    server.close()


def test_a_group_that_has_no_coordinator_yet_has_committed_nothing(kind: str, fragile: KafkaServer) -> None:
    """The first question of all to a new server: it is not the coordinator of any group before it has made room for that."""
    with connected(kind, fragile) as client:
        topic = new_topic(client)
        assert [client.admin.committed(f"g{number}", [TopicPartition(topic, 0)]) for number in range(12)] == [{}] * 12


def test_who_was_away_for_too_long_has_lost_its_partitions(kind: str, fragile: KafkaServer) -> None:
    """A frozen server and its members: all of them are bounded, and a member that comes back has its partitions again."""
    with connected(kind, fragile) as client:
        topic = new_topic(client)
        ear = Ear(client, "g", topic)
        producer = client.producer()
        eventually(lambda: len(ear.held) == 2, 20.0)
        assert producer.publish([record(topic)], time.monotonic() + TIMEOUT) == [None]
        fragile.pause()
        try:
            begun = time.monotonic()
            (failed,) = producer.publish([record(topic)], begun + 1.5)
            assert failed is not None and failed.left
            assert 1.4 <= time.monotonic() - begun < upper(1.5 + SLACK)
            assert producer.is_spent
            with pytest.raises(KafkaError) as met:
                client.admin.ping()
            assert met.value.code in (Code.TIMED_OUT_HERE, Code.UNREACHABLE)
            begun = time.monotonic()
            ear.close(1.0)
            assert time.monotonic() - begun < upper(1.0 + SLACK)
            begun = time.monotonic()
            producer.end(0.5)
            assert time.monotonic() - begun < upper(0.5 + SLACK)
        finally:
            fragile.resume()
        again = Ear(client, "g", topic)
        eventually(lambda: len(again.held) == 2, 30.0)
        store(client, record(topic, 0, b"after"))
        eventually(lambda: b"after" in [each.value for each in again.records])
        again.close()


def test_what_cannot_leave_says_so(kind: str, fragile: KafkaServer) -> None:
    """With the server gone, what is published then never left; it comes back, and a new producer stores."""
    with connected(kind, fragile, timeout=3.0) as client:
        topic = new_topic(client)
        producer = client.producer()
        assert producer.publish([record(topic)], time.monotonic() + TIMEOUT) == [None]
        fragile.kill()
        time.sleep(0.5)  # whoever has a connection hears of its end
        begun = time.monotonic()
        answers = producer.publish([record(topic), record(topic, 1)], begun + 1.5)
        assert time.monotonic() - begun < upper(1.5 + SLACK)
        assert [each is not None and each.left for each in answers] == [False, False]
        producer.end(0.1)
        fragile.start()
        eventually(lambda: all(each is None for each in client.producer().publish([record(topic)], time.monotonic() + 3)), 40.0)


def test_what_was_on_a_connection_that_broke_may_have_arrived(kind: str, fragile: KafkaServer) -> None:
    """The answer was lost with the connection, and nobody answers any more: the record may be on the server."""
    behind, front = fragile.proxied
    proxy = Proxy(behind.host, behind.port)
    proxy.refuse()
    proxy._port = front.port
    proxy.heal()
    try:
        with connected(kind, fragile, url=fragile.proxied_url) as client:
            topic = new_topic(client)
            producer = client.producer()
            assert producer.publish([record(topic)], time.monotonic() + TIMEOUT) == [None]
            fragile.pause()
            answers: list[Any] = []
            thread = threading.Thread(
                target=lambda: answers.extend(producer.publish([record(topic)], time.monotonic() + 2.0)), daemon=True
            )
            thread.start()
            time.sleep(0.7)  # it has been sent by now, and waits in the frozen server
            proxy.refuse()
            thread.join(upper(10.0))
            assert [each.left for each in answers] == [True]
            producer.end(0.1)
            fragile.resume()
    finally:
        proxy.close()


# -- a producer -------------------------------------------------------------------------------------------------------


def test_a_key_has_the_same_partition_everywhere(client: Any, kafka_server: KafkaServer) -> None:
    """The one that other clients give it (murmur2), so that a key's messages stay together."""
    from kafka import KafkaProducer

    topic = new_topic(client, 7)
    keys = [b"key-%d" % number for number in range(40)]
    other = KafkaProducer(bootstrap_servers="{}:{}".format(*kafka_server.internal))
    theirs = {key: other.send(topic, b"", key=key).get(10).partition for key in keys}
    other.close()
    store(client, *(record(topic, None, key=key) for key in keys))
    ear = Ear(client, f"g-{topic}", topic)
    eventually(lambda: len(ear.records) == 80)
    ear.close()
    found: dict[bytes, set[int]] = {}
    for each in ear.records:
        found.setdefault(each.key, set()).add(each.partition)
    assert found == {key: {partition} for key, partition in theirs.items()}


def test_each_record_has_its_own_outcome(kind: str, client: Any, topic: str) -> None:
    """One that is refused takes no other with it. What comes next is stored."""
    producer = client.producer()
    large = record(topic, 0, b"x" * (1024 * 1024 + 5000))
    answers = producer.publish([record(topic), large, record(topic, 1)], time.monotonic() + TIMEOUT)
    assert [answer is None for answer in answers] == [True, False, True]
    assert answers[1].error.code in (Code.MESSAGE_TOO_LARGE, Code.RECORD_LIST_TOO_LARGE)
    huge = record(topic, 0, b"x" * (9 * 1024 * 1024))
    (answer,) = producer.publish([huge], time.monotonic() + TIMEOUT)
    assert (answer.error.code, answer.left) == (Code.MESSAGE_TOO_LARGE, False)
    # kafka-python's idempotent producer has lost count when the server refuses a batch, and says so.
    assert not producer.is_spent or kind == "python"
    following = client.producer() if producer.is_spent else producer
    assert following.publish([record(topic)], time.monotonic() + TIMEOUT) == [None]
    producer.end(1.0)


def test_more_than_a_producer_holds_is_taken_all_the_same(client: Any, topic: str) -> None:
    """Who hands over more than there is room for waits."""
    store(client, *(record(topic, None, b"x") for _ in range(150_000)))
    ends = client.loop.call(client.admin.offsets, [TopicPartition(topic, 0), TopicPartition(topic, 1)], Edge.LATEST, TIMEOUT)
    assert sum(ends.values()) == 150_000


def test_many_threads_share_a_producer(client: Any, topic: str) -> None:
    """Each has its own outcomes."""
    producer = client.producer()
    found: list[Any] = []

    def publish() -> None:
        for _ in range(20):
            found.extend(producer.publish([record(topic, None)], time.monotonic() + 2 * TIMEOUT))

    threads = [threading.Thread(target=publish) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [None] * 320
    producer.end(1.0)


def test_who_has_ended_is_not_kept(client: Any, topic: str) -> None:
    """A broker may open and close as many consumers as it likes."""

    def used() -> list[weakref.ref[Any]]:
        ear, producer = Ear(client, f"g-{topic}", topic), client.producer()
        eventually(lambda: len(ear.held) == 2)
        assert producer.publish([record(topic)], time.monotonic() + TIMEOUT) == [None]
        ear.close()
        producer.end(TIMEOUT)
        return [weakref.ref(ear.member), weakref.ref(producer)]

    kept = used()
    eventually(lambda: gc.collect() >= 0 and [each() for each in kept] == [None, None])


def test_a_topic_that_is_not_there_gets_nothing(client: Any) -> None:
    """It never left, and no topic is made of it."""
    producer = client.producer()
    (answer,) = producer.publish([record("never-made", None)], time.monotonic() + 1.0)
    assert not answer.left
    assert not client.admin.describe(["never-made"])
    producer.end(0.1)


# -- the administration -----------------------------------------------------------------------------------------------


def test_what_the_administration_knows(client: Any, topic: str) -> None:
    """Topics, their settings, their offsets."""
    client.admin.ping()
    assert topic in client.admin.topics()
    (found,) = client.admin.describe([topic, "nowhere"])
    assert (found.name, found.partitions, found.ready) == (topic, (0, 1), True)
    assert found.id is not None
    assert [each.name for each in client.loop.call(client.admin.metadata, [topic, "nowhere"])] == [topic]
    made = f"{topic}-made"
    client.admin.create(made, 1, -1, {"retention.ms": "123456", "cleanup.policy": "delete"})
    eventually(lambda: client.admin.config(made, ["retention.ms", "cleanup.policy"]).get("retention.ms") == "123456")
    with pytest.raises(KafkaError) as met:
        client.admin.create(made, 1, -1, {})
    assert met.value.code == Code.TOPIC_ALREADY_EXISTS
    with pytest.raises(KafkaError) as met:
        client.admin.create(f"{topic}-more", 1, 3, {})
    assert met.value.code == Code.INVALID_REPLICATION_FACTOR
    with pytest.raises(KafkaError) as met:
        client.admin.delete(["nowhere"])
    assert met.value.code == Code.UNKNOWN_TOPIC_OR_PARTITION
    client.admin.delete([made])
    eventually(lambda: not client.admin.describe([made]))
    store(client, record(topic), record(topic))
    zero = TopicPartition(topic, 0)
    assert client.loop.call(client.admin.offsets, [zero], Edge.LATEST, TIMEOUT) == {zero: 2}
    assert client.loop.call(client.admin.offsets, [zero], Edge.EARLIEST, TIMEOUT) == {zero: 0}
    assert client.loop.call(client.admin.offsets, [], Edge.EARLIEST, TIMEOUT) == {}


def test_what_groups_have_committed_is_seen_and_changed_from_outside(client: Any, topic: str, join: Callable[..., Ear]) -> None:
    """A group that is consumed belongs to its members alone."""
    group, zero, nine = f"g-{topic}", TopicPartition(topic, 0), TopicPartition(topic, 9)
    assert client.admin.committed(group, [zero]) == {}
    assert client.admin.alter(group, {zero: Committed(1, "from outside €")}) == []
    assert client.admin.committed(group, [zero, nine]) == {zero: Committed(1, "from outside €")}
    ear = join(client, group, topic)
    eventually(lambda: len(ear.held) == 2)
    (met,) = client.admin.alter(group, {zero: Committed(0, "")})
    assert met.code in (Code.UNKNOWN_MEMBER_ID, Code.REBALANCE_IN_PROGRESS)
    assert [each.code for each in client.admin.delete_groups([group])] == [Code.NON_EMPTY_GROUP]
    ear.close()
    assert [each.code for each in client.admin.delete_groups([group, "no-such-group"])] == [Code.GROUP_ID_NOT_FOUND]
    assert client.admin.committed(group, [zero]) == {}


# -- the first connection ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(servers: Servers) -> KafkaServer:
    """With TLS and passwords."""
    server: KafkaServer = servers(KafkaServer, tls=True, users={"shop": "s3cret"})
    return server


def refused(kind: str, server: KafkaServer, **options: Any) -> Any:
    begun = time.monotonic()
    with pytest.raises((KafkaError, NarrowboatError)) as met:
        connect(kind, server, timeout=3.0, **options)
    assert time.monotonic() - begun < upper(3.0 + SLACK)
    assert "s3cret" not in str(met.value) and "wr0ng" not in str(met.value)
    return met.value


def test_tls_and_a_password_are_as_good_as_none(kind: str, guarded: KafkaServer) -> None:
    """Everything works, with the authority named and with nothing checked."""
    unchecked: dict[str, Any] = {"ca": None, "verify": Verify.NONE}
    for options in ({}, unchecked):
        with connected(kind, guarded, url=guarded.url.partition("?")[0], **options) as client:
            topic = new_topic(client)
            store(client, record(topic))
            ear = Ear(client, f"g-{topic}", topic)
            eventually(lambda: len(ear.records) == 1)  # noqa: B023
            ear.close()


def test_why_there_is_no_connection(kind: str, guarded: KafkaServer, kafka_server: KafkaServer) -> None:
    """Within the time, with the reason."""
    error = refused(kind, kafka_server, url="kafka://127.0.0.1:9")
    assert isinstance(error, Unconnected) and isinstance(error.met, ConnectionRefusedError)
    plain = f"kafka://shop:s3cret@127.0.0.1:{guarded.port}"
    error = refused(kind, guarded, url=plain)
    assert isinstance(error, Unconnected) and getattr(error.met, "code", None) == Code.SPEAKS_TLS
    error = refused(kind, kafka_server, url=f"kafkas://127.0.0.1:{kafka_server.port}", verify=None)
    assert isinstance(error, Unconnected) and error.met is not None
    error = refused(kind, guarded, url=guarded.url.partition("?")[0], ca=None)
    assert isinstance(error, Unconnected) and "certificate verify failed" in str(error.met)


def test_a_password_that_is_wrong_is_told_at_once(kind: str, guarded: KafkaServer) -> None:
    """And so is a mechanism that the server does not offer."""
    url = f"kafkas://shop:wr0ng@127.0.0.1:{guarded.port}"
    assert refused(kind, guarded, url=url).code == Code.SASL_AUTHENTICATION_FAILED
    url = guarded.url.partition("?")[0]
    assert refused(kind, guarded, url=url, sasl=Sasl.SCRAM_256).code == Code.UNSUPPORTED_SASL_MECHANISM


# -- a forked child ---------------------------------------------------------------------------------------------------


def test_a_forked_child_touches_nothing(kind: str, client: Any, topic: str, join: Callable[..., Ear]) -> None:
    """It ends, with all that it inherited, and the parent's goes on."""
    ear, producer = join(client, f"g-{topic}", topic), client.producer()
    eventually(lambda: len(ear.held) == 2)
    assert producer.publish([record(topic)], time.monotonic() + TIMEOUT) == [None]
    child = os.fork()
    if not child:
        client.disown()
        ear.client = ear.member = producer = client = None
        gc.collect()
        os._exit(7)
    until = time.monotonic() + 20.0
    while (found := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > upper(until):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the child did not end")
        time.sleep(0.02)
    assert os.waitstatus_to_exitcode(found[1]) == 7
    assert producer.publish([record(topic)], time.monotonic() + TIMEOUT) == [None]
    eventually(lambda: len(ear.records) == 2)
    producer.end(1.0)
