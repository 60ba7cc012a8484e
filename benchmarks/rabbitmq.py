"""Messages on RabbitMQ against pika at its best and as most use it, and against kombu: `python -m benchmarks rabbitmq`.

All sides publish persistent messages with confirms to durable quorum queues of one server of our own.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pika
from kombu import connection as kombu_connection
from kombu import entity as kombu_entity
from pika import SelectConnection

import narrowboat
from benchmarks.measure import Row, at_most, best, median
from integration.servers import RabbitMQServer

BODY = os.urandom(256)
MANY = 20_000
FEW = 1000
WINDOW = 1000
ROUNDS = 3
PERSISTENT = pika.BasicProperties(delivery_mode=2)
QUORUM = {"x-queue-type": "quorum"}


def rows(folder: Path) -> Iterator[Row]:
    """Every line about RabbitMQ."""
    with RabbitMQServer() as server:
        url = server.url
        yield from publish_many(url)
        yield threads(url)
        yield from consume(url)
        yield wake(url)
        yield idle(url)


class Bare:
    """Pika's SelectConnection with nothing around it: a window of confirms, acks in batches."""

    def __init__(self, url: str, queue: str) -> None:
        self.url, self.queue = url, queue

    def publish(self) -> int:
        """Publish with `WINDOW` unconfirmed; connecting is a part of it, a few milliseconds."""
        sent = confirmed = 0

        def pump(channel: Any) -> None:
            nonlocal sent
            while sent < MANY and sent - confirmed < WINDOW:
                channel.basic_publish("", self.queue, BODY, PERSISTENT)
                sent += 1

        def opened(channel: Any) -> None:
            def answered(frame: Any) -> None:
                nonlocal confirmed
                confirmed = frame.method.delivery_tag if frame.method.multiple else confirmed + 1
                if confirmed >= MANY:
                    channel.connection.close()
                elif sent - confirmed <= WINDOW // 2:
                    pump(channel)

            channel.confirm_delivery(answered, callback=lambda _: pump(channel))

        self._run(opened)
        return MANY

    def consume(self) -> int:
        """Consume with a prefetch of 1,000 and one ack for 100."""
        seen = 0

        def came(channel: Any, method: Any, properties: Any, body: bytes) -> None:
            nonlocal seen
            seen += 1
            if seen % 100 == 0:
                channel.basic_ack(method.delivery_tag, multiple=True)
            if seen == MANY:
                channel.connection.close()

        def opened(channel: Any) -> None:
            channel.basic_qos(prefetch_count=WINDOW, callback=lambda _: channel.basic_consume(self.queue, came))

        self._run(opened)
        return MANY

    def _run(self, opened: Callable[[Any], None]) -> None:
        connection: Any = SelectConnection(
            pika.URLParameters(self.url),
            on_open_callback=lambda made: _nothing(made.channel(on_open_callback=opened)),
            on_close_callback=lambda made, error: connection.ioloop.stop(),
        )
        connection.ioloop.start()


def _nothing(made: object) -> None:
    """A callback is to return nothing."""


def _fill(queue: narrowboat.messaging.Queue[bytes]) -> None:
    assert not any(isinstance(answer, Exception) for answer in queue.publish_many([BODY] * MANY))


def publish_many(url: str) -> Iterator[Row]:
    """The aims: 10 times a BlockingConnection with confirms, 0.7 of a bare SelectConnection with a window."""
    with narrowboat.broker(url, prefix="bench") as broker, pika.BlockingConnection(pika.URLParameters(url)) as connection:
        queue, channel = broker.queue("published"), connection.channel()
        queue.declare()
        channel.queue_declare("bare", durable=True, arguments=QUORUM)
        channel.confirm_delivery()

        def ours() -> int:
            _fill(queue)
            return MANY

        def blocking() -> int:
            for _ in range(FEW):
                channel.basic_publish("", "bare", BODY, PERSISTENT)
            return FEW

        mine = select = slow = 0.0
        for _ in range(ROUNDS):
            mine = max(mine, best(ours))
            queue.purge()
            select = max(select, best(Bare(url, "bare").publish))
            channel.queue_purge("bare")
            slow = max(slow, best(blocking))
            channel.queue_purge("bare")
        queue.delete()
        channel.queue_delete("bare")
    yield _row("rabbitmq: publish_many against BlockingConnection with confirms", mine, slow, 10)
    yield _row("rabbitmq: publish_many against bare SelectConnection, window 1,000", mine, select, 0.7)


