"""What only Kafka's share groups do. The conformance kit on them is in `test_kafka_share_conformance.py`."""

from __future__ import annotations

import multiprocessing
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import confluent_kafka
import pytest

import narrowboat
from integration.fixtures import Servers
from integration.kafka_harness import QUICK, SHARE
from integration.servers import KafkaServer
from integration.servers.editions import Kafka43
from integration.test_kafka_foreign import record
from narrowboat.conformance.watch import watch
from narrowboat.errors import ConfigurationError, Conflict, StaleDelivery, Unsupported

#: What an older one is told: `tests/backends/test_kafka_share.py`.
pytestmark = pytest.mark.skipif(not hasattr(confluent_kafka, "ShareConsumer"), reason="confluent-kafka is older than 2.15")

upper = watch().extended


@pytest.fixture(scope="module")
def server(servers: Servers) -> KafkaServer:
    """A server with short locks and heartbeats."""
    found = servers(Kafka43, config=QUICK)
    assert isinstance(found, KafkaServer)
    return found


def shared(server: KafkaServer, query: str = SHARE) -> str:
    return f"{server.url}?{query}".replace("kafka://", "kafka+confluent://")


def test_more_consumers_than_partitions_share_a_queue(server: KafkaServer) -> None:
    """One partition, four consumers on four connections: each holds a message while the others get theirs."""
    brokers = [narrowboat.broker(shared(server)) for _ in range(4)]
    queues = [broker.queue("many", lease=20) for broker in brokers]
    feeds = [queue.consume(prefetch=1) for queue in queues]
    try:
        for number in range(4):
            queues[0].publish(b"%d" % number)
        held = [feed.receive(upper(20)) for feed in feeds]
        assert sorted(message.body for message in held if message is not None) == [b"0", b"1", b"2", b"3"]
        for message in held:
            assert message is not None and message.attempt == 1
            message.ack()
        assert feeds[0].receive(0.5) is None
    finally:
        for feed in feeds:
            feed.close()
        for broker in brokers:
            broker.close()


def test_a_slow_message_blocks_none_of_its_own_consumer(server: KafkaServer) -> None:
    """Of a batch one message stays unsettled: the consumer gets more meanwhile, although its member waits for the whole."""
    with narrowboat.broker(shared(server)) as broker:
        queue = broker.queue("slow", lease=30)
        queue.publish_many([b"first", b"second"])
        with queue.consume(prefetch=2) as messages:
            first, second = messages.receive(upper(20)), messages.receive(upper(20))
            assert first is not None and second is not None
            second.ack()
            queue.publish(b"third")
            third = messages.receive(upper(10))
            assert third is not None and third.body == b"third"
            third.ack()
            first.ack()


def test_it_comes_again_within_the_declared_bound(server: KafkaServer) -> None:
    """Not before its lease, and within `lease_lag` after: the lock is measured, with a consumer that lives and does nothing."""
    with narrowboat.broker(shared(server)) as broker, narrowboat.broker(shared(server)) as other:
        lag = broker.capabilities.lease_lag
        queue = broker.queue("bound", lease=2)
        queue.publish(b"x")
        with queue.consume() as messages, other.queue("bound", lease=2).consume() as theirs:
            before = time.monotonic()
            first = messages.receive(upper(20))
            after = time.monotonic()
            assert first is not None
            again = theirs.receive(upper(20))
            took = time.monotonic() - after
            assert again is not None and again.attempt == 2
            assert time.monotonic() - before >= 2.0
            assert took <= 2 + upper(lag), f"it came back {took:g} s after it was received"
            with pytest.raises(StaleDelivery):
                first.ack()
            again.ack()


