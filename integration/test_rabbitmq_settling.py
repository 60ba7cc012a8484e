"""RabbitMQ: what was acknowledged with an answer does not come back, also when its consumer is killed at once."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pika
import pytest

import narrowboat
from integration import kept
from integration.rabbitmq_harness import WRITTEN
from integration.servers import RabbitMQServer
from narrowboat.contract import Broker
from narrowboat.errors import SettleUnknown

#: Messages that are acknowledged while an earlier one is in hand: so each takes a frame of its own.
MANY = 150
ROUNDS = 5

_CHILD = """
import json, os, signal, sys
import narrowboat
broker = narrowboat.broker(sys.argv[1], heartbeat=2)
messages = broker.queue("orders", lease=6).consume(prefetch=int(sys.argv[2]) + 1)
first = messages.receive(20)
batch = next(iter(messages.batches(int(sys.argv[2]), wait=20)))
answers = batch.ack()
os.write(1, json.dumps([message.id for message, answer in zip(batch, answers) if answer is None]).encode())
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[RabbitMQServer]:
    with kept.lent(RabbitMQServer, RabbitMQServer) as lent:
        yield lent


def test_what_was_acknowledged_one_by_one_stays_so_when_its_consumer_is_killed(server: RabbitMQServer) -> None:
    """A server's channel keeps acks that are more than its queue takes at once to itself: they would die with it."""
    with narrowboat.broker(server.url, heartbeat=2) as broker:
        orders = broker.queue("orders", lease=6)
        orders.declare()
        time.sleep(WRITTEN)
        for _ in range(ROUNDS):
            orders.publish_many([b"x"] * (MANY + 1))
            arguments = [sys.executable, "-c", _CHILD, server.url, str(MANY)]
            child = subprocess.run(arguments, env=os.environ, stdout=subprocess.PIPE, timeout=60, check=False)
            assert child.returncode == -signal.SIGKILL
            acked = set(json.loads(child.stdout))
            assert len(acked) == MANY
            with orders.consume(prefetch=MANY, idle=1.0) as messages:
                back = set()
                for message in messages:
                    message.ack()
                    back.add(message.id)
            assert not acked & back
            assert len(back) == 1


def test_many_acks_and_returns_of_many_threads_are_all_answered(server: RabbitMQServer) -> None:
    """Nothing is forgotten or settled twice where acks, nacks and rejects wait for one another's frames."""
    with narrowboat.broker(server.url, heartbeat=2) as broker:
        queue = broker.queue("mixed", lease=6, max_deliveries=0)
        queue.publish_many([b"%d" % n for n in range(600)])
        done: set[bytes] = set()

        def handle(message: narrowboat.Message[bytes]) -> None:
            number = int(message.body)
            if number % 3 == 0 and message.attempt == 1:
                message.nack()
            elif number % 7 == 0:
                message.reject("seven")
                done.add(message.body)
            else:
                done.add(message.body)
            if len(done) == 600:
                queue.stop()

        queue.run(handle, concurrency=20, signals=False)
        assert len(done) == 600
        assert queue.depth().ready == 0
        assert queue.depth().dead == sum(1 for n in range(600) if n % 7 == 0)


def test_an_ack_as_its_queue_is_deleted_says_so(server: RabbitMQServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is up, and has ended the consumer: the ack was on its way, and what became of it is not known."""
    name, sent = f"t{secrets.token_hex(4)}", threading.Event()
    drivers: list[Any] = []

    def kept(driver: Broker) -> Broker:
        drivers.append(driver)
        return driver

    with (
        pika.BlockingConnection(pika.URLParameters(server.url)) as others,
        narrowboat.broker(server.url, wrap=kept) as broker,
        broker.queue(name).consume() as messages,
    ):
        broker.queue(name).publish(b"x")
        message = messages.receive(10)
        assert message is not None
        loop = drivers[0]._client.loop
        loop.post(lambda: sent.wait(10))  # the server's word is there when the ack is sent, and not yet read
        others.channel().queue_delete(name)
        post = loop.post

        def told(work: Callable[[], object]) -> None:
            post(work)
            sent.set()

        monkeypatch.setattr(loop, "post", told)
        with pytest.raises(SettleUnknown, match="its queue was deleted") as unknown:
            message.ack()
        assert "server is up" not in str(unknown.value)
