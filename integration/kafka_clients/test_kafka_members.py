"""A client's members of groups, and the loop that they run on: what they read and commit, who gets what, who has left."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from integration.kafka_clients.ear import Ear, offsets
from integration.kafka_clients.use import SLACK, TIMEOUT, connect, connected, eventually, new_topic, record, store, upper
from integration.servers import KafkaServer
from narrowboat_kafka.client import Code, Committed, KafkaError, TopicPartition


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


def test_a_commit_is_read_with_its_metadata(client: Any, topic: str, join: Callable[..., Ear]) -> None:
    """What was committed is what the next one finds, text beyond ASCII included; of the rest there is nothing."""
    ear = join(client, f"g-{topic}", topic)
    eventually(lambda: len(ear.held) == 2)
    zero, one = TopicPartition(topic, 0), TopicPartition(topic, 1)
    ear.do("commit", {zero: Committed(7, "note € 1")}, TIMEOUT)
    assert ear.do("committed", [zero, one], TIMEOUT) == {zero: Committed(7, "note € 1")}
    assert client.admin.committed(f"g-{topic}", [zero, one]) == {zero: Committed(7, "note € 1")}


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