def test_the_server_drops_no_message_that_comes_too_often(server: KafkaServer) -> None:
    """It would after ten deliveries. The message is published anew before, and its attempts are counted on."""
    with narrowboat.broker(shared(server)) as broker:
        queue = broker.queue("often", lease=20, max_deliveries=0)
        queue.publish(b"x")
        with queue.consume() as messages:
            for attempt in range(1, 26):
                message = messages.receive(upper(20))
                assert message is not None and message.attempt == attempt
                message.nack()
            message = messages.receive(upper(20))
            assert message is not None
            message.ack()
            assert messages.receive(0.5) is None


def test_what_was_published_together_is_shared_in_the_end(server: KafkaServer) -> None:
    """The server gives a whole batch to one member. What its consumer does not want goes to another one, uncounted."""
    with narrowboat.broker(shared(server)) as broker, narrowboat.broker(shared(server)) as other:
        queue = broker.queue("together", lease=30)
        queue.publish_many([b"%d" % number for number in range(10)])
        with queue.consume(prefetch=1) as messages:
            first = messages.receive(upper(20))
            assert first is not None
            bodies = {first.body}
            with other.queue("together", lease=30).consume() as theirs:
                while len(bodies) < 10:
                    message = theirs.receive(upper(20))
                    assert message is not None, f"{10 - len(bodies)} of ten did not come"
                    assert (message.attempt, message.body in bodies) == (1, False)
                    bodies.add(message.body)
                    message.ack()
            first.ack()


def test_a_killed_process_loses_nothing(server: KafkaServer, tmp_path: Path) -> None:
    """Processes that consume are killed in the midst of it, again and again: what is published is settled, all of it.

    But for what a process was settling when it was killed: that may have been done, and nobody was told.
    """
    count, url = 300, shared(server)
    files: list[Path] = []
    settling: set[bytes] = set()

    def begin() -> tuple[subprocess.Popen[bytes], Path]:
        files.append(tmp_path / str(len(files)))
        argv = [sys.executable, "-m", "integration.kafka_worker", url, "killed", str(files[-1])]
        return subprocess.Popen(argv, stdin=subprocess.PIPE), files[-1]

    def lines(file: Path) -> list[list[bytes]]:
        return [line.split() for line in file.read_bytes().split(b"\n")[:-1]] if file.exists() else []

    def kill(worker: subprocess.Popen[bytes], file: Path) -> None:
        with worker:
            worker.kill()
        settling.update(line[1] for line in lines(file)[-1:] if line[0] == b"got")

    def done() -> set[bytes]:
        return {line[1] for file in files for line in lines(file) if line[0] == b"done"}

    workers = [begin() for _ in range(4)]
    try:
        with narrowboat.broker(url) as broker:
            queue = broker.queue("killed")
            ends = time.monotonic() + upper(120)
            for number in range(count):
                queue.publish(b"%d" % number)
                if number % 60 == 59:
                    kill(*workers.pop(0))
                    workers.append(begin())
            assert len(files) == 9
            while len(done() | settling) < count:
                assert time.monotonic() < ends, f"{count - len(done() | settling)} of {count} were not settled"
                time.sleep(0.1)  # other processes write the files
    finally:
        for worker in workers:
            kill(*worker)


def test_delayed_and_dead_messages(server: KafkaServer) -> None:
    """A delay is kept, before the first delivery and after a nack; a rejected message is a dead letter with its reason."""
    with narrowboat.broker(shared(server)) as broker:
        queue = broker.queue("later", lease=20)
        with queue.consume() as messages:
            published = time.monotonic()
            queue.publish(b"x", delay=1)
            message = messages.receive(upper(20))
            assert message is not None and time.monotonic() - published >= 1.0
            nacked = time.monotonic()
            message.nack(delay=1)
            message = messages.receive(upper(20))
            assert message is not None and message.attempt == 2
            assert time.monotonic() - nacked >= 1.0
            message.reject("no use")
        with queue.dead_letters().consume() as dead:
            letter = dead.receive(upper(20))
            assert letter is not None and letter.dead is not None and letter.dead.reason == "no use"
            letter.ack()