def threads(url: str) -> Row:
    """The aim: 8 threads that publish one by one are 3 times a BlockingConnection with confirms."""
    with narrowboat.broker(url, prefix="bench") as broker, pika.BlockingConnection(pika.URLParameters(url)) as connection:
        queue, channel = broker.queue("threads"), connection.channel()
        queue.declare()
        channel.queue_declare("bare", durable=True, arguments=QUORUM)
        channel.confirm_delivery()

        def ours() -> int:
            def work() -> None:
                for _ in range(FEW):
                    queue.publish(BODY)

            workers = [threading.Thread(target=work) for _ in range(8)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            return 8 * FEW

        def blocking() -> int:
            for _ in range(FEW):
                channel.basic_publish("", "bare", BODY, PERSISTENT)
            return FEW

        mine = theirs = 0.0
        for _ in range(ROUNDS):
            mine, theirs = max(mine, best(ours)), max(theirs, best(blocking))
        queue.delete()
        channel.queue_delete("bare")
    return _row("rabbitmq: 8 threads publish one by one against BlockingConnection", mine, theirs, 3)


def consume(url: str) -> Iterator[Row]:
    """The aims: 25,000 a second where the bare client does 40,000 (0.625), and twice kombu."""
    with (
        narrowboat.broker(url, prefix="bench") as broker,
        pika.BlockingConnection(pika.URLParameters(url)) as connection,
        _peer(url) as peer,
    ):
        queue, channel = broker.queue("consumed"), connection.channel()
        name = "bench:consumed"
        queue.declare()
        mine = bare = theirs = 0.0
        for _ in range(ROUNDS):
            _fill(queue)
            mine = max(mine, best(lambda: _consumed(queue)))
            _fill(queue)
            bare = max(bare, best(Bare(url, name).consume))
            _fill(queue)
            theirs = max(theirs, best(lambda: _kombu(peer, name)))
            channel.queue_purge(name)
        queue.delete()
    yield _row("rabbitmq: consume in batches with ack against bare SelectConnection", mine, bare, 0.625)
    yield _row("rabbitmq: consume in batches with ack against kombu, ack each", mine, theirs, 2)


def _consumed(queue: narrowboat.messaging.Queue[bytes]) -> int:
    done = 0
    with queue.consume(prefetch=2000) as messages:
        for batch in messages.batches(500):
            assert not any(batch.ack())
            done += len(batch)
            if done >= MANY:
                break
    return done


def _peer(url: str) -> Any:
    client: Any = kombu_connection  # without annotations
    return client.Connection(url)


def _kombu(connection: Any, name: str) -> int:
    seen = 0

    def came(message: Any) -> None:
        nonlocal seen
        message.ack()
        seen += 1

    # A copy of the queue as it is, not declared: kombu would declare it otherwise.
    entity: Any = kombu_entity  # without annotations
    queue = entity.Queue(name, no_declare=True)
    with connection.Consumer(queue, on_message=came, prefetch_count=WINDOW):
        while seen < MANY:
            connection.drain_events(timeout=10)
    return seen


def wake(url: str) -> Row:
    """How long an idle consumer takes to have a new message."""
    with narrowboat.broker(url, prefix="bench") as broker:
        queue = broker.queue("woken")
        took: list[float] = []
        with queue.consume() as messages:
            for _ in range(50):
                came: list[float] = []

                def wait(came: list[float] = came) -> None:
                    message = messages.receive(10)
                    assert message is not None
                    came.append(time.perf_counter())
                    message.ack()

                waiter = threading.Thread(target=wait)
                waiter.start()
                time.sleep(0.02)
                begun = time.perf_counter()
                queue.publish(BODY)
                waiter.join()
                took.append(came[0] - begun)
        queue.delete()
    return at_most("rabbitmq: an idle consumer has a new message, median", median(took) * 1000, 50, "ms")


def idle(url: str) -> Row:
    """Processor time of 20 idle consumers on one connection."""
    with narrowboat.broker(url, prefix="bench") as broker:
        queues = [broker.queue(f"idle{n}") for n in range(20)]
        consumers = [queue.consume() for queue in queues]
        entered = [consumer.__enter__() for consumer in consumers]
        waiters = [threading.Thread(target=messages.receive, args=(12.0,)) for messages in entered]
        for waiter in waiters:
            waiter.start()
        time.sleep(1.0)
        begun, spent = time.perf_counter(), time.process_time()
        time.sleep(10.0)
        share = (time.process_time() - spent) / (time.perf_counter() - begun)
        for waiter in waiters:
            waiter.join()
        for consumer in consumers:
            consumer.__exit__(None, None, None)
        for queue in queues:
            queue.delete()
    return at_most("rabbitmq: processor time of 20 idle consumers", share * 100, 1, "%")


def _row(what: str, mine: float, theirs: float, at_least: float) -> Row:
    ratio = mine / theirs
    return Row(what, f"{mine:,.0f}/s", f"{theirs:,.0f}/s", ratio, f">= {at_least:g}x", ratio >= at_least)
