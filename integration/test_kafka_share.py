"""What only Kafka's share groups do. The conformance kit on them is in `test_kafka_share_conformance.py`."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

import narrowboat
from integration.fixtures import Servers
from integration.kafka_harness import QUICK, SHARE
from integration.servers import KafkaServer
from integration.servers.editions import Kafka43
from narrowboat.conformance.watch import watch
from narrowboat.errors import ConfigurationError, Conflict, StaleDelivery, Unsupported

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
    """Processes that consume are killed in the midst of it, again and again: what is published is settled, all of it."""
    count, url = 300, shared(server)
    files = [tmp_path / str(number) for number in range(4)]

    def begin(file: Path) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "integration.kafka_worker", url, "killed", str(file)]
        return subprocess.Popen(argv, stdin=subprocess.PIPE)

    def done() -> set[bytes]:
        lines = [line.split() for file in files if file.exists() for line in file.read_bytes().split(b"\n")[:-1]]
        return {line[1] for line in lines if line[0] == b"done"}

    workers = [begin(file) for file in files]
    try:
        with narrowboat.broker(url) as broker:
            queue = broker.queue("killed")
            ends = time.monotonic() + upper(120)
            killed = 0
            for number in range(count):
                queue.publish(b"%d" % number)
                if number % 60 == 59:
                    gone = workers.pop(0)
                    gone.kill()
                    gone.wait()
                    killed += 1
                    workers.append(begin(files[killed % len(files)]))
            while len(done()) < count:
                assert time.monotonic() < ends, f"{count - len(done())} of {count} were not settled"
                time.sleep(0.1)  # other processes write the files
            assert killed == 5
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


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