def test_a_purge_drops_what_nobody_has(server: KafkaServer) -> None:
    """What waits for its time too. What a consumer has stays its own."""
    with narrowboat.broker(shared(server)) as broker:
        queue = broker.queue("purged", lease=30)
        queue.publish(b"held")
        with queue.consume(prefetch=1) as messages:
            held = messages.receive(upper(20))
            assert held is not None
            queue.publish_many([b"x"] * 5)
            queue.publish(b"x", delay=60)
            assert queue.purge() == 6
            held.ack()
            assert messages.receive(0.5) is None


def test_a_queue_belongs_to_one_kind_of_groups(server: KafkaServer) -> None:
    """A queue that was declared for the one is refused to the other, both ways."""
    classic = shared(server, "session=2")
    with narrowboat.broker(classic) as broker, narrowboat.broker(shared(server)) as other:
        broker.queue("classic").declare()
        with pytest.raises(Conflict, match="groups=classic"):
            other.queue("classic").declare()
        other.queue("shared").declare()
        with pytest.raises(Conflict, match="groups=share"):
            broker.queue("shared").declare()


def test_what_it_is_not_for_is_refused(server: KafkaServer) -> None:
    """Topics, order, depth, an extension: `Unsupported`. A lease beyond the server's locks says whose bound it is."""
    with narrowboat.broker(shared(server)) as broker:
        for ask in (lambda: broker.topic("prices"), lambda: broker.queue("q", ordered=True), lambda: broker.queue("q").depth()):
            with pytest.raises(Unsupported):
                ask()
        queue = broker.queue("short", lease=20)
        queue.publish(b"x")
        with queue.consume() as messages:
            message = messages.receive(upper(20))
            assert message is not None
            with pytest.raises(Unsupported, match="longer one"):
                message.extend(5)
            message.ack()
    with (
        narrowboat.broker(shared(server, "groups=share&lock_max=600")) as broker,
        pytest.raises(ConfigurationError, match=r"group\.share\.max\.record\.lock\.duration\.ms"),
        broker.queue("long", lease=500).consume() as messages,
    ):
        messages.receive(1)


def test_where_nothing_may_be_set_up_the_group_has_to_be(server: KafkaServer) -> None:
    """With declare=never the settings of the group are somebody else's: the refusal has the command that makes them."""
    with narrowboat.broker(shared(server)) as broker, narrowboat.broker(shared(server, f"{SHARE}&declare=never")) as other:
        queue = broker.queue("ready-made", lease=20)
        queue.publish(b"x")
        with pytest.raises(Conflict, match=r"kafka-configs\.sh .*share\.record\.lock\.duration\.ms=23000"):
            other.queue("ready-made", lease=20).consume().__enter__()
        with queue.consume():
            pass
        with other.queue("ready-made", lease=20).consume() as messages:
            message = messages.receive(upper(20))
            assert message is not None and message.attempt == 1
            message.ack()


def test_an_older_cluster_has_no_share_groups(kafka_server: KafkaServer) -> None:
    """Kafka 4.1 says so in one typed error, from the first receive or before."""
    with (
        narrowboat.broker(shared(kafka_server, "groups=share")) as broker,
        pytest.raises(ConfigurationError, match=r"Kafka 4\.2"),
        broker.queue("orders").consume() as messages,
    ):
        messages.receive(upper(20))


def test_a_consumer_goes_on_with_a_queue_that_was_made_anew(server: KafkaServer) -> None:
    """Deleted while it is consumed, and published to again: the library says nothing of that."""
    with narrowboat.broker(shared(server)) as broker:
        queue = broker.queue("anew", lease=20)
        with queue.consume() as messages:
            queue.publish(b"before")
            first = messages.receive(upper(20))
            assert first is not None
            first.ack()
            queue.delete()
            queue.declare()
            queue.publish(b"after")
            again = messages.receive(upper(30))
            assert again is not None and again.body == b"after"
            again.ack()


def test_any_record_of_others_is_delivered_or_dies_and_stops_nobody(server: KafkaServer) -> None:
    """Handlers fail for what is not ours: each of those dies after two deliveries. Ours are all handled, nothing is left."""
    from kafka import KafkaProducer

    chance = random.Random(random.SystemRandom().randrange(10**9))
    cases = [record(chance) for _ in range(20)]
    with narrowboat.broker(shared(server)) as broker:
        queue = broker.queue("foreign", lease=30, max_deliveries=2)
        queue.publish_many([b"before"] * 5)
        producer = KafkaProducer(bootstrap_servers="{}:{}".format(*server.internal))
        try:
            for case in cases:
                producer.send("foreign", **case)
            producer.flush(30)
        finally:
            producer.close()
        queue.publish_many([b"after"] * 5)
        handled, letters, ends = Counter[bytes](), 0, time.monotonic() + upper(100)
        with queue.consume(prefetch=8) as messages, queue.dead_letters().consume() as dead:
            while handled.total() < 10 or letters < len(cases):
                assert time.monotonic() < ends, f"{handled} of ours, and {letters} of {len(cases)} others died"
                message = messages.receive(0.2)
                letter = dead.receive(0.2) if message is None else None
                if letter is not None:
                    assert letter.dead is not None and letter.body not in (b"before", b"after")
                    letters += 1
                    letter.ack()
                if message is not None and message.body in (b"before", b"after"):
                    handled[message.body] += 1
                    message.ack()
                elif message is not None:
                    repr(message), message.dead
                    assert message.attempt in (1, 2)
                    message.nack()
            assert messages.receive(0.5) is None and dead.receive(0.5) is None
        assert handled == {b"before": 5, b"after": 5}


def test_members_of_a_queue_of_several_partitions_come_and_go(server: KafkaServer) -> None:
    """Partitions move while messages are published and settled: each message is handled, and none twice without a fault."""
    url, count = shared(server, f"{SHARE}&partitions=4"), 200
    done: Counter[bytes] = Counter()
    over = threading.Event()

    def work() -> None:
        """Join, handle ten messages, leave, and again."""
        with narrowboat.broker(url) as mine:
            while not over.is_set():
                with mine.queue("moving", lease=30).consume(prefetch=2) as messages:
                    for _ in range(10):
                        message = messages.receive(0.5)
                        if message is not None:
                            message.ack()
                            done[message.body] += 1
                        if done.total() >= count:
                            over.set()

    with narrowboat.broker(url) as broker:
        queue = broker.queue("moving", lease=30)
        queue.declare()
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for number in range(count):
                queue.publish(b"%d" % number)
            assert over.wait(upper(120)), f"{count - done.total()} of {count} were not handled"
        finally:
            over.set()
            for thread in threads:
                thread.join()
        with queue.consume() as messages:
            assert messages.receive(1) is None
    assert done == {b"%d" % number: 1 for number in range(count)}


def test_a_forked_child_has_a_consumer_of_its_own(server: KafkaServer) -> None:
    """What the parent opened stays the parent's: it goes on, and the child's end takes nothing of it away."""
    with narrowboat.broker(shared(server)) as broker:
        queue = broker.queue("forked", lease=20)
        queue.publish(b"parent's")
        with queue.consume(prefetch=1) as messages:
            held = messages.receive(upper(20))
            assert held is not None
            queue.publish(b"child's")
            child = multiprocessing.get_context("fork").Process(target=_takes_one, args=(shared(server), "forked"))
            child.start()
            child.join(upper(60))
            assert child.exitcode == 0
            held.ack()
            queue.publish(b"after")
            after = messages.receive(upper(20))
            assert after is not None and after.body == b"after"
            after.ack()


def _takes_one(url: str, name: str) -> None:
    with narrowboat.broker(url) as broker, broker.queue(name, lease=20).consume(prefetch=1) as messages:
        message = messages.receive(upper(20))
        assert message is not None and (message.body, message.attempt) == (b"child's", 1)
        message.ack()
